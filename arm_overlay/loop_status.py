"""How the running loop stands: rates, times of the stages, latencies, what happened. Memory does not grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from arm_overlay.objectives import WHICH_OBJECTIVE
from arm_overlay.overlay import MODE_NAMES

# What is timed, in the order in which a frame meets it; "wait" is for the frame before.
STAGES = (
    *("grab", "wait", "debayer", "motion", "gate", "inference", "stabilize", "outline"),
    *("warp", "display"),
)
AVERAGED_FRAMES = 50


@dataclass(frozen=True)
class Event:
    """Something that happened and that the operator should know.

    Parameters
    ----------
    number : int
        Counts the events of this loop from 0.
    time_s : float
        When, on the clock of `time.monotonic`.
    source : str
        "camera", "model", "display", "alignment", "recording", "operator" or "listener".
    text : str
        What, in words.
    """

    number: int
    time_s: float
    source: str
    text: str


@dataclass(frozen=True)
class LoopStatus:
    """How the loop stands; a snapshot that nothing changes afterwards.

    Parameters
    ----------
    camera, display, model, objective, mode : str
        What is in use; the objective is empty while it is unknown.
    threshold : float or None
        The one that was set; None while the model's own is used.
    threshold_in_use : float or None
        The one that was set, or else the model's own; None while that is not known.
    hidden : bool
        Whether the operator hides everything.
    brightness : float
        Of the microdisplay, 0 to 1.
    camera_trouble, model_trouble, display_trouble, recording_trouble : str
        What is wrong, in words; empty while all is well.
    blank_reason : str
        Why the eyepiece is dark now; empty while the overlay is shown.
    warnings : tuple of str
        What the operator should mend, such as a missing alignment.
    fps_in, fps_out : float
        Frames that came and that were answered, a second, over the last 50.
    frames_in, frames_out : int
        Since the start.
    dropped : int
        Frames that the camera took and that were not answered, since a newer one came first.
    stages_ms : mapping of str to float
        Mean time of each of `STAGES` over the last 50 frames.
    latency_ms : mapping of str to float
        ``p50``, ``p95`` and ``p99`` of the time from a frame's exposure to its overlay on the display, over
        all frames; empty before the first.
    recording : str
        Folder of the session that is being recorded; empty when none is.
    recording_dropped : int
        Frames that the disk was too slow for, in that session.
    events : tuple of Event
        The last ones, the newest last.
    """

    camera: str
    display: str
    model: str
    objective: str
    mode: str
    threshold: float | None
    hidden: bool
    brightness: float
    threshold_in_use: float | None = None
    camera_trouble: str = ""
    model_trouble: str = ""
    display_trouble: str = ""
    recording_trouble: str = ""
    blank_reason: str = ""
    warnings: tuple[str, ...] = ()
    fps_in: float = 0.0
    fps_out: float = 0.0
    frames_in: int = 0
    frames_out: int = 0
    dropped: int = 0
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    recording: str = ""
    recording_dropped: int = 0
    events: tuple[Event, ...] = ()


def question_of(status: LoopStatus) -> str:
    """Return what the loop asks the operator; nothing while it asks nothing."""
    if WHICH_OBJECTIVE in status.blank_reason:
        return f"The image no longer fits {status.objective or 'the objective'}: which objective is it?"
    if not status.objective and status.frames_out:
        return "Which objective is in the light path?"
    return ""


def state_of(status: LoopStatus) -> tuple[str, str]:
    """Return what is in the eyepiece now, and why when nothing is, in a sentence.

    Returns
    -------
    (str, str)
        "shown", "dark" or "trouble"; and the sentence.
    """
    trouble = status.camera_trouble or status.model_trouble or status.display_trouble
    if trouble:
        return "trouble", f"Nothing is shown in the eyepiece: {trouble}"
    if question_of(status):
        return "dark", "Nothing is shown in the eyepiece until the question is answered"
    if status.blank_reason:
        return "dark", f"Nothing is shown in the eyepiece: {status.blank_reason}"
    if status.display == "none":
        return "dark", "No display in the eyepiece; the overlay is shown here only"
    return "shown", f"Shown in the eyepiece: {MODE_NAMES.get(status.mode, status.mode).lower()}"


def rates_of(status: LoopStatus) -> str:
    """Return frames a second, frames dropped and, once known, the latency, in one line or two."""
    text = f"{status.fps_out:.1f} of {status.fps_in:.1f} frames/s, {status.dropped} dropped"
    if status.latency_ms:
        latency = status.latency_ms
        text += f"\nlatency {latency['p50']:.0f} ms (p95 {latency['p95']:.0f}, p99 {latency['p99']:.0f})"
    return text


class Latencies:
    """Percentiles of any number of durations in memory that does not grow: a histogram of 0.25 ms bins."""

    BIN_MS = 0.25
    BINS = 8000

    def __init__(self) -> None:
        # The last bin holds all that is longer.
        self._counts = np.zeros(self.BINS + 1, np.int64)

    def add(self, duration_ms: float) -> None:
        """Count one duration."""
        self._counts[min(max(int(duration_ms / self.BIN_MS), 0), self.BINS)] += 1

    @property
    def count(self) -> int:
        """How many were counted."""
        return int(self._counts.sum())

    def percentiles(self, *wanted: float) -> dict[str, float]:
        """Return ``{"p50": ...}`` in milliseconds, to half a bin; empty when nothing was counted."""
        cumulative = np.cumsum(self._counts)
        if cumulative[-1] == 0:
            return {}
        bins = np.searchsorted(cumulative, [cumulative[-1] * share / 100 for share in wanted])
        return {
            f"p{share:g}": round(float(index + 0.5) * self.BIN_MS, 3)
            for share, index in zip(wanted, bins, strict=True)
        }


class Rate:
    """Frames a second over the last ones."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=AVERAGED_FRAMES)

    def count(self, time_s: float) -> None:
        """Take note of a frame."""
        self._times_s.append(time_s)

    def restart(self) -> None:
        """Forget the times before an interruption."""
        self._times_s.clear()

    @property
    def interval_s(self) -> float | None:
        """Mean time between two frames; None before there are two."""
        if len(self._times_s) < 2:
            return None
        return (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)

    def per_second(self, now_s: float) -> float:
        """Return the rate; 0 when nothing has come for two seconds."""
        interval_s = self.interval_s
        if not interval_s or now_s - self._times_s[-1] > 2.0:
            return 0.0
        return 1.0 / interval_s
