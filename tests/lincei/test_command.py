from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from lincei import command
from lincei.command import console_progress, options_command, stoppable
from lincei.errors import UsageError
from lincei.options import Options, option
from lincei.progress import CancelCheck, Progress, ProgressCallback


@dataclass(frozen=True)
class ExampleOptions(Options):
    """Every kind of field that an options class may have."""

    model: tuple[str, ...] = option(("motor-neurons",), "Models to use.")
    labels: tuple[str, ...] | None = option(None, "Labels to predict.")
    quantiles: tuple[float, ...] = option((), "Quantiles.", minimum=0, maximum=1)
    pixel_size_um: float | None = option(None, "Size of a pixel.", unit="um", above=0)
    statistic: str = option("mean", "Statistic.", choices=("mean", "sd"))
    tile: int = option(512, "Side of a tile.", minimum=64)
    keep: bool = option(False, "Keep everything.")


def run(*words: str) -> tuple[dict[str, Any], Any]:
    """Run an example command with ``words`` and return what its function received, and the outcome."""
    received: dict[str, Any] = {}

    def example(
        inputs: Annotated[list[str], typer.Argument(help="Images.")],
        out: Annotated[str, typer.Option(help="Folder to write to.")] = "out",
        *,
        options: ExampleOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Do an example."""
        received.update(inputs=inputs, out=out, options=options, cancelled=cancelled())
        progress(Progress("working", 1, 2))
        return 0

    return received, CliRunner().invoke(options_command(ExampleOptions, example), list(words))


def test_without_flags_the_options_have_their_defaults() -> None:
    received, _ = run("a.tif", "b.tif")
    assert received == {
        "inputs": ["a.tif", "b.tif"],
        "out": "out",
        "options": ExampleOptions(),
        "cancelled": False,
    }


def test_every_kind_of_field_can_be_set_by_its_flag() -> None:
    received, _ = run(
        *(
            "a.tif",
            "--out",
            "here",
            "--model",
            "one,two",
            "--labels",
            "DAPI, MAP2",
            "--quantiles",
            "0.05,.95",
        ),
        *("--pixel-size-um", "0.65", "--statistic", "sd", "--tile", "256", "--keep"),
    )
    assert received["out"] == "here"
    assert received["options"] == ExampleOptions(
        ("one", "two"), ("DAPI", "MAP2"), (0.05, 0.95), 0.65, "sd", 256, True
    )


@pytest.mark.parametrize(
    "words", [("--statistic", "median"), ("--tile", "8"), ("--pixel-size-um", "0"), ("--quantiles", "a,b")]
)
def test_a_value_that_is_not_allowed_is_wrong_usage_that_names_the_flag(words: tuple[str, str]) -> None:
    received, outcome = run("a.tif", *words)
    assert not received
    assert isinstance(outcome.exception, UsageError)
    assert words[0] in str(outcome.exception)


def test_help_shows_units_choices_limits_and_defaults() -> None:
    _, outcome = run("--help")
    shown = " ".join(outcome.output.split())
    for text in (
        "Do an example.",
        "--pixel-size-um um Size of a pixel. (above 0)",
        "--statistic mean|sd Statistic. [default: mean]",
        "--tile whole number Side of a tile. (at least 64) [default: 512]",
        "--keep / --no-keep Keep everything.",
        "--model text,... Models to use. [default: motor-neurons]",
        "--labels text,... Labels to predict.",
    ):
        assert text in shown


def test_a_field_that_no_flag_can_express_is_the_programmers_error() -> None:
    @dataclass(frozen=True)
    class Strange(Options):
        where: dict[str, int] | None = None

    with pytest.raises(TypeError, match="where"):
        options_command(Strange, lambda options: None)


def test_the_first_interrupt_asks_and_the_second_one_stops(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stoppable() as cancelled:
        assert not cancelled()
        signal.raise_signal(signal.SIGINT)
        assert cancelled()
        assert "Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_no_signal_is_touched() -> None:
    states: list[bool] = []

    def work() -> None:
        with stoppable() as cancelled:
            states.append(cancelled())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert states == [False]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows delivers Ctrl-C to a console, not to a process")
def test_ctrl_c_ends_a_running_command_with_130_and_a_sentence() -> None:
    code = """
        import sys, time
        from lincei import cli
        from lincei.command import options_command
        from lincei.options import Options
        from lincei.progress import stop_if_cancelled

        def work(*, cancelled):
            print("ready", flush=True)
            for _ in range(600):
                time.sleep(0.1)
                stop_if_cancelled(cancelled)

        sys.exit(cli._guarded(lambda: cli._run(options_command(Options, work), "work", [])))
    """
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "stopped before the end." in errors
    assert "Traceback" not in errors


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_terminal_a_line_comes_every_ten_seconds_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    monkeypatch.setattr(command._Pace.__init__, "__defaults__", (clock,))
    stream = io.StringIO()
    with console_progress(stream) as progress:
        for done in range(0, 101, 4):
            progress(Progress("labeling", done, 100))
            clock.now_s += 1.0
    lines = stream.getvalue().splitlines()
    assert lines == ["labeling: 40 %, about 15 s left", "labeling: 80 %, about 5 s left"]


def test_a_message_is_printed_once() -> None:
    stream = io.StringIO()
    with console_progress(stream) as progress:
        for message in ("", "epoch 1: loss 0.5", "epoch 1: loss 0.5", "", "epoch 2: loss 0.4"):
            progress(Progress("training", 1, 0, message))
    assert stream.getvalue().splitlines() == ["epoch 1: loss 0.5", "epoch 2: loss 0.4"]


def test_the_time_left_starts_anew_when_the_count_does() -> None:
    clock = Clock()
    pace = command._Pace(clock)
    assert pace.hear(Progress("reading", 0, 10))
    clock.now_s = 100.0
    assert not pace.hear(Progress("reading", 10, 10))
    assert pace.hear(Progress("labeling", 0, 10))
    clock.now_s = 101.0
    assert not pace.hear(Progress("labeling", 5, 10))
    assert pace.sentence(Progress("labeling", 5, 10)) == "labeling: 50 %, about 1 s left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_shows_the_stage_and_messages_stay() -> None:
    stream = Terminal()
    with console_progress(stream) as progress:
        progress(Progress("labeling [a.tif]", 0, 4))
        progress(Progress("labeling [a.tif]", 2, 4, "half of it [done]"))
    shown = stream.getvalue()
    assert "labeling [a.tif]" in shown
    assert "50%" in shown
    assert "half of it [done]" in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(4, "4 s"), (89, "89 s"), (120, "2 min"), (5399, "1 h 30 min"), (7500, "2 h 5 min")]
)
def test_durations_are_worded_for_people(seconds: float, text: str) -> None:
    assert command._duration(seconds) == text
