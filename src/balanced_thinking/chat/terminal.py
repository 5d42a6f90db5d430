"""`balanced chat` in the terminal: a line is a question, a command, or the path of a picture."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.text import Text

from balanced_thinking.chat.keep import Keeper
from balanced_thinking.chat.question import Question, QuestionError, check_picture, has_picture_name
from balanced_thinking.chat.session import Session
from balanced_thinking.chat.show import ReplyWriter, make_console
from balanced_thinking.chat.turn import Progress, Turn
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.system.files import expand_home
from balanced_thinking.system.text import show_controls

_PROMPT, _MORE = "> ", ". "
# The first word of a line as a terminal writes a path that was dragged into it: quoted, or with escaped characters.
_FIRST_WORD = re.compile(r"""\s*(?:'([^']+)'|"([^"]+)"|((?:\\.|[^\s\\])+))""")


@dataclass
class Terminal:
    """A conversation on a terminal.

    Attributes:
        images, choices: of the next questions. answer: of the next one.
        show_thinking: otherwise it is folded.
        turns: the replies to the last question. kept: those of the session.
    """

    session: Session
    keeper: Keeper
    images: list[Path] = field(default_factory=list)
    choices: tuple[str, ...] = ()
    answer: str | None = None
    show_thinking: bool = True
    console: Console = field(default_factory=make_console)
    turns: list[Turn] = field(default_factory=list)
    kept: list[Turn] = field(default_factory=list)
    is_open: bool = True

    def run(self) -> None:
        """Read lines until /quit or the end of the input."""
        with suppress(ImportError):
            import readline  # noqa: F401  (editing and history for `input`)
        self.show_state()
        self.say("/help lists the commands; Ctrl-C stops a reply; Ctrl-D ends")
        while self.is_open:
            try:
                line = self._read_line()
            except EOFError:
                self.console.print()
                return
            except KeyboardInterrupt:
                self.say("\nCtrl-D or /quit ends")
                continue
            try:
                self.take_line(line)
            except (QuestionError, OSError) as error:
                self.say(str(error), "red")

    def _read_line(self) -> str:
        """A line; one that ends with a backslash goes on in the next."""
        line = input(_PROMPT)
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{input(_MORE)}"
        return line

    def take_line(self, line: str) -> None:
        """Carry out one line. Raises QuestionError for what cannot be asked."""
        line = self._take_dragged_pictures(line).strip()
        if line.startswith("/"):
            word, _, rest = line.partition(" ")
            self._run_command(word, rest.strip())
        elif line:
            self.ask(line)

    def _run_command(self, word: str, rest: str) -> None:
        if word not in COMMANDS:
            raise QuestionError(f"there is no command {word}{did_you_mean(word, COMMANDS)}; /help lists them")
        COMMANDS[word].run(self, rest)

    def _take_dragged_pictures(self, line: str) -> str:
        """The line without the picture files at its start, which are added to the pictures."""
        while (found := _FIRST_WORD.match(line)) is not None:
            path = _read_dragged_path(found)
            if not has_picture_name(path) or not path.is_file():
                break
            self.add_picture(path)
            line = line[found.end() :]
        return line

    def add_picture(self, path: str | Path) -> None:
        self.images.append(check_picture(path))
        self.say(f"picture {len(self.images)}: {path}")

    def ask(self, text: str) -> list[Turn]:
        """Put a question to all models, write their replies and keep them."""
        question = Question(text, tuple(self.images), self.choices, self.answer)
        self.answer, self.turns = None, []
        writer: ReplyWriter | None = None
        with _stop_on_interrupt(self.session.stop):
            for event in self.session.ask(question):
                if writer is None:
                    writer = ReplyWriter(self.console, event.model, show_thinking=self.show_thinking)
                if isinstance(event, Progress):
                    writer.follow(event)
                    continue
                writer.finish(event)
                writer = None
                self.turns.append(event)
                self.keeper.keep(event)
        self.kept += self.turns
        return self.turns

    def score_last(self, answer: str) -> None:
        """Score the last replies; without any, the answer belongs to the next question."""
        if not self.turns:
            self.answer = answer
            self.say("this is the right answer to the next question")
            return
        scored = [turn if turn.prediction is None else self.session.score(turn, answer) for turn in self.turns]
        for turn in scored:
            self.keeper.keep(turn)
            self.say(f"{turn.model}: {turn.verdict or 'not asked'}")
        self.kept[len(self.kept) - len(self.turns) :] = scored
        self.turns = scored

    def show_state(self) -> None:
        for model in self.session.models:
            about = ", ".join(filter(None, (model.engine.name, model.dtype, f"format {model.format.name}")))
            self.say(f"{model.name} ({about})", "bold")
        for number, path in enumerate(self.images, 1):
            self.say(f"picture {number}: {path}")
        if self.choices:
            self.say(f"choices: {' | '.join(self.choices)}")
        self.say(f"answers are kept in {self.keeper.out}")

    def say(self, text: str, style: str = "dim") -> None:
        self.console.print(Text(show_controls(text), style))


def answer_once(terminal: Terminal, text: str) -> None:
    """Ask one question without a conversation. Raises QuestionError where no model could be asked."""
    turns = terminal.ask(text)
    if turns and all(turn.refusal for turn in turns):
        raise QuestionError(f"no model could be asked: {turns[0].refusal}")


@contextmanager
def _stop_on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C stops what is generated, a second one the program."""
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read_dragged_path(found: re.Match[str]) -> Path:
    quoted = found[1] or found[2]
    word = quoted or re.sub(r"\\(.)", r"\1", found[3])
    if word.startswith("file://"):
        word = unquote(urlsplit(word).path)
    return expand_home(word)


@dataclass(frozen=True)
class _Command:
    usage: str
    help: str
    run: Callable[[Terminal, str], None]


def _add_image(terminal: Terminal, rest: str) -> None:
    if not rest:
        raise QuestionError("/image needs the path of a picture")
    found = _FIRST_WORD.fullmatch(rest)
    path = expand_home(rest)
    terminal.add_picture(path if path.is_file() or found is None else _read_dragged_path(found))


def _reset(terminal: Terminal, _: str) -> None:
    terminal.images, terminal.choices, terminal.answer, terminal.turns = [], (), None, []
    terminal.say("no picture, no choices, no right answer")


def _set_choices(terminal: Terminal, rest: str) -> None:
    terminal.choices = tuple(part.strip() for part in rest.split("|") if part.strip())
    terminal.say(f"choices: {' | '.join(terminal.choices) or 'none'}")


def _set_answer(terminal: Terminal, rest: str) -> None:
    if not rest:
        raise QuestionError("/answer needs the right answer")
    terminal.score_last(rest)


def _show_thinking(terminal: Terminal, _: str) -> None:
    if not terminal.turns:
        raise QuestionError("there is no thinking yet: ask a question first")
    for turn in terminal.turns:
        terminal.say(turn.model, "bold")
        terminal.say(turn.thinking() or "no thinking")


def _save(terminal: Terminal, rest: str) -> None:
    if not rest:
        terminal.say(f"answers are kept in {terminal.keeper.out}; /save DIR writes those of this session there, too")
        return
    keeper = Keeper(expand_home(rest), terminal.session)
    for turn in terminal.kept:
        keeper.keep(turn)
    terminal.say(f"{len(terminal.kept)} replies written to {keeper.out}")


def _show_help(terminal: Terminal, _: str) -> None:
    for command in COMMANDS.values():
        terminal.say(f"{command.usage:<22}{command.help}", "")
    terminal.say("Any other line is a question; one that ends with \\ goes on in the next line.", "")
    terminal.say("A picture that is dragged into the terminal is added.", "")


def _quit(terminal: Terminal, _: str) -> None:
    terminal.is_open = False


COMMANDS = {
    "/image": _Command("/image PATH", "add a picture to the questions that follow", _add_image),
    "/choices": _Command("/choices A | B | C", "options that the questions that follow list; none: open", _set_choices),
    "/answer": _Command("/answer TEXT", "the right answer: scores the last replies, or the next ones", _set_answer),
    "/think": _Command("/think", "show the thinking of the last replies", _show_thinking),
    "/reset": _Command("/reset", "remove pictures, choices and answer", _reset),
    "/models": _Command("/models", "show the models and what the next question has", lambda t, _: t.show_state()),
    "/save": _Command("/save [DIR]", "say where answers are kept; with DIR, also write them there", _save),
    "/help": _Command("/help", "show this list", _show_help),
    "/quit": _Command("/quit", "end, as Ctrl-D does", _quit),
}
