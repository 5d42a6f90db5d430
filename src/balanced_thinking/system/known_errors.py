"""Errors that a damaged file, a network or a disk can cause: each has its sentence.

The libraries are not imported here: an error can only come from one that is. What is missing here
reaches the last handler (`crash.py`).
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType

from balanced_thinking.system.text import shorten_text

_MOST = 2000  # characters of a message
_KILLED = "a process of this command was killed; it may have had no memory left"
_OWN_CODE = (
    "this code is not run: auto_map in the model's config.json and tokenizer_config.json names the files and classes "
    "that would be; use a model whose classes transformers has"
)
_DAMAGED = "a file is damaged or of another kind; download it or write it again"
_ANSWERED = "the network or a server failed; check the name and the connection, or use local files"
_FULL = "free some space, or choose another folder with --out; what is complete is kept, and the same command goes on"
_DISK: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: _FULL,
        errno.EDQUOT: _FULL,
        errno.EROFS: "choose a folder that can be written to with --out",
    }
)
# Module -> the error's name in it -> what to do.
_FOREIGN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "balanced_thinking.config.errors": {"BalancedThinkingError": ""},  # their messages name the cure
        "safetensors": {"SafetensorError": "a file of weights is damaged; download it or write it again"},
        "zipfile": {"BadZipFile": _DAMAGED, "LargeZipFile": _DAMAGED},
        "zlib": {"error": _DAMAGED},
        "lzma": {"LZMAError": _DAMAGED},
        "tarfile": {"TarError": _DAMAGED},
        "struct": {"error": _DAMAGED},
        "csv": {"Error": "a table cannot be read; save it as CSV in UTF-8"},
        "sqlite3": {"Error": _DAMAGED},
        "pyexpat": {"ExpatError": _DAMAGED},
        "yaml": {"YAMLError": "a file is not valid YAML; fix it"},
        "ijson": {"JSONError": "a file is not valid JSON; fix it"},
        "jinja2": {"TemplateError": "a chat template or a page's template failed; fix the template"},
        "pyarrow": {"ArrowException": "a table or a cache of data cannot be read or written; write it again"},
        "pyarrow.lib": {"ArrowException": "a table or a cache of data cannot be read or written; write it again"},
        "datasets.exceptions": {"DatasetsError": "a data set cannot be read; check its files"},
        "PIL.Image": {"DecompressionBombError": "a picture has too many pixels; reduce it"},
        "httpx": {"HTTPError": _ANSWERED, "InvalidURL": _ANSWERED, "StreamError": _ANSWERED},
        "httpx2": {"HTTPError": _ANSWERED, "InvalidURL": _ANSWERED, "StreamError": _ANSWERED},
        "http.client": {"HTTPException": _ANSWERED},
        "huggingface_hub.errors": {"HfHubHTTPError": _ANSWERED, "EntryNotFoundError": _ANSWERED},
        "urllib3.exceptions": {"HTTPError": _ANSWERED},
        "subprocess": {"SubprocessError": "another program failed"},
        "multiprocessing.context": {"ProcessError": "a process of the data loader failed"},
        "concurrent.futures": {"BrokenExecutor": _KILLED},
        "queue": {"Empty": _KILLED},
        "pickle": {"PickleError": _DAMAGED},
        "builtins": {
            "UnicodeError": "a text is not valid UTF-8; save it in UTF-8",
            "EOFError": _DAMAGED,
            "ValueError": "",
            "FloatingPointError": "",
            "ImportError": "",
            "OSError": "",
        },
    }
)
# What torch says in a RuntimeError, and what to do.
_RUNTIME = (
    (re.compile("PytorchStream(Reader|Writer)|unexpected pos"), "a file of states is damaged, or the disk is full"),
    (re.compile("DataLoader worker"), _KILLED),
    (re.compile("CUDA error|CUDA driver|NCCL|[Gg]loo|closed by peer"), "a GPU or another process of this run failed"),
)


def describe_known_error(error: BaseException) -> str | None:
    """One sentence about an error that users can meet; None for an unexpected one."""
    if isinstance(error, OSError) and (advice_on_disk := _DISK.get(error.errno or 0)):
        return f"{describe_message(error)} ({advice_on_disk})"
    if isinstance(error, ValueError) and "trust_remote_code" in str(error):
        return f"{describe_message(error).splitlines()[0]} ({_OWN_CODE})"
    for module, names in _FOREIGN.items():
        for name, advice in names.items():
            kind = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type) and isinstance(error, kind):
                return f"{describe_message(error)} ({advice})" if advice else describe_message(error)
    said = describe_message(error) if isinstance(error, RuntimeError) else ""
    return next((f"{said} ({advice})" for pattern, advice in _RUNTIME if pattern.search(said)), None)


def describe_message(error: BaseException) -> str:
    """The error's own words, shortened; its type where it has none or where they cannot be made."""
    try:
        said = str(error).strip()
    except Exception:  # texts of errors are made by other people's code
        said = ""
    return shorten_text(said, _MOST) if said else type(error).__name__
