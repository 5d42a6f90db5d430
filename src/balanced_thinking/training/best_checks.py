"""Checks of what the best checkpoint is chosen by, and of early stopping: no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.training.algorithms import DEFAULT_REWARDS

# What an evaluation of SFT measures -> whether higher is better.
EVALUATED = {
    "loss": False,
    "think_nll": False,
    "answer_nll": False,
    "think_accuracy": True,
    "answer_accuracy": True,
    "mean_token_accuracy": True,
    "accuracy": True,
    "malformed": False,
}
_EVALUATED_BY_GRPO = (
    *("loss", "reward", "reward_std", "frac_reward_zero_std", "entropy", "kl", "policy_loss", "aux_loss"),
    *("think_tokens", "answer_tokens", "malformed", "num_tokens", "cispo_clip_ratio"),
    *("completions/", "clip_ratio/", "sampling/", "tools/", "vespo/"),
)
_LOWER_IN_GRPO = ("kl", "frac_reward_zero_std", "completions/clipped_ratio", "policy_loss", "aux_loss")
_GENERATED = ("accuracy", "malformed")


def higher_is_better(metric: str | None) -> bool | None:
    """Whether a higher value of `metric_for_best_model` is better; None where it is none of ours.

    Of several data sets a metric has the set's name in front: `a_answer_nll`.
    """
    name = (metric or "").removeprefix("eval_")
    directions = EVALUATED | dict.fromkeys(_LOWER_IN_GRPO, False)
    ends = [known for known in directions if name == known or name.endswith(f"_{known}")]
    return directions[max(ends, key=len)] if ends else None


def check_metric_of_sets(metric: str | None, sets: Collection[str]) -> None:
    """Raises ValueError for a metric that each of several validation sets has: their values would be compared."""
    name = (metric or "").removeprefix("eval_")
    if len(sets) > 1 and name in EVALUATED:
        raise ValueError(
            f"metric_for_best_model is {metric!r}, but there are {len(sets)} validation sets, which all have it; name "
            f"one of: {', '.join(f'{one}_{name}' for one in sets)}"
        )


def check_evaluated(metric: str | None, sets: Collection[str], measured: Collection[str]) -> None:
    """Raises RecipeError for a metric that no evaluation of a trainer measures. A name that ends with `/` stands for
    all that begin with it; of several validation sets each has its own in front."""
    if metric is None:
        return
    name = metric.removeprefix("eval_")
    names = [f"{one}_{known}" for one in sets for known in measured] if sets else [*measured]
    if not any(name.startswith(known) if known.endswith("/") else name == known for known in names):
        raise RecipeError(
            f"metric_for_best_model is {metric!r}{did_you_mean(name, names)}; an evaluation measures: "
            f"{', '.join(names)}"
        )


def measured_by_sft(arguments: Mapping[str, Any]) -> list[str]:
    """The names of what an evaluation of SFT measures with these arguments."""
    generates, entropy = arguments.get("validation_generate"), arguments.get("log_entropy")
    found = [name for name in EVALUATED if generates or name not in _GENERATED]
    return [*found, *(("entropy", "think_entropy", "answer_entropy") if entropy else ())]


def measured_by_grpo(rewards: Collection[str]) -> list[str]:
    """As `measured_by_sft`, for GRPO with rewards of these names."""
    return [*_EVALUATED_BY_GRPO, *(f"rewards/{name}/{what}" for name in rewards for what in ("mean", "std"))]


def refuse_loss_as_default(args: Any) -> None:
    """Raises RecipeError where upstream would choose the best by the loss of GRPO, which is about 0 for every model."""
    scheduler = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    asks = ["load_best_model_at_end is true"] if args.load_best_model_at_end else []
    asks += ["lr_scheduler_type is reduce_lr_on_plateau"] if scheduler == "reduce_lr_on_plateau" else []
    asks += ["save_strategy is 'best'"] if args.save_strategy == "best" else []
    if asks and args.metric_for_best_model is None:
        raise RecipeError(
            f"{asks[0]}, but nothing says what is the best; set metric_for_best_model, such as reward (the loss of "
            "GRPO is about 0 for every model)"
        )


def refuse_no_evaluation(args: Any, steps: int, epochs: float) -> None:
    """Raises RecipeError where something needs an evaluation, and a training of so many steps makes none.

    transformers evaluates after the last step or epoch in any case, if `eval_delay` lets it.
    """
    strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
    needs = [
        f"{name} is {str(value).lower()}"
        for name in ("load_best_model_at_end", "early_stopping_patience")
        if (value := getattr(args, name, None))
    ]
    needs += ["save_strategy is 'best'"] if args.save_strategy == "best" else []
    if not needs or strategy == "no":
        return
    what, last = ("epoch", epochs) if strategy == "epoch" else ("step", steps)
    if args.eval_delay > last:
        raise RecipeError(
            f"{needs[0]}, but no evaluation comes before {what} {args.eval_delay:g} (eval_delay), and the training "
            f"ends after {what} {last:g}; lower eval_delay"
        )


def check_best(stage: str, arguments: Mapping[str, Any]) -> None:
    """Raises RecipeError for a metric that no evaluation measures, and for early stopping without evaluations."""
    metric = arguments.get("metric_for_best_model")
    generates = arguments.get("validation_generate") or 0
    evaluates = arguments.get("eval_strategy", "no") != "no"
    if generates and not evaluates:
        raise RecipeError(f"validation_generate is {generates}, but eval_strategy is 'no'; set it to steps or epoch")
    if stage == "sft" and metric is not None:
        _check_metric(str(metric), arguments, generates)
    rewards = arguments.get("rewards") or DEFAULT_REWARDS
    if stage == "grpo" and not any(":" in name for name in rewards):  # a reward of one's own may log what it likes
        check_evaluated(metric, (), measured_by_grpo(rewards))
    check_early_stopping(arguments)


def check_early_stopping(arguments: Mapping[str, Any]) -> None:
    """Raises RecipeError for early stopping without evaluations, and without a metric that must improve."""
    metric, patience = arguments.get("metric_for_best_model"), arguments.get("early_stopping_patience")
    if patience is None:
        if arguments.get("early_stopping_threshold"):
            raise RecipeError("early_stopping_threshold is set, but early_stopping_patience is not; set both")
        return
    if arguments.get("eval_strategy", "no") == "no":
        raise RecipeError(
            f"early_stopping_patience is {patience}, but eval_strategy is 'no', so that nothing is measured; set it to "
            "steps or epoch"
        )
    if metric is None and not arguments.get("load_best_model_at_end"):
        raise RecipeError(
            f"early_stopping_patience is {patience}, but nothing says what must improve; set metric_for_best_model, "
            "such as answer_nll"
        )


def _check_metric(metric: str, arguments: Mapping[str, Any], generates: int) -> None:
    name, known = metric.removeprefix("eval_"), [*EVALUATED]
    if name not in known and not (name.endswith("entropy") and arguments.get("log_entropy")):
        raise RecipeError(
            f"metric_for_best_model is {metric!r}{did_you_mean(name, known)}; an evaluation measures: "
            f"{', '.join(known)}"
        )
    if name in _GENERATED and not generates:
        raise RecipeError(
            f"metric_for_best_model is {metric!r}, for which answers must be generated; set validation_generate to a "
            "number of rows of the validation split"
        )
    asked, right = arguments.get("greater_is_better"), higher_is_better(name)
    if None not in (asked, right) and asked != right:
        raise RecipeError(
            f"greater_is_better is {str(asked).lower()}, but {name} is better the {'higher' if right else 'lower'} it "
            "is; leave greater_is_better out"
        )
