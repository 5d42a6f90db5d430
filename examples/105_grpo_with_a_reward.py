"""GRPO with the named rewards and one of your own."""

import tempfile

from balanced_thinking import ScaleGRPOConfig, ScaleGRPOTrainer, load_data, load_model, to_prompts_dataset
from balanced_thinking.training.rewards import REWARDS, Rollout


def one_word(rollout: Rollout) -> float:
    """1 for an answer of one word. A reward is a function of one parsed completion."""
    return float(rollout.parsed.answer is not None and len(rollout.parsed.answer.split()) == 1)


REWARDS["one_word"] = one_word

base = load_model("world-base")  # it answers at once, so its format is `direct`; else start from a trained run
boards = load_data("world", options={"n": 8, "style": "direct"}).examples
args = ScaleGRPOConfig(
    tempfile.mkdtemp(),
    reasoning_format="direct",
    rewards={"accuracy": 1.0, "format": 0.2, "one_word": 0.1},
    num_generations=4,
    per_device_train_batch_size=8,
    max_completion_length=16,
    max_steps=2,
    learning_rate=1e-4,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
trainer = ScaleGRPOTrainer(
    base.model, args=args, train_dataset=to_prompts_dataset(boards), processing_class=base.processor
)
trainer.train()

for row in trainer.state.log_history:
    if "reward" in row:
        named = ", ".join(f"{name} {row[f'rewards/{name}/mean']:.2f}" for name in args.rewards)
        print(f"step {row['step']}: reward {row['reward']:.3f} ({named}), malformed {row['malformed']:.0%}")
