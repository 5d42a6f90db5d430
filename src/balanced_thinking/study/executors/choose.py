"""The executor that the options of a command ask for."""

from __future__ import annotations

import re

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.study.executors.interface import Executor
from balanced_thinking.study.executors.local import LocalExecutor
from balanced_thinking.study.executors.ray_executor import RayExecutor, RayOptions

EXECUTORS = ("local", "ray")
_ADDRESS = re.compile(r"auto|(ray://)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}", re.ASCII)


def choose_executor(name: str, options: RayOptions) -> Executor:
    """Raises RecipeError for an unknown name, and for options that the executor does not have."""
    if name == "ray":
        if options.address is not None and not _ADDRESS.fullmatch(options.address):
            raise RecipeError(
                f"--ray-address is {options.address!r}; expected auto (the cluster of this node), HOST:PORT such as "
                "10.0.0.1:6379, or ray://HOST:PORT for a cluster that this machine is no part of"
            )
        return RayExecutor(options)
    if name != "local":
        raise RecipeError(f"--executor is {name!r}; expected {' or '.join(EXECUTORS)}")
    given = [
        option
        for option, value in (
            ("--ray-address", options.address),
            ("--cpus-per-run", options.cpus_per_run),
            ("--gpus-per-run", options.gpus_per_run),
        )
        if value is not None
    ]
    if given:
        raise RecipeError(f"{', '.join(given)} is of --executor ray, and the executor is local; add --executor ray")
    return LocalExecutor()
