"""The conversation on a terminal: its commands, dragged pictures, Ctrl-C, and what strangers' text may do there."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console

from balanced_thinking.chat.keep import Keeper
from balanced_thinking.chat.question import Question, QuestionError
from balanced_thinking.chat.session import Session
from balanced_thinking.chat.show import ReplyWriter
from balanced_thinking.chat.terminal import COMMANDS, Terminal, answer_once
from balanced_thinking.chat.turn import CLOSED, Progress, Turn
from balanced_thinking.cli import main
from balanced_thinking.cli.chat import _find_command
from balanced_thinking.runs.records import Prediction
from balanced_thinking.segments import get_format
from tests.cli.tiny_commands import exit_code

FORMAT = get_format("think-answer")


@pytest.fixture
def terminal(session: Session, tmp_path: Path) -> Terminal:
    console = Console(file=io.StringIO(), highlight=False, soft_wrap=True, markup=False, emoji=False)
    seeing = Session(session.models[:1], session.options)
    return Terminal(seeing, Keeper(tmp_path / "out", seeing), console=console)


def said(terminal: Terminal) -> str:
    assert isinstance(terminal.console.file, io.StringIO)
    return terminal.console.file.getvalue()


@pytest.mark.parametrize(
    "written",
    [
        "'{0}'",
        '"{0}"',
        "{escaped}",
        "file://{quoted}",
        "'{0}' ",
        "/image {0}",
        "/image '{0}'",
    ],
)
def test_a_picture_is_added_as_a_terminal_writes_its_path(terminal: Terminal, picture: Path, written: str) -> None:
    path = str(picture)
    escaped, quoted = path.replace(" ", "\\ "), path.replace(" ", "%20")
    terminal.take_line(written.format(path, escaped=escaped, quoted=quoted))
    assert terminal.images == [picture]
    assert terminal.turns == []


def test_a_question_may_follow_a_dragged_picture(terminal: Terminal, picture: Path) -> None:
    terminal.take_line(f"'{picture}' what is it ?")
    [turn] = terminal.turns
    assert turn.question == Question("what is it ?", (picture,))
    terminal.take_line("/reset")
    assert (terminal.images, terminal.turns) == ([], [])


def test_a_conversation(terminal: Terminal, picture: Path, tmp_path: Path) -> None:
    terminal.take_line(f"/image {picture}")
    terminal.take_line("/choices red | blue")
    terminal.take_line("/answer red")
    terminal.take_line("what color ?")
    [turn] = terminal.turns
    assert turn.question == Question("what color ?", (picture,), ("red", "blue"), "red")
    assert turn.summary() in said(terminal)
    terminal.take_line("/answer blue")
    assert terminal.turns[0].question.answer == "blue"
    terminal.take_line("/think")
    terminal.take_line("/models")
    terminal.take_line("/help")
    assert all(command.usage in said(terminal) for command in COMMANDS.values())
    terminal.take_line(f"/save {tmp_path / 'more'}")
    kept = [(tmp_path / name / "world-reasoner/eval/chat/predictions.jsonl").read_text() for name in ("out", "more")]
    assert [text.count("\n") for text in kept] == [2, 1]
    terminal.take_line("/quit")
    assert not terminal.is_open


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/imge x.png", "did you mean"),
        ("/image", "needs the path"),
        ("/image none.png", "does not exist"),
        ("/think", "ask a question first"),
        ("/answer", "needs the right answer"),
    ],
)
def test_a_wrong_line_is_explained(terminal: Terminal, line: str, says: str) -> None:
    with pytest.raises(QuestionError, match=says):
        terminal.take_line(line)


def test_lines_are_read_until_the_end_of_the_input(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["", KeyboardInterrupt(), "what \\", "is it ?", "/nothing", EOFError()])

    def read(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    terminal.run()
    assert [turn.question.text for turn in terminal.turns] == ["what \nis it ?"]
    assert "Ctrl-D or /quit ends" in said(terminal)
    assert "there is no command /nothing" in said(terminal)


def test_ctrl_c_stops_a_reply_and_not_the_program(
    paused: Session, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    follow = ReplyWriter.follow

    def interrupted(writer: ReplyWriter, progress: Progress) -> None:
        follow(writer, progress)
        if progress.tokens >= 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ReplyWriter, "follow", interrupted)
    terminal.session = paused
    terminal.take_line("what is it ?")
    assert terminal.turns[0].stopped_by == "you"
    assert "stopped by you" in said(terminal)
    assert signal.getsignal(signal.SIGINT) is before


def turn_of(completion: str, **about: object) -> Turn:
    prediction = Prediction(id="1", correct=False, completion=completion, think_tokens=2, answer_tokens=3, **about)  # type: ignore[arg-type]
    question = Question("?")
    return Turn("m", question, question.to_example("1", "question", FORMAT), FORMAT, [1], prediction, 1.0, CLOSED)


def write_reply(*texts: str, show_thinking: bool = True, terminal: bool = False) -> str:
    """What is shown of a reply that comes in these pieces."""
    file = io.StringIO()
    console = Console(file=file, highlight=False, soft_wrap=True, markup=False, emoji=False, force_terminal=terminal)
    writer = ReplyWriter(console, "m", show_thinking=show_thinking)
    for end in range(1, len(texts) + 1):
        writer.follow(Progress("m", "".join(texts[:end]), FORMAT, "", end, 0.1))
    writer.finish(turn_of("".join(texts)))
    return file.getvalue()


def test_thinking_and_answer_have_lines_of_their_own_without_tags() -> None:
    shown = write_reply("<th", "ink>It is ", "red .</thi", "nk>\n<ans", "wer>", "r", "ed</answer>")
    assert shown.splitlines()[1:4] == ["m", "thinking  It is red .", "answer    red"]


def test_folded_thinking_is_not_shown() -> None:
    shown = write_reply("<think>It is secret .</think><answer>red</answer>", show_thinking=False)
    assert "secret" not in shown
    assert "thinking  folded; /think shows it" in shown
    assert "answer    red" in shown


def test_the_text_of_a_model_never_controls_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    nasty = "<think>[bold]\x1b]0;taken\x07 \x1b[2J</think><answer>\x1b[31mred\u202e</answer>"
    plain = write_reply(nasty)
    assert "\x1b" not in plain
    assert "[bold]\\x1b]0;taken\\x07" in plain
    assert "\\u202e" in plain
    colored = write_reply(nasty, terminal=True)
    assert "\x1b[" in colored
    assert "\x1b[2J" not in colored
    assert "\x1b]0" not in colored


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;" not in write_reply("<think>a</think><answer>b</answer>", terminal=True)


def test_one_question_from_standard_input(
    session: Session, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("balanced_thinking.chat.session.load_models", lambda names, options: list(session.models[:1]))
    monkeypatch.setattr("sys.stdin", io.StringIO("what is it ?\n"))
    out = tmp_path / "kept"
    assert main(["chat", "world-reasoner", "--image", str(picture), "--answer", "red", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "answer    " in shown
    assert "\x1b" not in shown
    assert shown.splitlines()[-1] == str(out)
    assert (out / "world-reasoner/eval/chat/predictions.jsonl").is_file()


def test_a_question_that_no_model_can_be_asked_fails(session: Session, picture: Path, tmp_path: Path) -> None:
    text_only = Session(session.models[1:], session.options)
    console = Console(file=io.StringIO())
    terminal = Terminal(text_only, Keeper(tmp_path, text_only), images=[picture], console=console)
    with pytest.raises(QuestionError, match="no model could be asked: this model takes text only"):
        answer_once(terminal, "what is it ?")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["./worldbase"], "there is no model folder"),
        (["world-base", "--image", "none.png"], "does not exist"),
        (["world-base", "--temperature", "-1"], "temperature is -1.0"),
        (["world-base", "--format", "thnik"], "thnik"),
        (["world-base", "--scorer", "exat"], "did you mean"),
        (["world-base", "--port", "1"], "--port without --web"),
        (["world-base", "--web", "--host", "::1"], "IPv4 addresses and names only"),
        (["world-base", "--web", "--answer", "1"], "--answer with --web"),
        (["world-base", "--out", __file__], "is a file; expected a folder"),
        (["world-base", "--bogus", "1"], "unknown option --bogus"),
        ([], "MODEL"),
    ],
)
def test_wrong_usage_is_refused_before_a_model_is_loaded(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("balanced_thinking.chat.session.start_engine", lambda *_: pytest.fail("it is loaded"))
    monkeypatch.setattr("sys.stdin", io.StringIO("what ?"))
    assert exit_code(["chat", *words]) == 2
    assert says in capsys.readouterr().err


def test_commands_in_standard_input_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it is one question, so that they would be read as text."""
    monkeypatch.setattr("sys.stdin", io.StringIO("/image x.png\nWhat is it ?\n"))
    assert exit_code(["chat", "world-base"]) == 2
    assert "all of standard input is one question, and /image would be a part of it" in capsys.readouterr().err
    assert _find_command("/* what does this do? */\n// x\n/home/me ?") is None


def test_empty_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert exit_code(["chat", "world-base"]) == 2
    assert "there is no question" in capsys.readouterr().err
