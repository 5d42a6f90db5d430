"""Shared by all HTML pages: one file, no script from outside, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined


def read_asset(package: str, name: str) -> str:
    """The text of a template, style sheet or script that is installed in a package's folder."""
    return (files(package) / name).read_text(encoding="utf-8")


@cache
def template_environment(package: str) -> Environment:
    """Jinja environment for a package's templates: every value is escaped, a missing value is an error. It
    keeps the templates that it has compiled."""
    return Environment(
        loader=FunctionLoader(lambda name: read_asset(package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def content_security_policy(css: str, js: str) -> str:
    """A policy that allows only embedded pictures, exactly this style sheet and exactly this script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_csp_hash(css)}'; script-src '{_csp_hash(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def data_uri(data: bytes, kind: str = "png") -> str:
    """A picture's encoded bytes as a `data:` URI; `kind` is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
