"""The GRPO stage: pictures once, mixed rows, credit by segment, the right reference, exact resuming."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from tokenizers.processors import TemplateProcessing

from balanced_thinking.batch.pictures import DistinctImageProcessor
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.rows import to_prompts_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.load import ensure_saved, load_model
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.manifest import DamagedFilesError
from balanced_thinking.segments import ANSWER, THINK, Parsed, parse
from balanced_thinking.training import grpo, grpo_inputs
from balanced_thinking.training.best_checks import check_best
from balanced_thinking.training.grpo import ScaleGRPOTrainer, credit_shares
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.grpo_resume import GenerationStateError
from balanced_thinking.training.nonfinite_error import NonFiniteError
from balanced_thinking.training.resume import ResumeError
from tests.conftest import ARCHITECTURES, some_now
from tests.tiny_training import QUIET, losses


def test_the_picture_of_a_row_is_opened_whichever_column_has_it() -> None:
    """Joined data sets have null in the other one."""
    picture = Image.new("RGB", (8, 8))
    for row in ({"image": picture}, {"image": picture, "images": None}, {"image": None, "images": [picture]}):
        assert [one.size for one in grpo_inputs.open_images(row, {})["images"]] == [(8, 8)]
    assert grpo_inputs.open_images({"image": None, "images": None}, {}) == {"images": []}
    assert grpo_inputs.open_images({"id": "a"}, {}) == {"id": "a"}


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eight rows, two of them without a picture and one with two."""
    examples = list(load(n=8, ratio=5))
    for i in (1, 5):
        examples[i] = replace(examples[i], images=())
    examples[2] = replace(examples[2], images=examples[2].images + next(load(n=1, seed=9)).images)
    return to_prompts_dataset(examples)


def config(out: Path, **options: Any) -> ScaleGRPOConfig:
    defaults: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "num_generations": 4,
        "max_completion_length": 10,
        "learning_rate": 1e-2,
    }
    return ScaleGRPOConfig(**(QUIET | defaults | options))


def letters(completions: list[Any], **_: Any) -> list[float]:
    """A reward that varies among the completions of an untrained model."""
    return [float(len(completion[0]["content"]) % 7) for completion in completions]


def trainer(architecture: str, rows: Dataset, args: ScaleGRPOConfig, **options: Any) -> ScaleGRPOTrainer:
    model, processor = build_tiny(architecture)
    return ScaleGRPOTrainer(model, letters, args, rows, processing_class=processor, **options)


@pytest.mark.parametrize("architecture", some_now("gemma3".__eq__, ARCHITECTURES))
def test_mixed_rows_train_and_each_picture_is_opened_and_processed_once(
    architecture: str, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, processed = [], []
    open_image = grpo_inputs.open_image
    monkeypatch.setattr(grpo_inputs, "open_image", lambda reference: opened.append(1) or open_image(reference))
    run = trainer(architecture, rows, config(tmp_path))
    kind = type(run.processing_class.image_processor)
    preprocess = kind.preprocess

    def counted(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        processed.append(len(images))
        return preprocess(self, images, *args, **kwargs)

    monkeypatch.setattr(kind, "preprocess", counted)
    run.train()
    # Two generation cycles of four prompts each cover the eight rows, with seven pictures in all.
    assert (len(opened), sum(processed)) == (7, 7)
    assert any(loss != 0 for loss in losses(run))
    assert {"think_tokens", "answer_tokens", "malformed", "reward"} <= run.state.log_history[0].keys()


def test_grpo_names_rows_and_rewards_that_are_not_finite(rows: Dataset, tmp_path: Path) -> None:
    bare = rows.remove_columns("images")
    args = config(tmp_path, max_steps=1, max_completion_length=4, gradient_accumulation_steps=2)
    run = trainer("qwen2", bare, args)
    run.reward_funcs = [lambda completions, **_: [math.nan if i == 5 else 1.0 for i in range(len(completions))]]
    with pytest.raises(NonFiniteError, match="letters gave nan for row ") as caught:
        run.train()
    assert "at optimizer step 1" in str(caught.value)
    assert run.state.global_step == 0
    run.reward_funcs = [letters]
    run.model.model.norm.register_full_backward_hook(lambda module, ours, theirs: (ours[0] * math.nan,))
    with pytest.raises(NonFiniteError, match="the gradient norm is nan at optimizer step 1") as caught:
        run.train()
    batches = re.findall(r"micro-batch (\d) of 2, loss \S+: 4 rows: (.+)", str(caught.value))
    named = [name for _, names in batches for name in names.split(", ")]
    assert [number for number, _ in batches] == ["1", "2"]
    assert len(named) == 8
    assert {named.count(name) for name in named} == {4}
    assert {*named} <= {*bare["id"]}


@pytest.mark.parametrize(("architecture", "adds_start"), [("qwen2_5_vl", False), ("gemma3", False), ("gemma3", True)])
def test_token_types_stand_where_the_picture_tokens_do(
    architecture: str, adds_start: bool, rows: Dataset, tmp_path: Path
) -> None:
    """Prompts of several lengths: a tokenizer that pads on the right would shift the types of all but the longest.

    So would one that adds a second `<bos>`, as Gemma's does.
    """
    run = trainer(architecture, rows, config(tmp_path))
    backend = run._tokenizer.backend_tokenizer
    if adds_start:
        start = run._tokenizer.convert_ids_to_tokens(5)
        backend.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 5)])
    before = str(backend.post_processor)
    batch = run._generate_and_score_completions([rows[i] for i in range(8) for _ in range(4)])
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    types = batch.get("mm_token_type_ids", batch.get("token_type_ids"))
    pictures = ids == run.model.config.image_token_id
    pictures[:, batch["prompt_ids"].shape[1] :] = False  # an untrained model may write anything
    assert pictures.any()
    assert len(set(batch["prompt_mask"].sum(1).tolist())) > 1
    assert torch.equal(types.bool(), pictures)
    assert str(backend.post_processor) == before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_repeated_pictures_give_the_features_that_processing_each_would(architecture: str) -> None:
    processor = build_tiny(architecture)[1].image_processor
    images = [example.images[0] for example in load(n=3)]
    images[2] = images[2].resize((140, 56))
    order = [0, 1, 1, 2, 0, 2]
    ours = DistinctImageProcessor(processor)([images[i] for i in order])
    theirs = processor([images[i].copy() for i in order], return_tensors="pt")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(value)), name


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5),
    st.floats(0, 1),
)
@settings(max_examples=50)
def test_credit_moves_between_segments_and_never_between_completions(
    lengths: list[tuple[int, int]], think: float
) -> None:
    segments = [[THINK] * t + [ANSWER] * a for t, a in lengths]
    shares_BT = credit_shares(segments, 20, think, 1 - think)
    for row, (t, a) in zip(shares_BT, lengths, strict=True):
        assert row.sum().item() == pytest.approx(t + a, rel=1e-5, abs=1e-5)
        if t and a:
            assert row[:t].sum().item() == pytest.approx(think * (t + a), rel=1e-5, abs=1e-5)


def test_credit_by_length_is_the_plain_advantage() -> None:
    row = [THINK] * 6 + [ANSWER] * 2
    assert credit_shares([row], 8, 0.75, 0.25).tolist() == [pytest.approx([1.0] * 8)]


def test_credit_by_segment_follows_the_schedule(rows: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    args = config(tmp_path, credit="segment", schedule="linear", think_weight_start=0.8, think_weight_end=0.2)
    run = trainer("qwen2_5_vl", rows, args)
    credit = run._credit_weights
    run._credit_weights = lambda: seen.append(credit()) or credit()  # type: ignore[method-assign]
    run.train()
    assert seen == [pytest.approx((0.8, 0.2)), pytest.approx((0.2, 0.8))]


def test_credit_by_segment_is_what_the_loss_gets(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halves(ids: list[int], *_: Any) -> tuple[Parsed, list[int]]:
        return parse(""), [THINK] * (len(ids) - len(ids) // 2) + [ANSWER] * (len(ids) // 2)

    monkeypatch.setattr(grpo, "generated_segments", halves)
    given = {}
    for credit in ("completion", "segment"):
        weight = {"think_weight_start": 0.8} if credit == "segment" else {}
        args = config(tmp_path, credit=credit, **weight)
        run = trainer("qwen2_5_vl", rows, args)
        torch.manual_seed(0)
        given[credit] = run._generate_and_score_completions([rows[i] for i in range(4) for _ in range(4)])
    plain, shared = (given[credit]["advantages"] for credit in ("completion", "segment"))
    assert plain.any()
    for row, mask in enumerate(given["segment"]["completion_mask"]):
        count = int(mask.sum())
        think = count - count // 2
        expected = [0.8 * count / think] * think + [0.2 * count / (count - think)] * (count - think)
        assert shared[row, :count].tolist() == pytest.approx(
            [float(plain[row]) * share for share in expected], rel=1e-5
        )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_reference_is_the_checkpoint_that_the_stage_starts_from(lora: bool, rows: Dataset, tmp_path: Path) -> None:
    base, processor = build_tiny("qwen2_5_vl", seed=0)
    with torch.no_grad():  # as after SFT: weights that no builder and no hub could restore
        for parameter in base.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    base.save_pretrained(tmp_path / "sft")
    processor.save_pretrained(tmp_path / "sft")
    loaded = load_model(str(tmp_path / "sft"))
    peft = {"peft_config": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])} if lora else {}
    args = config(tmp_path / "grpo", beta=0.1, max_steps=1)
    run = ScaleGRPOTrainer(loaded.model, letters, args, rows, processing_class=loaded.processor, **peft)
    if not lora:
        reference = dict(run.accelerator.unwrap_model(run.ref_model).named_parameters())
        assert all(torch.equal(reference[name], parameter) for name, parameter in base.named_parameters())
    run.train()
    assert run.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("architecture", "lora"),
    some_now(lambda *case: case in {("gemma3", True), ("llava_next", False)}, ARCHITECTURES, [False, True]),
)
def test_resumed_run_equals_the_undisturbed_one(architecture: str, lora: bool, rows: Dataset, tmp_path: Path) -> None:
    """The checkpoint is within the second epoch, within a generation cycle of two steps, and within a logging
    interval: its completions, and the averages that it has begun, are those of the undisturbed run."""
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 3, "max_completion_length": 6}
    options |= {"steps_per_generation": 8, "logging_steps": 2, "beta": 0.1 if lora else 0.0}
    peft = {"peft_config": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])} if lora else {}
    undisturbed = trainer(architecture, rows, config(tmp_path, **options), **peft)
    undisturbed.train()
    resumed = trainer(architecture, rows, config(tmp_path / "again", **options), **peft)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert metrics_of(resumed) == metrics_of(undisturbed)
    assert resumed._step == undisturbed._step
    for (name, a), (_, b) in zip(
        undisturbed.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"max_steps": 4, "steps_per_generation": 2}, 3),  # within a cycle
        ({"max_steps": 4, "gradient_accumulation_steps": 2, "num_iterations": 2}, 1),
        ({"max_steps": 10}, 9),  # within the second pass through the eight rows
    ],
)
def test_a_stream_of_prompts_resumes_as_if_undisturbed(
    options: dict[str, Any], saved: int, rows: Dataset, tmp_path: Path
) -> None:
    options = {"save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 1} | options
    stream = rows.remove_columns("images").to_iterable_dataset()
    undisturbed = trainer("qwen2", stream, config(tmp_path, max_completion_length=4, **options))
    undisturbed.train()
    resumed = trainer("qwen2", stream, config(tmp_path / "again", max_completion_length=4, **options))
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{saved}"))
    assert metrics_of(resumed) == metrics_of(undisturbed)
    for (name, a), b in zip(undisturbed.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_table_of_completions_goes_on_with_all_its_columns(rows: Dataset, tmp_path: Path) -> None:
    def noted(completions: list[Any], log_extra: Any, **_: Any) -> list[float | None]:
        log_extra("length", [len(one[0]["content"]) for one in completions])
        return [None, *letters(completions)[1:]]

    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "steps_per_generation": 2, "max_steps": 2}
    options |= {"gradient_accumulation_steps": 1, "log_completions": True, "num_completions_to_print": 1}

    def start(out: Path) -> ScaleGRPOTrainer:
        model, processor = build_tiny("qwen2")
        args = config(out, **options, max_completion_length=4)
        return ScaleGRPOTrainer(model, noted, args, rows.remove_columns("images"), processing_class=processor)

    start(tmp_path / "run").train()
    start(tmp_path / "again").train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-1"))
    tables = [Dataset.from_parquet(str(tmp_path / f"{name}/completions/*2.parquet")) for name in ("run", "again")]
    assert {"noted", "length", "advantage"} <= {*tables[0].column_names}
    assert repr(tables[0].to_dict()) == repr(tables[1].to_dict())  # with NaN for what does not apply


@pytest.mark.parametrize(
    ("architecture", "option", "lora", "said"),
    [
        ("qwen2", {"beta": 0.1}, False, r"beta is 0\.1, but the model was not loaded from a folder"),
        ("qwen2", {"beta": 0.1}, True, None),  # the reference is the base
        ("qwen2_5_vl", {"cast_lm_head_to_fp32": True}, False, "the head of this model is its embedding"),
        ("qwen2", {"cast_lm_head_to_fp32": True}, True, "the head of this model is its embedding"),
        ("qwen2", {"cast_lm_head_to_fp32": True}, False, None),
    ],
)
def test_parts_that_trl_would_not_find_are_named(
    architecture: str, option: dict[str, Any], lora: bool, said: str | None, rows: Dataset, tmp_path: Path
) -> None:
    peft = {"peft_config": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])} if lora else {}
    data = rows if architecture != "qwen2" else rows.remove_columns("images")
    with pytest.raises(RecipeError, match=said) if said else nullcontext():
        trainer(architecture, data, config(tmp_path, **option), **peft)


def test_a_moving_reference_model_is_part_of_the_state(rows: Dataset, tmp_path: Path) -> None:
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "max_completion_length": 4, "beta": 0.1}
    options |= {"sync_ref_model": True, "ref_model_sync_steps": 1, "gradient_accumulation_steps": 1}
    base = ensure_saved(load_model("tiny:qwen2_5_vl", seed=0), tmp_path / "base")

    def start(out: Path) -> ScaleGRPOTrainer:
        model = load_model(str(tmp_path / "base")).model
        return ScaleGRPOTrainer(model, letters, config(out, **options), rows, processing_class=base.processor)

    undisturbed = start(tmp_path / "run")
    undisturbed.train()
    checkpoint = tmp_path / "run/checkpoint-1"
    resumed = start(tmp_path / "again")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for (name, ours), theirs in zip(
        resumed.ref_model.state_dict().items(), undisturbed.ref_model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    (checkpoint / "manifest.json").unlink()  # as of a version that did not save it
    (checkpoint / "reference_model.pt").unlink()
    with pytest.raises(ResumeError, match=r"no state of: reference model; .*--allow-partial-resume"):
        start(tmp_path / "third").train(resume_from_checkpoint=str(checkpoint))


def metrics_of(run: ScaleGRPOTrainer) -> list[dict[str, Any]]:
    """All that was logged at each step, except the times and what sums up this process's own part."""
    rows = [row for row in run.state.log_history if "train_loss" not in row]
    return [{name: value for name, value in row.items() if "time" not in name} for row in rows]


def test_a_cycle_whose_completions_are_lost_is_named(rows: Dataset, tmp_path: Path) -> None:
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "max_completion_length": 4}
    options |= {"num_iterations": 2, "gradient_accumulation_steps": 1}  # a cycle of two steps
    trainer("qwen2_5_vl", rows, config(tmp_path, **options)).train()
    state = tmp_path / "checkpoint-1/generation_state_0.pt"
    assert not (tmp_path / "checkpoint-2" / state.name).exists()  # nothing has begun there
    again = trainer("qwen2_5_vl", rows, config(tmp_path / "again", **options))
    kept = torch.load(state, weights_only=True)
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(DamagedFilesError, match=r"generation_state_0\.pt has"):
        again.train(resume_from_checkpoint=str(state.parent))
    (state.parent / "manifest.json").unlink()  # as one that a save after a bad row could leave
    torch.save(kept | {"about": kept["about"] | {"ranks": 4}}, state)
    with pytest.raises(GenerationStateError, match="by another training: ranks was 4 and is 1"):
        again.train(resume_from_checkpoint=str(state.parent))
    state.unlink()
    with pytest.raises(GenerationStateError, match=r"is missing\. step 1 is within a generation cycle, of which 1"):
        again.train(resume_from_checkpoint=str(state.parent))
    again.allow_partial_resume = True
    again.train(resume_from_checkpoint=str(state.parent))
    assert again.state.global_step == 2


@pytest.mark.parametrize(
    ("adapter", "said"),
    [({"inference_mode": True}, "peft_config.inference_mode"), (None, "no parameter of the model is trained")],
)
def test_a_model_that_cannot_be_trained_is_refused(
    adapter: dict[str, Any] | None, said: str, rows: Dataset, tmp_path: Path
) -> None:
    model, processor = build_tiny("qwen2_5_vl")
    model.requires_grad_(adapter is not None)
    peft = None if adapter is None else LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **adapter)
    with pytest.raises(RecipeError, match=said):
        ScaleGRPOTrainer(model, letters, config(tmp_path), rows, processing_class=processor, peft_config=peft).train()


@pytest.mark.parametrize(
    ("metric", "rewards", "said"),
    [
        ("rewrd", None, r"metric_for_best_model is 'rewrd' \(did you mean 'reward'\?\)"),
        ("rewards/accuracy/mean", None, None),
        ("completions/mean_length", None, None),
        ("rewards/conciseness/mean", None, "metric_for_best_model is 'rewards/conciseness/mean'"),
        ("anything", {"my_rewards:short": 1.0}, None),  # which may log what it likes
    ],
)
def test_a_metric_that_no_evaluation_of_grpo_measures_is_refused(
    metric: str, rewards: dict[str, float] | None, said: str | None
) -> None:
    arguments = {"metric_for_best_model": metric, "rewards": rewards, "eval_strategy": "steps"}
    with pytest.raises(RecipeError, match=said) if said else nullcontext():
        check_best("grpo", arguments)


def test_rewards_named_in_the_config_are_the_trainers_with_their_weights(tmp_path: Path) -> None:
    run = ScaleGRPOConfig(output_dir=str(tmp_path), rewards={"accuracy": 2.0, "conciseness": 0.5}, use_cpu=True)
    loaded = load_model("world-base")
    rows = to_prompts_dataset(load(n=8))
    found = ScaleGRPOTrainer(loaded.model, None, run, rows, processing_class=loaded.processor)
    assert found.reward_func_names == ["accuracy", "conciseness"]
    assert found.reward_weights.tolist() == [2.0, 0.5]


def test_the_better_direction_of_a_metric_is_known(tmp_path: Path) -> None:
    for metric, higher in (("malformed", False), ("reward", True), ("rewards/accuracy/mean", True), ("kl", False)):
        assert config(tmp_path, metric_for_best_model=metric).greater_is_better is higher, metric
    assert config(tmp_path, metric_for_best_model="kl", greater_is_better=True).greater_is_better


def test_an_evaluation_of_a_script_has_complete_groups(rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, per_device_eval_batch_size=6)
    run = trainer("qwen2", rows.remove_columns("images"), args, eval_dataset=rows.remove_columns("images"))
    with pytest.raises(RecipeError, match="per_device_eval_batch_size is 6, which is not a multiple of the 4"):
        run.evaluate()


def test_rewards_of_the_same_name_are_logged_and_watched_apart(rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, max_steps=1, gradient_accumulation_steps=1, max_completion_length=6)
    model, processor = build_tiny("qwen2")
    functions = [lambda **columns: letters(**columns), lambda completions, **_: [1.0] * len(completions)]
    run = ScaleGRPOTrainer(model, functions, args, rows.remove_columns("images"), processing_class=processor)
    run.train()
    logged = run.state.log_history[0]
    assert logged["rewards/<lambda>/mean"] == pytest.approx(logged["reward"] - 1)
    assert logged["rewards/<lambda>_2/mean"] == 1
    assert run.state.stateful_callbacks["generation_health"]["learned"]  # the first one varies


def test_tokenizer_and_config_are_the_user_s_own_afterwards(rows: Dataset, tmp_path: Path) -> None:
    """The same config then serves a trainer with other rewards, and the tokenizer pads where it did."""
    args = config(tmp_path, max_steps=1, rewards={"accuracy": 1.0, "format": 0.2, "conciseness": 0.1})
    model, processor = build_tiny("qwen2_5_vl")
    assert processor.tokenizer.padding_side == "right"
    named = ScaleGRPOTrainer(model, None, args, rows, processing_class=processor)
    assert args.reward_weights is None
    assert len(named.reward_weights) == 3
    with pytest.raises(ValueError, match="fewer than"):
        ScaleGRPOTrainer(model, None, args, rows.select([0]), processing_class=processor)
    assert args.reward_weights is None
    run = ScaleGRPOTrainer(model, letters, args, rows, processing_class=processor)
    run.train()
    assert run.reward_weights.tolist() == [1.0]
    assert processor.tokenizer.padding_side == "right"


def test_trained_models_carry_the_tag_of_this_package(rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2_5_vl", rows, config(tmp_path))
    assert {"trl", "grpo", "balanced-thinking"} <= set(run.model.model_tags)


def test_rewards_know_every_token_that_the_model_stops_at(tmp_path: Path) -> None:
    loaded = load_model("world-base")
    stops = [loaded.processor.tokenizer.eos_token_id, 3]
    loaded.model.generation_config.eos_token_id = stops
    run = ScaleGRPOConfig(output_dir=str(tmp_path), use_cpu=True)
    found = ScaleGRPOTrainer(loaded.model, None, run, to_prompts_dataset(load(n=8)), processing_class=loaded.processor)
    assert [reward.stops for reward in found.reward_funcs] == [set(stops)] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"credit": "token"}, "credit is 'token'"),
        ({"rewards": {"acuracy": 1.0}}, "did you mean 'accuracy'"),
        ({"think_budget": 0}, "think_budget is 0"),
        ({"schedule": "cosin", "credit": "segment"}, "did you mean 'cosine'"),
        ({"schedule": "adaptive", "credit": "segment"}, "GRPO does not have"),
        ({"reward_scorer": "numerik"}, "did you mean 'numeric'"),
        ({"reasoning_format": "boxd"}, "did you mean 'boxed'"),
        ({"rewards": {"accuracy": float("nan")}}, "rewards.accuracy is nan"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **options)
