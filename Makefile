# Each target sets up what it needs; the environment is .venv. `make setup` again does nothing.
PYTHON ?= python3
BIN := .venv/bin
# Data-loader workers and tests share few cores: threads that spin against each other slow everything down. Python keeps
# what it has compiled, also where the machine says otherwise: every worker and command would compile it anew.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=

.PHONY: setup demo test test-long test-chat test-families test-recipes test-export test-vllm test-ray test-loops test-newest test-ranks faults fuzz bench bench-gpu gpu-bundle figures lint sbom audit docs format clean

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
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow and not families and not faults and not servers" -n 2 --dist worksteal --durations=10

test-long: .venv/.deepspeed
	$(TEST_ENV) $(BIN)/python -m pytest -m "slow and not cluster"

# DDP, FSDP2, ZeRO-2 and ZeRO-3 on 4, 2 and 1 CPU ranks against one process. Writes docs/results/ranks.json and the
# tables of docs/scale.md; RANKS_FOLDER=folder keeps the runs, and an interrupted programme continues there.
test-ranks: .venv/.deepspeed
	$(TEST_ENV) $(BIN)/python -m tests.ranks.measure $(if $(RANKS_FOLDER),--folder $(RANKS_FOLDER)); status=$$?; \
	  $(BIN)/python -m tests.ranks.table && exit $$status

# DeepSpeed is built from source, which takes half a minute.
.venv/.deepspeed: .venv/.ready
	$(BIN)/python -m pip install --quiet setuptools wheel ninja
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[deepspeed]'
	touch $@

# Studies on a Ray cluster of two nodes on this machine, with kills of runs, nodes and the command.
test-ray: .venv/.ray
	$(TEST_ENV) $(BIN)/python -m pytest tests/cluster -m cluster --durations=20

.venv/.ray: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	touch $@

# Real kills, damaged files, full disks; needs Linux, and root for disks of chosen sizes. Results are written as they
# come, so that an interrupted run continues; FAULTS_SCALE=0.1 makes a tenth of the trials.
faults: setup
	FAULTS_OUT=docs/results/reliability.json $(TEST_ENV) $(BIN)/python -m pytest tests/faults -m faults --durations=10
	$(BIN)/python -m tests.faults.reliability_tables

# A million hostile inputs through every reader; about 25 minutes on one core. What fails is saved in fuzz-findings/.
FUZZ_RUNS ?= 1000000
FUZZ_OUT ?= docs/results/fuzz.json
fuzz: .venv/.fuzz
	$(TEST_ENV) $(BIN)/python -m tests.faults.fuzz.campaign --runs $(FUZZ_RUNS) --out $(FUZZ_OUT)

.venv/.fuzz: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	touch $@

# Every family of checkpoints, without torchvision and with it (an environment of its own, on Linux about 6 GB); four
# minutes each on two quiet cores. Writes docs/families.md.
FAMILIES_BIN := .venv-torchvision/bin
FAMILIES := tests/models/test_families.py tests/training/test_grpo_families.py -m families
test-families: setup
	test -x $(FAMILIES_BIN)/python || $(PYTHON) -m venv .venv-torchvision
	grep -vE '^(torch|triton)==' constraints.txt > .venv-torchvision/constraints.txt
	$(FAMILIES_BIN)/python -m pip install --quiet --constraint .venv-torchvision/constraints.txt torch==2.14.1 torchvision==0.29.1 --editable '.[dev]'
	FAMILIES_OUT=docs/results/families/without-torchvision.json $(TEST_ENV) $(BIN)/python -m pytest $(FAMILIES)
	FAMILIES_OUT=docs/results/families/with-torchvision.json $(TEST_ENV) $(FAMILIES_BIN)/python -m pytest $(FAMILIES)
	$(BIN)/python -m tests.models.families_table

# Every recipe for a real model on every machine of recipes/hardware, as a tiny twin: plan, training, resume, evaluation;
# those of eight GPUs on two CPU ranks. Writes docs/results/recipes.json; a table that was stopped continues.
RECIPES_OUT ?= docs/results/recipes.json
test-recipes: setup
	$(BIN)/python -m pip install --quiet setuptools wheel ninja
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[deepspeed]'
	$(TEST_ENV) $(BIN)/python -m tests.recipes.table --out $(RECIPES_OUT)

# The page of `balanced chat` in a headless Chromium, which must be on the PATH. An environment of its own: gradio needs
# Pillow 12, and `make setup` installs a newer one.
CHAT_BIN := .venv-chat/bin
test-chat:
	test -x $(CHAT_BIN)/python || $(PYTHON) -m venv .venv-chat
	grep -v '^pillow==' constraints.txt > .venv-chat/constraints.txt
	$(CHAT_BIN)/python -m pip install --quiet --constraint .venv-chat/constraints.txt torch==2.13.0 --editable '.[dev,chat]'
	$(TEST_ENV) $(CHAT_BIN)/python -m pytest tests/chat

# A run of every family, exported, in plain transformers when the run is gone; about 12 minutes of CPU time. Writes
# the table of docs/export.md.
EXPORT_OUT ?= docs/results/export.json
test-export: setup
	EXPORT_OUT=$(EXPORT_OUT) $(TEST_ENV) $(BIN)/python -m pytest tests/export/test_every_family.py -m families
	$(BIN)/python -m tests.export.table

# What a real vLLM on a CPU answers for our models, and the page docs/served.md to the letter; the environment is its own,
# half a gigabyte beside torch. Writes docs/results/servers.json and the table of that page.
SERVERS_BIN := .venv-vllm/bin
test-vllm: setup
	test -x $(SERVERS_BIN)/vllm || $(BIN)/python -m tests.servers.environment .venv-vllm
	rm -f docs/results/servers.json
	SERVERS_OUT=docs/results/servers.json $(TEST_ENV) $(SERVERS_BIN)/python -m pytest tests/servers -m servers --durations=20
	$(BIN)/python -m tests.servers.table
	$(TEST_ENV) $(SERVERS_BIN)/python -m tests.servers.page

# Whether the bounds of pyproject.toml can move: the suite against the newest releases that install together, whatever
# those bounds say, in an environment of its own (docs/upstream.md). NEWEST="torch==2.14.1 ..." tries others.
NEWEST ?= torch torchvision transformers trl peft accelerate datasets
NEWEST_BIN := .venv-newest/bin
test-newest:
	test -x $(NEWEST_BIN)/python || $(PYTHON) -m venv .venv-newest
	$(NEWEST_BIN)/python -m pip install --quiet --editable '.[dev]'
	$(NEWEST_BIN)/python -m pip install --quiet --upgrade $(NEWEST)
	$(NEWEST_BIN)/python -m pip list --format freeze | grep -E '^(torch|torchvision|transformers|trl|peft|accelerate|datasets)='
	PATH="$(CURDIR)/$(NEWEST_BIN):$$PATH" $(TEST_ENV) $(NEWEST_BIN)/python -m pytest -m "not slow and not families and not faults and not servers" -n 2 --dist worksteal --durations=10

# The plug-ins of examples/plugins in the frameworks that they are for, each in an environment of its own, against our
# trainer: losses to 1e-6 (docs/loops.md). About 3 GB and ten minutes, most of them for installing.
SWIFT_BIN ?= .venv-swift/bin
LLAMAFACTORY_BIN ?= .venv-llamafactory/bin
test-loops: setup
	test -x $(SWIFT_BIN)/python || { $(PYTHON) -m venv .venv-swift && $(SWIFT_BIN)/python -m pip install --quiet torch==2.13.0 ms-swift==4.6.0; }
	test -x $(LLAMAFACTORY_BIN)/python || { $(PYTHON) -m venv .venv-llamafactory \
	  && $(LLAMAFACTORY_BIN)/python -m pip install --quiet torch==2.13.0 llamafactory==0.9.5 \
	  && $(LLAMAFACTORY_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio; }
	$(TEST_ENV) $(BIN)/python -m tests.loops.compare --swift $(SWIFT_BIN)/python --llamafactory $(LLAMAFACTORY_BIN)/python

# Each script runs ours and its peers in turn; about 38 minutes on two cores, with nothing else running. BENCH_OUT=folder writes elsewhere.
BENCH_OUT ?= benchmarks/results
bench: setup
	$(BIN)/python benchmarks/head.py --rounds 3 --iterations 2 --json $(BENCH_OUT)/head-cpu.json
	$(BIN)/python benchmarks/sft_step.py --size tiny --steps 3 --json $(BENCH_OUT)/sft_step-tiny-cpu.json
	$(BIN)/python benchmarks/sft_step.py --size small --steps 1 --rounds 2 --only packed --json $(BENCH_OUT)/sft_step-small-cpu.json
	$(BIN)/python benchmarks/sft_step.py --size tiny --steps 3 --lengths puzzlevqa --only packed,padded --json $(BENCH_OUT)/sft_step-tiny-puzzlevqa-cpu.json
	$(BIN)/python benchmarks/sft_step.py --size tiny --steps 3 --batch 32 --accumulation 4 --only packed,padded --json $(BENCH_OUT)/sft_step-tiny-accumulated-cpu.json
	ACCELERATE_USE_CPU=true $(BIN)/python benchmarks/sft_step.py --size tiny --steps 4 --accumulation 2 --ranks 2 --threads 1 --only packed,padded --json $(BENCH_OUT)/sft_step-tiny-ranks-cpu.json
	$(BIN)/python benchmarks/overhead.py --json $(BENCH_OUT)/overhead-cpu.json
	$(BIN)/python benchmarks/save.py --json $(BENCH_OUT)/save-cpu.json
	$(BIN)/python benchmarks/scaling.py --json $(BENCH_OUT)/scaling-cpu.json --svg $(BENCH_OUT)/scaling-cpu.svg
	$(BIN)/python benchmarks/pipeline.py --rounds 3 --json $(BENCH_OUT)/pipeline-cpu.json
	$(BIN)/python benchmarks/pipeline.py --rounds 3 --workers 2 --json $(BENCH_OUT)/pipeline-2-workers-cpu.json
	$(BIN)/python benchmarks/grpo.py --rounds 3 --json $(BENCH_OUT)/grpo-cpu.json
	$(BIN)/python benchmarks/generation.py --size tiny --json $(BENCH_OUT)/generation-tiny-cpu.json
	$(BIN)/python benchmarks/generation.py --size small --examples 32 --batch 16 --rounds 2 --json $(BENCH_OUT)/generation-small-cpu.json

# What a GPU must show, in 8 minutes on one GPU of 80 GB, with the torch for CUDA of this Python; `GPU_PYTHON=python3` takes
# an image's own, and what that lacks comes from the bundle. `GPU_ARGUMENTS=--cpu` takes the same path without a GPU.
GPU_PYTHON ?= $(BIN)/python
GPU_ARGUMENTS ?=
bench-gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/.bench)
	PYTHON=$(GPU_PYTHON) benchmarks/gpu/run.sh $(GPU_ARGUMENTS) --out $(BENCH_OUT)/gpu

.venv/.bench: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

# The wheels that a CUDA image with Python 3.12, torch and transformers lacks: at most 60 MB, in benchmarks/gpu/wheels.
gpu-bundle: setup
	$(BIN)/python benchmarks/gpu/bundle.py

# The figures of README.md and benchmarks/README.md, from the JSON files of benchmarks/results.
figures: setup
	$(BIN)/python benchmarks/figures.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/. It fetches nothing while it is built; NO_MKDOCS_2_WARNING silences an advertisement.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/.docs: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# What is installed, as CycloneDX, and which of it has known vulnerabilities. SBOM=file writes elsewhere. The audit asks
# the database of PyPI; where that cannot be reached it fails, because nothing was checked then.
SBOM ?= sbom.json
sbom: .venv/.audit
	$(BIN)/cyclonedx-py environment $(BIN)/python --output-format JSON --no-validate --output-file $(SBOM)

audit: .venv/.audit
	rm -f .venv/audit.json
	-$(BIN)/pip-audit --skip-editable --progress-spinner off --format json --output .venv/audit.json
	$(BIN)/python -m tests.audit .venv/audit.json

.venv/.audit: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[audit]'
	touch $@

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-vllm .venv-chat .venv-llamafactory .venv-newest .venv-swift .venv-torchvision site .pytest_cache .mypy_cache .ruff_cache
