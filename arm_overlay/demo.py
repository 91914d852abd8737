"""The part of ``lincei demo`` that is the augmented-reality microscope: ten seconds of a simulated slide."""

from __future__ import annotations

import importlib.util
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from lincei.report import Figure, Section, Table
from sample_data.slides import open_slide

if TYPE_CHECKING:
    from arm_overlay.cameras.simulated import SimulatedCamera
    from arm_overlay.frames import Frame
    from arm_overlay.live import LiveOutline
    from arm_overlay.overlay import Overlay

MODEL = "tumor-breast"
CAMERA = "simulated:objective=10x,changes=20x@6,speed=0.1,light=0.7@9-11"
SECONDS = 10.0
# The first answer comes when the network is loaded, which takes long on a busy computer.
START_LIMIT_S = 120.0
MOVIE_FPS, MOVIE_WIDTH_PX = 8, 480
_STILL_WIDTH_PX = 960
# What the live loop is made of besides the light install.
_LIBRARIES = {"cv2": "OpenCV", "shapely": "Shapely"}
_TITLE = "Augmented-reality microscope"
_RESEARCH_ONLY = "Research use only: not for diagnosis, not for deciding about a patient."
# Whole words for the stages that the loop times.
_STAGE_NAMES = {
    "grab": "the frame comes from the camera",
    "wait": "it waits for the frame before",
    "debayer": "colors from the raw frame",
    "motion": "how far the slide moved",
    "gate": "is it in focus",
    "inference": "the network",
    "stabilize": "steadying the heat map",
    "outline": "drawing around the regions",
    "warp": "fitting to the display",
    "display": "showing it",
}


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen in the demonstration.

    Parameters
    ----------
    frames : tuple of (Frame, Overlay)
        Some frames, `MOVIE_FPS` a second, with what was shown over them.
    statistics : dict
        See `arm_overlay.loop.Loop.statistics`.
    frames_per_s : float
        Answered frames a second, over all of it.
    """

    frames: tuple[tuple[Frame, Overlay], ...]
    statistics: dict[str, Any]
    frames_per_s: float


def run(
    out: Path, *, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
) -> list[Section]:
    """Run the live loop on a simulated slide for ten seconds, and show a movie, its speed and its delay.

    Parameters
    ----------
    out : Path
        Folder for the movie, beside the page.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    list of Section
        For the page. Where the libraries of the microscope are not installed, it says how to install them.
    """
    missing = [name for module, name in _LIBRARIES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return [_section_without(missing)]
    from arm_overlay.cameras.simulated import SimulatedCamera

    report(progress, Progress("drawing a slide", 0, 0))
    camera = SimulatedCamera(CAMERA.partition(":")[2])
    # The slide is kept: the loop's own camera opens at once.
    camera.prepare()
    watched = watch(progress, cancelled)
    report(progress, Progress("making the movie", 0, 0))
    movie = movie_of(watched.frames)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "microscope.webp"
    path.write_bytes(movie)
    return [_section(watched, movie, path.name, agreement(camera, watched.frames))]


def watch(progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None) -> Watched:
    """Run the live loop, as ``lincei arm`` does, without a display.

    Raises
    ------
    LinceiError
        When the model does not answer.
    """
    from arm_overlay.cameras import new_camera
    from arm_overlay.live import LOADING, LiveOutline
    from arm_overlay.loop import Loop

    frames: list[tuple[Frame, Overlay]] = []
    started = threading.Event()

    def listen(frame: Frame, overlay: Overlay) -> None:
        if overlay.blank_reason != LOADING:
            started.set()
        if started.is_set() and (not frames or frame.time_s - frames[-1][0].time_s >= 1 / MOVIE_FPS):
            frames.append((frame, overlay))

    with LiveOutline(model=MODEL, precision="float32") as live:
        # What happens to the slide is timed from when the camera is opened: the model is to be there by then.
        _load(live, progress, cancelled)
        loop = Loop(lambda: new_camera(CAMERA), live, model=MODEL)
        loop.add_listener(listen)
        with loop:
            deadline_s = time.monotonic() + START_LIMIT_S
            while not started.wait(0.1):
                _wait_for_model(deadline_s, progress, cancelled)
            began_s, before = time.monotonic(), loop.status().frames_out
            while (gone_s := time.monotonic() - began_s) < SECONDS:
                stop_if_cancelled(cancelled)
                report(progress, Progress("simulated microscope", int(gone_s), int(SECONDS)))
                time.sleep(0.1)
            answered = loop.status().frames_out - before
            statistics = loop.statistics()
    return Watched(tuple(frames), statistics, answered / gone_s)


def _load(live: LiveOutline, progress: ProgressCallback | None, cancelled: CancelCheck | None) -> None:
    """Show the camera's first frame until the model is there."""
    from arm_overlay.cameras import new_camera
    from arm_overlay.live import LOADING

    deadline_s = time.monotonic() + START_LIMIT_S
    with new_camera(CAMERA) as camera:
        frame = camera.grab(START_LIMIT_S)
    while live.step(frame).blank_reason == LOADING:
        _wait_for_model(deadline_s, progress, cancelled)


def _wait_for_model(
    deadline_s: float, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> None:
    """Say that the model is loaded, and raise when that has taken too long."""
    stop_if_cancelled(cancelled)
    report(progress, Progress("loading the model", 0, 0))
    if time.monotonic() > deadline_s:
        raise LinceiError(
            f"the model gave no answer within {START_LIMIT_S:g} s", f"model {MODEL}", "See `lincei doctor`."
        )


def movie_of(frames: Sequence[tuple[Frame, Overlay]]) -> bytes:
    """Return frames with their overlays as an animated WebP."""
    from PIL import Image as Picture

    from arm_overlay.developing import developed
    from arm_overlay.rendering import Style, drawn_over

    style = Style(research_note=True, line_width_px=2)
    pictures = [
        Picture.fromarray(
            drawn_over(developed(frame, scale=MOVIE_WIDTH_PX / frame.size_px[0]), overlay, style)
        )
        for frame, overlay in frames
    ]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / MOVIE_FPS),
        loop=0,
        quality=45,
        method=2,
    )
    return buffer.getvalue()


def agreement(camera: SimulatedCamera, frames: Sequence[tuple[Frame, Overlay]]) -> float | None:
    """Return the mean Dice coefficient of what was outlined and the tumor that was drawn.

    Over the frames whose overlay was shown and in which there is tumor; None where there is none such.
    """
    scores = []
    for frame, overlay in frames:
        truth = camera.truth(frame.number)
        if overlay.blank_reason or truth.turning or not truth.tumor.any():
            continue
        outlined = filled(overlay)
        scores.append(2 * (outlined & truth.tumor).sum() / (outlined.sum() + truth.tumor.sum()))
    return float(np.mean(scores)) if scores else None


def filled(overlay: Overlay) -> NDArray[np.bool_]:
    """Return which pixels of the frame lie in the regions."""
    from arm_overlay.outline import cells_in

    width, height = overlay.frame_size_px
    return cells_in(overlay.regions, (height, width), 1.0)


def _section(watched: Watched, movie: bytes, file: str, dice: float | None) -> Section:
    from arm_overlay.developing import developed
    from arm_overlay.live import LOADING
    from arm_overlay.rendering import drawn_over

    statistics = watched.statistics
    shown = [pair for pair in watched.frames if not pair[1].blank_reason] or list(watched.frames)
    frame, overlay = shown[len(shown) // 2]
    still = drawn_over(developed(frame, scale=_STILL_WIDTH_PX / frame.size_px[0]), overlay)
    latency = statistics["latency_ms"]
    # Those from before the model was there do not belong to the ten seconds.
    hidden = {why: count for why, count in statistics["blank_frames"].items() if why != LOADING}
    rows: list[tuple[str | int | float, ...]] = [
        ("frames answered a second", watched.frames_per_s),
        ("from camera to outline, half of the frames", f"{latency.get('p50', float('nan')):.0f} ms or less"),
        ("from camera to outline, 95 of 100 frames", f"{latency.get('p95', float('nan')):.0f} ms or less"),
    ]
    if dice is not None:
        rows.append(("overlap of outline and drawn tumor (Dice; 1 is the same)", dice))
    rows += [(f"frames without an outline: {reason}", count) for reason, count in hidden.items()]
    stages = tuple(
        (_STAGE_NAMES[name], value) for name, value in statistics["stages_ms"].items() if name in _STAGE_NAMES
    )
    return Section(
        title=_TITLE,
        text=(
            "Simulated data: a slide drawn by a program moves under a simulated microscope, with stops, "
            "motion blur, noise, a change from the 10x to the 20x objective and a lamp that gets dimmer. The "
            f"camera's raw frames (1920x1200) go through the live loop, and the model {MODEL} outlines "
            "tumor: in a real microscope the green lines would appear in the eyepiece, on the tissue itself. "
            "While the objective turns or the slide moves too fast, nothing is outlined.",
            "The network works beside the loop: between two of its answers the outline moves with the "
            "tissue. The program that simulates the camera runs on the same computer and takes its share of "
            f"it, which a real camera does not. Model: {MODEL}. File: {file}.",
        ),
        figures=(
            Figure(
                still,
                f"What the camera saw, with the outlines of that moment ({len(watched.frames)} frames).",
                alt="A movie of stained tissue that moves under a microscope, tumor outlined in green.",
                movie=movie,
            ),
            Figure(
                still,
                f"One of these frames, larger; {overlay.objective or frame.objective} objective.",
                alt="Stained tissue, tumor outlined in green.",
                pixel_size_um=_pixel_size_um(frame, still.shape[1]),
            ),
        ),
        columns=2,
        tables=(
            Table(("what was measured", "value"), tuple(rows)),
            Table(("what the time goes to, mean of the last frames", "ms"), stages),
        ),
        notes=(
            _RESEARCH_ONLY,
            "A drawn slide is not a patient's: how well real tumor is outlined is said on the model's card.",
        ),
    )


def _pixel_size_um(frame: Frame, width_px: int) -> float | None:
    """Return the size of a pixel of a picture of a frame."""
    if frame.pixel_size_um is None:
        return None
    return frame.pixel_size_um * frame.size_px[0] / width_px


def _section_without(missing: Sequence[str]) -> Section:
    """Return what is shown where the microscope's libraries are not installed."""
    part = open_slide("drawn").read(2000.0, 1500.0, (960, 600), 1.2)
    names = " and ".join(missing)
    return Section(
        title=_TITLE,
        text=(
            f"The augmented-reality microscope needs {names}, which the light install leaves out. Install "
            "them with: pip install 'lincei[arm]'. Then run `lincei demo` again: it shows ten seconds of "
            "this slide under a simulated microscope, with the tumor outlined, how many frames a second, and "
            "how late.",
        ),
        figures=(Figure(part.rgb, "Simulated data: a part of the drawn slide.", pixel_size_um=1.2),),
        notes=(_RESEARCH_ONLY,),
    )
