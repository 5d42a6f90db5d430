"""The options of SFT, TRL's and ours. What cannot be exact is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import Dataset, IterableDataset
from peft import PeftModel
from trl import SFTConfig

from balanced_thinking.training.best_checks import check_early_stopping, check_metric_of_sets, higher_is_better
from balanced_thinking.training.config_checks import check_after_upstream, check_before_upstream
from balanced_thinking.training.options import ScaleSFTOptions
from balanced_thinking.training.safety import set_device_defaults
from balanced_thinking.training.trained_parameters import refuse_unusable_adapters


@dataclass
class ScaleSFTConfig(ScaleSFTOptions, SFTConfig):
    """TRL's `SFTConfig` with the options of SCALe. All of TRL's options work as before, except what cannot be exact."""

    # These may be JSON.
    _VALID_DICT_FIELDS: ClassVar = [*SFTConfig._VALID_DICT_FIELDS, "chat_template_kwargs", "reasoning_format"]

    def __post_init__(self) -> None:
        check_before_upstream("sft", self)
        set_device_defaults(self)
        # transformers takes every metric that is no loss for better when it is higher.
        known: bool | None = getattr(self, "greater_is_better", None)
        self.greater_is_better = higher_is_better(self.metric_for_best_model) if known is None else known
        super().__post_init__()
        check_after_upstream("sft", self)
        self.check_options()
        self._refuse_inexact()
        self._refuse_clipping_of_matched_norm()
        check_early_stopping(vars(self))

    def _refuse_clipping_of_matched_norm(self) -> None:
        matched = self.match_gradient_norm
        if matched is not None and 0 < self.max_grad_norm < matched:
            raise ValueError(
                f"match_gradient_norm is {matched}, but max_grad_norm {self.max_grad_norm} would clip that norm; set "
                f"max_grad_norm=0, or match_gradient_norm to at most {self.max_grad_norm}"
            )

    def _refuse_inexact(self) -> None:
        completions = "only the completion is trained on"
        refused = {
            "label_smoothing_factor": (self.label_smoothing_factor != 0, "it changes the nll under the weights; set 0"),
            "loss_type": (self.loss_type != "nll", "our head computes the nll; set nll, and token_gate=dft for DFT"),
            "eval_packing": (self.eval_packing is not None, "evaluation packs as training does; set only packing"),
            "padding_free": (self.padding_free, "TRL's collator has no segments; set packing=True instead"),
            "assistant_only_loss": (self.assistant_only_loss, f"{completions}; set false"),
            "completion_only_loss": (self.completion_only_loss is False, f"{completions}; leave it out"),
            "use_liger_kernel": (self.use_liger_kernel, "it replaces the forward of the weighted head; set false"),
            "auto_find_batch_size": (self.auto_find_batch_size, "steps would shrink; a recipe has auto_batch for it"),
            "shuffle_dataset": (
                self.shuffle_dataset,
                "the sampler shuffles; set false, and shuffle a stream itself",
            ),
            "router_aux_loss_coef": (bool(self.router_aux_loss_coef), "it is a mean per micro-batch; set 0"),
        }
        for name, (found, why) in refused.items():
            if found:
                raise ValueError(f"{name}={getattr(self, name)!r} cannot be exact with segment weights: {why}")


def refuse_other_config(args: Any, expected: type) -> None:
    """Raises TypeError for the config of another trainer, such as TRL's own."""
    if not isinstance(args, expected):
        raise TypeError(
            f"args is a {type(args).__name__}; expected a {expected.__name__}, which takes the same options and more"
        )


def refuse_unusable_arguments(model: Any, args: Any, data_collator: Any, arguments: Mapping[str, Any]) -> None:
    """Raises for what a trainer with segments cannot be constructed from.

    TypeError for the config of another trainer; ValueError for the other arguments of TRL's trainer, a model that has
    an adapter already, and what this machine or the data cannot give.
    """
    refuse_other_config(args, ScaleSFTConfig)
    of_loading = {"model_init_kwargs": args.model_init_kwargs}
    of_loading["quantization_config"] = arguments.get("quantization_config")
    for name, value in of_loading.items():
        if value and not isinstance(model, str):
            raise ValueError(
                f"{name} is set, but would do nothing: the model is loaded already; leave it out, or pass the model's "
                "name"
            )
    for name, why in (("compute_loss_func", "replaces the weighted loss"), ("formatting_func", "hides the segments")):
        if arguments.get(name) is not None:
            raise ValueError(f"{name} {why}; leave it out, or use trl.SFTTrainer")
    for name, adapter in (("peft_config", arguments.get("peft_config")), ("model", _own_adapter(model))):
        if getattr(adapter, "is_prompt_learning", False):
            raise ValueError(
                f"{name} adds virtual tokens to the prompt, which have no segment; use LoRA or full fine-tuning"
            )
        if weight := getattr(adapter, "orth_reg_weight", 0):  # of AdaLoRA
            raise ValueError(
                f"orth_reg_weight of {name} is {weight}: PEFT adds this term to the loss of every micro-batch, so a "
                "step would depend on how it is divided; set orth_reg_weight=0"
            )
    refuse_unusable_adapters(model, arguments.get("peft_config"))
    if isinstance(sets := arguments.get("eval_dataset"), Mapping):
        check_metric_of_sets(args.metric_for_best_model, sets)
    refuse_offloading_without_gpu(args)
    if data_collator is not None and args.packing:
        raise ValueError("packing=True works in our own collator only; leave packing or data_collator out")
    if type(data_collator).__module__.partition(".")[0] in ("trl", "transformers"):
        raise ValueError(
            f"data_collator is a {type(data_collator).__name__}, whose batches have no segment_ids; leave it out: the "
            "rows are tokenized by our own"
        )
    _refuse_other_columns(arguments if data_collator is None else {})


def _refuse_other_columns(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for data sets of which our collator reads no column, such as texts or token ids."""
    sets = arguments.get("eval_dataset")
    sets = sets if isinstance(sets, Mapping) else {"": sets}
    named = {"train_dataset": arguments.get("train_dataset")}
    named |= {f"eval_dataset {key}".strip(): one for key, one in sets.items()}
    for name, data in named.items():
        if not isinstance(data, Dataset | IterableDataset):
            continue
        columns = data.column_names or [*next(iter(data), {})]
        if columns and "messages" not in columns and not {"prompt", "completion"} <= {*columns}:
            raise ValueError(
                f"{name} has the columns {', '.join(columns)}; expected `prompt` and `completion`, or `messages`, "
                "because a completion is what is trained on; `map` the rows to these"
            )


def _own_adapter(model: Any) -> Any:
    """The configuration of the adapter that a model has already; None without one."""
    return getattr(model, "active_peft_config", None) if isinstance(model, PeftModel) else None


def refuse_offloading_without_gpu(args: Any) -> None:
    """Raises ValueError where TRL, which offloads activations from a GPU, would fail for want of one."""
    if getattr(args, "activation_offloading", False) and args.device.type == "cpu":
        raise ValueError(
            "activation_offloading is true, but it moves activations from a GPU to the CPU's memory, and the device "
            "here is a CPU; leave it out, or use gradient_checkpointing, which saves memory on every device"
        )
