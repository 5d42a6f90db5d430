"""Parsing the command line: suggestions for misspelled names, more help on demand, free `--name value` pairs."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.system.process import process_rank
from balanced_thinking.system.text import show_controls


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


class HelpSection(NamedTuple):
    """A title, and options by their names with the arguments of `add_argument`."""

    title: str
    options: Mapping[str, dict[str, Any]]


_MOST_INTEGER = 10**12
_AS_PAIRS = "options are given as --name value"
_MOST_HOURS = 10**6
_SHOWN = 80  # characters of a wrong value in a message
# Far above what a machine can do: beyond them memory or a type of integers ends first.
_MOST_BATCH, _MOST_TOKENS, _MOST_JOBS = 2**20, 10**7, 4096
Sections = Callable[[], Sequence[HelpSection]]


class Parser(argparse.ArgumentParser):
    """Refuses an unknown option with the most similar known one, before anything else is said of the command line."""

    # Further help below that of the options, made only when it is asked for: by --help, and by --help-all alone.
    more_help: Sections | None = None
    all_help: Sections | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Of several ranks of a machine, which all read the same command line, the first one reports it."""
        if process_rank(local=True):
            self.exit(2)
        super().error(show_controls(message))

    def option_names(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def given_options(self, words: Sequence[str]) -> set[str]:
        """Of the options of this command, the names (`batch_size`) of those that the words give a value."""
        named = {word.partition("=")[0] for word in words}
        return {action.dest for action in self._actions if named.intersection(action.option_strings)}

    def respell_options(self, words: Sequence[str]) -> list[str]:
        """The words with the options of this command as it spells them: keys of recipes have underscores."""
        own = {"--" + option[2:].replace("-", "_"): option for option in self.option_names() if option.startswith("--")}
        parts = (word.partition("=") for word in words)
        return [own.get(name, name) + equals + value for name, equals, value in parts]

    def refuse_unknown(self, words: Sequence[str], prefixes: Sequence[str]) -> None:
        known = self.option_names()
        further = [f"--{prefix}NAME" for prefix in prefixes]
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            if option not in known and not any(option.startswith(f"--{prefix}") for prefix in prefixes):
                self.error(f"unknown option {option}{did_you_mean(option, known + further)}; see {self.prog} --help")

    def add_help_all(self, sections: Sections, text: str) -> None:
        self.all_help = sections
        self.add_argument("--help-all", action=_ShowAllHelp, nargs=0, help=text)

    def format_help(self) -> str:
        return super().format_help() + self._format_sections(self.more_help)

    def format_all_help(self) -> str:
        return self.format_help() + self._format_sections(self.all_help)

    def _format_sections(self, sections: Sections | None) -> str:
        if sections is None:
            return ""
        formatter = self._get_formatter()
        for title, options in sections():
            aside = argparse.ArgumentParser(add_help=False)
            formatter.start_section(title)
            formatter.add_arguments([aside.add_argument(f"--{name}", **about) for name, about in options.items()])
            formatter.end_section()
        return f"\n{formatter.format_help()}"


class _ShowAllHelp(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        assert isinstance(parser, Parser)
        sys.stdout.write(parser.format_all_help())
        parser.exit(0)


def split_pairs(rest: Sequence[str], command: Parser) -> list[tuple[str, str]]:
    """`--name value` and `--name=value` as pairs; a flag without a value means true."""
    pairs: list[tuple[str, str]] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            command.error(
                f"unexpected argument {word!r}; "
                + (f"a recipe is given as --config {word}" if word.endswith((".yaml", ".yml")) else _AS_PAIRS)
            )
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        pairs.append((name.replace("-", "_"), value))
    return pairs


def positive_number(text: str) -> float:
    """A number above 0 of at most `_MOST_HOURS`, as a type of argparse."""
    number = _parse_float(text)
    if not 0 < number <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{text[:_SHOWN]!r}; expected a number above 0 and at most {_MOST_HOURS}")
    return number


def finite_number(text: str) -> float:
    """A number that is neither infinite nor NaN, as a type of argparse."""
    number = _parse_float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text[:_SHOWN]!r}; expected a finite number")
    return number


def gpu_share(text: str) -> float:
    """A number from 0 to 1, as a type of argparse: a process trains exactly on one GPU only."""
    number = _parse_float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(
            f"{text[:_SHOWN]!r}; expected a number from 0 to 1: a run of a study is one process, on one GPU"
        )
    return number


def _parse_float(text: str) -> float:
    """The number; NaN for what is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def integer_between(least: int, most: int) -> Callable[[str], int]:
    """An integer of this range, as a type of argparse."""

    def parse(text: str) -> int:
        # Python reads no integer of more than 4,300 digits.
        number = int(text) if text.isdecimal() and len(text) <= len(str(most)) + 8 else least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{text[:_SHOWN]!r}; expected an integer of at least {least} and at most {most}"
            )
        return number

    return parse


positive_integer = integer_between(1, _MOST_INTEGER)
batch_size = integer_between(1, _MOST_BATCH)
token_count = integer_between(1, _MOST_TOKENS)
job_count = integer_between(1, _MOST_JOBS)
shot_count = integer_between(0, 1000)
seed_number = integer_between(0, 2**32 - 1)
