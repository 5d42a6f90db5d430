"""Runs a training of another framework in this process, and writes the loss of every optimizer step.

    python record.py swift LOSSES.json sft_arguments ...        python record.py llamafactory LOSSES.json run.yaml

Not imported by the suite: it belongs to the framework's own environment.
"""

import json
import runpy
import sys
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[2] / "examples" / "plugins"


def record_losses(losses):
    """Sum what Trainer.training_step returns over the micro-batches of each step, as it is: logs are rounded."""
    from transformers import Trainer

    original = Trainer.training_step

    def training_step(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        step = self.state.global_step
        losses[step] = losses.get(step, 0.0) + loss.item()
        return loss

    Trainer.training_step = training_step


def main(framework, out, *arguments):
    losses = {}
    record_losses(losses)
    if framework == "swift":
        from swift import sft_main

        sft_main([*arguments, "--external_plugins", str(PLUGINS / "ms_swift_scale.py"), "--loss_type", "scale"])
    else:
        sys.argv = ["llama_factory_scale.py", *arguments]
        runpy.run_path(str(PLUGINS / "llama_factory_scale.py"), run_name="__main__")
    Path(out).write_text(json.dumps([losses[step] for step in sorted(losses)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
