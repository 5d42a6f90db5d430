"""Cuts a language model's vocabulary down to the tokens of studies, so that a CPU can train it in minutes.

    python benchmarks/cut_vocabulary.py models/gemma-3-270m models/gemma-3-270m-cut recipes/text/world-text.yaml

Gemma 3 270M has 262,144 tokens; their embedding is 63 % of its weights, and the output layer most of a training step.
A study in words needs a few thousand of them. Everything else stays as it was pretrained. What changes is that the
model cannot write the tokens that were removed, neither before nor after training, in any arm.

Kept are: every token of their rows (training rows of one seed, test prompts and answers), the merges that lead to
it, all single bytes, and the special tokens that the model and its template name. Every text is then encoded by both
tokenizers, and the script fails unless the tokens are the same. Works for byte-pair tokenizers that are a
`tokenizer.json`, and for models whose output layer is tied to the embedding.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.data.load import load_data
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.study.load import load_study
from balanced_thinking.training.recipe import load_recipe

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_TOKEN_IDS = re.compile(r"(\w+)_token_id")


def list_texts(file: Path, tokenizer: Any) -> set[str]:
    """The rows of a study, of its first seed, or of a recipe, as the model reads them."""
    found: set[str] = set()
    seen: list[Any] = []  # what several arms share
    for part in list_parts(file):
        if part in seen:
            continue
        seen.append(part)
        data, split, options, limit = part
        examples = load_data(data, split=split, options=options, limit=limit, on_bad_row="drop").examples
        for row in to_dataset(examples):
            found.add(tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=False))
    return found


def list_parts(file: Path) -> Iterator[tuple[Any, str, Any, int | None]]:
    """Data, split, options and limit of what a study or a recipe reads."""
    if "arms" not in read_yaml_file(file):
        recipe = load_recipe(file)
        yield recipe.data, recipe.split, recipe.data_options, None
        return
    plan = load_study(file)
    for run in plan.planned_runs():
        if run.seed == plan.seeds[0]:
            yield run.recipe.data, "train", run.recipe.data_options, None
            for one in run.benchmarks:
                yield from ((one.data, split, one.options, one.limit) for split in (*one.splits, "train"))


def find_parts(token: str, ranks: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, str]]:
    """The merges that make a token of its characters, in the order in which an encoder makes them."""
    parts = list(token)
    while len(parts) > 1:
        pairs = [(ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(parts))]
        rank, place = min(pairs)
        if rank == len(ranks):
            raise ValueError(f"no merges lead to the token {token!r}; expected a tokenizer with byte-pair merges")
        yield parts[place], parts[place + 1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def cut_tokenizer(tokenizer: dict[str, Any], used: Iterable[int], named: Iterable[int]) -> list[int]:
    """Leaves in a `tokenizer.json` what `used` tokens need, and `named` ones. Returns the old ids in the new order."""
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    special = {one["id"]: one["content"] for one in added}
    names = {index: token for token, index in model["vocab"].items()} | special
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    alphabet = {token for token in model["vocab"] if _BYTE.fullmatch(token)} or set(ByteLevel.alphabet())
    kept, merges = set(alphabet), set()
    for token in (names[index] for index in set(used) - special.keys()):
        kept |= {token, *token}
        if token not in alphabet:
            for left, right in find_parts(token, ranks):
                merges.add((left, right))
                kept |= {left, right, left + right}
    ids = sorted(
        {model["vocab"][token] for token in kept if token in model["vocab"]} | {*named, *(special.keys() & set(used))}
    )
    places = {old: new for new, old in enumerate(ids)}
    model["vocab"] = {names[old]: new for old, new in places.items() if names[old] in model["vocab"]}
    model["merges"] = [list(pair) for pair in sorted(merges, key=ranks.__getitem__)]
    tokenizer["added_tokens"] = [one | {"id": places[one["id"]]} for one in added if one["id"] in places]
    for one in (tokenizer["post_processor"] or {}).get("special_tokens", {}).values():
        one["ids"] = [places[old] for old in one["ids"]]
    return ids


def list_named(config: Any) -> dict[str, list[int]]:
    """The token ids that a configuration names."""
    found = {name: value for name, value in config.to_dict().items() if _TOKEN_IDS.fullmatch(name)}
    return {name: value if isinstance(value, list) else [value] for name, value in found.items() if value is not None}


def renumber(config: Any, places: Mapping[int, int]) -> None:
    """Gives those tokens their new numbers."""
    for name, value in list_named(config).items():
        new = [places[one] for one in value]
        setattr(config, name, new if isinstance(getattr(config, name), list) else new[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("studies", type=Path, nargs="+", help="studies and recipes whose rows are to be written")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    texts = sorted(set().union(*(list_texts(study, tokenizer) for study in options.studies)))
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    if not model.config.tie_word_embeddings:
        raise SystemExit(f"{options.model} has an output layer of its own; expected one that is tied to the embedding")
    named = set(tokenizer.all_special_ids)
    for config in (model.config, model.generation_config):
        named.update(*list_named(config).values())

    options.out.mkdir(parents=True)
    tokenizer.save_pretrained(options.out)
    file = options.out / "tokenizer.json"
    written = json.loads(file.read_text())
    ids = cut_tokenizer(written, {index for one in encoded for index in one}, named)
    file.write_text(json.dumps(written, ensure_ascii=False))
    places = {old: new for new, old in enumerate(ids)}

    weight = model.get_input_embeddings().weight.data[ids].clone()
    model.resize_token_embeddings(len(ids), mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(weight)
    for config in (model.config, model.generation_config):
        renumber(config, places)
    model.save_pretrained(options.out)

    fresh = AutoTokenizer.from_pretrained(options.out)
    for text, before in zip(texts, encoded, strict=True):
        if fresh.encode(text, add_special_tokens=False) != [places[index] for index in before]:
            raise SystemExit(f"the new tokenizer encodes a text differently: {text[:200]!r}")
    millions = sum(one.numel() for one in model.parameters()) / 1e6
    kept = f"{len(ids):,} of {len(tokenizer):,} tokens"
    print(f"{options.out}: {kept} for {len(texts):,} texts, {millions:.0f} million parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
