"""USB cameras, network cameras, movies and folders of images, with OpenCV and lincei's own image reading.

==============================  =================================================================
``usb:0``                       the first USB camera; ``usb:0,size=1920x1200,fps=30``
``rtsp://HOST/PATH``            a network camera
``file:MOVIE``                  a movie, at its own frame rate; ``file:MOVIE,loop`` again and again
``file:IMAGES``                 a folder of images, a pattern or an image whose time points are the frames:
                                ``file:FOLDER,fps=5,loop``. Raw frames say their mosaic and bits:
                                ``file:FOLDER,bayer=RGGB,bits=12``
==============================  =================================================================
"""

from __future__ import annotations

import contextlib
import platform
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import CameraEndedError, CameraError, CameraInfo, without_password
from arm_overlay.cameras.polled import (
    NewestFrames,
    PolledCamera,
    refuse_unknown_settings,
    split_settings,
    there_are,
)
from arm_overlay.frames import BAYER_PATTERNS, Frame
from arm_overlay.imaging import opencv
from lincei.errors import LinceiError
from lincei.image import SUFFIXES, Image
from lincei.pattern import find_inputs

# Of images that do not state the time between them.
_IMAGES_PER_S = 10.0
_BITS = (8, 10, 12, 14, 16)
_SETTINGS = {
    "usb": ("size", "fps"),
    "rtsp": (),
    "movie": ("loop", "fps"),
    "images": ("loop", "fps", "bayer", "bits"),
}
# A network camera that does not answer, or sends nothing, for so long is taken as gone.
_OPENS_MS, _SENDS_MS = 5000, 2000
# Of so many frames that are late at least one is shown.
_MOST_SKIPPED = 5
_LAST_USB = 8


class VideoCamera(PolledCamera):
    """A USB or network camera, a movie, or images played as frames."""

    kind = "file"

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self._source: _Source | None = None
        self._frames: NewestFrames | None = None
        self._interval_s: float | None = None

    @property
    def name(self) -> str:
        """The specification, without the password of a network camera."""
        return without_password(self.spec)

    @property
    def frame_interval_s(self) -> float | None:
        """Time between two frames as the camera or the file states it; None where it does not."""
        return self._interval_s

    def _connect(self) -> None:
        self._source = source = self._new_source()
        self._interval_s = source.interval_s
        # OpenCV queues the frames of live sources: they are read without a pause, and the newest kept.
        self._frames = NewestFrames(source.read, source.release)
        source.stopped = self._frames.stopped

    def _newest(self, wait_s: float) -> Frame | None:
        assert self._frames is not None
        return self._frames.take(wait_s)

    def _disconnect(self) -> None:
        if self._frames is not None:
            self._frames.stop()
        self._frames = self._source = None

    def _new_source(self) -> _Source:
        kind, _, rest = self.spec.partition(":")
        if kind == "rtsp":
            return _LiveVideo(self, self.spec)
        if kind == "usb":
            rest, settings = split_settings(rest)
            refuse_unknown_settings(settings, _SETTINGS["usb"], self.name)
            if not rest.isdecimal():
                raise CameraError(
                    f"a USB camera is named by its number, such as usb:0, not {rest!r}",
                    self.name,
                    _usb_there_are(),
                )
            return _LiveVideo(self, int(rest), settings)
        # A file may have any name, also one that looks like settings.
        path, settings = (rest, {}) if Path(rest).expanduser().exists() else split_settings(rest)
        images = _images(path)
        refuse_unknown_settings(settings, _SETTINGS["movie" if images is None else "images"], self.name)
        if images is None:
            return _Movie(self, Path(path).expanduser(), settings)
        return _Images(self, images, settings)


class _Source:
    """Where frames come from: read by one thread, which lets go of it at the end."""

    interval_s: float | None = None

    def __init__(self, camera: VideoCamera) -> None:
        self.camera = camera
        self.stopped = threading.Event()
        self.number = -1

    def read(self) -> Frame | None:
        raise NotImplementedError

    def release(self) -> None:
        """Let go of it."""

    def frame(self, pixels: NDArray[Any], **known: Any) -> Frame:
        """Return the next frame, taken now."""
        self.number += 1
        return Frame(pixels=pixels, time_s=time.monotonic(), number=self.number, **known)


class _LiveVideo(_Source):
    """A camera that sends frames at its own pace."""

    def __init__(
        self, camera: VideoCamera, address: int | str, settings: dict[str, str] | None = None
    ) -> None:
        super().__init__(camera)
        cv2 = opencv()
        with _quiet(cv2):
            if isinstance(address, int):
                self._capture = cv2.VideoCapture(address)
            else:
                limits = [
                    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                    _OPENS_MS,
                    cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                    _SENDS_MS,
                ]
                self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            self._capture.release()
            if isinstance(address, int):
                raise CameraError(f"there is no USB camera {address}", camera.name, _usb_there_are())
            raise CameraError(
                "this network camera does not answer",
                camera.name,
                "Check the address (a player such as VLC must show it), the network and the password.",
            )
        for name, value in (settings or {}).items():
            self._set(cv2, name, value)
        # Where the driver lets us; frames are read without a pause anyway.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.interval_s = 1 / rate if 0 < rate <= 1000 else None

    def read(self) -> Frame | None:
        taken, pixels = self._capture.read()
        if not taken:
            raise CameraError(
                "the camera sends no more frames",
                self.camera.name,
                "Check its cable, its power and the network.",
            )
        return self.frame(_rgb(pixels))

    def release(self) -> None:
        self._capture.release()

    def _set(self, cv2: Any, name: str, value: str) -> None:
        if name == "fps":
            wanted = {cv2.CAP_PROP_FPS: _number(name, value, self.camera.name)}
        else:
            found = re.fullmatch(r"(\d+)x(\d+)", value)
            if not found:
                raise _wrong(name, value, "Write it as 1920x1200.", self.camera.name)
            wanted = {cv2.CAP_PROP_FRAME_WIDTH: int(found[1]), cv2.CAP_PROP_FRAME_HEIGHT: int(found[2])}
        for key, number in wanted.items():
            self._capture.set(key, number)
        given = [self._capture.get(key) for key in wanted]
        if any(abs(have - want) > 0.5 for have, want in zip(given, wanted.values(), strict=True)):
            stated = "x".join(f"{number:g}" for number in given)
            self._capture.release()
            raise CameraError(
                f"{name}={value} cannot be set",
                self.camera.name,
                f"The camera takes {name}={stated} in its place.",
            )


class _Played(_Source):
    """Frames of files, handed out when they are due."""

    def __init__(self, camera: VideoCamera, settings: dict[str, str], stated_fps: float) -> None:
        super().__init__(camera)
        self.loops = "loop" in settings
        fps = settings.get("fps")
        self.interval_s: float = 1 / (_number("fps", fps, camera.name) if fps is not None else stated_fps)
        self._due_s = 0.0

    def is_late(self) -> bool:
        """Whether the frame after the next is due already, so that the next need not be shown."""
        return bool(self._due_s) and time.monotonic() > self._due_s + self.interval_s

    def skip(self) -> None:
        """Let the next frame out; its number stays away."""
        self.number += 1
        self._due_s += self.interval_s

    def wait_until_due(self) -> bool:
        """Wait for the time of the next frame; False when the camera is closed meanwhile."""
        now_s = time.monotonic()
        self._due_s = self._due_s or now_s
        if self.stopped.wait(max(0.0, self._due_s - now_s)):
            return False
        self._due_s += self.interval_s
        return True


class _Movie(_Played):
    """A movie file."""

    def __init__(self, camera: VideoCamera, path: Path, settings: dict[str, str]) -> None:
        if not path.is_file():
            raise CameraError("there is no such file", str(path), "Check the path.")
        self._cv2, self._path = opencv(), path
        self._capture = self._opened()
        fps = self._capture.get(self._cv2.CAP_PROP_FPS)
        self._stated = round(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        self._read = 0  # frames since the beginning of the movie
        super().__init__(camera, settings, fps if 0 < fps <= 1000 else _IMAGES_PER_S)

    def read(self) -> Frame | None:
        for _ in range(_MOST_SKIPPED):
            if not self.is_late() or not self._capture.grab():  # decoded, but not converted
                break
            self._read += 1
            self.skip()
        taken, pixels = self._capture.read()
        if not taken:
            self._end()
            return None
        self._read += 1
        return self.frame(_rgb(pixels)) if self.wait_until_due() else None

    def release(self) -> None:
        self._capture.release()

    def _opened(self) -> Any:
        with _quiet(self._cv2):
            capture = self._cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                "this movie cannot be read: it is damaged, cut short or of a format unknown to OpenCV",
                str(self._path),
                "Copy it again from where it was made, or save it as AVI or MP4.",
            )
        return capture

    def _end(self) -> None:
        """Start again, or say that and where the movie has ended."""
        if not self._read:
            raise CameraError(
                "no frame of this movie can be decoded",
                str(self._path),
                "Copy it again from where it was made.",
            )
        if self.loops:
            self._capture.release()
            self._capture, self._read = self._opened(), 0
            return
        if not self.wait_until_due():  # the last frame is shown as long as the others
            return
        short = (
            f" {self._stated} frames are stated: it may be cut short." if self._read < self._stated else ""
        )
        raise CameraEndedError(
            f"the movie has ended after {self._read} frames.{short}", str(self._path), _LOOP
        )


class _Images(_Played):
    """Images, and their time points, as frames."""

    def __init__(self, camera: VideoCamera, images: list[Any], settings: dict[str, str]) -> None:
        self._images = images
        # Opened here for its metadata, and so that a wrong file is refused at once.
        with _camera_errors():
            first = images[0].open()
        stated_fps = 1 / first.time_step_s if first.time_step_s else _IMAGES_PER_S
        super().__init__(camera, settings, stated_fps)
        self._bayer = settings.get("bayer", "").upper()
        if self._bayer not in ("", *BAYER_PATTERNS):
            raise _wrong("bayer", self._bayer, f"Choose from: {', '.join(BAYER_PATTERNS)}.", camera.name)
        self._bits = settings.get("bits", "")
        if self._bits not in ("", *map(str, _BITS)):
            raise _wrong("bits", self._bits, f"Choose from: {', '.join(map(str, _BITS))}.", camera.name)
        with _camera_errors():
            _pixels(first, 0, self._bayer)
        self._planes = self._in_turn()
        self._count = 0

    def read(self) -> Frame | None:
        with _camera_errors():
            plane = next(self._planes, None)
        if plane is None:
            if self.wait_until_due():
                raise CameraEndedError(
                    f"the images have ended after {self._count} frames", self.camera.name, _LOOP
                )
            return None
        image, time_point = plane
        self._count += 1
        if self.is_late():
            self.skip()
            return None
        with _camera_errors():
            pixels = _pixels(image, time_point, self._bayer)
        if not self.wait_until_due():
            return None
        bits = int(self._bits) if self._bits else _stated_bits(image)
        return self.frame(pixels, bits=bits, bayer=self._bayer, pixel_size_um=image.pixel_size_um)

    def _in_turn(self) -> Iterator[tuple[Image, int]]:
        while True:
            for group in self._images:
                image = group.open()
                for time_point in range(image.shape[0]):
                    yield image, time_point
            if not self.loops:
                return


_LOOP = "Add ,loop to its name to play it again and again."


def found() -> list[CameraInfo]:
    """Return the USB cameras that are connected; network cameras and files are named by the user.

    Raises
    ------
    LinceiError
        When OpenCV is not installed.
    """
    cv2 = opencv()
    if platform.system() == "Linux":
        # Asking the system opens no camera, which another program may be using.
        devices = sorted(Path("/sys/class/video4linux").glob("video*"), key=lambda path: int(path.name[5:]))
        return [
            CameraInfo(f"usb:{path.name[5:]}", (path / "name").read_text(errors="replace").strip())
            for path in devices
            if (path / "index").read_text().strip() == "0"  # the others of a camera bring metadata
        ]
    cameras = []
    for number in range(_LAST_USB):
        with _quiet(cv2):
            capture = cv2.VideoCapture(number)
        if capture.isOpened():
            cameras.append(CameraInfo(f"usb:{number}", f"USB camera {number}"))
        capture.release()
    return cameras


def _usb_there_are() -> str:
    return there_are(found(), "No USB camera is connected.")


def _images(path: str) -> list[Any] | None:
    """Return the images that a path or pattern stands for; None for a movie."""
    if not path:
        raise CameraError("name a movie, an image or a folder of images", "file", "Write it as file:PATH.")
    plain = Path(path).expanduser()
    if plain.is_file() and not plain.name.lower().endswith(SUFFIXES):
        return None
    if not plain.exists() and not any(sign in path for sign in "*?{"):
        return None
    with _camera_errors():
        return list(find_inputs([path]))


def _pixels(image: Image, time_point: int, bayer: str) -> NDArray[Any]:
    """Return a time point of an image as a frame's pixels."""
    where = image.source or image.name
    if image.dtype not in (np.uint8, np.uint16):
        raise CameraError(
            f"its pixels are {image.dtype}, and a camera's are 8 or 16 bit",
            where,
            "Save the frames as they come from the camera.",
        )
    _, channels, planes, _, _ = image.shape
    if planes > 1 or (channels > 1 and not image.rgb):
        raise CameraError(
            f"it has {channels} channels and {planes} planes, and a frame is one plane, gray or RGB", where
        )
    if image.rgb and bayer:
        raise CameraError("it is an RGB image, and has no mosaic", where, "Leave out bayer.")
    pixels = image.read({"T": slice(time_point, time_point + 1)})[0, :, 0]
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1) if image.rgb else pixels[0])


def _stated_bits(image: Image) -> int:
    """Return the significant bits that the image states, or those of its type."""
    if image.dtype == np.uint8:
        return 8
    highest = image.intensity_range[1] if image.intensity_range else np.iinfo(image.dtype).max
    return next((bits for bits in _BITS if highest < 2**bits), 16)


def _rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return a frame of OpenCV, whose colors are blue, green, red, as red, green, blue."""
    import cv2

    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _number(name: str, text: str, where: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 1000:
            return float(text)
    raise _wrong(name, text, "It is a number above 0, up to 1000.", where)


def _wrong(name: str, value: str, what_to_do: str, where: str) -> CameraError:
    return CameraError(f"the setting {name}={value} is wrong", where, what_to_do)


@contextlib.contextmanager
def _camera_errors() -> Iterator[None]:
    """Pass on what is wrong with an image as what is wrong with the camera."""
    try:
        yield
    except CameraError:
        raise
    except LinceiError as error:
        raise CameraError(error.what, error.where, error.what_to_do) from error


@contextlib.contextmanager
def _quiet(cv2: Any) -> Iterator[None]:
    """Keep OpenCV from writing to the terminal what our own sentence says."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
