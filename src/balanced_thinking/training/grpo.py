"""The GRPO stage: TRL's GRPOTrainer with this package's rewards, images and credit.

It adds:

- rewards by name, which read completions with the parser of training;
- rows with and without images in one batch, and each image opened and processed once per generation cycle;
- a warning while nothing can be learned from the completions;
- separate credit for thinking and answer, independent of length and scheduled as in SCALe;
- resuming at any step, with every tensor and the completions of an unfinished generation cycle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from trl import GRPOTrainer

from balanced_thinking.batch.messages import row_images
from balanced_thinking.batch.rendering import RowRenderer
from balanced_thinking.batch.turn_end import add_stop_token
from balanced_thinking.loss.schedules import SegmentWeights
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.models.template_variables import fix_template_variables
from balanced_thinking.segments import ANSWER, THINK, generated_segments, get_format
from balanced_thinking.training.best_checks import measured_by_grpo
from balanced_thinking.training.early_stopping import check_measured
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.grpo_inputs import (
    IMAGE_COUNTS,
    count_entries_by_row,
    exact_text,
    keep_images_encoded,
    open_images,
    process_each_image_once,
    without_empty_images,
)
from balanced_thinking.training.grpo_resume import GenerationState
from balanced_thinking.training.health import Generation, count_generation
from balanced_thinking.training.memory_shortage import BatchShape
from balanced_thinking.training.parsed_reward import ParsedReward
from balanced_thinking.training.reference_state import ReferenceState
from balanced_thinking.training.reward_watch import RewardWatch, refuse_nonfinite_generation
from balanced_thinking.training.rewards import make_rewards
from balanced_thinking.training.safety import SafeTrainer
from balanced_thinking.training.sample_order import EpochSeededSampler, order_seed, refuse_no_generation
from balanced_thinking.training.sft_config import refuse_other_config
from balanced_thinking.training.trained_parameters import refuse_lost_parts, refuse_unusable_adapters

_ROW_IDS = "row_ids"  # in TRL's batches, which their forward does not read


class ScaleGRPOTrainer(ReferenceState, GenerationState, SafeTrainer, GRPOTrainer):
    """TRL's GRPOTrainer on the rows of `to_prompts_dataset`: prompt, images, answer, choices and alternatives.

    `reward_funcs`, as in TRL, replace the named rewards of the config. With `beta` above 0 the reference model is at
    `model.config._name_or_path`; for an adapter it is the base. So start from a saved checkpoint.
    """

    _tag_names = ("trl", "grpo", "balanced-thinking")
    chat_template_kwargs: dict[str, Any]
    reward_funcs: list[Any]
    reward_func_names: list[str]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: ScaleGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        args = ScaleGRPOConfig() if args is None else args
        refuse_other_config(args, ScaleGRPOConfig)
        refuse_unusable_adapters(model, kwargs.get("peft_config"))
        refuse_lost_parts(model, args, kwargs.get("peft_config"))
        given = args.reward_weights
        if reward_funcs is None:
            if given is not None:
                raise ValueError(
                    f"reward_weights is {given}, but no reward_funcs are given; set rewards: {{name: weight}}"
                )
            reward_funcs = _named_rewards(args, processing_class)
            assert args.rewards is not None  # set by the config
            args.reward_weights = list(map(float, args.rewards.values()))
        if processing_class is not None:
            add_stop_token(model, processing_class)  # TRL reads the model's stops when it is constructed
        try:
            super().__init__(
                model,
                reward_funcs,
                args,
                keep_images_encoded(train_dataset),
                keep_images_encoded(eval_dataset),
                processing_class=processing_class,
                **kwargs,
            )
        finally:
            args.reward_weights = given  # TRL has read it; the config may serve a trainer with other rewards
        self.reward_func_names = name_apart(self.reward_func_names)
        refuse_no_generation(self.train_dataset, args, args.generation_batch_size)
        if all(isinstance(reward, ParsedReward) for reward in self.reward_funcs):  # others may log what they like
            check_measured(self, measured_by_grpo(self.reward_func_names))
        variables = {k: v for k, v in self.chat_template_kwargs.items() if k != "processor_kwargs"}
        if variables:
            fix_template_variables(self.processing_class, variables)
        self._render_as_elsewhere()
        self.renderer = RowRenderer(self.processing_class, args.reasoning_format)
        for reward in self.reward_funcs:
            if isinstance(reward, ParsedReward):  # a model may stop at more tokens than its tokenizer's
                reward.stops.update(self.eos_token_ids)
                reward.renderer = self.renderer
        self.format, self.credit_schedule = get_format(args.reasoning_format), args.credit_schedule()

    def _render_as_elsewhere(self) -> None:
        """Have TRL render and tokenize prompts as SFT and evaluation do."""
        if takes_pictures(self.processing_class):
            # As in training and evaluation: no special token that the chat template did not write. TRL wants lists
            # without padding, but Pixtral's processor makes tensors and Gemma 4's pads unless it is asked not to.
            asked = {"add_special_tokens": False, "padding": False, "return_tensors": None}
            exact = {"processor_kwargs": asked}
            self.chat_template_kwargs = exact | self.chat_template_kwargs

    def _get_train_sampler(self, dataset: Any = None) -> EpochSeededSampler:
        return EpochSeededSampler(
            self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=order_seed(self.args),
        )

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        self.args.refuse_split_groups()
        return super().get_eval_dataloader(*args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["id", "prompt", "image", "images", "answer", "choices", "alternatives"]

    def _generate_and_score_completions(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for row in inputs:  # raises RowError for special tokens, and where the template refuses the messages
            named = {"id": row.get("id", "?"), "prompt": row["prompt"], "images": row_images(row)}
            self.renderer.render_prompt(named)
        self._note_generation(len(inputs))
        opened: dict[Any, Any] = {}
        with process_each_image_once(self.processing_class), exact_text(self._tokenizer):
            output = super()._generate_and_score_completions([open_images(row, opened) for row in inputs])
        output[_ROW_IDS] = _list_ids(inputs)  # TRL divides them among the micro-batches with the rest
        refuse_nonfinite_generation(output, output[_ROW_IDS], self.state.global_step + 1, self.accelerator)
        count_entries_by_row(output)
        mask_BT = output["completion_mask"].bool()
        used_B = mask_BT.any(1)
        # Truncated completions may be masked from the loss, but they were generated and are counted.
        written_BT = output["completion_ids"] != self._tokenizer.pad_token_id
        mask_BT = torch.where(mask_BT.any(1, keepdim=True), mask_BT, written_BT)
        completions = [ids[mask].tolist() for ids, mask in zip(output["completion_ids"], mask_BT, strict=True)]
        found = [
            generated_segments(ids, self._tokenizer, self.format, self._find_opened(row))
            for ids, row in zip(completions, inputs, strict=True)
        ]
        self._log_segments(found)
        if self.model.training:
            self._watch_health(found, used_B, torch.tensor([len(ids) <= 1 for ids in completions]))
        if self.args.credit == "segment":
            shares_BT = credit_shares([segments for _, segments in found], mask_BT.shape[1], *self._credit_weights())
            output["advantages"] = output["advantages"].unsqueeze(1) * shares_BT.to(output["advantages"])
        return output

    def _note_generation(self, completions: int) -> None:
        """For messages about memory: all completions of a generation are written at once, whatever the micro-batch."""
        args = self.args
        self._note(
            f"generating {completions} completions for step {self.state.global_step + 1}",
            None,
            f"Set a smaller steps_per_generation (is {args.steps_per_generation}), num_generations (is "
            f"{self.num_generations}) or max_completion_length (is {args.max_completion_length:,} tokens)",
        )

    def _calculate_rewards(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        functions = self.reward_funcs
        watch = RewardWatch(functions, self.reward_func_names, _list_ids(inputs))
        self.reward_funcs = watch.functions
        try:
            rewards = super()._calculate_rewards(inputs, *args, **kwargs)
        finally:
            self.reward_funcs = functions
        watch.note_models(self.reward_func_names, rewards, functions)
        watch.refuse_found(self.state.global_step + 1, self.accelerator.num_processes)
        return rewards

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        ids = inputs.get(_ROW_IDS, ())
        if self.model.training:
            self._notes.rows.append(lambda: ids)
            tokens = inputs["prompt_ids"].shape[1] + inputs["completion_ids"].shape[1]
            self._note(f"training in {self._place()}", BatchShape(len(ids), tokens, ids=ids))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _find_opened(self, row: Mapping[str, Any]) -> str:
        return self.renderer.find_opened(row["prompt"], row_images(row))

    def _credit_weights(self) -> SegmentWeights:
        return self.credit_schedule.weights(self.state.global_step / max(1, self.state.max_steps - 1))

    def _log_segments(self, found: Sequence[tuple[Any, Sequence[int]]]) -> None:
        rows = [[s.count(THINK), s.count(ANSWER), parsed.answer is None] for parsed, s in found]
        means = self.accelerator.gather(torch.tensor(rows, dtype=torch.float32, device=self.accelerator.device)).mean(0)
        mode = "train" if self.model.training else "eval"
        for name, value in zip(("think_tokens", "answer_tokens", "malformed"), means.tolist(), strict=True):
            self._metrics[mode][name].append(value)

    def _watch_health(self, found: Sequence[tuple[Any, Any]], used_B: torch.Tensor, empty_B: torch.Tensor) -> None:
        gathered = self.accelerator.gather(torch.stack([used_B, empty_B.to(used_B.device)], dim=1))
        rewards = {name: list(values)[-len(gathered) :] for name, values in self._logs["rewards"].items()}
        gathered = gathered[-min(map(len, rewards.values())) :]  # TRL keeps no more than a generation batch
        weights = dict(zip(self.reward_func_names, self.reward_weights.tolist(), strict=True))
        generation = Generation(
            rewards=rewards,
            weights=weights,
            group_size=self.num_generations,
            used=gathered[:, 0].tolist(),
            clipped=self._metrics["train"]["completions/clipped_ratio"][-1],
            empty=float(gathered[:, 1].float().mean()),
            problems=Counter(problem for parsed, _ in found for problem in parsed.problems),
        )
        count_generation(self.state, generation)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop(IMAGE_COUNTS, None)  # TRL does not know it
        if self._doing.startswith("generating"):
            self._note(f"scoring the completions of step {self.state.global_step + 1}")
        count_entries_by_row(kwargs)
        images = getattr(self.processing_class, "image_processor", None)
        counted = IMAGE_COUNTS in getattr(images, "model_input_names", ())
        counts = iter(kwargs.get("num_images") or ())

        def forward(**inputs: Any) -> Any:
            if counted and "pixel_values" in inputs:  # TRL passes the rows in order, a part of them at a time
                inputs[IMAGE_COUNTS] = list(islice(counts, len(inputs["input_ids"])))
            return model(**without_empty_images(inputs))

        return super()._get_per_token_logps_and_entropies(forward, *args, **kwargs)

    def _tokenize_prompts(self, prompts: list) -> tuple[Any, Any, Any]:
        ids, images, fields = super()._tokenize_prompts(prompts)
        # TRL writes None for a row without images, but no processor accepts None beside rows with images.
        return ids, None if images is None else [row or [] for row in images], fields


def name_apart(names: Sequence[str]) -> list[str]:
    """The names of rewards, later ones numbered where they are equal: TRL and we log each reward by its name."""
    return [f"{one}_{before + 1}" if (before := names[:place].count(one)) else one for place, one in enumerate(names)]


def _list_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(row.get("id", "?")) for row in rows]


def _named_rewards(args: ScaleGRPOConfig, processor: Any) -> list[ParsedReward]:
    if processor is None:
        raise ValueError("named rewards need a tokenizer: pass processing_class, or your own reward_funcs")
    names = list(args.rewards or ())
    return make_rewards(names, processor, args.reasoning_format, args.reward_scorer, args.think_budget)


def credit_shares(segments: Sequence[Sequence[int]], length: int, think: float, answer: float) -> torch.Tensor:
    """(B, length): the factor of each token's advantage, which is its segment's weight divided by the segment's share.

    The factors of a completion's n tokens sum to n, so its weight among others does not change. A completion with only
    one segment keeps the plain advantage.
    """
    rows = []
    for row in segments:
        thoughts, answers = row.count(THINK), row.count(ANSWER)
        per_think = think * len(row) / thoughts if thoughts and answers else 1.0
        per_answer = answer * len(row) / answers if thoughts and answers else 1.0
        padding = [0.0] * (length - len(row))
        rows.append([per_think if segment == THINK else per_answer for segment in row] + padding)
    return torch.tensor(rows)
