"""What is between camera and display: from a frame to what belongs over it.

The network runs in a thread of its own, always on the newest frame. Where it needs longer than a frame may
wait, its last answer is moved with the tissue to where the frame shows it, so that outlines keep up with the
camera while the network does not; what has come into view since is not outlined until it has been looked at.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from arm_overlay.arrows import RegionMemory
from arm_overlay.developing import LARGEST_SCALE, NEUTRAL, Developing, check_in_color, developed, shrunk
from arm_overlay.field_score import field_score
from arm_overlay.frames import Frame
from arm_overlay.imaging import opencv
from arm_overlay.objectives import UNKNOWN_OBJECTIVE, Objectives
from arm_overlay.options import LiveOptions
from arm_overlay.outline import cells_in, points_of, regions_of
from arm_overlay.overlay import MODES, Overlay, Region
from arm_overlay.stabilizer import Motion, MotionTracker, Point, Stabilizer, motion_picture
from arm_overlay.tissue import tissue_in
from arm_overlay.tumor_model import (
    CLASS_PROBABILITIES,
    NUMBER,
    POINTS,
    PROBABILITY_MAP,
    NetworkChoice,
    TumorModel,
    magnification,
)
from lincei.errors import LinceiError, UsageError
from lincei.keras_network import first_line
from lincei.options import resolve_options

if TYPE_CHECKING:
    from arm_overlay.gate import FocusGate
    from lincei.engine import Engine

# Reasons for which nothing is shown.
TOO_FAST = "slide too fast"
OUT_OF_FOCUS = "focus"
NO_MODEL = "no model for this objective"
NO_PIXEL_SIZE = "pixel size unknown"
LOADING = "loading the model"
LOOKING = "looking"
CHANGING = "changing objective"
NO_ANSWER = "the model does not answer"

# So long a frame waits for its own answer; a network that usually needs longer is not waited for.
PATIENCE_S = 0.015
# So long it waits when there is nothing to be shown anyway.
FIRST_PATIENCE_S = 0.1
# An answer older than this, and than a few times what the network usually takes, is not shown.
STALE_S = 1.0
# A slide that was too fast is slow enough again below this share of the top speed.
_SLOWED = 0.8
# Scale at which frames are followed while no model says another.
_SCALE_WITHOUT_MODEL = 0.25
# Scales at which nothing is resampled, and how near to one a frame is looked at there: less than a model's
# pixel size matters.
_CHEAP_SCALES, _TOLERANCE = (0.25, 0.5, 1.0), 0.03
_ENGINES_KEPT = 4
# So that frames are in time while the network needs all processors.
_NETWORK_NICENESS = 5
# How long the network usually takes is the median of so many answers.
_TIMES_KEPT = 5


@dataclass(frozen=True, eq=False)
class _Network:
    """The network for an objective; without an engine where the model has none for it."""

    choice: NetworkChoice | None
    engine: Engine | None


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the network said to a frame, and how long it took."""

    values: NDArray[np.float32]
    took_s: float


@dataclass(frozen=True, eq=False)
class _Pending:
    """A frame that the network is looking at."""

    future: Future[_Answer]
    period: int
    position_px: Point
    time_s: float
    began_s: float
    colors: NDArray[np.uint8]


@dataclass(eq=False)
class _Timings:
    """Milliseconds of each stage of a frame."""

    values: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.values[name] = self.values.get(name, 0.0) + 1e3 * (time.perf_counter() - began_s)


class LiveOutline:
    """Finds tumor in one frame after the other; without a camera, without a window.

    One thread calls `step`; the other methods may be called from any.

    Parameters
    ----------
    options : LiveOptions, optional
        The options; single ones can be given as keywords.
    developing : Developing
        White balance and flat field of the camera.
    patience_s : float
        How long a frame waits for the network's answer to itself; ``math.inf`` for one answer a frame,
        however long it takes, as when a recording is looked at again.

    Raises
    ------
    LinceiError
        When there is no such model, or its kind of output cannot be shown.
    """

    def __init__(
        self,
        options: LiveOptions | None = None,
        *,
        developing: Developing = NEUTRAL,
        patience_s: float = PATIENCE_S,
        **overrides: Any,
    ) -> None:
        self.options = resolve_options(LiveOptions, options, overrides)
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._changes: list[Callable[[], None]] = []
        # Frames that the network has looked at.
        self.answers = 0
        # Touched by the thread that steps, and by nothing else.
        self._model = TumorModel.open(self.options.model)
        self._mode = self.options.mode
        self._threshold = self.options.threshold
        self._developing = developing
        self._aligned_for: str | None = None
        self._objectives = Objectives(self.options.objective, self.options.pixel_size_um)
        self._objectives.expect(self._model.objectives)
        self._tracker = MotionTracker()
        self._stabilizer = Stabilizer()
        self._memory = RegionMemory()
        self._gate: FocusGate | None = None
        self._size_px: tuple[int, int] | None = None
        self._too_fast = False
        # The network's own thread, and what it does.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="arm network", initializer=_give_way)
        self._engines: dict[Path, Engine] = {}
        self._network: _Network | None = None
        self._loading: Future[_Network] | None = None
        self._loaded_for: tuple[TumorModel, str] | None = None
        self._pending: _Pending | None = None
        # Answers to frames of an earlier period (another place, model or objective) say nothing of this one.
        self._period = 0
        self._answered_s = -math.inf
        self._took_s: deque[float] = deque(maxlen=_TIMES_KEPT)
        self._values: NDArray[np.float32] | None = None
        self._measures: dict[str, float] = {}

    # -- settings, from any thread ------------------------------------------------------------------------

    def set_objective(self, objective: str) -> None:
        """Say which objective is in the light path; it also answers when `step` asks which one it is.

        Raises
        ------
        LinceiError
            When this is no objective.
        """
        magnification(objective)
        self._change(lambda: self._objectives.set(objective))

    def set_mode(self, mode: str) -> None:
        """Choose what is shown, one of `arm_overlay.overlay.MODES`.

        Raises
        ------
        UsageError
            When there is no such mode.
        """
        if mode not in MODES:
            raise UsageError(f"there is no mode {mode!r}", "", f"Choose from: {', '.join(MODES)}.")

        def change() -> None:
            self._mode = mode

        self._change(change)

    def set_threshold(self, threshold: float | None) -> None:
        """Choose the probability above which a pixel counts as tumor; None for the model's own.

        Raises
        ------
        UsageError
            When it does not lie between 0 and 1.
        """
        if threshold is not None and not 0 < threshold < 1:  # no probability is above 1
            raise UsageError(f"the threshold is {threshold:g}", "", "It lies between 0 and 1.")

        def change() -> None:
            self._threshold = threshold

        self._change(change)

    def set_model(self, model: str) -> None:
        """Use another model; nothing is shown until it is ready.

        Raises
        ------
        LinceiError
            When there is no such model, or its kind of output cannot be shown; the present one stays.
        """
        opened = TumorModel.open(model)

        def change() -> None:
            self._model = opened
            self._objectives.expect(opened.objectives)

        self._change(change)

    def set_developing(self, developing: Developing) -> None:
        """Use another white balance and flat field."""

        def change() -> None:
            self._developing = developing

        self._change(change)

    def set_aligned_for(self, objective: str | None) -> None:
        """Say for which objective camera and display are aligned now: at another nothing is shown.

        None, as at the start, leaves that to the display.
        """

        def change() -> None:
            self._aligned_for = objective

        self._change(change)

    def use_stabilizer(self, stabilizer: Stabilizer) -> None:
        """Steady heat maps in another way, to see what it does."""

        def change() -> None:
            self._stabilizer = stabilizer

        self._change(change)

    def close(self) -> None:
        """Let go of the network; nothing can be shown afterwards."""
        # Not waited for: a network that hangs must not hold up the end.
        self._worker.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _change(self, change: Callable[[], None]) -> None:
        """Leave a change to the next step, so that no frame is half one thing and half another."""
        with self._lock:
            self._changes.append(change)

    # -- one frame ----------------------------------------------------------------------------------------

    def step(self, frame: Frame) -> Overlay:
        """Return what belongs over a frame; where nothing does, it says why.

        Parameters
        ----------
        frame : Frame
            The newest. Frames left out between two are no harm.

        Returns
        -------
        Overlay
            Its ``timings_ms`` are those of "debayer", "motion", "gate", "inference" (of the answer shown),
            "stabilize" and "outline"; "answer age" is how much older the frame is that the network saw last.
        """
        timings = _Timings()
        motion = Motion((0.0, 0.0))
        try:
            with self._lock:
                changes, self._changes = self._changes, []
            for change in changes:
                change()
            return self._stepped(frame, timings)
        except LinceiError as error:
            reason = error.what
        except Exception as error:  # a bad frame or driver must not end the loop
            reason = f"error: {type(error).__name__}: {first_line(error)}"
        self._restart()
        return self._bare(frame, reason, motion, None, timings)

    def _stepped(self, frame: Frame, timings: _Timings) -> Overlay:
        """Return the overlay of a frame that nothing is wrong with."""
        check_in_color(frame)
        if frame.size_px != self._size_px:
            self._size_px = frame.size_px
            self._objectives.forget_view()
            self._restart()
        self._objectives.hear(frame)
        pixel_size_um = self._objectives.pixel_size_um(frame)
        network, reason = self._network_now()
        choice = network.choice if network is not None else None
        scale = _SCALE_WITHOUT_MODEL
        if choice is not None and pixel_size_um is not None:
            if pixel_size_um <= LARGEST_SCALE * choice.pixel_size_um:
                scale = scale_for(pixel_size_um, choice)
            else:
                reason = f"pixels of {pixel_size_um:.3g} um are too coarse for the model"
        if self._objectives.objective and pixel_size_um is None:
            reason = NO_PIXEL_SIZE
        with timings.stage("debayer"):
            colors = developed(frame, self._developing, scale)
        with timings.stage("motion"):
            picture, per_picture_px = motion_picture(colors)
            picture_px = per_picture_px * frame.size_px[0] / colors.shape[1]
            motion = self._tracker.track(picture, picture_px, frame.time_s)
            question = self._objectives.look(colors, motion)
        if motion.lost:
            self._begin_period()
        self._judge_speed(motion)
        out_of_focus = False
        if self._gate is not None and pixel_size_um is not None and not reason:
            with timings.stage("gate"):
                out_of_focus = self._gate.is_out_of_focus(
                    frame,
                    self._developing,
                    picture,
                    picture_px,
                    pixel_size_um=pixel_size_um,
                    speed_fields_s=motion.speed_fields_s,
                )
            if out_of_focus:
                self._forget_answers()
        objective = self._objectives.objective
        if not objective:
            reason = UNKNOWN_OBJECTIVE
        elif question:
            reason = question
        elif not reason and self._aligned_for not in (None, objective):
            reason = CHANGING
        reason = reason or TOO_FAST * self._too_fast or OUT_OF_FOCUS * out_of_focus
        if reason:
            return self._bare(frame, reason, motion, pixel_size_um, timings)
        assert network is not None
        assert choice is not None
        assert pixel_size_um is not None
        fresh, reason = self._look(frame, network, colors, motion, timings)
        if reason:
            return self._bare(frame, reason, motion, pixel_size_um, timings)
        return self._shown(frame, choice, colors, motion, pixel_size_um, fresh, timings)

    def _judge_speed(self, motion: Motion) -> None:
        """Note whether the slide moves too fast for outlines to keep up."""
        limit = self.options.top_speed * (_SLOWED if self._too_fast else 1.0)
        self._too_fast = motion.lost or motion.speed_fields_s > limit
        if self._too_fast:
            self._forget_answers()

    def _bare(
        self,
        frame: Frame,
        reason: str,
        motion: Motion,
        pixel_size_um: float | None,
        timings: _Timings,
    ) -> Overlay:
        return Overlay(
            frame.number,
            frame.time_s,
            frame.size_px,
            mode=self._mode,
            blank_reason=reason,
            objective=self._objectives.objective,
            model=self._model.name,
            pixel_size_um=pixel_size_um,
            threshold=self._threshold_in_use,
            shift_px=motion.shift_px,
            speed_fields_s=motion.speed_fields_s,
            timings_ms=timings.values,
        )

    # -- the network --------------------------------------------------------------------------------------

    def _network_now(self) -> tuple[_Network | None, str]:
        """Return the network for the model and objective that are set, or why there is none."""
        objective = self._objectives.objective
        if not objective:
            return None, UNKNOWN_OBJECTIVE
        loaded = self._loaded_for
        if loaded is None or loaded[0] is not self._model or loaded[1] != objective:
            self._loaded_for, self._network = (self._model, objective), None
            self._took_s.clear()
            self._restart()
            if self._gate is not None:
                self._gate.restart()
            model = self._model
            self._loading = self._worker.submit(self._load, model, objective)
        if self._loading is not None:
            patience_s = None if math.isinf(self._patience_s) else FIRST_PATIENCE_S
            if not wait([self._loading], patience_s).done:
                return None, LOADING
            try:
                self._network = self._loading.result()
            except LinceiError as error:
                return None, error.what
            self._loading = None
        assert self._network is not None
        return self._network, "" if self._network.choice is not None else NO_MODEL

    def _load(self, model: TumorModel, objective: str) -> _Network:
        """Open the network for an objective, and the focus gate; in the worker's thread."""
        if self.options.focus_gate and self._gate is None:
            from arm_overlay.gate import FocusGate

            self._gate = FocusGate(self.options.threads)
        choice = model.for_objective(objective)
        if choice is None:
            return _Network(None, None)
        folder = choice.model.model.folder
        if folder not in self._engines:
            while len(self._engines) >= _ENGINES_KEPT:
                self._engines.pop(next(iter(self._engines))).close()
            self._engines[folder] = choice.model.open_engine(
                precision=self.options.precision,
                threads=self.options.threads or None,
                engine=self.options.engine,
            )
        return _Network(choice, self._engines[folder])

    def _look(
        self,
        frame: Frame,
        network: _Network,
        colors: NDArray[np.uint8],
        motion: Motion,
        timings: _Timings,
    ) -> tuple[bool, str]:
        """Have the network look at the frame when it is free; tell whether it said something new.

        Returns
        -------
        (bool, str)
            Whether there is a new answer, and why none can be shown.
        """
        assert network.choice is not None
        stride = network.choice.model.card.total_stride
        if min(colors.shape[:2]) < stride:
            return (
                False,
                f"the frame is too small for the model: {colors.shape[1]} x {colors.shape[0]} pixels",
            )
        fresh, reason = self._collected(network.choice, frame, timings)
        if reason:
            return False, reason
        if self._pending is None:
            assert network.engine is not None
            future = self._worker.submit(_answer, network.engine, colors, network.choice.model)
            self._pending = _Pending(
                future, self._period, motion.position_px, frame.time_s, time.monotonic(), colors
            )
        usual_s = self._usual_s
        nothing = not self._has_answer
        if nothing or usual_s <= self._patience_s:
            patience_s = max(self._patience_s, FIRST_PATIENCE_S) if nothing else self._patience_s
            wait([self._pending.future], None if math.isinf(patience_s) else patience_s)
            newly, reason = self._collected(network.choice, frame, timings)
            if reason:
                return False, reason
            fresh = fresh or newly
        timings.values["inference"] = 1e3 * self._usual_s
        age_s = frame.time_s - self._answered_s if self._has_answer else 0.0
        timings.values["answer age"] = 1e3 * age_s
        since_s = time.monotonic() - self._pending.began_s if self._pending is not None else 0.0
        if max(age_s, since_s) > max(STALE_S, 3 * self._usual_s):
            return False, NO_ANSWER
        return fresh, "" if self._has_answer else LOOKING

    @property
    def _usual_s(self) -> float:
        """Return how long the network usually takes."""
        return statistics.median(self._took_s) if self._took_s else 0.0

    @property
    def _has_answer(self) -> bool:
        return self._values is not None or not self._stabilizer.is_empty

    def _collected(self, choice: NetworkChoice, frame: Frame, timings: _Timings) -> tuple[bool, str]:
        """Take in the network's answer when it is there: whether it was, and what was wrong with it."""
        pending = self._pending
        if pending is None or not pending.future.done():
            return False, ""
        self._pending = None
        try:
            answer = pending.future.result()
        except Exception as error:  # each engine raises its own classes
            self._forget_answers()
            what = error.what if isinstance(error, LinceiError) else first_line(error)
            return False, f"model error: {what}"
        self._took_s.append(answer.took_s)
        self.answers += 1
        if pending.period != self._period:
            return False, ""
        with timings.stage("stabilize"):
            self._take_in(answer.values, choice, pending, frame)
        self._answered_s = pending.time_s
        return True, ""

    def _take_in(
        self, values: NDArray[np.float32], choice: NetworkChoice, pending: _Pending, frame: Frame
    ) -> None:
        """Average an answer with those before it."""
        if choice.model.kind in (PROBABILITY_MAP, POINTS):
            cell_px = _cell_px(choice, frame, pending.colors)
            threshold = self._threshold_for(choice)
            self._stabilizer.add(values[0], pending.position_px, cell_px, pending.time_s, threshold)
            return
        before = self._values
        if before is None or before.shape != values.shape:
            self._values = values
            return
        fresh = np.float32(self._stabilizer.share_of_new(pending.time_s - self._answered_s))
        self._values = before + fresh * (values - before)

    def _threshold_for(self, choice: NetworkChoice) -> float:
        return choice.threshold if self._threshold is None else self._threshold

    @property
    def _threshold_in_use(self) -> float | None:
        """Return the threshold in effect; None where the model has none, or is not ready."""
        choice = self._network.choice if self._network is not None else None
        if choice is None or choice.model.kind not in (PROBABILITY_MAP, POINTS):
            return None
        return self._threshold_for(choice)

    # -- beginning anew -----------------------------------------------------------------------------------

    def _restart(self) -> None:
        """Begin anew with the next frame."""
        self._tracker.restart()
        self._begin_period()

    def _begin_period(self) -> None:
        """Positions begin anew: forget what was tied to them."""
        self._memory.forget()
        self._forget_answers()

    def _forget_answers(self) -> None:
        self._period += 1
        self._stabilizer.reset()
        self._values = None
        self._measures = {}

    # -- what is shown ------------------------------------------------------------------------------------

    def _shown(
        self,
        frame: Frame,
        choice: NetworkChoice,
        colors: NDArray[np.uint8],
        motion: Motion,
        pixel_size_um: float,
        fresh: bool,
        timings: _Timings,
    ) -> Overlay:
        """Return the overlay of a frame from the network's answers."""
        kind = choice.model.kind
        regions: tuple[Region, ...] = ()
        heat_map = points = None
        texts: tuple[str, ...] = ()
        arrows: tuple[Any, ...] = ()
        measures: dict[str, float] = {}
        if kind in (PROBABILITY_MAP, POINTS):
            cell_px = _cell_px(choice, frame, colors)
            with timings.stage("stabilize"):
                average, steady, known = self._stabilizer.at(motion.position_px, cell_px)
            with timings.stage("outline"):
                threshold = self._threshold_for(choice)
                heat_map = _covering(average, cell_px, frame.size_px)
                if kind == POINTS:
                    points = points_of(average, threshold, cell_px=cell_px)
                    measures = {"count": float(len(points))}
                    texts = (f"{len(points)} x {choice.model.point_name}",)
                else:
                    regions = regions_of(
                        steady,
                        threshold,
                        cell_px=cell_px,
                        size_px=frame.size_px,
                        smallest_px=self.options.smallest_um / pixel_size_um,
                    )
                    if fresh or not self._measures:
                        self._measures = _measures(
                            regions, average, known, colors, choice.model.downsampling, cell_px
                        )
                    measures = dict(self._measures)
                    if regions:
                        largest_px = max(region.diameter_px for region in regions)
                        measures["largest_diameter_um"] = largest_px * pixel_size_um
                    texts = _texts(measures)
                    self._memory.see(regions, motion.position_px, frame.size_px, frame.time_s)
                if self._mode == "arrows":
                    arrows = self._memory.arrows(regions, motion.position_px, frame.size_px)
            if self._mode != "text":
                texts = ()
        elif kind == CLASS_PROBABILITIES:
            assert self._values is not None
            named = zip(choice.model.class_names, self._values.tolist(), strict=True)
            texts = tuple(f"{name}: {100 * p:.0f} %" for name, p in sorted(named, key=lambda pair: -pair[1]))
        else:
            assert kind == NUMBER  # others are refused with the card
            assert self._values is not None
            number = float(self._values[0])
            unit = f" {choice.model.number_unit}" if choice.model.number_unit else ""
            texts = (f"{choice.model.number_name}: {number:.3g}{unit}",)
            measures = {choice.model.number_name: number}
        return dataclasses.replace(
            self._bare(frame, "", motion, pixel_size_um, timings),
            regions=regions,
            heat_map=heat_map,
            points=points,
            arrows=arrows,
            texts=texts,
            measures=measures,
        )


def _give_way() -> None:
    """Let frames go before the network; its engine's threads, which this one starts, inherit that."""
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NETWORK_NICENESS)


def _answer(engine: Engine, colors: NDArray[np.uint8], model: TumorModel) -> _Answer:
    """Run the network on a developed frame; in the worker's thread."""
    began_s = time.perf_counter()
    stride = model.card.total_stride
    bottom, right = -colors.shape[0] % stride, -colors.shape[1] % stride
    if bottom or right:
        cv2 = opencv()
        colors = cv2.copyMakeBorder(colors, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    values = engine.run_pixels(colors[np.newaxis])[model.output.name][0]
    return _Answer(values, time.perf_counter() - began_s)


def scale_for(pixel_size_um: float, choice: NetworkChoice) -> float:
    """Return the scale at which frames are developed for a network, or one near enough that is quick.

    Parameters
    ----------
    pixel_size_um : float
        Of a frame.
    choice : NetworkChoice
        The network, and the pixel size it is run at.
    """
    scale = pixel_size_um / choice.pixel_size_um
    near = (cheap for cheap in _CHEAP_SCALES if abs(scale / cheap - 1) <= _TOLERANCE)
    return next(near, scale)


def _cell_px(choice: NetworkChoice, frame: Frame, colors: NDArray[np.uint8]) -> float:
    """Return the side of a cell of the network's map in pixels of the frame."""
    return choice.model.downsampling * frame.size_px[0] / colors.shape[1]


def _covering(average: NDArray[np.float32], cell_px: float, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a heat map as bytes that covers the frame, no more and no less."""
    cv2 = opencv()
    cells = (size_px[0] / cell_px, size_px[1] / cell_px)
    size = (max(1, round(cells[0])), max(1, round(cells[1])))
    heat: NDArray[np.uint8] = cv2.convertScaleAbs(average, alpha=255)
    if size == heat.shape[::-1] and max(abs(size[0] - cells[0]), abs(size[1] - cells[1])) < 0.05:
        return heat
    x, y = cells[0] / size[0], cells[1] / size[1]
    # From the center of each cell wanted to where it lies among those there are.
    matrix = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    covering: NDArray[np.uint8] = cv2.warpAffine(
        heat, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return covering


def _measures(
    regions: tuple[Region, ...],
    average: NDArray[np.float32],
    known: NDArray[np.bool_],
    colors: NDArray[np.uint8],
    downsampling: int,
    cell_px: float,
) -> dict[str, float]:
    """Return the tumor's share of the tissue and the field's score; nothing where there is no tissue."""
    rows, columns = colors.shape[0] // downsampling, colors.shape[1] // downsampling
    small = shrunk(colors, (columns, rows))
    if small.shape[:2] != (rows, columns):
        small = opencv().resize(small, (columns, rows), interpolation=opencv().INTER_AREA)
    # Cells that only partly lie in the frame do not count.
    planes = np.ascontiguousarray(np.moveaxis(small, -1, 0))
    tissue = tissue_in(planes).cells & known[:rows, :columns]
    count = int(np.count_nonzero(tissue))
    if not count:
        return {}
    inside = cells_in(regions, tissue.shape, cell_px)
    return {
        "percent_tumor": 100 * int(np.count_nonzero(tissue & inside)) / count,
        "field_score": field_score(average[:rows, :columns][tissue]),
    }


def _texts(measures: dict[str, float]) -> tuple[str, ...]:
    """Return measures in words."""
    lines = {
        "percent_tumor": "tumor {:.0f} %",
        "largest_diameter_um": "largest {:.0f} um",
        "field_score": "score {:.2f}",
    }
    return tuple(text.format(measures[name]) for name, text in lines.items() if name in measures)
