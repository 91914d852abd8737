"""Basler cameras, with pypylon.

``basler`` takes the first camera, ``basler:SERIAL`` the one with this serial number (or the name that its
user gave it). Features of the camera may follow, by Basler's names:
``basler:24001234,PixelFormat=BayerRG12``.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import CameraError, CameraInfo
from arm_overlay.cameras.genicam import Features, FrameCounter, GenICamDevice, PixelFormat
from arm_overlay.cameras.polled import DeviceClock, split_settings, there_are
from arm_overlay.frames import Frame
from lincei.errors import LinceiError

_CHECK_CABLE = "Check its cable and its power."
# What pylon gives as the number of a frame of a camera that does not number them.
_NO_NUMBER = 2**64 - 1


class BaslerCamera(GenICamDevice):
    """A Basler camera.

    pylon emulates as many as the environment variable PYLON_CAMEMU says.
    """

    kind = "basler"

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self._wanted, self._settings = split_settings(spec)
        self._name = f"basler:{spec}" if spec else "basler"
        self._camera: Any = None
        self._format: PixelFormat | None = None
        self._ticks_per_s = 0.0
        self._number, self._counter, self._clock = -1, FrameCounter(), DeviceClock()

    @property
    def name(self) -> str:
        """Maker, model and serial number."""
        return self._name

    @property
    def _features(self) -> Features:
        if self._camera is None:
            raise CameraError("the camera is closed", self.name, "Open it first.")
        return Features(self._camera.GetNodeMap(), self.name)

    def _connect(self) -> None:
        pylon = _pylon()
        factory = pylon.TlFactory.GetInstance()
        devices = list(factory.EnumerateDevices())
        device = next((device for device in devices if self._wanted in _identities(device)), None)
        if not self._wanted and devices:
            device = devices[0]
        if device is None:
            raise CameraError(
                f"there is no Basler camera {self._wanted}".rstrip(),
                self.name,
                there_are(_listed(devices), f"{_CHECK_CABLE} pylon's own viewer must see it too."),
            )
        self._name = _device_name(device)
        try:
            self._camera = pylon.InstantCamera(factory.CreateDevice(device))
            self._camera.Open()
        except Exception as error:
            raise CameraError(
                f"it cannot be opened ({_first_line(error)})",
                self.name,
                f"Close other programs that use it. {_CHECK_CABLE}",
            ) from error
        self._format = self._set_up(self._settings)
        self._number, self._counter, self._clock = -1, FrameCounter(), DeviceClock()
        # Older GigE cameras state their clock's rate; the others count nanoseconds.
        self._ticks_per_s = float(self._features.value("GevTimestampTickFrequency") or 1e9)
        try:
            self._camera.StartGrabbing(pylon.GrabStrategy_LatestImageOnly)
        except Exception as error:
            raise CameraError(
                f"it does not start to take frames ({_first_line(error)})", self.name, _CHECK_CABLE
            ) from error

    def _newest(self, wait_s: float) -> Frame | None:
        pylon, ends_s = _pylon(), time.monotonic() + wait_s
        while True:
            try:
                remaining_ms = max(0, round((ends_s - time.monotonic()) * 1000))
                result = self._camera.RetrieveResult(remaining_ms, pylon.TimeoutHandling_Return)
                # An unplugged camera is seen at once; its frames just stay out.
                lost = self._camera.IsCameraDeviceRemoved()
            except Exception as error:
                raise self._lost(_first_line(error)) from error
            if lost:
                raise self._lost("unplugged, or without power")
            if not result.IsValid():
                return None
            try:
                arrival_s = time.monotonic()
                number = result.GetBlockID()
                self._number += self._counter.step(None if number == _NO_NUMBER else number)
                # A frame of which a part was lost on the way is not shown; the next one is waited for.
                if result.GrabSucceeded():
                    return self._frame(result, arrival_s)
            finally:
                result.Release()

    def _frame(self, result: Any, arrival_s: float) -> Frame:
        assert self._format is not None
        stamp = result.GetTimeStamp()
        return Frame(
            pixels=self._format.frame_pixels(_array(result, self._format)),
            time_s=self._clock.time_s(stamp / self._ticks_per_s, arrival_s),
            number=self._number,
            bits=self._format.bits,
            bayer=self._format.bayer,
            exposure_ms=self._fixed_exposure_ms,
        )

    def _lost(self, reason: str) -> CameraError:
        return CameraError(f"the camera was lost ({reason})", self.name, _CHECK_CABLE)

    def _disconnect(self) -> None:
        if self._camera is None:
            return
        for end in ("StopGrabbing", "Close", "DestroyDevice"):
            with contextlib.suppress(Exception):  # a camera that was unplugged cannot be asked to stop
                getattr(self._camera, end)()
        self._camera = None


def found() -> list[CameraInfo]:
    """Return the Basler cameras that are connected.

    Raises
    ------
    LinceiError
        When pypylon is not installed.
    """
    return _listed(_pylon().TlFactory.GetInstance().EnumerateDevices())


def _pylon() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG's types
            from pypylon import pylon
    except ImportError as error:
        raise LinceiError(
            f"Basler cameras need the package pypylon ({error})",
            "basler",
            "Install it with: pip install 'lincei[arm]'.",
        ) from error
    return pylon


def _listed(devices: Any) -> list[CameraInfo]:
    return [CameraInfo(f"basler:{device.GetSerialNumber()}", _device_name(device)) for device in devices]


def _array(result: Any, pixel_format: PixelFormat) -> NDArray[Any]:
    """Return a frame's pixels in the order in which the camera sends them, copied out of pylon's buffer."""
    samples = len(pixel_format.colors)
    if samples == 4 or (samples == 3 and pixel_format.bits == 16):  # pypylon makes no arrays of these
        kind = np.uint16 if pixel_format.bits > 8 else np.uint8
        values = result.GetArray(True).view(kind)
        shape = (result.GetHeight(), result.GetWidth(), samples)
        return values[: math.prod(shape)].reshape(shape)
    return result.GetArray()


def _identities(device: Any) -> tuple[str, str]:
    return device.GetSerialNumber(), device.GetUserDefinedName()


def _device_name(device: Any) -> str:
    return f"{device.GetVendorName()} {device.GetModelName()} {device.GetSerialNumber()}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
