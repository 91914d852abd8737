"""How fast the widgets open in napari, how fast a preview is there, and how long the window is ever silent.

    python benchmarks/napari_speed.py
    python benchmarks/napari_speed.py --repeats 1 --seconds 10       # a quick look

Needs a screen; ``xvfb-run -s "-screen 0 1600x1000x24"`` before it makes one. Every widget is opened in a
fresh process, for the first one that is opened imports what the others need too. The image is the stack of
motor neurons (13 planes) where it is on this computer, simulated cells with as many planes otherwise.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import RESULTS, about, in_fresh_process, spread, table, use_cores, write_results

# What the project asks for.
OPEN_S = 0.5
PREVIEW_S = 1.0
SILENCE_MS = 100.0
_TICK_MS = 10
_PREVIEW_PX = 512
_START_LIMIT_S = 600.0
_WINDOW_PX = (1500, 950)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Silence:
    """How long the window did not answer while something ran.

    Parameters
    ----------
    what : str
        What ran.
    seconds : float
        How long it was watched.
    longest_ms : float
        Longest time between two ticks of the timer, in ms.
    late : int
        How many ticks came more than `SILENCE_MS` after the one before.
    """

    what: str
    seconds: float
    longest_ms: float
    late: int


class Ticks:
    """A timer in the event loop: each tick is as late as the window was busy."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._at_s: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(lambda: self._at_s.append(time.monotonic()))

    def start(self) -> None:
        """Begin to watch."""
        self._at_s = [time.monotonic()]
        self._timer.start(_TICK_MS)

    def stop(self, what: str) -> Silence:
        """End, and return what was seen."""
        self._timer.stop()
        at_s = [*self._at_s, time.monotonic()]
        gaps_ms = [1e3 * (later - earlier) for earlier, later in itertools.pairwise(at_s)]
        late = sum(gap_ms > SILENCE_MS for gap_ms in gaps_ms)
        return Silence(what, at_s[-1] - at_s[0], max(gaps_ms), late)


def new_viewer() -> Any:
    """Return a napari viewer with its window, drawn and idle."""
    from arm_overlay.displays import protect_constants

    protect_constants()
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*_WINDOW_PX)
    wait_until(lambda: False, 1.0)
    return viewer


def wait_until(holds: Callable[[], Any], limit_s: float = _START_LIMIT_S) -> bool:
    """Let the window work until something holds, and tell whether it does."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop, poll = QEventLoop(), QTimer()
    ended_s = time.monotonic() + limit_s

    def look() -> None:
        if holds() or time.monotonic() >= ended_s:
            loop.quit()

    poll.timeout.connect(look)
    poll.start(5)
    loop.exec()
    poll.stop()
    return bool(holds())


def open_stack(viewer: Any) -> list[Any]:
    """Show the sample's layers, the one without stains first."""
    from napari_plugin.samples import motor_neurons

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that cells are simulated is in the result
        layers = motor_neurons()
    return [getattr(viewer, f"add_{kind}")(data, **keywords) for data, keywords, kind in layers]


def time_opening(name: str) -> float:
    """Return the seconds from the menu to the widget on the screen; in a fresh process."""
    viewer = new_viewer()
    from qtpy.QtWidgets import QApplication

    began_s = time.perf_counter()
    _, panel = viewer.window.add_plugin_dock_widget("lincei", name)
    while not panel.isVisible():
        QApplication.processEvents()
    QApplication.processEvents()  # it is drawn
    took_s = time.perf_counter() - began_s
    viewer.close()
    return took_s


def time_prediction(previews: int) -> tuple[str, list[float], Silence]:
    """Time previews of several places, then watch the window while the whole is predicted; fresh process.

    Returns
    -------
    str
        The image's name and size.
    list of float
        Seconds from the click to the layers; the first loads the model and measures the image's intensities.
    Silence
        Of the window, during the prediction.
    """
    viewer = new_viewer()
    stack = open_stack(viewer)[0]
    viewer.layers.selection.active = stack  # widgets begin with it
    _, panel = viewer.window.add_plugin_dock_widget("lincei", "Predict fluorescence")
    wait_until(lambda: False, 1.0)
    sides = stack.data.shape[-2:]
    camera = getattr(viewer, "scene", viewer).camera  # of napari 0.9, and before
    seconds = []
    for number in range(previews):
        # Of what is in view the middle is predicted: another part each time, where the image is larger.
        aside = (number + 0.5) / previews - 0.5
        middle = [side / 2 + aside * max(0, side - _PREVIEW_PX) / 2 for side in sides]
        camera.center = stack.data_to_world((0, *middle))[-2:]
        wait_until(lambda: False, 0.5)
        began_s = time.perf_counter()
        panel.preview_button.click()
        wait_until(lambda: not panel.is_busy)
        seconds.append(time.perf_counter() - began_s)
        shown = [layer for layer in viewer.layers if layer.name.endswith("preview")]
        if not shown:
            raise RuntimeError(f"no preview: {panel.message.text()}")
        # A few pixels less where the place ends at the border of what is in view.
        if min(shown[-1].data.shape[-2:]) < 0.95 * _PREVIEW_PX:
            raise RuntimeError(f"the preview has the shape {shown[-1].data.shape[-2:]}")
    watch = Ticks()
    watch.start()
    panel.run_button.click()
    wait_until(lambda: not panel.is_busy)
    silence = watch.stop("a prediction of the whole image")
    if not any(layer.name.endswith("DAPI") or layer.name.endswith("nuclei") for layer in viewer.layers):
        raise RuntimeError(f"no prediction: {panel.message.text()}")
    size = " x ".join(str(side) for side in stack.data.shape)
    viewer.close()
    return f"{stack.name}, {size}", seconds, silence


def time_training(seconds: float) -> list[Silence]:
    """Watch the window while a worker process starts, learns and is stopped; in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LINCEI_MODELS"] = str(Path(folder) / "models")
        os.environ["XDG_CONFIG_HOME"] = str(Path(folder) / "config")
        viewer = new_viewer()
        open_stack(viewer)
        _, panel = viewer.window.add_plugin_dock_widget("lincei", "Learn a label")
        wait_until(lambda: False, 1.0)
        panel.name.setText("speed")
        panel.options.set("start_from", "scratch")
        watch = Ticks()
        watch.start()
        panel.run_button.click()
        training = panel.training
        if training is None:
            raise RuntimeError(panel.message.text())
        wait_until(lambda: training.losses or not training.is_running)
        found = [watch.stop("the start of a training")]
        if not training.is_running:
            raise RuntimeError(training.error)
        watch.start()
        wait_until(lambda: not training.is_running, seconds)
        found.append(watch.stop("a training"))
        if not training.is_running:
            raise RuntimeError(training.error or "the training has ended too early")
        watch.start()
        panel.cancel_button.click()
        wait_until(lambda: not training.is_running)
        found.append(watch.stop("the stop of a training"))
        viewer.close()
    return found


def reached(values: Sequence[float], aim: float) -> str:
    """Say whether all of the values lie under what was asked for."""
    return "reached" if max(values) < aim else "missed"


@app.command()
def main(
    repeats: Annotated[int, typer.Option(min=1, help="How often each widget is opened.")] = 5,
    previews: Annotated[int, typer.Option(min=2, help="How many places are previewed.")] = 6,
    seconds: Annotated[float, typer.Option(help="How long a training is watched.")] = 60.0,
    cores: Annotated[int, typer.Option(help="Cores that are used.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = RESULTS,
) -> None:
    """Measure opening, preview and silence."""
    from npe2 import PluginManifest

    import napari_plugin

    cores = use_cores(cores)
    manifest = PluginManifest.from_file(Path(napari_plugin.__file__).with_name("napari.yaml"))
    names = [widget.display_name for widget in manifest.contributions.widgets or ()]
    in_fresh_process(time_opening, names[0])  # compiles what is not compiled yet
    opening: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):  # in turns, so that a slow moment of the machine hits all of them
        for name in names:
            opening[name].append(in_fresh_process(time_opening, name))
    image, taken, predicting = in_fresh_process(time_prediction, previews)
    silences = [predicting, *in_fresh_process(time_training, seconds)]
    slowest = [statistics.median(times) for times in opening.values()]
    text = "\n\n".join(
        [
            "# The widgets in napari",
            about(["napari", "vispy", "PySide6-Essentials", "openvino", "appose"], cores),
            f"## Opening a widget\n\nIn a fresh process, after napari has started: median of {repeats} "
            f"(range in brackets). Under {OPEN_S:g} s was asked for: {reached(slowest, OPEN_S)}.",
            table(("widget", "time"), [[name, spread(times)] for name, times in opening.items()]),
            f"## Preview\n\n{image}; 512 x 512 pixels in view, all planes, all labels of the models chosen "
            f"at first; from the click to the layers. Under {PREVIEW_S:g} s was asked for: "
            f"{reached([statistics.median(taken[1:])], PREVIEW_S)}.",
            table(
                ("preview", "time"),
                [
                    ["the first, which loads the model", f"{taken[0]:.3f} s"],
                    [f"the next {len(taken) - 1}, each of another place", spread(taken[1:])],
                ],
            ),
            f"## Silence\n\nThe longest time between two ticks of a {_TICK_MS} ms timer in the window's "
            f"event loop. Under {SILENCE_MS:g} ms was asked for: "
            f"{reached([each.longest_ms for each in silences], SILENCE_MS)}.",
            table(
                ("while", "watched", "longest silence", f"silences over {SILENCE_MS:g} ms"),
                [
                    [each.what, f"{each.seconds:.0f} s", f"{each.longest_ms:.0f} ms", str(each.late)]
                    for each in silences
                ],
            ),
        ]
    )
    write_results(out, "napari_speed", text)


if __name__ == "__main__":
    app()
