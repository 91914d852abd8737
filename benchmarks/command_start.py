"""How long the commands take to start, beside a Python that does nothing.

python benchmarks/command_start.py
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from machine import RESULTS, about, spread, table, write_results

# What the project asks of `lincei --help`.
AIM_S = 0.3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def seconds_of(command: list[str]) -> float:
    """Return how long a command takes; it must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


@app.command()
def main(
    repeats: Annotated[int, typer.Option(min=1, help="How often each is started.")] = 15,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    lincei = shutil.which("lincei", path=str(Path(sys.executable).parent))
    if lincei is None:
        raise typer.BadParameter("the command lincei is not installed beside this Python")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "lincei --help": [lincei, "--help"],
        "lincei label --help": [lincei, "label", "--help"],
        'python -c "import insilico"': [sys.executable, "-c", "import insilico"],
    }
    for command in commands.values():
        seconds_of(command)  # compiles what is not compiled yet, and brings the files into memory
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):  # in turns, so that a slow moment of the machine hits all of them
        for name, command in commands.items():
            times[name].append(seconds_of(command))
    bare = statistics.median(times["python -c pass"])
    rows = [
        [f"`{name}`", spread(taken), f"{statistics.median(taken) / bare:.1f}"]
        for name, taken in times.items()
    ]
    help_s = statistics.median(times["lincei --help"])
    reached = "reached" if help_s < AIM_S else "missed"
    write_results(
        out,
        "command_start",
        "\n\n".join(
            [
                "# How long the commands take to start",
                about(["typer", "numpy"]),
                f"Median of {repeats} starts each, taken in turns (range in brackets). "
                f"Aim: `lincei --help` under {AIM_S} s: {reached}.",
                table(["command", "time", "times a bare Python"], rows),
            ]
        ),
    )


if __name__ == "__main__":
    app()
