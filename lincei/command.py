"""A job as a command: flags from its options, a progress bar with the time left, and Ctrl-C.

Imported by a tool's ``command(name)``, not by ``lincei --help``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import signal
import sys
import threading
import time
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

from lincei.errors import UsageError
from lincei.options import Options, flag_name
from lincei.progress import CancelCheck, Progress, ProgressCallback

SUPPLIED = ("options", "progress", "cancelled")
LINE_EVERY_S = 10.0
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def new_application(help_text: str = "", *, many: bool = False) -> typer.Typer:
    """Return a Typer application with the settings that all commands share: plain text, no completion.

    Parameters
    ----------
    help_text : str
        The first lines of its ``--help``.
    many : bool
        True for a command with commands of its own, such as ``lincei models list``.
    """
    application = typer.Typer(
        help=help_text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=many,
        context_settings=CONTEXT_SETTINGS,
    )
    if many:
        application.callback()(lambda: None)
    return application


def options_command(
    options_class: type[Options], function: Callable[..., int | None], *, help_text: str = ""
) -> typer.Typer:
    """Turn a function into a command whose flags are its own parameters and the fields of an options class.

    Parameters
    ----------
    options_class : type
        Every field becomes a flag: its name, help, unit, choices and default. A tuple takes values
        separated by commas.
    function : callable
        Its parameters are Typer's (``inputs: Annotated[list[str], typer.Argument(...)]``) and come first.
        The keywords ``options``, ``progress`` and ``cancelled``, where it has them, are supplied: an
        instance of ``options_class``, a progress bar on the console, and a check that turns true with
        Ctrl-C. It returns None or its exit status.
    help_text : str, optional
        The docstring of ``function`` when left out.

    Returns
    -------
    typer.Typer
        What a tool's ``command(name)`` returns.

    Raises
    ------
    TypeError
        When a field has a type that a flag cannot express.
    """
    own = {
        name: parameter.replace(annotation=_evaluated(parameter.annotation, function))
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in SUPPLIED
    }
    supplied = [name for name in SUPPLIED if name in inspect.signature(function).parameters]
    hints = typing.get_type_hints(options_class)
    fields = dataclasses.fields(options_class)
    flags = {field.name: _flag(field, hints[field.name]) for field in fields}

    @functools.wraps(function)
    def run(**values: Any) -> int | None:
        arguments = {name: values[name] for name in own}
        if "options" in supplied:
            given = {
                field.name: _split(field.name, values[field.name], hints[field.name]) for field in fields
            }
            arguments["options"] = options_class.from_mapping(given)
        with stoppable() as cancelled, console_progress() as progress:
            offered = {"progress": progress, "cancelled": cancelled}
            arguments.update({name: offered[name] for name in supplied if name in offered})
            return function(**arguments)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (own | flags).values()]
    signature = inspect.Signature(parameters)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    del run.__wrapped__  # Typer would read the signature and the annotations of ``function`` through it
    text = help_text or inspect.getdoc(function) or ""
    application = new_application(text)
    application.command(help=text)(run)
    return application


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return an annotation that may have been written as a string."""
    return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation


def _flag(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    """Return the command's parameter for one field of an options class."""
    metadata = field.metadata
    kind, is_list = _element(field.name, hint)
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    if is_list and default == "":
        default = None
    choices = "|".join(metadata.get("choices", ()))
    names = {float: "number", int: "whole number", str: "text"}
    metavar = choices or metadata.get("unit") or names.get(kind, "")
    help_text = " ".join(part for part in (metadata.get("help", ""), _limits(metadata)) if part)
    name = flag_name(field.name)
    if kind is bool:
        info = typer.Option(f"{name}/--no-{name[2:]}", help=help_text)
        return _keyword(field.name, Annotated[bool, info], default)
    info = typer.Option(
        name,
        help=help_text,
        metavar=f"{metavar},..." if is_list else metavar,
        show_default=default is not None,
    )
    plain = str if is_list else kind
    return _keyword(field.name, Annotated[plain | None if default is None else plain, info], default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _limits(metadata: typing.Mapping[str, Any]) -> str:
    """Return a field's limits for its help, or nothing."""
    wordings = (("minimum", "at least"), ("maximum", "at most"), ("above", "above"))
    parts = [f"{words} {metadata[key]:g}" for key, words in wordings if metadata.get(key) is not None]
    return f"({', '.join(parts)})" if parts else ""


def _element(name: str, hint: Any) -> tuple[type, bool]:
    """Return the type of a field's value or of a tuple's elements, and whether it is a tuple."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        if len(members) == 1:
            return _element(name, members[0])
    if typing.get_origin(hint) is tuple:
        return _element(name, typing.get_args(hint)[0])[0], True
    if hint in (str, int, float, bool):
        return hint, False
    raise TypeError(f"a flag cannot express the option {name!r} of type {hint}")


def _split(name: str, value: Any, hint: Any) -> Any:
    """Return what was given to a flag as the field's value: text with commas as a tuple."""
    kind, is_list = _element(name, hint)
    if not is_list:
        return value
    if value is None:
        return None if type(None) in typing.get_args(hint) else ()
    words = [word.strip() for word in value.split(",") if word.strip()]
    try:
        return tuple(kind(word) for word in words)
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise UsageError(
            f"{flag_name(name)} is {value!r}", "", f"Give {wanted} separated by commas."
        ) from None


@contextmanager
def stoppable() -> Iterator[CancelCheck]:
    """Let Ctrl-C ask a job to stop: the first one is heard by the job, the second ends it at once.

    Yields
    ------
    callable
        True from the first Ctrl-C on.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def on_interrupt(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print("\nStopping at the next safe point; Ctrl-C again stops at once.", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def console_progress(stream: TextIO | None = None) -> Iterator[ProgressCallback]:
    """Show `Progress` on the console while the block runs.

    On a terminal a bar with the time left; elsewhere (a log file, a pipe) a line every ten seconds.
    Messages are printed as lines of their own in both.

    Parameters
    ----------
    stream : text stream, optional
        Where to write; stderr by default, so that stdout stays free for results.
    """
    target = sys.stderr if stream is None else stream
    shown = _bar(target) if target.isatty() else _lines(target)
    with shown as callback:
        yield callback


@contextmanager
def _bar(target: TextIO) -> Iterator[ProgressCallback]:
    """Show a bar on a terminal; it appears with the first report."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(file=target),
        transient=True,
    )
    pace = _Pace()
    task = bar.add_task("", total=None)

    def callback(update: Progress) -> None:
        bar.start()
        restarted = pace.hear(update)
        if restarted:
            bar.reset(task, total=update.total or None)
        bar.update(task, description=update.stage, completed=update.done)
        if pace.new_message(update):
            bar.console.print(update.message, markup=False, highlight=False)

    try:
        yield callback
    finally:
        bar.stop()


@contextmanager
def _lines(target: TextIO) -> Iterator[ProgressCallback]:
    """Write a line every ten seconds where there is no terminal."""
    pace = _Pace()
    last = time.monotonic()

    def callback(update: Progress) -> None:
        nonlocal last
        pace.hear(update)
        if pace.new_message(update):
            print(update.message, file=target, flush=True)
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            print(pace.sentence(update), file=target, flush=True)

    yield callback


class _Pace:
    """How fast a job goes; it starts anew when the job begins to count anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total = -1
        self._first_done = self._last_done = 0
        self._began_s = 0.0
        self._message = ""

    def hear(self, update: Progress) -> bool:
        """Take note of a report; return whether the count started anew."""
        restarted = update.total != self._total or update.done < self._last_done - self._total / 2
        if restarted:
            self._total, self._first_done, self._began_s = update.total, update.done, self._clock()
        self._last_done = update.done
        return restarted

    def new_message(self, update: Progress) -> bool:
        """Tell whether a report brings a message that was not the last one."""
        is_new = bool(update.message) and update.message != self._message
        self._message = update.message or self._message
        return is_new

    def sentence(self, update: Progress) -> str:
        """Return where the job stands, with the time left when it can be told."""
        if update.total <= 0:
            return f"{update.stage} ..."
        text = f"{update.stage}: {100 * update.done // update.total} %"
        advanced = update.done - self._first_done
        if advanced <= 0:
            return text
        left_s = (self._clock() - self._began_s) / advanced * (update.total - update.done)
        return f"{text}, about {_duration(left_s)} left"


def _duration(seconds: float) -> str:
    """Return a duration for a person: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
