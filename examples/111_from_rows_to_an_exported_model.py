"""The whole way in Python: check rows, train an adapter, evaluate it, export it as a folder for other programs."""

import tempfile
from pathlib import Path

from peft import LoraConfig

from balanced_thinking import (
    Benchmark,
    ExportOptions,
    SampleOptions,
    ScaleSFTConfig,
    ScaleSFTTrainer,
    evaluate,
    export_model,
    load_data,
    load_model,
    to_dataset,
)

place = Path(tempfile.mkdtemp())
base = load_model("world-reasoner")  # or "Qwen/Qwen2.5-VL-3B-Instruct"
rows = load_data("world", options={"n": 16, "ratio": 10}, on_bad_row="drop")  # or load_data("my.jsonl", ...)
print(f"{len(rows.examples)} rows, {len(rows.bad_rows)} bad ones left out")

args = ScaleSFTConfig(
    str(place / "checkpoints"), max_steps=2, packing=True, save_strategy="no", report_to="none", disable_tqdm=True
)
lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
trainer = ScaleSFTTrainer(
    base.model, args, train_dataset=to_dataset(rows.examples), processing_class=base.processor, peft_config=lora
)
trainer.train()
trainer.save_model(place / "adapter")

items = Benchmark("world", options={"n": 8}, max_new_tokens=160)
found = evaluate(str(place / "adapter"), items, split="test", out=place / "eval")
print(f"{found.correct} of {found.n} right, {found.malformed} malformed")

# Merged, with processor, stop tokens and model card; plain transformers must answer two samples with the same tokens.
samples = SampleOptions(count=2, data="world", max_new_tokens=32)
exported = export_model(str(place / "adapter"), place / "served", ExportOptions(samples=samples))
print("exported:", *sorted(file.name for file in exported.folder.iterdir()))
print(exported.verification.describe())
