"""Train the embedded base with SCALe-SFT for a few steps."""

import tempfile

from balanced_thinking import ScaleSFTConfig, ScaleSFTTrainer, load_data, load_model, to_dataset

base = load_model("world-base")  # 1.1 million parameters; or "Qwen/Qwen2.5-VL-3B-Instruct"
examples = load_data("world", options={"n": 32, "ratio": 5}).examples  # or load_data("my.jsonl")

args = ScaleSFTConfig(
    tempfile.mkdtemp(),
    schedule="cosine",  # along which the answer gains weight; this and the four weights are the default
    think_weight_start=1.0,
    think_weight_end=1.0,
    answer_weight_start=0.1,
    answer_weight_end=1.0,
    packing=True,  # samples share a row without padding, pictures included
    max_steps=4,
    per_device_train_batch_size=8,
    learning_rate=2e-3,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
# It is TRL's SFTTrainer: callbacks, PEFT and every argument work as there.
trainer = ScaleSFTTrainer(base.model, args, train_dataset=to_dataset(examples), processing_class=base.processor)
trainer.train()

for row in trainer.state.log_history:
    if "w_think" in row:
        print(
            f"step {row['step']}: weights {row['w_think']:.2f} + {row['w_answer']:.2f}, "
            f"nats per token: think {row['think_nll']:.2f}, answer {row['answer_nll']:.2f}"
        )
