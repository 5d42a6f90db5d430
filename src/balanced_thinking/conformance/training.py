"""Is a step what the definition says, however its batch is cut, padded or packed?"""

from __future__ import annotations

from balanced_thinking.conformance.steps import Step, reference_step, relative_error, take_step, unlike_names
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import PropertyError, SkippedError
from balanced_thinking.training.sft_config import ScaleSFTConfig

_LOSS, _GRADIENT = 1e-6, 1e-4  # largest relative errors that are rounding


class TrainingChecks:
    """Checks that compare with the step of one micro-batch, which is taken once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._one_batch: Step | None = None

    def one_batch(self) -> Step:
        self._one_batch = self._one_batch or take_step(self.subject, len(self.subject.examples))
        return self._one_batch

    def check_loss(self) -> str:
        """Loss and gradient are those of the definition."""
        folder = str(self.subject.work / "steps")
        args = ScaleSFTConfig(output_dir=folder, report_to="none", use_cpu=True, weighting="scale")
        weights = args.weight_schedule().weights(0.0, None)
        return _compare_steps(self.one_batch(), reference_step(self.subject, *weights), "the reference")

    def check_accumulation(self) -> str:
        """8 x 1 = 2 x 4 = 1 x 8."""
        rows = len(self.subject.examples)
        figures = []
        for batch in (rows // 2, 1):
            name = f"{rows // batch} x {batch}"
            figures.append(f"{name}: {_compare_steps(take_step(self.subject, batch), self.one_batch(), f'1 x {rows}')}")
        return "; ".join(figures)

    def check_packing(self) -> str:
        """Samples that share rows give the loss and the gradient of padded ones."""
        packed = take_step(self.subject, len(self.subject.examples), packing=True)
        if not packed.packed:
            raise SkippedError("the samples of a row might see each other, so training pads instead")
        return _compare_steps(packed, self.one_batch(), "padded rows")


def _compare_steps(found: Step, expected: Step, name: str) -> str:
    """The relative errors in words. Raises PropertyError where one is too large."""
    if lone := unlike_names(found.gradients, expected.gradients):
        raise PropertyError(f"{len(lone)} parameters have a gradient on one side only, {lone[0]} for one")
    loss = abs(found.loss - expected.loss) / abs(expected.loss)
    gradient = relative_error(found.gradients, expected.gradients)
    text = f"loss differs by {loss:.0e}, gradient by {gradient:.0e} (relative)"
    if not (loss <= _LOSS and gradient <= _GRADIENT):
        raise PropertyError(
            f"{text}, compared with {name} (loss {found.loss:.6f}, expected {expected.loss:.6f}); at most "
            f"{_LOSS:.0e} and {_GRADIENT:.0e} are rounding"
        )
    return text
