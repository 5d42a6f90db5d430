"""The loss of `balanced sft` in a bare PyTorch loop, from labels that you already have."""

import torch

from balanced_thinking import load_model
from balanced_thinking.loss import Schedule, count_segments, segment_weights, weighted_cross_entropy
from balanced_thinking.segments import label_segments

loaded = load_model("tiny:qwen2")  # or any model and tokenizer of transformers
model, tokenizer = loaded.model, loaded.processor


def encode(question: str, think: str, answer: str) -> dict[str, torch.Tensor]:
    """One row as any loop has it: the prompt is not supervised, so its labels are -100."""
    prompt = tokenizer(f"Question: {question}\n").input_ids
    completion = tokenizer(f"<think>{think}</think><answer>{answer}</answer>{tokenizer.eos_token}").input_ids
    labels = [-100] * len(prompt) + completion
    return {"input_ids": torch.tensor([prompt + completion]), "labels": torch.tensor([labels])}


rows = [encode(f"How many of {n} tiles are red?", "red tile . " * n, str(n)) for n in range(1, 9)]
schedule = Schedule("cosine", start=0.9, end=0.5)  # the weight on the reasoning; left out: that of `balanced sft`
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
steps = 4
for step in range(steps):
    micro_batches = rows  # 8 micro-batches of one row: they are one optimizer step
    segments = [label_segments(batch["labels"], tokenizer) for batch in micro_batches]
    counts, loss = count_segments(segments), 0.0
    for batch, ids in zip(micro_batches, segments, strict=True):
        weights = segment_weights(ids, step, steps, schedule=schedule, counts=counts)
        part = weighted_cross_entropy(model(input_ids=batch["input_ids"]).logits, batch["labels"], weights)
        part.backward()
        loss += part.item()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1}: loss {loss:.3f} nats")
