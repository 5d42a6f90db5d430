"""`vllm serve` as a process of its own, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 300.0
_STOP_SECONDS = 30.0


@contextmanager
def vllm_server(model: Path, log: Path, *options: str) -> Iterator[str]:
    """The address of a vLLM that serves `model`, until the block ends. `options` are those of `vllm serve`."""
    command = ["vllm", "serve", model, "--max-model-len", "2048", "--enforce-eager", *options]
    with _serve(command, log, {"VLLM_CPU_KVCACHE_SPACE": "1"}) as address:
        yield f"{address}/v1"


@contextmanager
def trl_server(model: Path, log: Path, gpu: int) -> Iterator[str]:
    """The address of TRL's server, which takes new weights after each step of GRPO; on a GPU of its own."""
    command = ["trl", "vllm-serve", "--model", model, "--host", "127.0.0.1", "--max_model_len", "2048"]
    with _serve(command, log, {"CUDA_VISIBLE_DEVICES": str(gpu)}) as address:
        yield address


@contextmanager
def _serve(command: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    program, *words = command
    port = free_port()
    started = [Path(sys.executable).with_name(str(program)), *words, "--port", str(port)]
    changed = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", **environment}
    with log.open("w") as output:
        process = subprocess.Popen(started, stdout=output, stderr=output, env=changed, start_new_session=True)
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop_group(process)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Raises RuntimeError with the end of the log where the server ends, or does not answer in time."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    state = "did not answer in time" if process.poll() is None else f"ended with code {process.returncode}"
    raise RuntimeError(f"{address}: the server {state}:\n{log.read_text()[-4000:]}")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its workers."""
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
