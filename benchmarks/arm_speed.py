"""How fast the augmented-reality microscope runs, and how well outlines keep up with a moving slide.

    python benchmarks/arm_speed.py
    python benchmarks/arm_speed.py --seconds 10 --objectives 20x       # a quick look
    python benchmarks/arm_speed.py --display 1280x720 --seconds 3600   # with a microdisplay, for an hour

Frames (Bayer, 1920x1200) are drawn beforehand and sent at a fixed rate, forward and backward; everything
after that is what runs at the microscope: `arm_overlay.loop.Loop` with `LiveOutline`. The same network runs
in a tf.function in a process of its own. Each part has a fresh process.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import statistics
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import RESULTS, about, in_fresh_process, memory_mib, table, use_cores, write_results

# What the project asks for, and what it aims at.
LEAST_FPS, AIM_FPS = 30.0, 60.0
MOST_P95_MS, AIM_P95_MS = 100.0, 50.0
# Frames before these are not counted: the network is loaded, compiled and warmed up.
WARM_UP_S = 3.0
STAGES = ("grab", "wait", "debayer", "motion", "gate", "inference", "stabilize", "outline", "warp", "display")
# Mean speeds of the slide, in widths of the view a second; it starts and stops, and so goes at all speeds up
# to about twice as much.
SPEEDS = (0.1, 0.3, 0.6, 1.0)
SPEED_BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.5, 2.0)
# An outline follows the slide while it loses no more Dice than this on the way to the eye.
LOST_DICE = 0.05
# Below this an outline is not that of the tumor, and where it lies says nothing.
LEAST_DICE = 0.5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class LoopTimes:
    """What was measured of the running loop at one objective.

    Parameters
    ----------
    objective : str
        The objective.
    network_px : tuple of int
        Width and height of what the network looks at.
    seconds : float
        How long, after the warm-up.
    fps_sent, fps_shown, answers_per_s : float
        Frames that the camera sent, overlays shown, and frames that the network looked at, a second.
    latency_ms : dict of str to float
        From the end of a frame's exposure to its overlay, p50, p95 and p99.
    stages_ms : dict of str to float
        Mean over the last 50 frames.
    cpu_ms : float
        Processor time of the process, all threads, for each overlay shown; rendering is over by then.
    shown_share : float
        Share of the overlays that were not blank.
    start_mib, end_mib : float
        Memory of the process after the warm-up and at the end.
    """

    objective: str
    network_px: tuple[int, int]
    seconds: float
    fps_sent: float
    fps_shown: float
    answers_per_s: float
    latency_ms: dict[str, float]
    stages_ms: dict[str, float]
    cpu_ms: float
    shown_share: float
    start_mib: float
    end_mib: float


class TimedDisplay:
    """A display that takes note of when its overlays were lit.

    Parameters
    ----------
    display : arm_overlay.loop.Display
        What shows them.
    """

    def __init__(self, display: Any) -> None:
        self._display = display
        self.latencies_ms = array("f")

    def reports(self) -> list[Any]:
        """Return what was shown since this was asked last."""
        shown: list[Any] = self._display.reports()
        self.latencies_ms.extend(1e3 * (report.time_s - report.frame_time_s) for report in shown)
        return shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._display, name)


def time_loop(
    model: str,
    objective: str,
    camera: str,
    seconds: float,
    fps: float,
    display: str,
    threads: int,
) -> LoopTimes:
    """Run the loop; in a fresh process."""
    import numpy as np

    from arm_overlay.cameras import new_camera
    from arm_overlay.developing import developed_size
    from arm_overlay.live import LiveOutline, scale_for
    from arm_overlay.loop import Loop
    from arm_overlay.overlay import Overlay
    from arm_overlay.tumor_model import TumorModel

    spec = f"simulated:objective={objective},fps={fps:g},{camera}"
    drawn: Any = new_camera(spec)
    drawn.prepare()
    frame_size, pixel_size_um = drawn.settings.size, drawn.settings.camera_model.pixel_size_um(objective)
    choice = TumorModel.open(model).for_objective(objective)
    if choice is None:
        raise SystemExit(f"the model {model} is not made for {objective}")
    network_px = developed_size(frame_size, scale_for(pixel_size_um, choice))
    timed = TimedDisplay(_opened(display))
    counted = {"overlays": 0, "shown": 0}

    def count(_: object, overlay: Overlay) -> None:
        counted["overlays"] += 1
        counted["shown"] += not overlay.blank_reason

    with LiveOutline(model=model, threads=threads) as live:
        loop = Loop(lambda: drawn, live, timed, model=model)
        loop.start()
        try:
            time.sleep(WARM_UP_S)
            loop.add_listener(count)
            began_s, began_cpu_s, looked = time.monotonic(), time.process_time(), live.answers
            before, start_mib = loop.statistics(), memory_mib()
            timed.latencies_ms = array("f")
            time.sleep(seconds)
            took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
            after, end_mib = loop.statistics(), memory_mib()
            looked, latencies_ms = live.answers - looked, np.array(timed.latencies_ms)
        finally:
            loop.stop()
            timed.close()
    overlays = after["frames_out"] - before["frames_out"]
    return LoopTimes(
        objective,
        network_px,
        took_s,
        (after["frames_taken"] - before["frames_taken"]) / took_s,
        overlays / took_s,
        looked / took_s,
        {f"p{p}": float(np.percentile(latencies_ms, p)) for p in (50, 95, 99) if len(latencies_ms)},
        dict(after["stages_ms"]),
        1e3 * cpu_s / max(overlays, 1),
        counted["shown"] / max(counted["overlays"], 1),
        start_mib,
        end_mib,
    )


def _opened(display: str) -> Any:
    """Return the microdisplay, or what stands for one."""
    if display == "none":
        from arm_overlay.loop import NoDisplay

        return NoDisplay()
    from arm_overlay.displays import Microdisplay

    return Microdisplay(display)


def time_openvino(
    model: str, network_px: tuple[int, int], precision: str, threads: int, runs: int
) -> list[float]:
    """Return the milliseconds of runs of the network alone; in a fresh process."""
    from arm_overlay.tumor_model import TumorModel

    pixels = _picture(model, network_px)
    engine = TumorModel.open(model).open_engine(precision=precision, threads=threads, engine="openvino")
    taken = []
    for _ in range(runs + 3):
        began_s = time.perf_counter()
        engine.run_pixels(pixels)
        taken.append(1e3 * (time.perf_counter() - began_s))
    return taken[3:]


def time_tensorflow(model: str, network_px: tuple[int, int], threads: int, runs: int) -> list[float]:
    """Return the milliseconds of runs of the same network in a tf.function; in a fresh process."""
    from lincei.keras_network import import_tensorflow

    tf = import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    from arm_overlay.tumor_model import TumorModel

    network = TumorModel.open(model).model.load_keras()
    pixels = tf.constant(_picture(model, network_px))
    run = tf.function(lambda given: network(tf.cast(given, tf.float32), training=False), autograph=False)
    taken = []
    for _ in range(runs + 3):
        began_s = time.perf_counter()
        answer = run(pixels)
        tf.nest.map_structure(lambda tensor: tensor.numpy(), answer)
        taken.append(1e3 * (time.perf_counter() - began_s))
    return taken[3:]


def _picture(model: str, network_px: tuple[int, int]) -> Any:
    """Return bytes as the network takes them, (1, Y, X, 3); speed does not depend on what they show."""
    import numpy as np

    from arm_overlay.tumor_model import TumorModel

    stride = TumorModel.open(model).model.card.total_stride
    width, height = (-(-length // stride) * stride for length in network_px)
    return np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)


def compare_precisions(model: str, objective: str, camera: str, frames: int, threads: int) -> list[float]:
    """Return the Dice of outlines in bfloat16 with those in float32, frame by frame; in a fresh process."""
    from arm_overlay.live import LiveOutline
    from arm_overlay.outline import cells_in
    from lincei.metrics import dice

    drawn = _drawn_frames(f"objective={objective},speed=0.3,{camera}", frames, 7)
    masks: dict[str, list[Any]] = {}
    for precision in ("float32", "bfloat16"):
        masks[precision] = []
        for _, frame in drawn:
            # Each alone: what is compared is the network, not what steadies it.
            with LiveOutline(
                model=model, precision=precision, threads=threads, focus_gate=False, patience_s=math.inf
            ) as live:
                overlay = live.step(frame)
            masks[precision].append(cells_in(overlay.regions, frame.size_px[::-1], 1.0))
    pairs = zip(masks["float32"], masks["bfloat16"], strict=True)
    return [dice(ours, exact) for ours, exact in pairs if exact.any() or ours.any()]


def flicker(model: str, objective: str, camera: str, frames: int, threads: int) -> dict[str, list[float]]:
    """Return one less the Dice of the outlines of consecutive frames of a slide at rest; in a fresh process.

    Returns
    -------
    dict of str to list of float
        "steadied", as the eye sees them, and "as answered" by the network.
    """
    from arm_overlay.live import LiveOutline
    from arm_overlay.outline import cells_in
    from arm_overlay.stabilizer import Stabilizer
    from lincei.metrics import dice

    drawn = _drawn_frames(f"objective={objective},speed=0,{camera}", frames, 1)
    found: dict[str, list[float]] = {}
    for name, stabilizer in (("steadied", Stabilizer()), ("as answered", Stabilizer(0.0, 0.0))):
        with LiveOutline(model=model, threads=threads, focus_gate=False, patience_s=math.inf) as live:
            live.use_stabilizer(stabilizer)
            overlays = [live.step(frame) for _, frame in drawn]
        masks = [cells_in(shown.regions, shown.frame_size_px[::-1], 1.0) for shown in overlays]
        settled = masks[len(masks) // 3 :]
        found[name] = [1 - dice(before, after) for before, after in itertools.pairwise(settled)]
    return found


def follow(
    model: str, objective: str, camera: str, speed: float, latency_ms: float, frames: int, threads: int
) -> list[tuple[float, float, float]]:
    """Move a slide and compare outlines with where the tumor is; in a fresh process.

    Returns
    -------
    list of (float, float, float)
        Of each frame with tumor: speed of the slide in widths of the view a second, Dice of its outline with
        the tumor in the frame itself, and with the tumor where it is ``latency_ms`` later, when the outline
        is shown.
    """
    import numpy as np

    from arm_overlay.live import LiveOutline
    from arm_overlay.outline import cells_in
    from lincei.metrics import dice

    drawn = _drawn_frames(f"objective={objective},speed={speed},{camera}", frames, 1)
    camera_truth = drawn[0][0]
    found = []
    with LiveOutline(
        model=model, threads=threads, focus_gate=False, top_speed=100.0, patience_s=math.inf
    ) as live:
        for _, frame in drawn:
            overlay = live.step(frame)
            truth = camera_truth.truth(frame.number)
            if overlay.blank_reason or not truth.tumor.any():
                continue
            outlined = cells_in(overlay.regions, truth.tumor.shape, 1.0)
            width_um = truth.pixel_size_um * frame.size_px[0]
            moved_px = np.array(truth.velocity_um_s) * latency_ms / 1000 / truth.pixel_size_um
            # What is in view at that place now is there later, and the other way round.
            later = _shifted(truth.tumor, -moved_px)
            seen = _shifted(np.ones_like(truth.tumor), -moved_px)
            found.append(
                (
                    float(np.hypot(*truth.velocity_um_s)) / width_um,
                    dice(outlined, truth.tumor),
                    dice(outlined & seen, later),
                )
            )
    return found


def _shifted(mask: Any, way_px: Any) -> Any:
    """Return a mask moved by a number of pixels, False where nothing came from."""
    import numpy as np

    moved = np.zeros_like(mask)
    x, y = (round(float(length)) for length in way_px)
    height, width = mask.shape
    moved[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = mask[
        max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)
    ]
    return moved


def _drawn_frames(spec: str, count: int, step: int) -> list[tuple[Any, Any]]:
    """Return a simulated camera and its frames, 30 a second of which every ``step``-th."""
    from arm_overlay.cameras.simulated import SimulatedCamera
    from arm_overlay.frames import Frame

    camera = SimulatedCamera(f"fps=30,{spec}")
    settings = camera.settings
    camera.prepare()
    frames = []
    for number in range(0, count * step, step):
        frame = Frame(
            camera.frame_pixels(number),
            number / settings.fps,
            number,
            settings.bits,
            settings.camera_model.bayer,
            settings.exposure_ms,
            settings.camera_model.pixel_size_um(settings.objective),
            settings.objective,
        )
        frames.append((camera, frame))
    return frames


def binned(found: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, int, float, float]]:
    """Return lower and upper speed, frames, median Dice at once and when shown, of each bin with frames."""
    rows = []
    for low, high in itertools.pairwise(SPEED_BINS):
        inside = [(now, later) for speed, now, later in found if low <= speed < high]
        if len(inside) >= 3:
            now, later = (statistics.median(values) for values in zip(*inside, strict=True))
            rows.append((low, high, len(inside), now, later))
    return rows


def top_speed(rows: Sequence[tuple[float, float, int, float, float]]) -> float | None:
    """Return the highest speed up to which outlines follow, the upper end of the last bin that does."""
    reached = None
    for _, high, _, now, later in rows:
        if now < LEAST_DICE or now - later > LOST_DICE:
            break
        reached = high
    return reached


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "tumor-breast",
    objectives: Annotated[str, typer.Option(help="Objectives, joined by commas.")] = "4x,10x,20x,40x",
    cores: Annotated[int, typer.Option(min=1, help="Processor cores and threads.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds for each objective.")] = 30.0,
    fps: Annotated[float, typer.Option(min=1, help="Frames that the camera sends a second.")] = 60.0,
    size: Annotated[str, typer.Option(help="Width and height of frames.")] = "1920x1200",
    rendered: Annotated[int, typer.Option(min=2, help="Frames drawn beforehand.")] = 90,
    display: Annotated[
        str, typer.Option(help="A microdisplay, as `lincei arm` takes it; none ends with the overlay.")
    ] = "none",
    latency_ms: Annotated[
        float, typer.Option(min=0, help="Time from frame to eye for which the top speed is found.")
    ] = AIM_P95_MS,
    frames: Annotated[int, typer.Option(min=3, help="Frames at each speed, and for the outlines.")] = 90,
    runs: Annotated[int, typer.Option(min=1, help="Runs of the networks alone.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    used = use_cores(cores)
    names = objectives.split(",")
    camera = f"size={size},bits=8"
    loops: list[LoopTimes] = []
    for name in names:
        moving = f"{camera},rendered={rendered},speed=0.1"
        loops.append(in_fresh_process(time_loop, model, name, moving, seconds, fps, display, used))
    sizes = list(dict.fromkeys(loop.network_px for loop in loops))
    alone = {
        px: {
            "OpenVINO bfloat16": in_fresh_process(time_openvino, model, px, "bfloat16", used, runs),
            "OpenVINO float32": in_fresh_process(time_openvino, model, px, "float32", used, runs),
            "tf.function float32": in_fresh_process(time_tensorflow, model, px, used, runs),
        }
        for px in sizes
    }
    # In the middle of what there is.
    typical = names[min(len(names) - 1, 2)]
    outlines = in_fresh_process(compare_precisions, model, typical, camera, max(3, frames // 6), used)
    unsteady = in_fresh_process(flicker, model, typical, camera, max(6, frames // 3), used)
    speeds: list[tuple[float, float, float]] = []
    for speed in SPEEDS:
        speeds += in_fresh_process(follow, model, typical, camera, speed, latency_ms, frames, used)
    write_results(
        out,
        "arm_speed",
        report(
            model,
            loops,
            alone,
            outlines,
            unsteady,
            typical,
            binned(speeds),
            latency_ms,
            used,
            size,
            fps,
            display,
        ),
    )
    results = {
        "loops": [dataclasses.asdict(loop) for loop in loops],
        "networks_ms": {f"{w}x{h}": times for (w, h), times in alone.items()},
        "outlines_dice": outlines,
        "flicker": unsteady,
        "following": speeds,
    }
    (out / "arm_speed.json").write_text(json.dumps(results, indent=1) + os.linesep, "utf-8")


def report(
    model: str,
    loops: Sequence[LoopTimes],
    alone: dict[tuple[int, int], dict[str, list[float]]],
    outlines: Sequence[float],
    unsteady: dict[str, list[float]],
    typical: str,
    following: Sequence[tuple[float, float, int, float, float]],
    latency_ms: float,
    cores: int,
    size: str,
    fps: float,
    display: str,
) -> str:
    """Return the results as Markdown."""
    slowest = min(loop.fps_shown for loop in loops)
    latest = max(loop.latency_ms.get("p95", math.inf) for loop in loops)
    reached = top_speed(following)
    until = "overlay ready, without a display" if display == "none" else f"overlay on the display ({display})"
    stage_rows = [
        [
            loop.objective,
            *(f"{loop.stages_ms[name]:.1f}" if name in loop.stages_ms else "-" for name in STAGES),
        ]
        for loop in loops
    ]
    return "\n\n".join(
        [
            "# How fast the augmented-reality microscope is",
            about(["numpy", "openvino", "opencv-python-headless", "tensorflow"], cores),
            "## End to end",
            f"Bayer frames of {size} pixels, 8 bits, drawn beforehand and sent {fps:g} times a second, "
            f"through `arm_overlay.loop.Loop` with the model {Path(model).name!r}, outlines, focus gate "
            f"on, on {cores} cores; latency from the end of the exposure until {until}. Where the network "
            "needs longer than a frame, its last answer is moved with the tissue (network: frames that it "
            "looked at a second). Processor time is that of the whole process for each overlay.",
            table(
                (
                    *("objective", "network sees", "frames sent a second", "overlays a second", "network"),
                    *(
                        "latency p50",
                        "p95",
                        "p99",
                        "processor time",
                        "not blank",
                        "memory at start",
                        "at end",
                    ),
                ),
                [
                    [
                        loop.objective,
                        f"{loop.network_px[0]}x{loop.network_px[1]}",
                        f"{loop.fps_sent:.1f}",
                        f"{loop.fps_shown:.1f}",
                        f"{loop.answers_per_s:.1f}",
                        *(f"{loop.latency_ms.get(p, math.nan):.0f} ms" for p in ("p50", "p95", "p99")),
                        f"{loop.cpu_ms:.1f} ms",
                        f"{100 * loop.shown_share:.0f} %",
                        f"{loop.start_mib:.0f} MiB",
                        f"{loop.end_mib:.0f} MiB",
                    ]
                    for loop in loops
                ],
            ),
            f"At least {LEAST_FPS:g} overlays a second were asked for: {_verdict(slowest >= LEAST_FPS)} (the "
            f"slowest objective: {slowest:.1f}; the aim is {AIM_FPS:g}). A latency of less than "
            f"{MOST_P95_MS:g} ms in 95 % of the frames: {_verdict(latest < MOST_P95_MS)} (the latest: "
            f"{latest:.0f} ms; the aim is {AIM_P95_MS:g} ms).",
            "Milliseconds of the stages, mean of the last 50 frames (inference is that of the network's last "
            "answers, beside the other stages; the sum is not the latency):",
            table(("objective", *STAGES), stage_rows),
            "## The network alone",
            "Milliseconds for one frame, median of runs after the first three, each in a process of its own.",
            table(
                ("network sees", *next(iter(alone.values()))),
                [
                    [f"{w}x{h}", *(f"{statistics.median(times):.1f}" for times in by_engine.values())]
                    for (w, h), by_engine in alone.items()
                ],
            ),
            "## bfloat16",
            _outlines_in_words(outlines, typical),
            "## A slide at rest",
            f"One less the Dice of the outlines of consecutive frames at {typical}, that is what flickers: "
            + ", ".join(f"{name} {statistics.mean(values):.4f}" for name, values in unsteady.items())
            + " (mean).",
            "## A moving slide",
            f"Dice of the outline with the simulated tumor at {typical}, at once and {latency_ms:g} ms "
            "later, when it is shown; medians over frames by the slide's speed, in widths of the view a "
            "second.",
            table(
                ("speed", "frames", "at once", "when shown"),
                [
                    [f"{low:g} to {high:g}", str(count), f"{now:.3f}", f"{later:.3f}"]
                    for low, high, count, now, later in following
                ],
            ),
            ("At no speed measured" if reached is None else f"Up to {reached:g} widths of the view a second")
            + f" an outline loses no more than {LOST_DICE:g} of its Dice on the way.",
        ]
    )


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"


def _outlines_in_words(outlines: Sequence[float], objective: str) -> str:
    if not outlines:
        return f"No tumor was outlined in the frames compared ({objective})."
    return (
        f"Dice of the outlines with those in float32, {len(outlines)} frames at {objective}, each alone: "
        f"median {statistics.median(outlines):.4f}, least {min(outlines):.4f}."
    )


if __name__ == "__main__":
    app()
