"""The page: pictures and a question at the top, a column for each model below. It is served to this machine alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from balanced_thinking.chat.keep import Keeper
from balanced_thinking.chat.question import Question, QuestionError, check_picture
from balanced_thinking.chat.session import Session
from balanced_thinking.chat.turn import Turn
from balanced_thinking.chat.web.render import (
    render_head,
    render_pictures,
    render_progress,
    render_turn,
    render_waiting,
)
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.picture_files import PICTURE_SUFFIXES
from balanced_thinking.html import read_asset
from balanced_thinking.report.write.page import SEGMENTS_CSS
from balanced_thinking.system.ending import run_at_end

_LARGEST_UPLOAD = "32mb"
_LOOPBACK = ("127.0.0.1", "localhost")
# Nothing is asked of another host, whatever gradio's own page may contain.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "Liberation Mono", "monospace")


def refuse_missing_gradio() -> None:
    """Raises RecipeError where gradio is not installed; it is not imported yet."""
    if importlib.util.find_spec("gradio") is None:
        raise RecipeError("--web needs gradio, which is not installed: pip install 'balanced-thinking[chat]'")


def serve(session: Session, keeper: Keeper, host: str, port: int, announce: Callable[[str], object]) -> None:
    """Serve the page until Ctrl-C. `announce` is given its address. Port 0 is any free one.

    Raises RecipeError for an address that cannot be listened on.
    """
    port = find_port(host, port)
    uploads = tempfile.mkdtemp(prefix="balanced-chat-")
    run_at_end(partial(shutil.rmtree, uploads, ignore_errors=True))
    os.environ["GRADIO_TEMP_DIR"] = uploads
    page = make_page(session, keeper)
    launch_page(page, host, port)
    announce(f"http://{host}:{port}  (Ctrl-C ends)")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        session.stop()
        page.close(verbose=False)


def make_page(session: Session, keeper: Keeper) -> Any:
    """The page as a `gradio.Blocks`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    with gradio.Blocks(title="Balanced Thinking", analytics_enabled=False) as page:
        gradio.HTML(render_head([model.name for model in session.models], keeper.out))
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=2, min_width=280):
                kinds = [f".{suffix}" for suffix in PICTURE_SUFFIXES]
                files = gradio.File(
                    label="Pictures", file_count="multiple", file_types=kinds, height=130, elem_id="pictures"
                )
                pictures = gradio.HTML(render_pictures(()))
            with gradio.Column(scale=3, min_width=280):
                text = gradio.Textbox(
                    label="Question",
                    placeholder="Enter asks, Shift+Enter starts a new line",
                    lines=1,
                    max_lines=12,
                    autofocus=True,
                    elem_id="question",
                )
                answer = gradio.Textbox(label="Right answer, if known", max_lines=1, elem_id="answer")
                with gradio.Row():
                    ask = gradio.Button("Ask", variant="primary", elem_id="ask", min_width=100)
                    stop = gradio.Button("Stop", elem_id="stop", min_width=100)
                problem = gradio.HTML(elem_id="problem")
        with gradio.Row(equal_height=False):
            boxes = {}
            for model in session.models:
                with gradio.Column(min_width=280):
                    boxes[model.name] = gradio.HTML(render_waiting(model.name))
        asker = _Asker(session, keeper, boxes, problem, answer)
        shared = {
            "inputs": [files, text, answer],
            "outputs": [problem, answer, *boxes.values()],
            "show_progress": "hidden",
        }
        hidden = {"api_visibility": "private"}
        gradio.on([ask.click, text.submit, answer.submit], asker.ask, trigger_mode="once", **shared, **hidden)
        stop.click(session.stop, queue=False, show_progress="hidden", **hidden)
        files.change(_show_pictures, files, pictures, queue=False, show_progress="hidden", **hidden)
    page.queue(default_concurrency_limit=1)  # the models are shared
    return page


def launch_page(page: Any, host: str, port: int) -> None:
    """Start to serve, in threads of gradio."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A page elsewhere that has its name point here would have another name than these.
    hosts = [*_LOOPBACK] if host in _LOOPBACK else ["*"]
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        run_history=False,
        max_file_size=_LARGEST_UPLOAD,
        theme=_theme(),
        head=f"<style>{SEGMENTS_CSS}{read_asset('balanced_thinking.chat.web', 'page.css')}</style>",
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_Guard)]},
    )


class _Asker:
    """What the button does, in the thread of one event."""

    def __init__(self, session: Session, keeper: Keeper, boxes: dict[str, Any], problem: Any, answer: Any) -> None:
        self._session, self._keeper, self._boxes, self._problem = session, keeper, boxes, problem
        self._answer = answer

    def ask(self, files: list[str] | None, text: str, answer: str) -> Iterator[dict[Any, str]]:
        """New contents of the columns, as they come."""
        try:
            images = tuple(check_picture(file) for file in files or ())
            question = Question(text or "", images, answer=(answer or "").strip() or None)
        except QuestionError as error:
            yield {self._problem: render_pictures((), [_without_folder(str(error), files)])}
            return
        waiting = {self._boxes[model.name]: render_waiting(model.name, "waiting") for model in self._session.models}
        yield {self._problem: "", self._answer: "", **waiting}  # the next question has another right answer
        answered = set()
        for event in self._session.ask(question):
            if isinstance(event, Turn):
                answered.add(event.model)
                yield {self._boxes[event.model]: render_turn(event), self._problem: self._keep(event)}
            else:
                yield {self._boxes[event.model]: render_progress(event)}
        rest = [model.name for model in self._session.models if model.name not in answered]
        if rest:
            yield {self._boxes[name]: render_waiting(name, "not asked: stopped") for name in rest}

    def _keep(self, turn: Turn) -> str:
        """What is wrong where the turn cannot be kept; else nothing."""
        try:
            self._keeper.keep(turn)
        except OSError as error:
            return render_pictures((), [f"This reply is not kept: {error}"])
        return ""


def _show_pictures(files: list[str] | None) -> str:
    """The pictures that were dropped, decoded by our own checks."""
    good, refusals = [], []
    for file in files or ():
        try:
            good.append(check_picture(file))
        except QuestionError as error:
            refusals.append(_without_folder(str(error), [file]))
    return render_pictures(good, refusals)


def _without_folder(message: str, files: Sequence[str] | None) -> str:
    """The message with the names of uploaded files as their user knows them."""
    for file in files or ():
        message = message.replace(file, Path(file).name)
    return message


class _Guard:
    """ASGI middleware: every answer carries the content security policy."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
                added["x-content-type-options"] = "nosniff"
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        await self._app(scope, receive, guarded)


def find_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises RecipeError where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise RecipeError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); choose another --port (0: any free "
            "one), or a --host of this machine"
        ) from error


def _theme() -> Any:
    """gradio's plainest theme in the colors of the report. Fonts of the system: none is fetched."""
    import gradio

    theme = gradio.themes.Base(font=_FONTS, font_mono=_MONO, radius_size="sm")
    same = {
        "body_background_fill": "var(--paper)",
        "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--muted)",
        "background_fill_primary": "var(--paper)",
        "background_fill_secondary": "var(--wash)",
        "block_background_fill": "var(--paper)",
        "block_border_color": "var(--rule)",
        "block_label_background_fill": "transparent",
        "block_label_border_color": "transparent",
        "block_label_text_color": "var(--muted)",
        "block_title_text_color": "var(--muted)",
        "border_color_primary": "var(--rule)",
        "input_background_fill": "var(--paper)",
        "input_border_width": "1px",
        "input_border_color": "var(--rule)",
        "input_border_color_focus": "var(--link)",
        "input_placeholder_color": "var(--muted)",
        "button_primary_background_fill": "var(--link)",
        "button_primary_background_fill_hover": "var(--link)",
        "button_primary_border_color": "var(--link)",
        "button_primary_border_color_hover": "var(--link)",
        "button_secondary_border_color": "var(--rule)",
        "button_secondary_border_color_hover": "var(--rule)",
        "link_text_color": "var(--link)",
        "link_text_color_hover": "var(--link)",
        "table_odd_background_fill": "var(--wash)",
        "table_even_background_fill": "var(--paper)",
        "table_text_color": "var(--ink)",
        "button_primary_text_color": "var(--paper)",
        "button_secondary_background_fill": "var(--wash)",
        "button_secondary_background_fill_hover": "var(--rule)",
        "button_secondary_text_color": "var(--ink)",
    }
    return theme.set(**same, **{f"{name}_dark": value for name, value in same.items()})
