"""SCALe in ms-swift (4.6), as a plug-in file of its own mechanism:

swift sft --external_plugins ms_swift_scale.py --loss_type scale --use_logits_to_keep false --model ... --dataset ...
"""

from swift import loss_map
from swift.loss import BaseLoss

from balanced_thinking.loss import Schedule, count_segments, segment_weights, weighted_cross_entropy
from balanced_thinking.segments import label_segments

SCHEDULE = Schedule("cosine", start=0.9, end=0.5)  # the weight of the thinking at the first step and at the last


class ScaleLoss(BaseLoss):
    def __init__(self, args, trainer):
        super().__init__(args, trainer)

        def count_batches(batches, device):
            """The counts of a step, or of an evaluation's batch, in the place of the number of tokens."""
            counts = count_segments([self.find_segments(batch["labels"]) for batch in batches])
            return trainer.accelerator.reduce(counts.to(device), "sum")

        trainer._get_num_items_in_batch = count_batches

    def find_segments(self, labels):
        return label_segments(labels, self.trainer.template.tokenizer, "think-answer")

    def __call__(self, outputs, labels, *, num_items_in_batch=None, loss_scale=None, **kwargs):
        segments, state = self.find_segments(labels), self.trainer.state
        weights = segment_weights(
            segments, state.global_step, state.max_steps, schedule=SCHEDULE, counts=num_items_in_batch
        )
        return weighted_cross_entropy(outputs.logits, labels, weights)


loss_map["scale"] = ScaleLoss
