"""A recorded session as a camera: its frames come at the times at which they were taken.

Long pauses, as when the camera was unplugged, are shortened.
``replay:FOLDER`` plays a session that `arm_overlay.recording` wrote, once; ``replay:FOLDER,loop`` again and
again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import Camera, CameraEndedError, CameraError, CameraInfo
from arm_overlay.cameras.polled import refuse_unknown_settings, split_settings
from arm_overlay.frames import Frame
from arm_overlay.recording import EMPTY_FIELD_FILE, LOG_FILE, session_folder
from lincei.errors import LinceiError
from lincei.image import readable_errors

# Between the last frame and the first of the next round, where the log does not tell.
_INTERVAL_S = 1 / 30
# Pauses longer than this, and than two frames, are shortened. The loop waits a second or four frames for a
# frame: after a longer pause it would take the camera for lost and begin the recording anew.
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True)
class _Recorded:
    """Where a recorded frame lies and what is known of it."""

    part: str
    index: int
    time_s: float
    number: int
    bits: int
    bayer: str
    exposure_ms: float | None
    pixel_size_um: float | None
    objective: str


class ReplayCamera(Camera):
    """Plays a recorded session.

    Parameters
    ----------
    spec : str
        Its folder, or one that holds a single session; ``,loop`` after it plays it again and again.
    """

    kind: ClassVar[str] = "replay"

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        path, settings = split_settings(spec)
        refuse_unknown_settings(settings, ("loop",), f"replay:{spec}")
        self._path = Path(path)
        self._loop = "loop" in settings
        self._frames: list[_Recorded] = []
        self._next = 0
        self._round = 0
        self._began_s = 0.0
        self._part: tuple[str, Any] = ("", None)
        self._closed = threading.Event()
        self._closed.set()

    @property
    def name(self) -> str:
        """The recorded session."""
        return f"recording {self._path}"

    @property
    def frame_interval_s(self) -> float | None:
        """Mean time between two recorded frames."""
        if len(self._frames) < 2:
            return None
        return (self._frames[-1].time_s - self._frames[0].time_s) / (len(self._frames) - 1) or None

    def open(self) -> None:
        """Read the log and begin with the first frame.

        Raises
        ------
        CameraError
            When there is no session, or it holds no frames.
        """
        if not self._closed.is_set():
            return
        try:
            folder = session_folder(self._path)
            self._frames = _with_short_pauses(list(_recorded_frames(folder)))
        except LinceiError as error:
            raise CameraError(error.what, error.where, error.what_to_do) from error
        if not self._frames:
            raise CameraError("no frames were recorded in this session", str(folder), "Record another one.")
        self._path = folder
        self._next = self._round = 0
        self._began_s = time.monotonic()
        self._closed.clear()

    def grab(self, timeout_s: float = 1.0) -> Frame:
        """Wait for the next frame's time and return the newest that is due; older ones are dropped.

        Raises
        ------
        CameraEndedError
            After the last frame.
        CameraError
            When it was closed, a file is damaged, or no frame is due within ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        self._skip_late()
        if self._next >= len(self._frames):
            if not self._loop:
                raise CameraEndedError("the recording is over", self.name)
            self._next, self._round = 0, self._round + 1
        due_s = self._due_s(self._next)
        if self._closed.wait(max(0.0, min(due_s, deadline_s) - time.monotonic())):
            raise CameraError("the camera is closed", self.name, "Open it again.")
        if time.monotonic() < due_s:
            raise CameraError(f"no frame came within {timeout_s:g} s", self.name, "The recording has a gap.")
        recorded, self._next = self._frames[self._next], self._next + 1
        pixels = self._pixels(recorded)
        return Frame(
            pixels,
            time_s=due_s,
            number=recorded.number + self._round * (self._frames[-1].number - self._frames[0].number + 1),
            bits=recorded.bits,
            bayer=recorded.bayer,
            exposure_ms=recorded.exposure_ms,
            pixel_size_um=recorded.pixel_size_um,
            objective=recorded.objective,
        )

    def close(self) -> None:
        """Stop; closing twice does nothing."""
        self._closed.set()
        self._part = ("", None)

    def _due_s(self, index: int) -> float:
        """Return when a frame is due in this round, on the clock of `time.monotonic`."""
        first_s = self._frames[0].time_s
        round_s = self._frames[-1].time_s - first_s + (self.frame_interval_s or _INTERVAL_S)
        return self._began_s + self._round * round_s + self._frames[index].time_s - first_s

    def _skip_late(self) -> None:
        """Pass over frames after which another one is due already; the last is never passed over."""
        now_s = time.monotonic()
        while self._next + 1 < len(self._frames) and self._due_s(self._next + 1) <= now_s:
            self._next += 1

    def _pixels(self, recorded: _Recorded) -> NDArray[Any]:
        path = self._path / recorded.part
        name, part = self._part
        with readable_errors(path):
            if name != recorded.part:
                part = _VideoFile(path) if path.suffix == ".avi" else _ZarrFile(path)
                self._part = (recorded.part, part)
            pixels: NDArray[Any] = part.frame(recorded.index)
        return pixels


class _ZarrFile:
    """Frames as the camera gave them."""

    def __init__(self, path: Path) -> None:
        import zarr

        self._array: Any = zarr.open_array(path / "0", mode="r")

    def frame(self, index: int) -> NDArray[Any]:
        planes = np.asarray(self._array[index])
        # Cameras in color have an axis of channels before y and x.
        return planes if planes.ndim == 2 else np.ascontiguousarray(planes.transpose(1, 2, 0))


class _VideoFile:
    """Frames in color."""

    def __init__(self, path: Path) -> None:
        import cv2

        self._path = path
        self._video = cv2.VideoCapture(str(path))
        self._next = 0
        if not self._video.isOpened():
            raise LinceiError("the video cannot be read", str(path), "Copy it again from where it was made.")

    def frame(self, index: int) -> NDArray[Any]:
        import cv2

        if index < self._next:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, index)
            self._next = index
        found, pixels = True, None
        while found and self._next < index:
            found = self._video.grab()
            self._next += 1
        if found:
            found, pixels = self._video.read()
            self._next += 1
        if not found or pixels is None:
            raise LinceiError("the video ends before its log", str(self._path), "Record it again.")
        return np.ascontiguousarray(pixels[..., ::-1])


def recorded_empty_field(spec: str) -> tuple[bool, Path | None]:
    """Tell how a recording is to be developed.

    Parameters
    ----------
    spec : str
        What follows ``replay:``.

    Returns
    -------
    developed : bool
        True when its frames are in balanced color already.
    empty_field : Path or None
        The file of the empty field that it was recorded with.
    """
    folder = session_folder(split_settings(spec)[0])
    first = next(_lines(folder), {})
    path = folder / EMPTY_FIELD_FILE
    return bool(first.get("developed", False)), path if path.is_file() else None


def found() -> list[CameraInfo]:
    """Return no camera: a recording is named by its folder."""
    return []


def _with_short_pauses(frames: list[_Recorded]) -> list[_Recorded]:
    """Return frames whose times hold no long pauses."""
    if len(frames) < 2:
        return frames
    times_s = np.array([frame.time_s for frame in frames])
    steps_s = np.diff(times_s)
    longest_s = max(_LONGEST_PAUSE_S, 2 * float(np.median(steps_s)))
    shortened_s = times_s[0] + np.concatenate([[0.0], np.cumsum(np.minimum(steps_s, longest_s))])
    return [replace(frame, time_s=time_s) for frame, time_s in zip(frames, shortened_s.tolist(), strict=True)]


def _recorded_frames(folder: Path) -> Iterator[_Recorded]:
    for line in _lines(folder):
        if line.get("kind") != "frame":
            continue
        try:
            part = str(line["part"])
            if Path(part).name != part:
                raise ValueError(f"{part!r} lies outside the folder")
            yield _Recorded(
                part=part,
                index=int(line["index"]),
                time_s=float(line["time_s"]),
                number=int(line["number"]),
                bits=int(line["bits"]),
                bayer=str(line["bayer"]),
                exposure_ms=line["exposure_ms"],
                pixel_size_um=line["pixel_size_um"],
                objective=str(line["objective"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LinceiError(
                f"a line of the log is not one of a recorded session ({error})",
                str(folder / LOG_FILE),
                "Copy the folder again from where it was recorded.",
            ) from error


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the log line by line; a last line that was cut off when the program ended is passed over."""
    path = folder / LOG_FILE
    with readable_errors(path), path.open(encoding="utf-8") as lines:
        for text in lines:
            if not text.endswith("\n"):
                return
            try:
                line = json.loads(text)
            except ValueError as error:
                raise LinceiError(
                    f"a line of the log is no JSON ({error})", str(path), "Copy the folder again."
                ) from error
            if isinstance(line, dict):
                yield line
