"""Upload an exported folder to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils._validators import validate_repo_id

from balanced_thinking.config.errors import BalancedThinkingError, UsageError

_REFUSED, _TAKEN = (401, 403), 409
_NETWORK: Any = (OSError, *HfHubHTTPError.__bases__)  # of whichever HTTP client it is built on


class PushError(BalancedThinkingError, ConnectionError):
    """The hub could not be reached, or refused."""


class HubNameError(UsageError, ValueError):
    """A name that cannot be uploaded to."""


def check_push(name: str) -> None:
    """Before any work: is the name free, and is there a token that the hub accepts?

    Raises HubNameError, or PushError for no token and no network.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubNameError(f"--push {name}: {error}; expected OWNER/NAME") from error
    if name.count("/") != 1:
        raise HubNameError(f"--push {name} names no owner; expected OWNER/NAME, such as your user name and a model")
    api = HfApi()
    with _explain_failures(name):
        api.whoami()
        if api.repo_exists(name):
            raise HubNameError(
                f"--push {name}: there is such a repository already, and nothing is written over it; choose another "
                "name, or upload the folder yourself with `hf upload`"
            )


def push_folder(folder: Path, name: str, *, private: bool) -> str:
    """Create the repository and upload the folder in one commit; returns its address. Raises as `check_push`."""
    api = HfApi()
    with _explain_failures(name):
        address = api.create_repo(name, private=private, exist_ok=False)
    try:
        with _explain_failures(name):
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Add the model")
    except PushError as error:
        raise PushError(
            f"{error}. The empty repository {name} was created: upload the folder with `hf upload {name} {folder}`"
        ) from error
    return str(address)


@contextmanager
def _explain_failures(name: str) -> Iterator[None]:
    """Raises PushError and HubNameError in the place of what the hub's client raises."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise PushError(f"--push {name}: no token was found; run `hf auth login`, or set HF_TOKEN") from error
    except OfflineModeIsEnabled as error:
        raise PushError(f"--push {name}: HF_HUB_OFFLINE is set; unset it to upload") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == _TAKEN:
            raise HubNameError(f"--push {name}: there is such a repository already; choose another name") from error
        if status in _REFUSED:
            raise PushError(
                f"--push {name}: the hub refuses the token (HTTP {status}); it must be valid and have write access to "
                f"{name.partition('/')[0]}: run `hf auth login`, or set HF_TOKEN"
            ) from error
        raise PushError(f"--push {name}: the hub answered with HTTP {status}: {error}") from error
    except _NETWORK as error:
        if isinstance(error, (HubNameError, PushError)):
            raise
        raise PushError(f"--push {name}: the hub cannot be reached ({error}); check the network") from error
