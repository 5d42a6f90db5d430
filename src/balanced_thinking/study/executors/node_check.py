"""What a node says before a study starts there: its code, whether it shares the study's folder, and faults of its runs.

python -m balanced_thinking.study.executors.node_check < request.json          its report as JSON
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.study.executors.code_version import describe_code
from balanced_thinking.study.executors.shared_folder import read_if_there, wait_until
from balanced_thinking.system.files import write_atomically

PROBE = ".shared-"  # begins the names of the files by which nodes recognise a shared folder
_PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class NodeRequest:
    """`root` is the study's folder and `plan` its YAML. `probe` is a file there with the text `token`, `answer` is the
    name of the file that this node writes. `expected` is the code that it must have."""

    root: str
    plan: str
    probe: str
    token: str
    answer: str
    expected: dict[str, str]


@dataclass(frozen=True)
class NodeReport:
    """`sees` and `writes` are what went wrong with the shared folder, empty where all is well."""

    code: dict[str, str]
    sees: str = ""
    writes: str = ""
    faults: tuple[str, ...] = ()


def report_node(request: NodeRequest) -> NodeReport:
    """Look at this node. Faults of the runs are looked for only where all else is well."""
    root, code = Path(request.root), describe_code()
    if not wait_until(lambda: read_if_there(root / request.probe) == request.token, [root], _PROBE_SECONDS):
        found = "no such folder" if not root.is_dir() else "a folder without what was written there just now"
        return NodeReport(code, sees=found)
    try:
        write_atomically(root / request.answer, request.token)
    except OSError as error:
        return NodeReport(code, writes=error.strerror or str(error))
    return NodeReport(code, faults=_find_faults(request) if code == request.expected else ())


def _find_faults(request: NodeRequest) -> tuple[str, ...]:
    from balanced_thinking.config.yaml import read_yaml
    from balanced_thinking.study.check import find_faults
    from balanced_thinking.study.load import make_study

    return tuple(find_faults(make_study(read_yaml(request.plan, "the study")), Path(request.root)))


def main() -> int:
    report = report_node(NodeRequest(**parse_json(sys.stdin.read())))
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
