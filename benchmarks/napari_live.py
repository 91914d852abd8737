"""How many frames a second the viewer shows of the running augmented-reality microscope.

    python benchmarks/napari_live.py
    python benchmarks/napari_live.py --seconds 5 --rounds 1       # a quick look

Needs a screen; ``xvfb-run -s "-screen 0 1600x1000x24"`` before it makes one. Frames (Bayer, 1920x1200) are
drawn beforehand. The loop runs in turn alone and with the viewer, in one process, so that both meet the same
machine: the ratio tells what the viewer takes from the loop. Then single ways to show a frame with its
outline are timed without the loop.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import RESULTS, about, in_fresh_process, table, use_cores, write_results

# What the project asks for.
LEAST_PER_S = 15.0
WARM_UP_S = 3.0
_START_LIMIT_S = 300.0
_WINDOW_PX = (1500, 950)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Rates:
    """Frames a second of one round.

    Parameters
    ----------
    alone : float
        Overlays of the loop without a viewer.
    beside : float
        Overlays of the loop beside the viewer.
    shown : float
        Frames with their overlay that the viewer showed.
    longest_ms : float
        Longest time that the window did not answer.
    """

    alone: float
    beside: float
    shown: float
    longest_ms: float


def time_rounds(camera: str, seconds: float, rounds: int, full_resolution: bool) -> list[Rates]:
    """Run the loop alone and in the viewer, in turn; in a fresh process."""
    import napari
    from napari.qt import get_qapp
    from qtpy.QtCore import QTimer

    from arm_overlay.cameras import new_camera
    from arm_overlay.live import LiveOutline
    from arm_overlay.loop import Loop
    from napari_plugin.microscope import Microscope

    drawn: Any = new_camera(camera)
    drawn.prepare()
    application = get_qapp()
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*_WINDOW_PX)
    panel = Microscope(viewer)
    viewer.window.add_dock_widget(panel, name=Microscope.TITLE)
    panel.camera.setEditText(camera)
    panel.full_resolution.setChecked(full_resolution)

    def until(holds: Callable[[], bool], limit_s: float) -> None:
        ended_s = time.monotonic() + limit_s
        while not holds() and time.monotonic() < ended_s:
            application.processEvents()
            time.sleep(0.001)

    found = []
    for _ in range(rounds):
        with LiveOutline() as live, Loop(lambda: new_camera(camera), live) as loop:
            time.sleep(WARM_UP_S)
            before = loop.status().frames_out
            time.sleep(seconds)
            alone = (loop.status().frames_out - before) / seconds

        panel.run_button.click()
        until(lambda: panel.is_live, _START_LIMIT_S)
        if not panel.is_live:
            raise SystemExit(panel.message.text())
        until(lambda: False, WARM_UP_S)
        loop_before, shown_before, began_s = _frames_out(panel), panel.view.shown, time.monotonic()
        # Each tick of this timer is as late as the window was busy.
        ticks = [began_s]
        timer = QTimer()
        timer.timeout.connect(lambda ticks=ticks: ticks.append(time.monotonic()))
        timer.start(10)
        until(lambda: False, seconds)
        timer.stop()
        took_s = time.monotonic() - began_s
        longest_s = max(later - earlier for earlier, later in itertools.pairwise(ticks))
        beside = (_frames_out(panel) - loop_before) / took_s
        shown = (panel.view.shown - shown_before) / took_s
        found.append(Rates(alone, beside, shown, 1e3 * longest_s))
        panel.cancel_button.click()
        until(lambda: not panel.is_busy, _START_LIMIT_S)
    viewer.close()
    return found


def _frames_out(panel: Any) -> int:
    return int(panel.session.parts.loop.status().frames_out)


def time_ways(frames: int) -> dict[str, float]:
    """Return the milliseconds that a frame takes in each way to show it, drawing included; no loop runs."""
    import napari
    import numpy as np
    from napari.qt import get_qapp

    from arm_overlay.developing import NEUTRAL
    from arm_overlay.frames import Frame
    from arm_overlay.overlay import Overlay, Region
    from napari_plugin.live_layers import LiveLayers

    application = get_qapp()
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*_WINDOW_PX)
    rng = np.random.default_rng(0)
    raw = [rng.integers(0, 256, (1200, 1920), np.uint8) for _ in range(4)]
    angles = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    ring = 120 * np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    centers = [np.array([x, y], np.float32) for x in (300, 750, 1200, 1650) for y in (250, 600, 950)]

    def frame_of(number: int) -> tuple[Frame, Overlay]:
        moved = np.float32(number % 40)
        regions = tuple(Region(ring + center + moved) for center in centers)
        frame = Frame(raw[number % len(raw)], 0.0, number, bayer="RGGB")
        return frame, Overlay(number, 0.0, frame.size_px, regions=regions)

    def timed(show: Callable[[int], None]) -> float:
        taken = []
        for number in range(frames + 3):
            began_s = time.perf_counter()
            show(number)
            application.processEvents()
            taken.append(1e3 * (time.perf_counter() - began_s))
        viewer.layers.clear()
        return statistics.median(taken[3:])

    def in_place(full: bool) -> Callable[[int], None]:
        layers = LiveLayers(viewer)
        layers.full_resolution = full
        return lambda number: layers.show(*frame_of(number), NEUTRAL, dark=False, time_s=0.0)

    def as_layer(kind: str) -> Callable[[int], None]:
        layers = LiveLayers(viewer)
        added: list[Any] = []

        def show(number: int) -> None:
            frame, overlay = frame_of(number)
            layers.show(frame, overlay, NEUTRAL, dark=True, time_s=0.0)
            rings = [region.exterior[:, ::-1] for region in overlay.regions]
            if kind == "shapes":
                data: Any = rings
            else:
                data = np.concatenate([np.stack([r, np.roll(r, -1, 0) - r], axis=1) for r in rings])
            if added:
                added[0].data = data
            elif kind == "shapes":
                added.append(viewer.add_shapes(data, shape_type="polygon", edge_width=4, edge_color="lime"))
            else:
                added.append(viewer.add_vectors(data, edge_width=4, edge_color="lime", vector_style="line"))

        return show

    found = {
        "outline as an image, half resolution (as shown)": timed(in_place(False)),
        "outline as an image, full resolution": timed(in_place(True)),
        "outline as vectors": timed(as_layer("vectors")),
        "outline as shapes": timed(as_layer("shapes")),
    }
    viewer.close()
    return found


@app.command()
def main(
    seconds: Annotated[float, typer.Option(help="Of each part of a round.")] = 20.0,
    rounds: Annotated[int, typer.Option(help="The loop alone, then with the viewer, so many times.")] = 3,
    fps: Annotated[float, typer.Option(help="Of the camera.")] = 30.0,
    camera: Annotated[str, typer.Option(help="More of its settings.")] = "rendered=60,speed=0.1",
    cores: Annotated[int, typer.Option(help="Cores that are used.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = RESULTS,
) -> None:
    """Measure the live view."""
    cores = use_cores(cores)
    spec = f"simulated:objective=20x,fps={fps:g},{camera}"
    rows = []
    half: list[Rates] = []
    for full in (False, True):
        found = in_fresh_process(time_rounds, spec, seconds, rounds, full)
        half = half or found
        rows += [
            [
                "full" if full else "half",
                f"{each.alone:.1f}",
                f"{each.beside:.1f}",
                f"{each.shown:.1f}",
                f"{each.shown / each.alone:.2f}" if each.alone else "-",
                f"{each.longest_ms:.0f}",
            ]
            for each in found
        ]
    ways = in_fresh_process(time_ways, 40)
    least = min(each.shown for each in half)
    text = "\n\n".join(
        [
            "# The microscope in napari",
            about(["napari", "vispy", "PySide6-Essentials", "openvino"], cores),
            f"Frames a second at {fps:g} frames a second of 1920x1200 from the camera, {seconds:g} s each; "
            "the window's longest silence in ms.",
            table(
                ("shown at", "loop alone", "loop beside it", "viewer", "viewer / alone", "longest silence"),
                rows,
            ),
            f"At least {LEAST_PER_S:g} were asked for: "
            f"{'reached' if least >= LEAST_PER_S else 'not reached'} (the slowest round at half resolution: "
            f"{least:.1f}).",
            "Milliseconds to show one frame with 12 outlines, drawing included, no loop running (median):",
            table(("way", "ms"), [[way, f"{took_ms:.0f}"] for way, took_ms in ways.items()]),
        ]
    )
    write_results(out, "napari_live", text)


if __name__ == "__main__":
    app()
