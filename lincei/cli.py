"""The ``lincei`` command: finds the tools' commands, runs the one that is asked for, and words what fails.

A tool is a module named by an entry point of the group ``lincei.tools``. It has

``COMMANDS : dict[str, str]``
    Each command's name and the line that ``lincei --help`` shows for it.
``command(name) -> typer.Typer``
    The application of one command, built only when it is used (see `lincei.command.options_command`).
``DEMO : str``, optional
    ``"module:function"`` of its part of ``lincei demo`` (see `lincei.demo`).
``JOBS : dict[str, str]``, optional
    ``"module:function"`` of each of its jobs for other programs (see `lincei.worker`).

``lincei --help`` imports these modules, so they import nothing heavy themselves.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lincei import __version__
from lincei.batch import readable_error
from lincei.errors import CancelledError, LinceiWarning, UsageError

if TYPE_CHECKING:
    import typer

TOOLS_GROUP = "lincei.tools"
EXIT_FAILURE, EXIT_USAGE, EXIT_CANCELLED = 1, 2, 130

# The core's own commands: the line of the help, and the module whose ``app()`` returns the application.
CORE_COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("Run everything once on sample data and write a page that shows it.", "lincei.demo"),
    "doctor": ("Say what is installed, which engines work and what is in the way.", "lincei.doctor"),
    "models": ("List, show, check, install, import and export models.", "lincei.models_cli"),
    "version": ("Print the version.", ""),
}


@dataclass(frozen=True)
class Tool:
    """A tool that was found, working or not.

    Parameters
    ----------
    name : str
        Name of its entry point.
    distribution : str
        The installed distribution that declares it.
    commands : mapping of str to str
        Command name to help line; empty when the tool is broken.
    module : module or None
        None when it could not be imported.
    problem : str
        Why the tool, or a part of it, cannot be used; empty when all is well.
    """

    name: str
    distribution: str
    commands: Mapping[str, str] = field(default_factory=dict)
    module: ModuleType | None = None
    problem: str = ""


def find_tools() -> list[Tool]:
    """Return the installed tools by name; a broken one is listed with its problem and breaks no other."""
    tools: list[Tool] = []
    taken = dict.fromkeys(CORE_COMMANDS, "lincei")
    for entry_point in sorted(importlib.metadata.entry_points(group=TOOLS_GROUP), key=lambda e: e.name):
        distribution = entry_point.dist.name if entry_point.dist is not None else "unknown"
        try:
            module = entry_point.load()
            commands = {str(name): str(line) for name, line in module.COMMANDS.items()}
            if not callable(module.command):
                raise TypeError(f"{entry_point.value}.command is not a function")
        except Exception as error:  # whatever a third party's module does wrong, the rest must work
            problem = f"{type(error).__name__}: {error}"
            tools.append(Tool(entry_point.name, distribution, problem=problem))
            continue
        clashes = [f"{name!r} (of {taken[name]})" for name in commands if name in taken]
        problem = f"it names commands that exist already: {', '.join(clashes)}" if clashes else ""
        commands = {name: line for name, line in commands.items() if name not in taken}
        taken.update(dict.fromkeys(commands, entry_point.name))
        tools.append(Tool(entry_point.name, distribution, commands, module, problem))
    return tools


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``lincei`` with ``arguments`` (those of the process by default).

    Returns
    -------
    int
        Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that the console cannot show must not be an error
            stream.reconfigure(errors="backslashreplace")
    with _warnings_as_lines():
        return _guarded(lambda: _dispatch(words))


def _dispatch(words: Sequence[str]) -> int:
    """Run the command that ``words`` begin with and return its exit status."""
    first = words[0] if words else "--help"
    if first in ("--help", "-h", "help"):
        print(_help_text(find_tools()))
        return 0 if words else EXIT_USAGE
    if first in ("--version", "version"):
        print(f"lincei {__version__}")
        return 0
    if first.startswith("-"):
        raise UsageError(f"there is no option {first!r} before a command", "", "See `lincei --help`.")
    return _run(_application(first), first, words[1:])


def _application(name: str) -> typer.Typer:
    """Return the application of a command, importing its tool only now."""
    if name in CORE_COMMANDS:
        application: typer.Typer = import_module(CORE_COMMANDS[name][1]).app()
        return application
    tools = find_tools()
    for tool in tools:
        if name in tool.commands and tool.module is not None:
            application = tool.module.command(name)
            return application
    import difflib

    known = [*CORE_COMMANDS, *(command for tool in tools for command in tool.commands)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(known))}."
    broken = "".join(f" The tool {t.name!r} is broken: {t.problem}." for t in tools if t.problem)
    raise UsageError(f"there is no command {name!r}", "", hint + broken)


def _run(application: typer.Typer, name: str, words: Sequence[str]) -> int:
    """Parse ``words`` for a command and run it; a command's function may return its exit status."""
    import typer.main

    # Of the parser's errors Typer exports only this one; the first of its bases stands for all of them.
    wrong_usage: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
    command = typer.main.get_command(application)
    try:
        result = command.main(args=list(words), prog_name=f"lincei {name}", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.Exit as error:
        return int(error.exit_code)
    except wrong_usage as error:
        error.show()
        return EXIT_USAGE
    if result == EXIT_CANCELLED:
        raise CancelledError
    return result if isinstance(result, int) else 0


def _guarded(action: Callable[[], int]) -> int:
    """Run ``action``; whatever it raises becomes one sentence on stderr and an exit status."""
    debug = bool(os.environ.get("LINCEI_DEBUG"))
    try:
        status = action()
        sys.stdout.flush()  # a reader that has gone is noticed here, not by Python at its end
        return status
    except (CancelledError, KeyboardInterrupt):
        _say("stopped before the end.")
        return EXIT_CANCELLED
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone; Python must not complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        readable = readable_error(error)
        if readable is not None:
            _say(f"error: {readable}")
            return EXIT_USAGE if isinstance(readable, UsageError) else EXIT_FAILURE
        _say(
            f"error: something went wrong that lincei did not foresee ({type(error).__name__}: {error}). "
            f"Please report it to the lincei developers together with {_write_log(error)}."
        )
        return EXIT_FAILURE


def _write_log(error: BaseException) -> str:
    """Write the traceback of ``error`` to a file and return how to name it to the user."""
    import datetime
    import platform
    import traceback

    import platformdirs

    moment = datetime.datetime.now()
    lines = [
        f"lincei {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{moment.isoformat(timespec='seconds')}: {' '.join(sys.argv)}",
        "".join(traceback.format_exception(error)),
    ]
    try:
        folder = Path(platformdirs.user_log_dir("lincei", appauthor=False))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"error-{moment:%Y%m%d-%H%M%S}-{os.getpid()}.log"
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError:
        return "what LINCEI_DEBUG=1 shows (the log could not be written)"
    return f"the file {path}"


def _say(line: str) -> None:
    """Print one line for the user on stderr."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each `LinceiWarning` once, as a line; libraries' warnings only with LINCEI_DEBUG=1."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        text = str(message) if issubclass(category, LinceiWarning) else f"{category.__name__}: {message}"
        if text not in seen:
            seen.add(text)
            _say(f"warning: {text}")

    with warnings.catch_warnings():
        if not os.environ.get("LINCEI_DEBUG"):
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", LinceiWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _help_text(tools: Sequence[Tool]) -> str:
    """Return the text of ``lincei --help``."""
    rows = {name: line for name, (line, _) in CORE_COMMANDS.items()}
    for tool in tools:
        rows.update(tool.commands)
    width = max(len(name) for name in rows)
    tool_names = [name for tool in tools for name in tool.commands]
    lines = [
        "See more through the microscope you already have. Research use only.",
        "",
        "Usage: lincei COMMAND [ARGUMENTS]",
        "       lincei COMMAND --help",
        "",
        "Commands:",
        *(f"  {name:<{width}}  {rows[name]}" for name in [*tool_names, *CORE_COMMANDS]),
    ]
    problems = [tool for tool in tools if tool.problem]
    if problems:
        lines += ["", "Cannot be used:"]
        lines += [f"  {tool.name} (of the package {tool.distribution}): {tool.problem}" for tool in problems]
    return "\n".join(lines)
