"""Cameras behind one interface, each through the library of its field.

A camera is named by a specification: its kind, a colon, and what that kind needs.

==============================  =================================================================
``simulated[:KEY=VALUE,...]``   a slide that moves under a simulated microscope
``micromanager:FILE.cfg``       Micro-Manager's configuration (camera, objective turret); pymmcore-plus
``genicam[:CTI[#NUMBER|ID]]``   GenICam, GigE Vision and USB3 Vision, through a GenTL producer; harvesters
``basler[:SERIAL]``             Basler; pypylon
``usb:NUMBER``, ``rtsp://...``, ``file:PATH``  USB and network cameras, movies and folders of images; OpenCV
``replay:FOLDER``               a recorded session
==============================  =================================================================

Settings may follow, each after a comma: ``basler:24001234,PixelFormat=BayerRG12``, ``file:a.avi,loop``. The
module of each kind says which there are.
"""

from __future__ import annotations

import abc
import importlib
import re
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from arm_overlay.frames import Frame
from lincei.errors import LinceiError, UsageError

# Kind -> module, class. The module is imported when a camera of that kind is asked for.
_HOMES = {
    "simulated": ("arm_overlay.cameras.simulated", "SimulatedCamera"),
    "micromanager": ("arm_overlay.cameras.micromanager", "MicroManagerCamera"),
    "genicam": ("arm_overlay.cameras.genicam", "GenICamCamera"),
    "basler": ("arm_overlay.cameras.basler", "BaslerCamera"),
    "usb": ("arm_overlay.cameras.video", "VideoCamera"),
    "rtsp": ("arm_overlay.cameras.video", "VideoCamera"),
    "file": ("arm_overlay.cameras.video", "VideoCamera"),
    "replay": ("arm_overlay.cameras.replay", "ReplayCamera"),
}


def without_password(spec: str) -> str:
    """Return a camera's specification without the name and password of a network camera, to be shown or kept.

    Examples
    --------
    >>> without_password("rtsp://observer:secret@192.168.0.9/microscope"), without_password("usb:0")
    ('rtsp://192.168.0.9/microscope', 'usb:0')
    """
    return re.sub(r"(rtsp://)[^/]*@", r"\1", spec)


class CameraError(LinceiError):
    """A camera cannot be used: not there, unplugged, or it does not answer."""


class CameraEndedError(CameraError):
    """A film or a recording is over: there is nothing to reconnect to."""


@dataclass(frozen=True)
class CameraInfo:
    """A camera that can be opened.

    Parameters
    ----------
    spec : str
        What ``--camera`` takes.
    name : str
        Maker, model and serial number as far as known.
    """

    spec: str
    name: str


class Camera(abc.ABC):
    """One camera. Open it, fetch frames, close it; or use it in a ``with`` statement.

    All methods are called from one thread; `close` may be called from another while `grab` waits, and makes
    it raise `CameraError`.

    Parameters
    ----------
    spec : str
        What follows the kind and the colon.
    """

    kind: ClassVar[str]

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Maker, model and serial number, as far as known."""

    @abc.abstractmethod
    def open(self) -> None:
        """Connect and start to take frames. Opening again after `close` works.

        Raises
        ------
        CameraError
            When it cannot be opened; the sentence lists the cameras there are.
        """

    @abc.abstractmethod
    def grab(self, timeout_s: float = 1.0) -> Frame:
        """Wait for the next frame and return the newest there is; older ones are dropped.

        Raises
        ------
        CameraError
            When it was unplugged or closed, has ended, or no frame came within ``timeout_s``.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and let go of the camera; closing twice does nothing."""

    @property
    def frame_interval_s(self) -> float | None:
        """Time between two frames as the camera states it; None where it does not."""
        return None

    @property
    def exposure_ms(self) -> float | None:
        """Exposure time in milliseconds; None where the camera does not tell."""
        return None

    def set_exposure_ms(self, value: float) -> None:
        """Set the exposure time; a camera that cannot raises `CameraError`."""
        del value
        raise self._cannot("set its exposure time")

    @property
    def gain(self) -> float | None:
        """Gain as the camera states it (dB, or a factor); None where it does not tell."""
        return None

    def set_gain(self, value: float) -> None:
        """Set the gain; a camera that cannot raises `CameraError`."""
        del value
        raise self._cannot("set its gain")

    def set_white_balance(self, red: float, blue: float) -> None:
        """Set the camera's own factors of red and blue beside green.

        A camera that cannot raises `CameraError`; `arm_overlay.developing` balances frames of any camera.
        """
        del red, blue
        raise self._cannot("balance colors itself")

    def _cannot(self, what: str) -> CameraError:
        return CameraError(f"this camera cannot {what}", self.name, "Set it in the camera's own program.")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def new_camera(spec: str) -> Camera:
    """Return the camera that a specification names, not opened yet.

    Parameters
    ----------
    spec : str
        ``"basler"``, ``"file:movie.avi"``, ``"rtsp://..."``: see this module.

    Raises
    ------
    UsageError
        When there is no such kind of camera; it lists the kinds.
    """
    kind, _, rest = spec.partition(":")
    if kind not in _HOMES:
        raise UsageError(
            f"there is no kind of camera {kind!r}",
            "--camera",
            f"Choose from: {', '.join(_HOMES)}. `lincei arm cameras` lists the cameras there are.",
        )
    module, name = _HOMES[kind]
    # A network address is itself the specification.
    camera: Camera = getattr(importlib.import_module(module), name)(
        spec if kind in ("rtsp", "usb", "file") else rest
    )
    return camera


def list_cameras() -> tuple[list[CameraInfo], list[str]]:
    """Return the cameras that can be opened now, and a sentence for each kind that cannot be looked for.

    Each camera's module has a function ``found() -> list[CameraInfo]``, which raises `LinceiError` where its
    library is missing.
    """
    cameras: list[CameraInfo] = []
    problems: list[str] = []
    for module in dict.fromkeys(module for module, _ in _HOMES.values()):
        try:
            cameras += importlib.import_module(module).found()
        except LinceiError as error:
            problems.append(str(error))
        except Exception as error:  # a driver that fails must not hide the cameras of the others
            problems.append(f"{module.rpartition('.')[2]}: its driver failed ({error})")
    return cameras, problems
