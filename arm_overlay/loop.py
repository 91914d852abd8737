"""The running loop: camera, outline and display at the same time, each always with the newest frame.

Three threads hand frames on through slots of one, in which a newer frame replaces an older one, so nothing
stale is ever shown and nothing grows. A fourth watches them: when the camera is unplugged or stalls it says
why and connects again, and when a thread hangs in a driver it goes on without it.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import Camera, CameraEndedError, CameraError
from arm_overlay.connection import Connection
from arm_overlay.loop_status import AVERAGED_FRAMES, STAGES, Event, Latencies, LoopStatus, Rate
from arm_overlay.overlay import Overlay, Shown
from lincei.batch import readable_error
from lincei.errors import CancelledError, LinceiError
from lincei.progress import CancelCheck

if TYPE_CHECKING:
    from pathlib import Path

    from arm_overlay.frames import Frame
    from arm_overlay.recording import Records

ItemT = TypeVar("ItemT")

EVENTS_KEPT = 200
REASONS_KEPT = 50

# The microdisplay blanks itself this long after the next frame was due; the operator learns why as quickly.
LATE_S = 0.2
# A camera that was lost is opened again this often.
RECONNECT_EVERY_S = 0.5
# Connections whose driver hangs are left to themselves, so many at most; then the end of one is waited for.
MOST_HUNG = 3
# A model that fails is tried again with a fresh frame after so long.
RETRY_MODEL_S = 0.25
HUNG_MODEL_S = 1.0
# Reasons for an overlay to be blank that are faults, and told as such.
MODEL_TROUBLES = ("model error", "error", "the model does not answer")
STOP_S = 2.0


class Outliner(Protocol):
    """What is between camera and display: `arm_overlay.LiveOutline`."""

    def step(self, frame: Frame) -> Overlay:
        """Return what belongs over a frame."""
        ...

    def set_objective(self, objective: str) -> None:
        """Say which objective is in the light path."""
        ...

    def set_mode(self, mode: str) -> None:
        """Choose what is shown."""
        ...

    def set_threshold(self, threshold: float | None) -> None:
        """Choose the threshold; None for the model's own."""
        ...

    def set_model(self, model: str) -> None:
        """Use another model."""
        ...


class Display(Protocol):
    """A display in the eyepiece, or what stands for one. Its methods return at once."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def trouble(self) -> str:
        """What is wrong with it, in words; empty while all is well."""
        ...

    def show(
        self,
        overlay: Overlay,
        warp: NDArray[Any] | None,
        *,
        frame_interval_s: float,
        brightness: float,
    ) -> None:
        """Show an overlay, warped from the frame's pixels to its own by a 3x3 matrix."""
        ...

    def blank(self, reason: str) -> None:
        """Go dark at once."""
        ...

    def reports(self) -> list[Shown]:
        """Return what was shown since this was asked last."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class NoDisplay:
    """Stands for a display where there is none: an overlay counts as shown when it is ready."""

    name = "none"
    trouble = ""

    def __init__(self) -> None:
        self._shown: list[Shown] = []

    def show(
        self,
        overlay: Overlay,
        warp: NDArray[Any] | None,  # noqa: ARG002 - the interface of a display
        *,
        frame_interval_s: float,  # noqa: ARG002
        brightness: float,  # noqa: ARG002
    ) -> None:
        """Take note of the time, unless it is blank."""
        self._shown = (
            []
            if overlay.blank_reason
            else [Shown(overlay.frame_number, overlay.frame_time_s, time.monotonic())]
        )

    def blank(self, reason: str) -> None:
        """Do nothing: it is dark."""

    def reports(self) -> list[Shown]:
        """Return the overlay that was ready last, once."""
        shown, self._shown = self._shown, []
        return shown

    def close(self) -> None:
        """Do nothing."""


class NewestSlot(Generic[ItemT]):
    """A queue of one: what is put in replaces what nobody took."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: ItemT | None = None

    def put(self, item: ItemT) -> bool:
        """Put an item in; tell whether it replaced one that nobody had taken."""
        with self._condition:
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
        return replaced

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._item is None

    def take(self, timeout_s: float) -> ItemT | None:
        """Wait for an item and take it; None when none comes in time."""
        with self._condition:
            if self._item is None:
                self._condition.wait(timeout_s)
            item, self._item = self._item, None
        return item


class Loop:
    """The augmented-reality microscope, running: start it, steer it, stop it (or use ``with``).

    All methods may be called from any thread and return at once, except `start` and `stop`.

    Parameters
    ----------
    new_camera : callable
        Returns the camera, not opened; called again whenever the connection was lost.
    live : LiveOutline
        What is between camera and display.
    display : Display, optional
        The microdisplay; `NoDisplay` when left out.
    prepare : callable, optional
        ``prepare(camera)`` sets a camera up whenever it was opened.
    alignment : callable, optional
        ``alignment(objective, (width, height))`` returns the 3x3 matrix from pixels of the camera to pixels
        of the display. It raises `LinceiError` where there is none: then the eyepiece stays dark and the
        operator is told. When left out, overlays are not warped.
    model, mode, threshold, objective, brightness
        What ``live`` and the display were set to at the start.
    records : Records, optional
        Writes snapshots and sessions; without it they are refused.
    """

    def __init__(
        self,
        new_camera: Callable[[], Camera],
        live: Outliner,
        display: Display | None = None,
        *,
        prepare: Callable[[Camera], object] | None = None,
        alignment: Callable[[str, tuple[int, int]], NDArray[Any]] | None = None,
        model: str = "",
        mode: str = "outline",
        threshold: float | None = None,
        objective: str = "",
        brightness: float = 1.0,
        records: Records | None = None,
    ) -> None:
        self._new_camera, self._prepare = new_camera, prepare
        self._live = live
        self._display: Display = NoDisplay() if display is None else display
        self._alignment = alignment
        self._records = records
        if records is not None:
            records.on_trouble = lambda text: self._say("recording", text)
        self._model, self._mode, self._threshold = model, mode, threshold
        self._objective, self._brightness = objective, brightness
        self._hidden = False

        self._lock = threading.RLock()  # of all that follows
        self._showing = threading.Lock()  # of the display; taken before the other
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._frames: NewestSlot[tuple[Frame, float]] = NewestSlot()
        self._answers: NewestSlot[tuple[Frame, Overlay]] = NewestSlot()
        self._connection = Connection(new_camera, prepare)
        self._hung: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listeners: list[Callable[[Frame, Overlay], None]] = []

        self._rate_in, self._rate_out = Rate(), Rate()
        self._stages: dict[str, deque[float]] = {name: deque(maxlen=AVERAGED_FRAMES) for name in STAGES}
        self._latencies = Latencies()
        self._reasons: Counter[str] = Counter()
        self._frames_in = self._frames_out = self._taken = 0
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._event_count = 0
        self._started_s = self._stopped_s = 0.0

        self._last_arrival_s: float | None = None
        self._step_since_s: float | None = None
        # Overlays of frames from before this moment belong to another objective or model.
        self._clear_before_s = 0.0
        self._latest: tuple[Frame, Overlay] | None = None
        self._blank_reason = "no frame yet"
        self._camera_trouble = self._model_trouble = self._display_trouble = ""
        self._alignment_warning = self._show_trouble = ""
        # For each objective and frame size the warp, or why there is none.
        self._alignments: dict[tuple[str, tuple[int, int]], NDArray[Any] | str] = {}

    # -- running ------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 60.0, cancelled: CancelCheck | None = None) -> None:
        """Connect to the camera and begin.

        Parameters
        ----------
        timeout_s : float
            How long opening the camera may take.
        cancelled : callable, optional
            Turns true when the user asks to stop meanwhile.

        Raises
        ------
        LinceiError
            When the camera cannot be opened this first time (afterwards it is tried again by itself); it
            lists the cameras there are.
        CancelledError
            When ``cancelled`` said so.
        """
        self._started_s = time.monotonic()
        self._connection.start(self._arrived)
        deadline_s = self._started_s + timeout_s
        while not self._connection.opened.wait(0.02):
            if self._connection.error is not None or time.monotonic() > deadline_s:
                break
            if cancelled is not None and cancelled():
                self.stop()
                raise CancelledError
        if not self._connection.opened.is_set():
            error = self._connection.error
            self.stop()
            if isinstance(error, LinceiError):
                raise error
            what = "it cannot be opened" if error else f"it does not answer within {timeout_s:g} s"
            raise CameraError(
                what + (f" ({_reason(error)})" if error else ""),
                "camera",
                "Check its cable and power; `lincei arm cameras` lists the cameras there are.",
            ) from error
        self._started_s = time.monotonic()  # rates count from here; some cameras take long to open
        self._say("camera", f"connected to {self._connection.name}")
        for target, name in ((self._infer, "model"), (self._show, "display"), (self._watch, "watch")):
            thread = threading.Thread(target=target, name=f"arm {name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End all threads, records, the camera's connection and the display; what hangs is left behind."""
        with self._lock:
            if self._stopped_s:
                return
            self._stopped_s = time.monotonic()
        self._stopping.set()
        self._darken("stopped")
        connection = self._connection
        connection.give_up()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - time.monotonic()))
        connection.join(max(0.0, deadline_s - time.monotonic()))
        if self._records is not None:
            self._records.close()
        with contextlib.suppress(Exception):
            self._display.close()
        self._finished.set()

    def __enter__(self) -> Loop:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the loop is over (stopped, or a film or recording has ended); tell whether it is."""
        return self._finished.wait(timeout_s)

    @property
    def finished(self) -> bool:
        """Whether the loop is over."""
        return self._finished.is_set()

    # -- steering -----------------------------------------------------------------------------------------

    def set_objective(self, objective: str) -> None:
        """Say which objective is in the light path; the eyepiece is dark until frames of it are answered.

        Raises
        ------
        LinceiError
            When this is no objective.
        """
        self._live.set_objective(objective)
        self._objective = objective
        self._clear(f"objective {objective}")
        self._say("operator", f"objective {objective}")

    def set_model(self, model: str) -> None:
        """Use another model; the eyepiece is dark until it answers.

        Raises
        ------
        LinceiError
            When there is no such model.
        """
        self._live.set_model(model)  # may take a second; the loop goes on meanwhile
        self._model = model
        self._clear(f"model {model}")
        self._say("operator", f"model {model}")

    def set_mode(self, mode: str) -> None:
        """Choose what is shown, one of `arm_overlay.overlay.MODES`."""
        self._live.set_mode(mode)
        self._mode = mode

    def set_threshold(self, threshold: float | None) -> None:
        """Set the probability from which on something is tumor; None for the model's own."""
        self._live.set_threshold(threshold)
        self._threshold = threshold

    def set_brightness(self, brightness: float) -> None:
        """Set the brightness of the microdisplay, 0 to 1."""
        self._brightness = min(max(float(brightness), 0.0), 1.0)

    def set_hidden(self, hidden: bool) -> None:
        """Hide everything in the eyepiece, or show it again."""
        self._hidden = hidden
        if hidden:
            self._darken("hidden")

    def toggle_hidden(self) -> None:
        """Hide everything, or show it again: for one key or a foot switch."""
        self.set_hidden(not self._hidden)

    def forget_alignments(self) -> None:
        """Read the alignments anew, after one was made."""
        with self._lock:
            self._alignments.clear()

    def add_listener(self, listener: Callable[[Frame, Overlay], None]) -> None:
        """Call ``listener(frame, overlay)`` after each overlay.

        It must return at once; one that fails is not called again, and the operator hears of it.
        """
        with self._lock:
            self._listeners.append(listener)

    def snapshot(self, comment: str = "") -> Future[Path]:
        """Save the newest frame with its heat map, overlay, settings and timings; the loop goes on meanwhile.

        Returns
        -------
        Future
            Of the folder. It holds a `LinceiError` when it could not be saved; the operator hears of it too.
        """
        latest = self.latest()
        future: Future[Path]
        if latest is None or self._records is None:
            future = Future()
            what = "there is no frame to save" if latest is None else "no folder for records was given"
            future.set_exception(LinceiError(what, "snapshot"))
        else:
            future = self._records.snapshot(*latest, comment=comment, state=self._state(latest[1]))
        future.add_done_callback(self._snapshot_done)
        return future

    def start_recording(self) -> None:
        """Record frames and answers from now on.

        Raises
        ------
        LinceiError
            When the folder cannot be written.
        """
        if self._records is None:
            raise LinceiError("no folder for records was given", "recording")
        folder = self._records.start_session(self._connection.name, interval_s=self._pace_s())
        self._say("recording", f"recording to {folder}")

    def stop_recording(self) -> None:
        """End the recording; what it holds stays."""
        if self._records is not None and self._records.session_folder:
            folder = self._records.session_folder
            self._records.stop_session()
            self._say("recording", f"recorded {folder}")

    # -- looking ------------------------------------------------------------------------------------------

    def latest(self) -> tuple[Frame, Overlay] | None:
        """Return the newest frame that was answered and its overlay, which the eyepiece may not show."""
        with self._lock:
            return self._latest

    def status(self) -> LoopStatus:
        """Return how the loop stands."""
        now_s = time.monotonic()
        records = self._records
        with self._lock:
            objective, threshold = "", self._threshold
            if self._latest is not None and self._latest[1].frame_time_s >= self._clear_before_s:
                objective = self._latest[1].objective
                threshold = self._latest[1].threshold if threshold is None else threshold
            return LoopStatus(
                camera=self._connection.name,
                display=self._display.name,
                model=self._model,
                objective=objective or self._objective,
                mode=self._mode,
                threshold=self._threshold,
                threshold_in_use=threshold,
                hidden=self._hidden,
                brightness=self._brightness,
                camera_trouble=self._camera_trouble,
                model_trouble=self._model_trouble,
                display_trouble=self._display_trouble,
                recording_trouble=records.trouble if records else "",
                blank_reason=self._blank_reason,
                warnings=(self._alignment_warning,) if self._alignment_warning else (),
                fps_in=self._rate_in.per_second(now_s),
                fps_out=self._rate_out.per_second(now_s),
                frames_in=self._frames_in,
                frames_out=self._frames_out,
                dropped=self._taken - self._frames_out,
                stages_ms=self._stage_means(),
                latency_ms=self._latencies.percentiles(50, 95, 99),
                recording=str(records.session_folder or "") if records else "",
                recording_dropped=records.dropped if records else 0,
                events=tuple(self._events),
            )

    def statistics(self) -> dict[str, Any]:
        """Return what ``--stats`` writes, JSON-able: rates, times of the stages, latencies, events."""
        status = self.status()
        with self._lock:
            seconds = (self._stopped_s or time.monotonic()) - self._started_s
            return {
                "research_use_only": True,
                "camera": status.camera,
                "display": status.display,
                "model": status.model,
                "objective": status.objective,
                "mode": status.mode,
                "seconds": round(seconds, 3),
                "frames_taken": self._taken,
                "frames_in": status.frames_in,
                "frames_out": status.frames_out,
                "dropped_frames": status.dropped,
                "fps_in": round(status.frames_in / seconds, 2) if seconds else 0.0,
                "fps_out": round(status.frames_out / seconds, 2) if seconds else 0.0,
                "stages_ms": {name: round(value, 3) for name, value in status.stages_ms.items()},
                "stages_averaged_over_frames": AVERAGED_FRAMES,
                "latency_ms": dict(status.latency_ms),
                "latency_frames": self._latencies.count,
                "latency_until": "overlay ready" if status.display == "none" else "overlay on the display",
                "blank_frames": dict(self._reasons),
                "recording_dropped_frames": status.recording_dropped,
                "events": [
                    {"time_s": round(e.time_s - self._started_s, 3), "source": e.source, "text": e.text}
                    for e in status.events
                ],
            }

    # -- the threads --------------------------------------------------------------------------------------

    def _arrived(self, connection: Connection, frame: Frame) -> None:
        """Take a frame from a camera's thread."""
        now_s = time.monotonic()
        with self._lock:
            if connection is not self._connection or self._stopping.is_set():
                return
            known = connection.last_number
            self._taken += frame.number - known if known is not None and frame.number > known else 1
            connection.last_number = frame.number
            self._frames_in += 1
            self._last_arrival_s = now_s
            if self._camera_trouble:
                self._camera_trouble = ""
                self._restart_rates()
                self._say("camera", f"frames come again from {connection.name}")
            self._rate_in.count(now_s)
            self._stages["grab"].append(1e3 * max(0.0, now_s - frame.time_s))
        self._frames.put((frame, now_s))

    def _infer(self) -> None:
        """Answer the newest frame, again and again."""
        while not self._stopping.is_set():
            taken = self._frames.take(0.1)
            if taken is None:
                continue
            frame, arrived_s = taken
            began_s = time.monotonic()
            self._step_since_s = began_s
            trouble, failed = "", False
            try:
                overlay = self._live.step(frame)
            except Exception as error:  # a model may fail in any way, and the next frame may do
                trouble, failed = _reason(error), True
                overlay = Overlay(
                    frame.number, frame.time_s, frame.size_px, blank_reason=f"model error: {trouble}"
                )
            else:
                if overlay.blank_reason.startswith(MODEL_TROUBLES):
                    trouble = overlay.blank_reason
            finally:
                self._step_since_s = None
            own_ms = {"grab": 1e3 * max(0.0, arrived_s - frame.time_s), "wait": 1e3 * (began_s - arrived_s)}
            overlay = replace(overlay, timings_ms={**own_ms, **overlay.timings_ms})
            self._hear_of_model(trouble)
            with self._lock:
                for name, value in overlay.timings_ms.items():
                    if name != "grab":
                        self._stages.setdefault(name, deque(maxlen=AVERAGED_FRAMES)).append(value)
                self._frames_out += 1
                self._rate_out.count(time.monotonic())
            self._answers.put((frame, overlay))
            if failed:
                self._stopping.wait(RETRY_MODEL_S)

    def _show(self) -> None:
        """Hand the newest overlay to the display and the listeners, again and again."""
        while not self._stopping.is_set():
            taken = self._answers.take(0.1)
            if taken is not None:
                self._show_one(*taken)
            self._hear_display()

    def _show_one(self, frame: Frame, overlay: Overlay) -> None:
        began_s = time.monotonic()
        # Whoever darkens the display meanwhile does so after this overlay, not before.
        with self._showing:
            with self._lock:
                reason, warp = self._what_may_be_shown(overlay)
                # Once the camera is lost its last frame must not light the eyepiece again.
                reason = reason or self._camera_trouble
                self._blank_reason = reason
                self._latest = (frame, overlay)
                listeners = tuple(self._listeners)
                if reason:
                    known = reason in self._reasons or len(self._reasons) < REASONS_KEPT
                    self._reasons[reason if known else "other"] += 1
            try:
                self._display.show(
                    overlay if overlay.blank_reason or not reason else _blanked(overlay, reason),
                    warp,
                    frame_interval_s=self._pace_s(),
                    brightness=self._brightness,
                )
                self._show_trouble = ""
            except Exception as error:  # a display that fails must not end the loop
                self._show_trouble = _reason(error)
        with self._lock:
            self._stages["warp"].append(1e3 * (time.monotonic() - began_s))
        if self._records is not None:
            self._records.offer(frame, overlay)
        for listener in listeners:
            try:
                listener(frame, overlay)
            except Exception as error:  # a window that fails must not end the loop
                with self._lock:
                    self._listeners.remove(listener)
                self._say("listener", f"what listened has failed: {_reason(error)}")

    def _what_may_be_shown(self, overlay: Overlay) -> tuple[str, NDArray[Any] | None]:
        """Return why the eyepiece must be dark for an overlay, or nothing, and the warp to the display."""
        if self._stopping.is_set():
            return "stopped", None
        if self._hidden:
            return "hidden", None
        if overlay.blank_reason:
            return overlay.blank_reason, None
        if overlay.frame_time_s < self._clear_before_s:
            return "changing", None
        if self._alignment is None:
            return "", None
        key = (overlay.objective, overlay.frame_size_px)
        if key not in self._alignments:
            if len(self._alignments) > 32:
                self._alignments.clear()
            self._alignments[key] = self._read_alignment(*key)
        warp = self._alignments[key]
        self._alignment_warning = warp if isinstance(warp, str) else ""
        return ("not aligned", None) if isinstance(warp, str) else ("", warp)

    def _read_alignment(self, objective: str, size_px: tuple[int, int]) -> NDArray[Any] | str:
        """Return the warp of an objective, or why there is none, and then tell the operator."""
        assert self._alignment is not None
        try:
            return self._alignment(objective, size_px)
        except Exception as error:  # a damaged file is no reason to stop
            warning = _reason(error)
            self._say("alignment", warning)
            return warning

    def _hear_display(self) -> None:
        """Take note of what the display has shown, and of its troubles."""
        try:
            for shown in self._display.reports():
                with self._lock:
                    self._latencies.add(1e3 * (shown.time_s - shown.frame_time_s))
                    self._stages["display"].append(shown.draw_ms)
            trouble = self._display.trouble or self._show_trouble
        except Exception as error:  # as above
            trouble = _reason(error)
        with self._lock:
            if trouble == self._display_trouble:
                return
            self._display_trouble = trouble
        self._say("display", trouble or "the display works again")

    def _watch(self) -> None:
        """Say when the camera or the model does not answer, and connect to the camera again."""
        retry_s: float | None = None
        while not self._stopping.wait(0.02):
            now_s = time.monotonic()
            connection = self._connection
            self._watch_model(now_s)
            self._watch_frames(now_s)
            if retry_s is not None:
                if now_s >= retry_s and self._may_connect():
                    retry_s = None
                    self._connect()
                continue
            if connection.opened.is_set() and self._last_arrival_s is None:
                # The first frame may take a while longer.
                self._last_arrival_s = now_s + connection.grab_timeout_s
            if connection.over:
                if isinstance(connection.error, CameraEndedError):
                    self._end()
                    return
                self._lost(_reason(connection.error) if connection.error else "the camera was closed")
                retry_s = now_s + RECONNECT_EVERY_S
            elif connection.hangs(now_s):
                self._lost("the camera's driver does not answer")
                connection.give_up()
                self._hung.append(connection)
                retry_s = now_s + RECONNECT_EVERY_S

    def _may_connect(self) -> bool:
        self._hung = [connection for connection in self._hung if not connection.over]
        return len(self._hung) < MOST_HUNG

    def _connect(self) -> None:
        """Open the camera anew."""
        with self._lock:
            name = self._connection.name
            self._connection = Connection(self._new_camera, self._prepare)
            self._connection.name = name
            self._restart_rates()
        self._connection.start(self._arrived)

    def _watch_frames(self, now_s: float) -> None:
        """Say so when the next frame is overdue."""
        last_s = self._last_arrival_s
        if last_s is None or self._camera_trouble:
            return
        if now_s - last_s > self._interval_s() + LATE_S:
            self._lost("the camera sends no frames")

    def _watch_model(self, now_s: float) -> None:
        since_s = self._step_since_s
        if since_s is not None and now_s - since_s > HUNG_MODEL_S:
            text = "the model does not answer"
            if self._model_trouble != text:
                self._model_trouble = text
                self._darken(text)
                self._say("model", text)

    def _lost(self, reason: str) -> None:
        """Go dark and say why, once for each reason."""
        with self._lock:
            is_new = self._camera_trouble != reason
            self._camera_trouble = reason
        self._darken(reason)
        if is_new:
            self._say("camera", reason)

    def _end(self) -> None:
        """The film is over: answer its last frame, and end."""
        # Between two threads a frame is for a moment in the hands of neither: it is looked twice.
        idle = 0
        while not self._stopping.wait(0.02) and idle < 2:
            idle = idle + 1 if self._step_since_s is None and self._idle() else 0
            self._watch_model(time.monotonic())
        self._say("camera", _reason(self._connection.error))
        self._camera_trouble = "the film is over"
        self._darken(self._camera_trouble)
        self._finished.set()

    # -- small things -------------------------------------------------------------------------------------

    def _clear(self, reason: str) -> None:
        """Show nothing that belongs to frames until now."""
        self._clear_before_s = time.monotonic()
        self._darken(reason)

    def _darken(self, reason: str) -> None:
        """Make the display dark; not called with the lock held."""
        try:
            with self._showing:
                self._blank_reason = reason
                self._display.blank(reason)
        except Exception as error:  # as above; it goes dark by itself
            self._show_trouble = _reason(error)

    def _interval_s(self) -> float:
        """Time between two frames: what the camera states, or what it was lately, if that is longer."""
        return max(self._connection.interval_s or 0.0, self._rate_in.interval_s or 0.0) or 0.1

    def _pace_s(self) -> float:
        """Time between two answers: a model that is slower than the camera sets the pace."""
        return max(self._interval_s(), self._rate_out.interval_s or 0.0)

    def _restart_rates(self) -> None:
        """Forget an interruption: the display waits for an overlay as long as they usually are apart."""
        self._rate_in.restart()
        self._rate_out.restart()

    def _idle(self) -> bool:
        return self._frames.empty and self._answers.empty

    def _hear_of_model(self, trouble: str) -> None:
        with self._lock:
            if trouble == self._model_trouble:
                return
            self._model_trouble = trouble
            if not trouble:
                self._restart_rates()
        self._say("model", trouble or "the model answers again")

    def _snapshot_done(self, future: Future[Path]) -> None:
        error = future.exception()
        text = f"snapshot saved in {future.result()}" if error is None else f"no snapshot: {_reason(error)}"
        self._say("recording", text)

    def _state(self, overlay: Overlay) -> dict[str, Any]:
        """Return how the loop stands, for a record."""
        status = self.status()
        with self._lock:
            warp = self._alignments.get((overlay.objective, overlay.frame_size_px))
        return {
            "loop": {
                "camera": status.camera,
                "display": status.display,
                "threshold": status.threshold,
                "brightness": status.brightness,
                "hidden": status.hidden,
                "shown_in_eyepiece": not status.blank_reason,
                "fps_in": round(status.fps_in, 2),
                "fps_out": round(status.fps_out, 2),
                "stages_ms": {name: round(value, 3) for name, value in status.stages_ms.items()},
                "latency_ms": dict(status.latency_ms),
                "warnings": list(status.warnings),
            },
            "alignment": None if warp is None or isinstance(warp, str) else np.asarray(warp).tolist(),
        }

    def _stage_means(self) -> dict[str, float]:
        return {name: sum(times) / len(times) for name, times in self._stages.items() if times}

    def _say(self, source: str, text: str) -> None:
        with self._lock:
            event = Event(self._event_count, time.monotonic(), source, text)
            self._event_count += 1
            self._events.append(event)
        if self._records is not None:
            self._records.note(event.time_s, source, text)


def _blanked(overlay: Overlay, reason: str) -> Overlay:
    """Return an overlay that shows nothing."""
    return replace(
        overlay, blank_reason=reason, regions=(), heat_map=None, points=None, arrows=(), texts=(), measures={}
    )


def _reason(error: BaseException | None) -> str:
    """Return what went wrong in one line, for the operator."""
    if error is None:
        return ""
    readable = readable_error(error)
    if readable is not None:
        # The same trouble with each frame is one trouble.
        return re.sub(r"^frame \d+: ", "", str(readable))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
