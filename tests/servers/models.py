"""Tiny models that vLLM can serve, trained for a minute and exported, so that their answers end and differ."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from balanced_thinking.cli import main
from balanced_thinking.models.find import TinySize
from balanced_thinking.models.tiny import build_tiny

# The smallest head that vLLM's attention takes on a CPU has 32 dimensions.
SIZE = TinySize(hidden=128, layers=2, heads=4, vision_hidden=64, image_side=84)
DATA = {
    "qwen2": ["--data", "world-text", "--data_options.moves", "0", "--data_options.ratio", "8"],
    "llava_next": ["--data", "world", "--data_options.ratio", "5"],
    "gemma3": ["--data", "world", "--data_options.ratio", "5"],
}
STEPS = [
    *("--max_steps", "200", "--per_device_train_batch_size", "16", "--learning_rate", "2e-3", "--warmup_steps", "20"),
    *("--gradient_checkpointing", "false", "--save_strategy", "no", "--weighting", "uniform", "--packing", "true"),
    *("--data_options.n", "3200"),
]


def balanced(*words: str | Path) -> None:
    """One command of ours, in this process."""
    if code := main([str(word) for word in words]):
        raise RuntimeError(f"balanced {' '.join(map(str, words))} ended with code {code}")


def write_base(architecture: str, folder: Path) -> None:
    """An untrained model in the hub's layout, in which a picture tower's weights have one more level of names.

    transformers drops that level, and writes it again where it has read it; vLLM expects it.
    """
    model, processor = build_tiny(architecture, size=SIZE)
    if architecture == "gemma3":  # vLLM looks for Gemma's tokens of one to four line breaks
        processor.tokenizer.add_tokens(["\n" * count for count in range(1, 5)])
        model.resize_token_embeddings(len(processor.tokenizer), pad_to_multiple_of=8)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    named = {name.replace("vision_tower.", "vision_tower.vision_model.", 1): one for name, one in tensors.items()}
    save_file(named, file, metadata={"format": "pt"})


def train_and_export(architecture: str, folder: Path) -> Path:
    """The exported folder of a tiny model after 200 steps of plain SFT."""
    base, run, out = folder / "bases" / architecture, folder / "runs" / architecture, folder / architecture
    write_base(architecture, base)
    balanced("sft", "--model", base, *DATA[architecture], *STEPS, "--out", run)
    balanced("export", run, "--out", out)
    return out


def make_page_model(folder: Path) -> Path:
    """What stands for the hub's model on the page: one with pictures that vLLM serves without torchvision."""
    return train_and_export("llava_next", folder)
