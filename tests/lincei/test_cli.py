from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lincei import __version__, cli

MakeTool = Callable[..., Path]

WORKING = """
from lincei.errors import *

COMMANDS = {{"{command}": "Does it."}}

def command(name):
    import typer
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    def run(word: str = "nothing") -> {returns}:
        {body}

    return app
"""


@pytest.fixture
def make_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTool:
    """Install a tool the way a third party would: a distribution with an entry point."""

    def make(name: str, source: str | None = None, *, body: str = "print(word)", command: str = "") -> Path:
        folder = tmp_path / f"site_{name}"
        information = folder / f"{name}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[lincei.tools]\n{name} = {name}_cli\n")
        text = source or WORKING.format(command=command or name, body=body, returns="int | None")
        (folder / f"{name}_cli.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, f"{name}_cli", raising=False)
        return folder

    return make


def test_help_names_every_command_and_needs_nothing_heavy() -> None:
    code = (
        "import sys, json; from lincei.cli import main; status = main(['--help']);"
        "print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    for command in ("demo", "doctor", "models", "version"):
        assert f"\n  {command} " in done.stdout
    heavy = {"numpy", "rich", "pydantic", "jinja2", "tensorflow", "keras", "openvino", "onnxruntime"}
    heavy |= {"skimage", "scipy", "tifffile", "zarr", "pooch", "yaml", "bioimageio", "PIL", "imageio"}
    assert not heavy & set(modules)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"lincei {__version__}\n" * 2


def test_without_a_command_the_help_is_shown_and_the_status_says_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 2
    assert "Usage: lincei COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("command", list(cli.CORE_COMMANDS))
def test_every_core_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"lincei {command}" in capsys.readouterr().out or command == "version"


def test_a_third_partys_tool_is_found_and_run(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tool("counting")
    assert cli.main(["counting", "--word", "cells"]) == 0
    assert capsys.readouterr().out == "cells\n"
    cli.main(["--help"])
    assert re.search(r"\n  counting +Does it\.", capsys.readouterr().out)


def test_a_broken_tool_is_named_and_the_others_work(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tool("broken", "import a_module_that_is_not_there")
    make_tool("counting")
    assert cli.main(["counting"]) == 0
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "broken (of the package broken): ModuleNotFoundError" in text
    assert cli.main(["broken"]) == 2
    assert "The tool 'broken' is broken" in capsys.readouterr().err


def test_a_tool_without_a_command_function_is_broken(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tool("half", "COMMANDS = {'half': 'x'}")
    cli.main(["--help"])
    assert "half (of the package half): AttributeError" in capsys.readouterr().out


def test_a_tool_cannot_take_the_name_of_a_core_command(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tool("greedy", command="doctor")
    [tool] = [tool for tool in cli.find_tools() if tool.name == "greedy"]
    assert not tool.commands
    assert "'doctor' (of lincei)" in tool.problem


def test_a_mistyped_command_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["docter"]) == 2
    assert "there is no command 'docter'. Did you mean 'doctor'?" in capsys.readouterr().err


def test_an_option_before_the_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--verbose"]) == 2
    assert "'--verbose'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (
            "raise LinceiError('the image is constant', 'a.tif', 'Check the lamp.')",
            1,
            "error: a.tif: the image is constant. Check the lamp.\n",
        ),
        ("raise UsageError('--tile is 3')", 2, "error: --tile is 3.\n"),
        ("raise CancelledError", 130, "stopped before the end.\n"),
        ("raise KeyboardInterrupt", 130, "stopped before the end.\n"),
        ("return 130", 130, "stopped before the end.\n"),
        ("return 1", 1, ""),
        ("return 0", 0, ""),
        (
            "open('/nowhere/at/all.tif')",
            1,
            "error: /nowhere/at/all.tif: there is no such file or folder. Check the name.\n",
        ),
    ],
)
def test_what_a_command_raises_or_returns_becomes_a_sentence_and_a_status(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str], body: str, status: int, sentence: str
) -> None:
    make_tool("counting", body=body)
    assert cli.main(["counting"]) == status
    assert capsys.readouterr().err == sentence


def test_wrong_options_exit_with_2_and_show_the_usage(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tool("counting")
    assert cli.main(["counting", "--color", "red"]) == 2
    shown = capsys.readouterr().err
    assert "Usage: lincei counting" in shown
    assert "--color" in shown


def test_an_unforeseen_error_asks_for_a_report_and_writes_a_log(
    make_tool: MakeTool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("platformdirs.user_log_dir", lambda *_, **__: str(tmp_path / "logs"))
    make_tool("counting", body="raise ZeroDivisionError('by zero')")
    assert cli.main(["counting"]) == 1
    shown = capsys.readouterr().err
    [log] = (tmp_path / "logs").iterdir()
    assert shown.count("\n") == 1
    assert "ZeroDivisionError: by zero" in shown
    assert str(log) in shown
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_the_traceback_is_shown_on_request(
    make_tool: MakeTool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tool("counting", body="raise LinceiError('no')")
    cli.main(["counting"])
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("LINCEI_DEBUG", "1")
    cli.main(["counting"])
    assert "Traceback" in capsys.readouterr().err


def test_a_warning_is_one_line_and_comes_once(
    make_tool: MakeTool, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "import warnings; [warnings.warn('the planes drift', LinceiWarning) for _ in 'abc'];"
        "warnings.warn('for programmers', DeprecationWarning)"
    )
    make_tool("counting", body=body)
    before = warnings.showwarning
    assert cli.main(["counting"]) == 0
    assert capsys.readouterr().err == "warning: the planes drift\n"
    assert warnings.showwarning is before


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently on Windows")
def test_a_reader_that_goes_away_causes_no_complaint() -> None:
    # The answer is held back in Python's buffer until the reader has gone.
    code = "import sys, time; from lincei.cli import main; time.sleep(0.2); sys.exit(main(['--help']))"
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    program.wait()


DEMO = """
COMMANDS = {{}}
DEMO = "{name}_cli:show"

def command(name):
    raise KeyError(name)

def show(out, *, progress, cancelled):
    from lincei.report import Section
    (out / "{name}.txt").write_text("made")
    return [Section("What {name} shows")]
"""


def test_the_demo_shows_every_working_tool_on_one_page_and_names_the_broken_one(
    make_tool: MakeTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("counting", "tracking"):
        make_tool(name, DEMO.format(name=name))
    make_tool("broken", "import a_module_that_is_not_there")
    found = [tool for tool in cli.find_tools() if tool.distribution != "lincei"]
    monkeypatch.setattr("lincei.demo.find_tools", lambda: found)
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 0
    page = (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")
    assert "What counting shows" in page
    assert "What tracking shows" in page
    assert (tmp_path / "demo" / "tracking.txt").is_file()
    shown = capsys.readouterr()
    assert "warning: the tool 'broken' is left out" in shown.err
    assert str(tmp_path / "demo" / "index.html") in shown.out


def test_without_anything_to_show_the_demo_fails_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lincei.demo.find_tools", list)
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 1
    assert "lincei doctor" in capsys.readouterr().err
    assert not (tmp_path / "demo" / "index.html").exists()
