"""The functions of the tasks in this folder: lmms-eval's prompts and scores, for the answer that our parser extracts.

lmms-eval scores a perfect `<think>...</think><answer>B</answer>` as wrong, because it removes the thoughts but not the
answer's tags. `malformed` is the share of outputs from which no answer can be extracted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.adapters import iconqa
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.scoring.published import score_anls
from balanced_thinking.scoring.scorers import score_exact
from balanced_thinking.segments import parse

logger = logging.getLogger(__name__)
Doc = dict[str, Any]


def _extract_answer(results: list[str]) -> tuple[str, float]:
    """(answer, malformed): the extracted answer and 0.0, or "" and 1.0 if there is none."""
    answer = parse(results[0], "auto").answer
    return answer or "", float(answer is None)


def scienceqa_results(doc: Doc, results: list[str]) -> dict[str, float]:
    from lmms_eval.tasks.scienceqa.utils import sqa_process_results

    answer, malformed = _extract_answer(results)
    return {**sqa_process_results(doc, [answer]), "malformed": malformed}


def chartqa_results(doc: Doc, results: list[str]) -> dict[str, float]:
    from lmms_eval.tasks.chartqa.utils import chartqa_process_results

    answer, malformed = _extract_answer(results)
    return {**chartqa_process_results(doc, [answer]), "malformed": malformed}


def scienceqa_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    from lmms_eval.tasks.scienceqa.utils import sqa_doc_to_text

    return sqa_doc_to_text(doc, lmms_eval_specific_kwargs)


def scienceqa_visual(doc: Doc) -> list[Image.Image]:
    from lmms_eval.tasks.scienceqa.utils import sqa_doc_to_visual

    return sqa_doc_to_visual(doc)


def scienceqa_target(doc: Doc) -> str:
    from lmms_eval.tasks.scienceqa.utils import sqa_doc_to_target

    return sqa_doc_to_target(doc)


def iconqa_visual(doc: Doc) -> list[Image.Image]:
    from lmms_eval.tasks.iconqa.utils import doc_to_visual

    return doc_to_visual(doc)


def iconqa_docs(docs: Any) -> Any:
    """Leave out rows without pictures of their options, as `balanced eval` does, and log their number."""
    kept = docs.filter(lambda doc: not isinstance(iconqa.read_table_row(0, dict(doc)), BadRow))
    logger.warning(
        "balanced_iconqa: %d of %d rows lack pictures of their options: left out", len(docs) - len(kept), len(docs)
    )
    return kept


def _to_example(doc: Doc) -> Example:
    example = iconqa.read_table_row(0, dict(doc))
    assert isinstance(example, Example), "iconqa_docs left out the others"
    return example


def iconqa_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    return _to_example(doc).question


def iconqa_target(doc: Doc) -> str:
    """The letter of an option, or the answer if there are no options."""
    return _to_example(doc).answer


def iconqa_results(doc: Doc, results: list[str]) -> dict[str, float]:
    (answer, malformed), example = _extract_answer(results), _to_example(doc)
    return {
        "anls": score_anls(answer, example.answer),
        "exact": score_exact(answer, example.answer, example.choices),
        "malformed": malformed,
    }


def chartqa_visual(doc: Doc) -> list[Image.Image]:
    return [open_image(doc["image"])]


def question_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    return doc["question"]


def jsonl_visual(doc: Doc) -> list[Image.Image]:
    return [open_image(Path(path)) for path in doc.get("images") or ()]


def jsonl_results(doc: Doc, results: list[str]) -> dict[str, float]:
    answer, malformed = _extract_answer(results)
    return {"exact": score_exact(answer, doc["answer"], doc.get("choices") or ()), "malformed": malformed}
