"""Our `lmms`, `anls` and `relaxed` against lmms-eval's own functions, string by string.

    pip install --no-deps lmms-eval==0.7.3
    python benchmarks/parity/lmms.py [--outputs predictions.jsonl ...] [--record tests/scoring/fixtures/lmms.json.gz]

Command of record: the second line with the predictions of four runs of the embedded world. The functions are taken from
the installed package's files as they are, without importing the package and what it needs. Any difference: exit code 1.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from balanced_thinking.scoring.scorers import get_scorer
from balanced_thinking.segments import parse

LETTERS = "ABCDE"
# Forms that the documentation, the data or a model's habits bring about; {} is the letter.
FORMS = (
    *(
        "{}",
        " {} ",
        "{}.",
        "{}. dog",
        "{}.dog",
        "{})",
        "({})",
        "**{}**",
        "{}:",
        "{},",
        "{}\n",
        "\n{}. a\nB. b",
        "option {}",
    ),
    *("Final Answer:{}", "The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>", "{}{}", "{} .", "É. {}", "'{}'"),
    *("<think>A. no</think><answer>{}</answer>", "{}. {}", "{}\u00a0", "\u2003{}.", "ß{}", ""),
)
WORDS = (
    "13",
    "12",
    "0",
    "-1",
    "1.05",
    "1.0499",
    "5%",
    "5 %",
    "0.05",
    "1e3",
    "1000",
    "nan",
    "inf",
    "1,000",
    "dog",
    "Dog",
)
WORDS += ("hot dog", " hot  dog ", "", "%", "1_000", "ＤＯＧ", "straße", "STRASSE", "twelve", "12.", "0.0", "-0", "½")
TASKS = ("lmms", "anls", "relaxed")


def theirs() -> dict[str, Callable[[str, str], float]]:
    """lmms-eval's functions as (prediction, gold) -> score."""
    found = find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("lmms-eval is not installed: pip install --no-deps lmms-eval==0.7.3")
    place = Path(next(iter(found.submodule_search_locations)))
    science = _functions(place / "tasks/scienceqa/utils.py", ("sqa_doc_to_target", "sqa_process_results"))
    metrics = _functions(place / "api/metrics.py", ("levenshtein_distance", "anls"))
    chart = _functions(place / "tasks/chartqa/utils.py", ("relaxed_correctness",))

    def lmms(prediction: str, gold: str) -> float:
        doc = {"choices": list(LETTERS), "answer": LETTERS.index(gold)}
        return science["sqa_process_results"](doc, [prediction])["exact_match"]

    return {
        "lmms": lmms,
        "anls": lambda prediction, gold: float(metrics["anls"]([gold], [prediction])["anls"]),
        "relaxed": lambda prediction, gold: float(chart["relaxed_correctness"](prediction, gold)),
    }


def _functions(file: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The functions of these names from a source file, without its imports and decorators."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    chosen = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    for node in chosen:
        node.decorator_list = []
    space: dict[str, Any] = {}
    exec(compile(ast.Module(chosen, []), str(file), "exec"), space)
    return space


def pairs(outputs: list[Path]) -> Iterator[tuple[str, str, str]]:
    """(task, prediction, gold): every form with every letter, real outputs, and mutations of both."""
    rng = random.Random(0)
    texts = [
        form.replace("{}", letter).replace("{{", "{").replace("}}", "}") for form in FORMS for letter in LETTERS + "ab"
    ]
    real = []
    for path in outputs:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows[:60]:
            real += [row["completion"], parse(row["completion"]).answer or ""]
    golds = rng.sample(real, min(20, len(real)))
    for text, gold in itertools.product(texts + real, LETTERS):
        yield "lmms", text, gold
    for task, (text, gold) in itertools.product(("anls", "relaxed"), itertools.product(WORDS, WORDS)):
        yield task, text, gold
    for task, text in itertools.product(("anls", "relaxed"), real):
        yield task, text, rng.choice(golds)
    for task, source in (("lmms", texts), ("anls", [*WORDS, *real]), ("relaxed", WORDS)):
        for _ in range(1200):
            gold = rng.choice(LETTERS) if task == "lmms" else rng.choice(WORDS)
            yield task, mutated(rng.choice(source), rng), gold


def mutated(text: str, rng: random.Random) -> str:
    """One or two characters taken out, put in or changed."""
    for _ in range(rng.randint(1, 2)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(("", "A", "b", ".", " ", "%", "1", "É", "\n")) + text[at + rng.randint(0, 1) :]
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, nargs="*", default=[], help="predictions.jsonl of real runs")
    parser.add_argument("--record", type=Path, help="write every case with lmms-eval's score, as a test fixture")
    options = parser.parse_args()
    functions, cases, wrong = theirs(), sorted(set(pairs(options.outputs))), 0
    recorded = []
    for task, prediction, gold in cases:
        expected = functions[task](prediction, gold)
        found = get_scorer(task)(prediction, gold)
        recorded.append([task, prediction, gold, expected])
        if abs(found - expected) > 1e-9:
            wrong += 1
            print(f"{task}({prediction!r}, {gold!r}) is {found}, lmms-eval says {expected}")
    if options.record:
        text = json.dumps(recorded, ensure_ascii=False, indent=0).encode()
        options.record.write_bytes(gzip.compress(text, mtime=0))
    print(f"{'PASS' if not wrong else 'FAIL'} {len(cases)} cases, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
