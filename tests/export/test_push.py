"""Uploading, to a server that answers as the hub does. What goes wrong is explained, and nothing is overwritten."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from balanced_thinking.export import push
from balanced_thinking.export.push import HubNameError, PushError, check_push, push_folder


class Hub:
    """`status` is what every question is answered with instead; `taken` are the repositories that exist."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.taken: set[str] = set()
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.address = ""

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        if self.status is not None:
            return self.status, {"error": "no"}
        if token != "Bearer hf_secret":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.address}/me/{self.created[-1]['name']}"}
        if "/preupload/" in path:
            asked = [one["path"] for one in json.loads(body)["files"]]
            return 200, {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"commitUrl": f"{self.address}/me/mine/commit/1", "commitOid": "1", "success": True}
        if path.startswith("/api/models/"):
            name = "/".join(path.split("?")[0].split("/")[3:5])
            return (200, {"id": name, "sha": "1"}) if name in self.taken else (404, {"error": "Repository not found"})
        return 200, {}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = found.answer(self.command, self.path, body, self.headers.get("Authorization"))
            text = json.dumps(value).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(push, "HfApi", lambda: HfApi(endpoint=found.address))
    yield found
    server.shutdown()
    server.server_close()


def test_a_folder_is_uploaded_in_one_commit(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine\n")
    (tmp_path / "config.json").write_text("{}")
    check_push("me/mine")
    assert not hub.created
    assert push_folder(tmp_path, "me/mine", private=True) == f"{hub.address}/me/mine"
    assert (hub.created[0]["name"], hub.created[0]["organization"]) == ("mine", "me")
    assert hub.created[0].get("visibility") == "private" or hub.created[0].get("private") is True
    assert {"README.md": b"# mine\n", "config.json": b"{}"}.items() <= hub.files.items()


def test_a_repository_that_exists_is_not_written_to(hub: Hub) -> None:
    hub.taken.add("me/mine")
    with pytest.raises(HubNameError, match="there is such a repository already"):
        check_push("me/mine")


@pytest.mark.parametrize("name", ["mine", "a/b/c", "me/mine model", "me/"])
def test_a_name_that_cannot_be_is_refused_without_a_question(name: str) -> None:
    with pytest.raises(HubNameError, match="expected OWNER/NAME"):
        check_push(name)


# What the hub answers to everything, and what is said.
FAILURES = [
    (401, "refuses the token"),
    (403, "write access to me"),
    (409, "there is such a repository already"),
    (400, "HTTP 400"),
]


@pytest.mark.parametrize(("status", "said"), FAILURES)
def test_a_refusal_is_explained(hub: Hub, status: int, said: str, tmp_path: Path) -> None:
    hub.status = status
    with pytest.raises((PushError, HubNameError), match=said):
        push_folder(tmp_path, "me/mine", private=False)


def test_a_missing_token_is_explained(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(PushError, match=r"no token was found; run `hf auth login`"):
        check_push("me/mine")


def test_a_network_that_fails_and_offline_mode_are_explained(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    with pytest.raises(PushError, match="cannot be reached"):
        check_push("me/mine")
    monkeypatch.setattr(push, "HfApi", lambda: HfApi(endpoint=hub.address))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        check_push("me/mine")
