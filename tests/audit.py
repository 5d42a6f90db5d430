"""Reads the result of pip-audit: an audit that could not look packages up has not passed.

python -m tests.audit audit.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_MOST_UNKNOWN = 0.1  # of the packages: this one, and builds that the index does not have, such as torch for a CPU


def read_audit(text: str) -> tuple[str, int]:
    """What to say of pip-audit's JSON, and the exit code."""
    try:
        packages = json.loads(text)["dependencies"]
        weak = [(one["name"], [found["id"] for found in one["vulns"]]) for one in packages if one.get("vulns")]
        unknown = [one["name"] for one in packages if "skip_reason" in one]
    except (ValueError, KeyError, TypeError):
        return "audit: pip-audit gave no result, so nothing was checked: is the database of advisories reachable?", 1
    lines = [f"audit: {name} has {', '.join(ids)}: upgrade it, or see the advisory" for name, ids in weak]
    if len(unknown) > _MOST_UNKNOWN * len(packages) or not packages:
        lines.append(
            f"audit: {len(unknown)} of {len(packages)} packages could not be checked, because the database of "
            "advisories does not know them: is it reachable?"
        )
        return "\n".join(lines), 1
    checked = len(packages) - len(unknown)
    return "\n".join([*lines, f"audit: {checked} packages checked, {len(weak)} with known vulnerabilities"]), bool(weak)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    said, code = read_audit(place.read_text() if place.is_file() else "")
    print(said)
    sys.exit(code)
