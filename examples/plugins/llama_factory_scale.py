"""SCALe in LLaMA-Factory (0.9.5), which has no plug-ins for losses: this file starts it with a trainer of its own.

python llama_factory_scale.py train_sft.yaml        in the place of: llamafactory-cli train train_sft.yaml
"""

from llamafactory.train import tuner
from llamafactory.train.sft import workflow

from balanced_thinking.loss import Schedule, count_segments, segment_weights, weighted_cross_entropy
from balanced_thinking.segments import label_segments

SCHEDULE = Schedule("cosine", start=0.9, end=0.5)  # the weight of the thinking at the first step and at the last


class ScaleTrainer(workflow.CustomSeq2SeqTrainer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.compute_loss_func = self.scale_loss

    def find_segments(self, labels):
        processor = self.processing_class
        return label_segments(labels, getattr(processor, "tokenizer", processor), "think-answer")

    def _get_num_items_in_batch(self, batches, device):
        """The counts of a step, or of an evaluation's batch, in the place of the number of tokens."""
        counts = count_segments([self.find_segments(batch["labels"]) for batch in batches])
        return self.accelerator.reduce(counts.to(device), "sum")

    def scale_loss(self, outputs, labels, num_items_in_batch=None):
        segments, state = self.find_segments(labels), self.state
        weights = segment_weights(
            segments, state.global_step, state.max_steps, schedule=SCHEDULE, counts=num_items_in_batch
        )
        return weighted_cross_entropy(outputs.logits, labels, weights)


workflow.CustomSeq2SeqTrainer = ScaleTrainer

if __name__ == "__main__":
    tuner.run_exp()
