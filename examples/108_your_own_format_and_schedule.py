"""A reasoning format and a schedule of your own."""

from balanced_thinking import Schedule, parse, render
from balanced_thinking.segments import ReasoningFormat

# A format is its tags. In a recipe the same is a mapping: `reasoning_format: {think_open: "[why]", ...}`.
why = ReasoningFormat("why", think_open="[why]", think_close="[/why]", answer_open="[so]", answer_close="[/so]")
text = render("Two reds and one blue.", "3", why)
print(text.replace("\n", " "))
print(parse(text, why).think, "->", parse(text, why).answer)
print("problems of a cut-off text:", ", ".join(parse("[why]Two reds", why).problems))


class Stairs(Schedule):
    """Four equal steps. A schedule gives the think weight at `progress`, 0 at the first step and 1 at the last."""

    def think_weight(self, progress: float, moved_at: float | None = None) -> float:
        return self.start + (self.end - self.start) * min(int(4 * progress), 3) / 3


# The built-in schedules and ours at five points of the training. A trainer takes it as `trainer.schedule = Stairs()`.
schedules = {name: Schedule(name, start=0.9, end=0.1) for name in ("cosine", "linear", "step", "constant")}
schedules |= {"held": Schedule("cosine", start=0.9, end=0.1, hold_start=0.5), "stairs": Stairs(start=0.9, end=0.1)}
for name, schedule in schedules.items():
    print(f"{name:>8}: " + " ".join(f"{schedule.think_weight(u):.2f}" for u in (0, 0.25, 0.5, 0.75, 1)))
