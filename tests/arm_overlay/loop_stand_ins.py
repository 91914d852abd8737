"""Stand-ins for camera, model and display that do what a test tells them, faults included."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import Camera, CameraEndedError, CameraError
from arm_overlay.frames import Frame
from arm_overlay.overlay import Overlay, Region, Shown

# Events are waited for this long: much longer than they take on a busy machine.
PATIENCE_S = 30.0
SQUARE = np.array([[10, 10], [50, 10], [50, 40], [10, 40]], np.float32)


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait for something to happen; fail when it does not."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.005)


# The stand-in model's own.
OWN_THRESHOLD = 0.3


class Faults:
    """What goes wrong with the cameras of one device, from now on."""

    def __init__(self) -> None:
        self.open_error: Exception | None = None
        self.grab_error: Exception | None = None
        self.stalls = threading.Event()
        # A driver that hangs comes back from its call only when this is set.
        self.hangs_in: set[str] = set()
        self.released = threading.Event()
        self.opened = 0

    def hang(self, call: str) -> None:
        if call in self.hangs_in:
            self.released.wait(PATIENCE_S)


class StandInCamera(Camera):
    """Frames of a pale field at a set rate; each pixel is the frame's number, modulo 200."""

    kind: ClassVar[str] = "stand-in"

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        fps: float = 100.0,
        size_px: tuple[int, int] = (96, 64),
        bayer: str = "",
        frames: int | None = None,
        objective: str = "",
    ) -> None:
        super().__init__("")
        self.faults = faults or Faults()
        self.fps, self.size_px, self.bayer, self.frames = fps, size_px, bayer, frames
        self.objective = objective
        self._closed = threading.Event()
        self._number = 0
        self._next_s = 0.0

    @property
    def name(self) -> str:
        return "stand-in camera"

    @property
    def frame_interval_s(self) -> float | None:
        return 1 / self.fps

    def open(self) -> None:
        self.faults.hang("open")
        if self.faults.open_error is not None:
            raise self.faults.open_error
        self.faults.opened += 1
        self._closed.clear()
        self._next_s = time.monotonic()

    def grab(self, timeout_s: float = 1.0) -> Frame:
        self.faults.hang("grab")
        if self.faults.grab_error is not None:
            raise self.faults.grab_error
        if self.frames is not None and self._number >= self.frames:
            raise CameraEndedError("the film is over", self.name)
        if self.faults.stalls.is_set():
            self._closed.wait(timeout_s)
            raise CameraError(f"no frame came within {timeout_s:g} s", self.name)
        self._next_s += 1 / self.fps
        if self._closed.wait(max(0.0, self._next_s - time.monotonic())):
            raise CameraError("the camera is closed", self.name)
        # Frames that nobody fetched are passed over.
        late = max(0, int((time.monotonic() - self._next_s) * self.fps))
        if self.frames is None:
            self._number, self._next_s = self._number + late, self._next_s + late / self.fps
        frame = stand_in_frame(
            self._number, self._next_s, self.size_px, bayer=self.bayer, objective=self.objective
        )
        self._number += 1
        return frame

    def close(self) -> None:
        self._closed.set()
        self.faults.hang("close")


def stand_in_frame(
    number: int,
    time_s: float | None = None,
    size_px: tuple[int, int] = (96, 64),
    *,
    bayer: str = "",
    objective: str = "",
    pixel_size_um: float | None = 0.5,
) -> Frame:
    """Return a frame whose pixels are its number, modulo 200."""
    width, height = size_px
    shape = (height, width) if bayer else (height, width, 3)
    pixels = np.full(shape, number % 200, np.uint8)
    return Frame(
        pixels,
        time.monotonic() if time_s is None else time_s,
        number,
        bayer=bayer,
        pixel_size_um=pixel_size_um,
        objective=objective,
    )


class StandInLive:
    """Outlines a square in each frame, in a set time, or fails or hangs as it is told."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.blank_reason = ""
        self.objective, self.mode, self.model = "20x", "outline", "stand-in"
        self.threshold: float | None = None
        self.seen: list[int] = []

    def step(self, frame: Frame) -> Overlay:
        if self.error is not None:
            raise self.error
        self.answers.wait(PATIENCE_S)
        time.sleep(self.takes_s)
        self.seen.append(frame.number)
        blank = self.blank_reason
        return Overlay(
            frame.number,
            frame.time_s,
            frame.size_px,
            mode=self.mode,
            blank_reason=blank,
            regions=() if blank else (Region(SQUARE, area_px=1200.0, diameter_px=50.0, score=0.9),),
            heat_map=None if blank else np.full((8, 12), 128, np.uint8),
            measures={} if blank else {"percent_tumor": 12.5},
            objective=frame.objective or self.objective,
            model=self.model,
            pixel_size_um=frame.pixel_size_um,
            threshold=OWN_THRESHOLD if self.threshold is None else self.threshold,
            timings_ms={"debayer": 1.0, "gate": 0.5, "inference": 1e3 * self.takes_s, "outline": 0.25},
        )

    def set_objective(self, objective: str) -> None:
        self.objective = objective

    def set_mode(self, mode: str) -> None:
        self.mode = mode

    def set_threshold(self, threshold: float | None) -> None:
        self.threshold = threshold

    def set_model(self, model: str) -> None:
        self.model = model


class StandInDisplay:
    """Remembers what it was told to show."""

    name = "stand-in display"

    def __init__(self) -> None:
        self.trouble = ""
        self.error: Exception | None = None
        self.calls: list[tuple[str, Any, Any]] = []
        self.closed = False
        self.intervals_s: list[float] = []
        self._reports: list[Shown] = []
        self._lock = threading.Lock()

    def show(
        self,
        overlay: Overlay,
        warp: NDArray[Any] | None,
        *,
        frame_interval_s: float,
        brightness: float,
    ) -> None:
        if self.error is not None:
            raise self.error
        assert frame_interval_s > 0
        with self._lock:
            self.intervals_s.append(frame_interval_s)
            self.calls.append(("blank" if overlay.blank_reason else "show", overlay, warp))
            if not overlay.blank_reason:
                shown = Shown(overlay.frame_number, overlay.frame_time_s, time.monotonic(), draw_ms=2.0)
                self._reports.append(shown)

    def blank(self, reason: str) -> None:
        with self._lock:
            self.calls.append(("blank", reason, None))

    def reports(self) -> list[Shown]:
        with self._lock:
            reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        self.closed = True

    @property
    def dark(self) -> bool:
        """Whether it was told to be dark last."""
        with self._lock:
            return not self.calls or self.calls[-1][0] == "blank"

    @property
    def shown(self) -> list[Overlay]:
        """The overlays that were lit."""
        with self._lock:
            return [overlay for kind, overlay, _ in self.calls if kind == "show"]


def loop_threads() -> list[str]:
    """Return the names of the loop's threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("arm ")]
