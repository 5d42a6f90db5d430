"""What every HTML page of ours shares: one file, no script from outside, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined


def read_asset(package: str, name: str) -> str:
    """The text of a template, style sheet or script that is installed beside a package's modules."""
    return (files(package) / name).read_text(encoding="utf-8")


def template_environment(package: str) -> Environment:
    """Templates of a package, in which every value is escaped and a missing one is an error."""
    return Environment(
        loader=FunctionLoader(lambda name: read_asset(package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def content_security_policy(css: str, js: str) -> str:
    """Forbids everything except embedded pictures and exactly this style sheet and this script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(css)}'; script-src '{_digest(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def data_uri(data: bytes, kind: str = "png") -> str:
    """Encoded picture data as a URI; `kind` is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
