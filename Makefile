# Each target sets up what it needs; the environment is .venv. `make setup` again does nothing.
PYTHON ?= python3
BIN := .venv/bin
# Data-loader workers and tests share few cores: threads that spin against each other slow everything down.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: setup demo test test-long bench lint format clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, found ' + sys.version) if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/balanced demo --out runs/demo

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow" -n 2 --durations=10

test-long: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python benchmarks/head.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
