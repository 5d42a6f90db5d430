"""The loss in transformers' Trainer, through `compute_loss_func`, exact under gradient accumulation."""

import tempfile

from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from balanced_thinking import load_model
from balanced_thinking.loss import Schedule, count_segments, segment_weights, weighted_cross_entropy
from balanced_thinking.segments import label_segments

loaded = load_model("tiny:qwen2")  # or any model and tokenizer of transformers
model, tokenizer = loaded.model, loaded.processor


def encode(question: str, think: str, answer: str) -> dict[str, list[int]]:
    prompt = tokenizer(f"Question: {question}\n").input_ids
    completion = tokenizer(f"<think>{think}</think><answer>{answer}</answer>{tokenizer.eos_token}").input_ids
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


class ScaleTrainer(Trainer):
    def _get_num_items_in_batch(self, batches, device):
        """The counts of a step, or of an evaluation's batch, in the place of the number of tokens."""
        counts = count_segments([label_segments(batch["labels"], tokenizer) for batch in batches])
        return self.accelerator.reduce(counts.to(device), "sum")


SCHEDULE = Schedule("cosine", start=0.9, end=0.5)  # the weight on the reasoning


def scale_loss(outputs, labels, num_items_in_batch=None):
    segments, state = label_segments(labels, tokenizer), trainer.state
    progress = (state.global_step, state.max_steps)
    weights = segment_weights(segments, *progress, schedule=SCHEDULE, counts=num_items_in_batch)
    return weighted_cross_entropy(outputs.logits, labels, weights)


trainer = ScaleTrainer(
    model,
    TrainingArguments(
        tempfile.mkdtemp(),
        max_steps=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=2e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=[encode(f"How many of {n} tiles are red?", "red tile . " * n, str(n)) for n in range(1, 9)],
    data_collator=DataCollatorForSeq2Seq(tokenizer),
    compute_loss_func=scale_loss,
)
trainer.train()
for row in trainer.state.log_history[:-1]:
    print(f"step {row['step']}: loss {row['loss']:.3f} nats")
