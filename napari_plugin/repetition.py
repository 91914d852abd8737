"""What was done in a widget, as Python and as a command line, so that it can be done again without one."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lincei.options import Options, flag_name


@dataclass(frozen=True)
class Repetition:
    """The same work in a script and in a terminal.

    Parameters
    ----------
    python : str
        Lines of Python.
    command : str
        A command line, or several, one below the other; empty where there is no command for it.
    """

    python: str
    command: str = ""


def changed_options(options: Options) -> dict[str, Any]:
    """Return the options that differ from their defaults, by name."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }


def keyword_arguments(options: Options, *, without: Sequence[str] = ()) -> list[str]:
    """Return ``name=value`` of the options that differ from their defaults, as Python writes them."""
    return [f"{name}={value!r}" for name, value in changed_options(options).items() if name not in without]


def command_line(
    command: str,
    inputs: Sequence[str] = (),
    options: Options | None = None,
    flags: Mapping[str, str] | None = None,
) -> str:
    """Return a ``lincei`` command line.

    Parameters
    ----------
    command : str
        The command, such as ``"label"``.
    inputs : sequence of str
        Files or patterns that come first.
    options : Options, optional
        Those that differ from their defaults become flags.
    flags : mapping of str to str, optional
        Flags of the command itself, such as ``{"--out": "results"}``; they come last.
    """
    words = ["lincei", command, *inputs]
    for name, value in changed_options(options).items() if options is not None else ():
        flag = flag_name(name)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, _written(value)]
    for flag, text in (flags or {}).items():
        words += [flag, text]
    return " ".join(shlex.quote(word) for word in words)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_written(item) for item in value)
    return f"{value:.12g}" if isinstance(value, float) else str(value)
