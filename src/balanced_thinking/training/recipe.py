"""The recipe of a training run: model, data and training arguments, from YAML and the command line.

Reading one needs no torch. The keys under `training` are those of `ScaleSFTConfig` or `ScaleGRPOConfig`, which
`training.checks` looks at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import (
    MERGED_FROM,
    STAGES_KEY,
    ConfigFile,
    Paths,
    as_paths,
    is_overlay,
    merge_mappings,
    read_config_files,
    take_sources,
)
from balanced_thinking.config.own_functions import search_beside_recipe
from balanced_thinking.config.types import (
    AdmittedTypes,
    admitted_types,
    check_keys,
    convert_values,
    format_value,
    typed_arguments,
)
from balanced_thinking.config.variables import expand_data_names, expand_variables
from balanced_thinking.config.yaml import read_yaml
from balanced_thinking.models.find import TinySize
from balanced_thinking.models.part_names import PARTS
from balanced_thinking.models.quantization import QUANTIZATIONS
from balanced_thinking.models.revisions import pin_revision
from balanced_thinking.training.arguments import (
    LORA_SYNONYMS,
    argument_types,
    list_meanings,
    lora_types,
    refuse_credentials,
)
from balanced_thinking.training.auto_batch import DIVISION_KEYS, is_same_but_divided
from balanced_thinking.training.default_weights import resolve_weighting

STAGES = ("sft", "grpo")
_EXAMPLE = "recipes/qwen2.5-vl-3b/scale-sft.yaml"
_NUMBER = re.compile(r"[-+]?\d*\.?\d+e[-+]?\d+", re.IGNORECASE)
# What changes nothing that is learned: how often something is written, and how batches reach the device.
HARMLESS_KEYS = {
    f"training.{name}"
    for name in (
        *("logging_steps", "save_strategy", "save_steps", "save_total_limit", "eval_strategy", "eval_steps"),
        *("report_to", "run_name", "disable_tqdm", "image_cache", "image_cache_gib", "max_hours"),
        *("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "dataset_num_proc"),
        *("dataloader_persistent_workers", "ddp_timeout", "logging_first_step", "logging_strategy", "log_level"),
    )
} | {"auto_batch", MERGED_FROM}


def _recipe_key(default: Any, text: str) -> Any:
    """The default of a recipe's key and its text in `--help`. `Any`, so that the field keeps its own type."""
    metadata = {"help": text}
    if default in ({}, []):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Recipe:
    """One training run: its keys with their defaults, as `balanced sft --help` shows them."""

    stage: str = _recipe_key("sft", "sft or grpo.")
    model: str = _recipe_key(
        "world-base",
        "What is trained: world-base, world-reasoner, tiny:<architecture>, a run, a checkpoint's folder or a hub name.",
    )
    data: str | list[Any] = _recipe_key(
        "world",
        "A data set's name, NAME:PATH, a path, or a name on the hub; or a list of these or of mappings such as "
        "{data: NAME, split: train, weight: 2, limit: 100, data_options: {}}.",
    )
    split: str = _recipe_key("train", "The split to train on.")
    data_options: dict[str, Any] = _recipe_key({}, "Options of the data set.")
    limit: int | None = _recipe_key(None, "Maximum number of rows of each split; null: all.")
    on_bad_row: str = _recipe_key("error", "What to do with a bad row: error, or drop to leave it out.")
    verify_images: bool = _recipe_key(True, "Whether to open every image once before training.")
    allow_urls: bool = _recipe_key(False, "Whether to fetch pictures that rows name by a web address.")
    auto_batch: bool = _recipe_key(
        False,
        "Whether to halve the micro-batch and double gradient_accumulation_steps if memory is short. The steps stay "
        "the same. In one process.",
    )
    preflight: str | int = _recipe_key("all", "Which rows to check before step 1: all, or sample:N for N random ones.")
    validation_split: str | None = _recipe_key(
        None, "The split for the evaluation loss (eval_strategy says when); null: none."
    )
    validation_options: dict[str, Any] = _recipe_key({}, "Options of the data set for that split.")
    lora: dict[str, Any] | None = _recipe_key(
        None,
        "Arguments of PEFT's LoraConfig, such as r. targets, in place of target_modules: the parts whose linear layers "
        "get an adapter: language (default), vision+language or all. {}: all defaults; null: full fine-tuning.",
    )
    quantization: str | None = _recipe_key(
        None,
        f"{' or '.join(QUANTIZATIONS)}: the language model's linear layers in 4 or 8 bits (bitsandbytes), trained with "
        "lora; null: none.",
    )
    freeze: str | list[str] = _recipe_key(
        [], f"Parts of the model that full fine-tuning leaves as they are: {', '.join(PARTS)}."
    )
    model_size: dict[str, int] = _recipe_key({}, "Widths and depths of a tiny: model.")
    model_options: dict[str, Any] = _recipe_key({}, "Arguments of from_pretrained, such as dtype.")
    image_options: dict[str, Any] = _recipe_key(
        {}, "Arguments of the image processor, such as max_pixels (Qwen); saved with the model."
    )
    allow_missing: list[str] = _recipe_key(
        [], "Tensors that the checkpoint may lack, such as a new head: names or patterns. They start at random."
    )
    arm: str | None = _recipe_key(None, "The run's name in tables; null: sft, scale-sft or grpo.")
    ranks: int | None = _recipe_key(
        None, "Processes that the batch is meant for: another number is refused before step 1; null: any."
    )
    merged_from: list[str] = _recipe_key(
        [], "The files that the recipe was merged from, in their order; the command writes it."
    )
    training: dict[str, Any] = _recipe_key({}, "Training arguments: all that follow.")

    def __post_init__(self) -> None:
        """A run records what weighs its tokens, so that it stays the same where the default changes."""
        if self.stage == "sft":
            self.training = self.training | resolve_weighting(self.training)

    @property
    def pinned_model(self) -> str:
        """The model with the revision in `model_options`, if there is one. Raises RecipeError where it has none."""
        return pin_revision(self.model, self.model_options.get("revision"))

    def to_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False)


def load_recipe(
    paths: Paths | None, overrides: Sequence[tuple[str, str]] = (), *, default_stage: str | None = None
) -> Recipe:
    """The recipe in a file (or the defaults) with the options of the command line over it.

    Of several files, later ones override earlier ones key by key. One that has `stages` gives the keys of the recipe's
    stage; where there are only such files, the stage is `default_stage`. An option's name is a key of the recipe
    (`model`), one of a mapping (`data_options.ratio`), or a training argument. Raises RecipeError for invalid YAML, an
    unknown key, a value of the wrong type, or an unset `$VARIABLE`.
    """
    files = read_config_files([] if paths is None else as_paths(paths), "recipe", _EXAMPLE, _check_file_keys)
    sources = take_sources(files)
    stage = dict(overrides).get("stage") or _stated_stage(files, default_stage)
    raw: dict[str, Any] = {} if stage is None else {"stage": stage}
    section = stage if stage in STAGES else STAGES[0]
    for file in files:
        raw = merge_mappings(raw, _keys_of_stage(file.values, section))
    for name, text in overrides:
        _apply_override(raw, section, name, text)
    for file in files:
        search_beside_recipe(raw, file.path)
    _refuse_overlays_alone(files, raw)
    return make_recipe(raw | ({MERGED_FROM: sources} if sources else {}), "the recipe")


def _stated_stage(files: Sequence[ConfigFile], default: str | None) -> Any:
    stated = [file.values["stage"] for file in files if "stage" in file.values]
    return stated[-1] if stated else default if all(is_overlay(file.values) for file in files) else None


def _keys_of_stage(values: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """A file's keys for one stage."""
    return dict(values[STAGES_KEY].get(stage) or {}) if STAGES_KEY in values else dict(values)


def _refuse_overlays_alone(files: Sequence[ConfigFile], raw: Mapping[str, Any]) -> None:
    """Raises RecipeError where overlays are all that there is, and model or data are not given as options either."""
    lacking = [key for key in ("model", "data") if key not in raw]
    if files and lacking and all(is_overlay(file.values) for file in files):
        named = " ".join(f"--config {file.path}" for file in files)
        options = " and ".join(f"--{key}" for key in lacking)
        raise RecipeError(
            f"{files[0].path} is an overlay, which lacks {' and '.join(lacking)}; put a recipe before it, such as "
            f"--config {_EXAMPLE} {named}, or give {options}"
        )


def make_recipe(raw: Mapping[str, Any], where: str) -> Recipe:
    """The recipe in a mapping, checked as by `load_recipe`."""
    recipe = Recipe(**typed_arguments(Recipe, raw, where))
    _check_sections(recipe)
    recipe.model, recipe.data = expand_variables("model", recipe.model), expand_data_names(recipe.data)
    return recipe


def describe_changes(before: Recipe, now: Recipe, ignored_keys: Collection[str]) -> list[str]:
    """In words, where two recipes differ except in `ignored_keys`; first what both state."""
    ignored_keys = {*ignored_keys, *(DIVISION_KEYS if is_same_but_divided(before, now) else ())}
    old, new = _flatten_keys(asdict(before)), _flatten_keys(asdict(now))
    differing = (key for key in old | new if _as_number(old.get(key)) != _as_number(new.get(key)))
    changed = [key for key in differing if key not in ignored_keys]
    changed.sort(key=lambda key: (old.get(key) is None or new.get(key) is None, key))
    return [f"{key} was {_describe_value(old.get(key))} and is {_describe_value(new.get(key))}" for key in changed]


def _as_number(value: Any) -> Any:
    """What a text such as 1e-4 means, which YAML does not read as a number; any other value as it is."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _describe_value(value: Any) -> str:
    return "not given" if value is None else format_value(value)


def _flatten_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"training": {"seed": 1}}` as `{"training.seed": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_leaf = not isinstance(value, Mapping) or (key == "lora" and not value)  # {} differs from null there
        inner = {key: value} if is_leaf else {f"{key}.{k}": v for k, v in value.items()}
        flat |= inner
    return flat


def _check_file_keys(values: dict[str, Any], where: str) -> None:
    """Raises RecipeError for a file that is neither a recipe nor an overlay."""
    known = [f.name for f in fields(Recipe)]
    if "arms" in values:
        raise RecipeError(f"{where} has arms, so it is a study; run it with `balanced study`")
    if STAGES_KEY not in values:
        check_keys(values, known, where, {} if {*values} <= {*known} else list_meanings())
        return
    if not is_overlay(values):
        others = ", ".join(str(key) for key in values if key != STAGES_KEY)
        raise RecipeError(f"{where} has stages beside {others}; expected stages alone (an overlay), or a recipe's keys")
    sections = values[STAGES_KEY]
    if not isinstance(sections, Mapping) or not all(isinstance(section, Mapping) for section in sections.values()):
        raise RecipeError(f"{where}: stages is {format_value(sections)}; expected a mapping for sft, grpo or both")
    check_keys(sections, STAGES, f"{where}: stages")
    for name, section in sections.items():
        check_keys(section, [key for key in known if key != "stage"], f"{where}: stages.{name}")


def _apply_override(raw: dict[str, Any], stage: str, name: str, text: str) -> None:
    """Set a key of the recipe, one of a mapping in it, a training argument, or a key of one that is a mapping."""
    value = read_yaml(text, f"--{name} {text}")
    head, _, key = name.partition(".")
    types: Mapping[str, AdmittedTypes] = admitted_types(Recipe)
    if head not in types:  # a training argument, and so the key of a mapping itself
        arguments = raw.get("training") or {}
        if not isinstance(arguments, dict):
            return  # the check of the recipe refuses it
        raw["training"], raw, types = (arguments := dict(arguments)), arguments, argument_types(stage)
    if not key:
        raw[head] = value
        return
    if dict not in types.get(head, {dict}):
        raise RecipeError(f"--{name} sets a key of {head}, which is not a mapping; write --{head} VALUE")
    mapping = raw.get(head) or {}
    if not isinstance(mapping, dict):
        raise RecipeError(f"--{name} sets a key of {head}, which is {format_value(mapping)}; write --{head} VALUE")
    raw[head] = {**mapping, key: value}


def _check_sections(recipe: Recipe) -> None:
    """Check the keys of other schemas, and refuse those that the run itself sets."""
    if "output_dir" in recipe.training:
        raise RecipeError("output_dir is set by the run: leave it out and use --out")
    if recipe.training.get("resume_from_checkpoint") is not None:
        raise RecipeError("resume_from_checkpoint is set by --resume: leave it out")
    refuse_credentials(recipe.training, recipe.training.get("model_init_kwargs") or {}, recipe.model_options)
    if recipe.lora is not None:
        if "task_type" in recipe.lora:
            raise RecipeError("lora.task_type is always CAUSAL_LM; leave it out")
        recipe.lora = convert_values(recipe.lora, lora_types(), "lora", LORA_SYNONYMS, prefix="lora.")
        if recipe.lora.get("targets") and recipe.lora.get("target_modules"):
            raise RecipeError(
                f"lora.targets is {recipe.lora['targets']!r} and lora.target_modules is "
                f"{format_value(recipe.lora['target_modules'])}; expected one of them: leave the other out"
            )
    if isinstance(recipe.freeze, str):
        recipe.freeze = [recipe.freeze]
    if recipe.model_size:
        recipe.model_size = typed_arguments(TinySize, recipe.model_size, "model_size")
