"""What is kept of what was seen: snapshots, and sessions that can be played again through another model.

A snapshot is a folder::

    frame.tif         the frame in color, uint8, with its pixel size
    heat_map.tif      probability, float32, with its pixel size (where the model gives a map)
    overlay.png       the overlay, drawn over the frame
    outline.geojson   the outlines; QuPath opens and corrects them, `lincei train-tumor` learns from them
    settings.json     all settings, timings, measures, the comment

A session is a folder with the camera's frames as they came (``frames_1.ome.zarr``; a next one where their
size changed) or as a video in color (``frames_1.avi``), ``log.jsonl`` with a line for each frame and event,
and ``empty_field.npz`` where colors were balanced with one. `arm_overlay.cameras.replay` plays it.

Both are written by threads of their own: when the disk is too slow, frames are left out and counted.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib.metadata
import json
import platform
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from arm_overlay.frames import Frame
from arm_overlay.overlay import Overlay, Region
from lincei.batch import readable_error
from lincei.errors import LinceiError
from lincei.image import Image, replacing, save_image, writable_errors

RECORD_FORMATS = ("ome-zarr", "video")
LOG_FILE = "log.jsonl"
EMPTY_FIELD_FILE = "empty_field.npz"
LOG_VERSION = 1
RESEARCH_USE_ONLY = "Research use only."

# Frames that may wait for the disk; at 1920x1200 and 8 bits a bit more than 2 MB each.
FRAMES_WAITING = 8
EVENTS_WAITING = 1000
# Recording ends while other programs still find so much room on the disk.
FREE_BYTES = 100 * 1024**2
# So long the end waits for a disk; one that hangs must not hold it up.
_CLOSE_S = 10.0
_VERSIONS_OF = ("lincei", "numpy", "openvino", "onnxruntime", "opencv-python-headless", "ome-writers")


class Records:
    """Writes snapshots and sessions into a folder; nothing here makes the loop wait.

    Parameters
    ----------
    folder : str or Path
        Where snapshots and sessions go; made when the first is written.
    develop : callable
        ``develop(frame)`` returns the frame in color: shape (Y, X, 3), uint8, balanced.
    settings : mapping
        All settings, JSON-able; a copy goes into each record.
    record_format : str
        One of `RECORD_FORMATS`.
    save_empty_field : callable, optional
        ``save_empty_field(path)`` writes the empty field that colors are balanced with, so that a replay is
        developed alike.
    """

    def __init__(
        self,
        folder: str | Path,
        develop: Callable[[Frame], NDArray[np.uint8]],
        *,
        settings: Mapping[str, Any] | None = None,
        record_format: str = "ome-zarr",
        save_empty_field: Callable[[Path], object] | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._develop = develop
        self._settings = dict(settings or {})
        self._record_format = record_format
        self._save_empty_field = save_empty_field
        self._lock = threading.Lock()
        # One snapshot is written after the other. No executor's threads: Python's end would wait for them.
        self._writing = threading.Lock()
        self._snapshots: list[threading.Thread] = []
        self._session: _Session | None = None
        self._count = 0
        self.trouble = ""
        self.on_trouble: Callable[[str], None] = lambda _: None

    @property
    def session_folder(self) -> Path | None:
        """Folder of the session that is being recorded; None when none is."""
        session = self._session
        return session.folder if session is not None and session.running else None

    @property
    def dropped(self) -> int:
        """Frames of this session (or the last one) that the disk was too slow for."""
        return self._session.dropped if self._session is not None else 0

    def snapshot(
        self, frame: Frame, overlay: Overlay, *, comment: str = "", state: Mapping[str, Any] | None = None
    ) -> Future[Path]:
        """Write a snapshot; return the future of its folder.

        Parameters
        ----------
        frame, overlay : Frame, Overlay
            What is kept.
        comment : str
            The operator's words.
        state : mapping, optional
            How the loop stood, JSON-able.
        """
        with self._lock:
            self._count += 1
            folder = self.folder / f"{_now():%Y-%m-%d_%H-%M-%S}_{self._count:03d}"
        future: Future[Path] = Future()
        settings = {**self._settings, **(state or {})}

        def write() -> None:
            try:
                with self._writing:
                    written = write_snapshot(
                        folder, frame, overlay, develop=self._develop, settings=settings, comment=comment
                    )
            except BaseException as error:  # whoever waits for the folder is told
                future.set_exception(error)
            else:
                future.set_result(written)

        thread = threading.Thread(target=write, name="arm snapshot", daemon=True)
        with self._lock:
            self._snapshots = [other for other in self._snapshots if other.is_alive()]
            # Started here: `close` must not find one that is not alive yet.
            thread.start()
            self._snapshots.append(thread)
        return future

    def start_session(self, camera: str, *, interval_s: float = 1 / 30) -> Path:
        """Begin to record what is offered from now on; return the session's folder.

        Parameters
        ----------
        camera : str
            What the camera is called.
        interval_s : float
            Time between two frames, as far as it is known: what a video is played at, and the scale of the
            time axis. The log has each frame's own time.

        Raises
        ------
        LinceiError
            When the folder cannot be written, or a package is missing.
        """
        self.stop_session()
        base = self.folder / f"session_{_now():%Y-%m-%d_%H-%M-%S}"
        folder, number = base, 1
        while folder.exists():
            number += 1
            folder = base.with_name(f"{base.name}_{number}")
        with writable_errors(folder):
            folder.mkdir(parents=True)
            self.trouble = ""
            pixels = self._new_pixels(folder)
            session = _Session(folder, pixels, camera, interval_s, self._settings, self._failed)
            if self._save_empty_field is not None:
                self._save_empty_field(folder / EMPTY_FIELD_FILE)
            session.begin()
        self._session = session
        return folder

    def stop_session(self) -> None:
        """Write what still waits and end the session."""
        session = self._session
        if session is not None:
            session.finish()

    def offer(self, frame: Frame, overlay: Overlay) -> None:
        """Record a frame and its overlay, if a session is being recorded and the disk keeps up."""
        session = self._session
        if session is not None and session.running:
            session.offer(frame, overlay)

    def note(self, time_s: float, source: str, text: str) -> None:
        """Record an event, if a session is being recorded."""
        session = self._session
        if session is not None and session.running:
            session.note(time_s, source, text)

    def close(self) -> None:
        """End the session, and wait for snapshots that are being written, 10 s in all at most."""
        deadline_s = time.monotonic() + _CLOSE_S
        self.stop_session()
        with self._lock:
            waited = tuple(self._snapshots)
        for thread in waited:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        left = sum(thread.is_alive() for thread in waited)
        if left:
            self._failed(f"snapshots that could not be written, since the disk does not answer: {left}")

    def _new_pixels(self, folder: Path) -> _Pixels:
        if self._record_format == "video":
            return _VideoPixels(folder, self._develop)
        return _ZarrPixels(folder)

    def _failed(self, reason: str) -> None:
        self.trouble = reason
        self.on_trouble(reason)


def write_snapshot(
    folder: Path,
    frame: Frame,
    overlay: Overlay,
    *,
    develop: Callable[[Frame], NDArray[np.uint8]],
    settings: Mapping[str, Any],
    comment: str = "",
) -> Path:
    """Write a snapshot, whole or not at all.

    Parameters
    ----------
    folder : Path
        Its folder.
    frame, overlay : Frame, Overlay
        What is kept.
    develop : callable
        Returns the frame in color: shape (Y, X, 3), uint8.
    settings : mapping
        JSON-able; goes into ``settings.json``.
    comment : str
        The operator's words.

    Returns
    -------
    Path
        ``folder``.

    Raises
    ------
    LinceiError
        When it cannot be written.
    """
    import cv2

    from arm_overlay.annotations import write_geojson
    from arm_overlay.rendering import Style, drawn_over

    colors = develop(frame)
    pixel_size_um = overlay.pixel_size_um or frame.pixel_size_um
    with replacing(folder) as staging:
        staging.mkdir()
        image = Image.from_array(colors, "YXS", name="frame", pixel_size_um=pixel_size_um, modality="H&E")
        save_image(image, staging / "frame.tif")
        if overlay.heat_map is not None:
            save_image(_heat_map_image(overlay, pixel_size_um), staging / "heat_map.tif")
        drawn = drawn_over(colors, overlay, Style(research_note=True))
        written, png = cv2.imencode(".png", drawn[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not written:
            raise LinceiError("the picture could not be encoded", str(folder / "overlay.png"))
        (staging / "overlay.png").write_bytes(png.tobytes())
        write_geojson(
            staging / "outline.geojson",
            overlay.regions,
            points=overlay.points,
            pixel_size_um=pixel_size_um,
        )
        described = {
            "research_use_only": RESEARCH_USE_ONLY,
            "comment": comment,
            "time": _now().isoformat(timespec="milliseconds"),
            "pixel_size_um": pixel_size_um,
            "model": overlay.model,
            "objective": overlay.objective,
            "threshold": overlay.threshold,
            "mode": overlay.mode,
            "blank_reason": overlay.blank_reason,
            "measures": dict(overlay.measures),
            "timings_ms": _rounded(overlay.timings_ms),
            "frame": _frame_json(frame),
            "versions": versions(),
            **settings,
        }
        (staging / "settings.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return folder


def session_folder(folder: str | Path) -> Path:
    """Return the folder of a recorded session: this one, or the only one in it.

    Raises
    ------
    LinceiError
        When there is none, or there are several.
    """
    folder = Path(folder).expanduser()
    if (folder / LOG_FILE).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/{LOG_FILE}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise LinceiError(
            f"it holds {len(found)} recorded sessions",
            str(folder),
            f"Name one of them: {', '.join(path.name for path in found)}.",
        )
    raise LinceiError(
        f"there is no recorded session (no {LOG_FILE})",
        str(folder),
        "Name a folder that `lincei arm --record` wrote.",
    )


def versions() -> dict[str, str]:
    """Return the versions of the programs that a record was made with."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONS_OF:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class _Pixels(Protocol):
    """Where the frames' pixels go."""

    developed: bool

    def append(self, frame: Frame, interval_s: float) -> dict[str, Any]:
        """Write a frame; return in which file and at which place."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class _ZarrPixels:
    """Frames as the camera gave them, in OME-Zarr: axes TYX, or TCYX for cameras in color."""

    developed = False

    def __init__(self, folder: Path) -> None:
        try:
            import ome_writers  # noqa: F401 - asked before frames come
        except ImportError as error:
            raise LinceiError(
                f"a Python package that writes OME-Zarr is missing ({error})",
                "--record",
                "Install it with: pip install 'lincei[arm]'.",
            ) from error
        self._folder = folder
        self._part = 0
        self._index = 0
        self._kind: tuple[Any, ...] = ()
        self._stream: Any = None

    def append(self, frame: Frame, interval_s: float) -> dict[str, Any]:
        kind = (frame.pixels.shape, str(frame.pixels.dtype), frame.bits, frame.bayer, frame.pixel_size_um)
        if kind != self._kind:
            self.close()
            self._open(frame, interval_s)
            self._kind = kind
        planes = frame.pixels.transpose(2, 0, 1) if frame.pixels.ndim == 3 else frame.pixels[None]
        for plane in planes:
            self._stream.append(np.ascontiguousarray(plane))
        place = {"part": self._name, "index": self._index}
        self._index += 1
        return place

    def _open(self, frame: Frame, interval_s: float) -> None:
        import ome_writers as ome

        self._part, self._index = self._part + 1, 0
        self._name = f"frames_{self._part}.ome.zarr"
        size = {} if frame.pixel_size_um is None else {"scale": frame.pixel_size_um, "unit": "micrometer"}
        height, width = frame.pixels.shape[:2]
        dimensions = [
            ome.Dimension(
                name="t", count=None, chunk_size=1, type="time", unit="second", scale=max(interval_s, 1e-6)
            ),
            ome.Dimension(name="y", count=height, type="space", **size),
            ome.Dimension(name="x", count=width, type="space", **size),
        ]
        if frame.pixels.ndim == 3:
            names = ["red", "green", "blue"]
            dimensions.insert(1, ome.Dimension(name="c", count=3, chunk_size=1, type="channel", coords=names))
        # A chunk for each frame: whatever ends the program, all frames until then can be read.
        self._stream = ome.create_stream(
            ome.AcquisitionSettings(
                root_path=str(self._folder / self._name),
                dimensions=dimensions,
                dtype=str(frame.pixels.dtype),
                compression="blosc-lz4",
                # This backend writes before it returns, so that a full disk is noticed with its frame.
                format={"name": "ome-zarr", "backend": "zarr-python"},
            )
        )

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class _VideoPixels:
    """Frames in color as a video: Motion JPEG, which can be read up to where the program ended."""

    developed = True

    def __init__(self, folder: Path, develop: Callable[[Frame], NDArray[np.uint8]]) -> None:
        self._folder = folder
        self._develop = develop
        self._part = 0
        self._index = 0
        self._size: tuple[int, int] = (0, 0)
        self._writer: Any = None

    def append(self, frame: Frame, interval_s: float) -> dict[str, Any]:
        colors = self._develop(frame)
        if frame.size_px != self._size:
            self.close()
            self._open(frame.size_px, interval_s)
        self._writer.write(np.ascontiguousarray(colors[..., ::-1]))
        place = {"part": self._name, "index": self._index}
        self._index += 1
        return place

    def _open(self, size_px: tuple[int, int], interval_s: float) -> None:
        import cv2

        self._part, self._index, self._size = self._part + 1, 0, size_px
        self._name = f"frames_{self._part}.avi"
        path = self._folder / self._name
        rate = min(max(1 / interval_s if interval_s > 0 else 30.0, 1.0), 240.0)
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size_px)
        if not self._writer.isOpened():
            raise LinceiError(
                "the video cannot be written", str(path), "Check the folder, or use --record-format ome-zarr."
            )

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()


class _Session:
    """A session that is being recorded: a short queue and the thread that empties it."""

    def __init__(
        self,
        folder: Path,
        pixels: _Pixels,
        camera: str,
        interval_s: float,
        settings: Mapping[str, Any],
        failed: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.dropped = 0
        self.running = True
        self._pixels = pixels
        self._camera = camera
        self._interval_s = interval_s
        self._settings = settings
        self._failed = failed
        self._began_s = time.monotonic()
        self._condition = threading.Condition()
        self._frames: deque[tuple[Frame, Overlay, int]] = deque()
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_WAITING)
        self._dropped_since = 0
        self._last_time_s: float | None = None
        self._written = 0
        self._thread = threading.Thread(target=self._run, name="arm recording", daemon=True)
        self._log: TextIO | None = None

    def begin(self) -> None:
        """Write the log's first line and start the thread."""
        self._check_room()
        self._log = (self.folder / LOG_FILE).open("w", encoding="utf-8", buffering=1)
        self._write(
            {
                "kind": "session",
                "version": LOG_VERSION,
                "research_use_only": RESEARCH_USE_ONLY,
                "time": _now().isoformat(timespec="milliseconds"),
                "camera": self._camera,
                "developed": self._pixels.developed,
                "settings": self._settings,
                "versions": versions(),
            }
        )
        self._thread.start()

    def offer(self, frame: Frame, overlay: Overlay) -> None:
        with self._condition:
            if len(self._frames) >= FRAMES_WAITING:
                self.dropped += 1
                self._dropped_since += 1
                return
            self._frames.append((frame, overlay, self._dropped_since))
            self._dropped_since = 0
            self._condition.notify()

    def note(self, time_s: float, source: str, text: str) -> None:
        event = {"kind": "event", "time_s": self._since_began(time_s), "source": source, "text": text}
        with self._condition:
            self._events.append(event)
            self._condition.notify()

    def finish(self) -> None:
        """Let the thread write what waits, and wait for it."""
        with self._condition:
            self.running = False
            self._condition.notify()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        reason = ""
        try:
            while self._write_next():
                pass
        except Exception as error:  # a full or failing disk ends the recording, never the loop
            reason = _reason(error, self.folder)
        self.running = False
        # A disk that failed once may fail again; what is written so far stays.
        with contextlib.suppress(Exception):
            self._pixels.close()
        with contextlib.suppress(Exception):
            self._write(
                {"kind": "end", "frames": self._written, "dropped_frames": self.dropped, "trouble": reason}
            )
        with contextlib.suppress(Exception):
            if self._log is not None:
                self._log.close()
        with self._condition:
            self._frames.clear()
            self._events.clear()
        if reason:
            self._failed(f"recording stopped: {reason}")

    def _write_next(self) -> bool:
        """Write what waits; False when the session was finished and nothing waits any more."""
        with self._condition:
            while self.running and not self._frames and not self._events:
                self._condition.wait()
            frame = self._frames.popleft() if self._frames else None
            events = list(self._events)
            self._events.clear()
        for event in events:
            self._write(event)
        if frame is None:
            return self.running
        self._write_frame(*frame)
        return True

    def _write_frame(self, frame: Frame, overlay: Overlay, dropped_before: int) -> None:
        if self._written % 30 == 0:
            self._check_room()
        last_s, self._last_time_s = self._last_time_s, frame.time_s
        interval_s = frame.time_s - last_s if last_s is not None else self._interval_s
        place = self._pixels.append(frame, interval_s)
        line = {
            "kind": "frame",
            **place,
            **_frame_json(frame),
            "time_s": self._since_began(frame.time_s),
            "dropped_before": dropped_before,
            "mode": overlay.mode,
            "model": overlay.model,
            "overlay_objective": overlay.objective,
            "threshold": overlay.threshold,
            "blank_reason": overlay.blank_reason,
            "measures": dict(overlay.measures),
            "timings_ms": _rounded(overlay.timings_ms),
            "speed_fields_s": round(overlay.speed_fields_s, 4),
            "regions": [_region_json(region) for region in overlay.regions],
            "points": _points_json(overlay.points) if overlay.points is not None else [],
            "texts": list(overlay.texts),
        }
        self._write(line)
        self._written += 1

    def _check_room(self) -> None:
        if shutil.disk_usage(self.folder).free < FREE_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._log is not None
        self._log.write(json.dumps(line, separators=(",", ":")) + "\n")

    def _since_began(self, time_s: float) -> float:
        return round(time_s - self._began_s, 6)


def _frame_json(frame: Frame) -> dict[str, Any]:
    """Return what is known of a frame beside its pixels and its time."""
    return {
        "number": frame.number,
        "bits": frame.bits,
        "bayer": frame.bayer,
        "exposure_ms": frame.exposure_ms,
        "pixel_size_um": frame.pixel_size_um,
        "objective": frame.objective,
    }


def _heat_map_image(overlay: Overlay, pixel_size_um: float | None) -> Image:
    """Return the heat map as an image of probabilities with its own, larger pixels."""
    assert overlay.heat_map is not None
    probability = np.asarray(overlay.heat_map, np.float32) / 255
    cell_px = overlay.frame_size_px[0] / probability.shape[1]
    size_um = None if pixel_size_um is None else pixel_size_um * cell_px
    return Image.from_array(
        probability,
        "YX",
        name="heat_map",
        pixel_size_um=size_um,
        channel_names=("probability",),
        intensity_range=(0.0, 1.0),
    )


def _region_json(region: Region) -> dict[str, Any]:
    return {
        "exterior": _points_json(region.exterior),
        "holes": [_points_json(hole) for hole in region.holes],
        "score": round(region.score, 4),
    }


def _points_json(points: NDArray[Any]) -> list[list[float]]:
    rounded: list[list[float]] = np.round(np.asarray(points, np.float64), 1).tolist()
    return rounded


def _rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in timings_ms.items()}


def _reason(error: Exception, folder: Path) -> str:
    readable = readable_error(error, str(folder))
    return str(readable) if readable is not None else f"{folder}: {type(error).__name__}: {error}"


def _now() -> datetime.datetime:
    return datetime.datetime.now().astimezone()
