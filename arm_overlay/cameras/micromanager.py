"""Cameras and objective turrets that Micro-Manager drives, with pymmcore-plus.

``micromanager:FILE.cfg`` loads a configuration as Micro-Manager's Hardware Configuration Wizard writes it:
its default camera is used, and its objective turret and pixel size calibration are followed. The device
adapters are looked for beside the file, then where pymmcore-plus finds Micro-Manager (MICROMANAGER_PATH, or
``mmcore install``). ``micromanager:demo`` is Micro-Manager's demo configuration. For a camera that hands out
a raw mosaic without saying so there is ``micromanager:FILE.cfg,bayer=RGGB``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import CameraError, CameraInfo
from arm_overlay.cameras.genicam import PixelFormat
from arm_overlay.cameras.polled import (
    JOIN_S,
    DeviceClock,
    PolledCamera,
    objective_in,
    refuse_unknown_settings,
    split_settings,
    there_are,
)
from arm_overlay.frames import BAYER_PATTERNS, Frame
from lincei.errors import LinceiError

DEMO = "demo"
_DEMO_FILE = "MMConfig_demo.cfg"
# How often the turret is asked where it stands. What Micro-Manager itself moves is seen with the next frame.
_TURRET_S = 0.2
_BITS = (8, 10, 12, 14, 16)
_INSTALL = "Install them with `mmcore install`, or name their folder in the variable MICROMANAGER_PATH."


class MicroManagerCamera(PolledCamera):
    """The default camera of a Micro-Manager configuration, with its objective turret."""

    kind = "micromanager"

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self._path, self._settings = split_settings(spec)
        self._name = f"micromanager:{spec}"
        self._core: Any = None
        self._camera = ""
        self._turret: _Turret | None = None
        self._bayer = ""
        self._exposure_ms = 0.0
        self._number, self._first_number = -1, 0
        self._clock = DeviceClock()

    @property
    def name(self) -> str:
        """Device adapter, device and label of the camera."""
        return self._name

    def _connect(self) -> None:
        refuse_unknown_settings(self._settings, ("bayer",), self._name)
        self._bayer = self._settings.get("bayer", "").upper()
        if self._bayer and self._bayer not in BAYER_PATTERNS:
            raise CameraError(
                f"there is no mosaic {self._bayer}", self._name, f"Choose from: {', '.join(BAYER_PATTERNS)}."
            )
        path, adapters = _configuration(self._path)
        self._core = core = _new_core(adapters)
        try:
            core.loadSystemConfiguration(str(path))
        except Exception as error:
            raise CameraError(
                f"Micro-Manager cannot load it ({_one_line(error)})",
                str(path),
                "Check that the devices are connected and switched on, and that Micro-Manager loads it.",
            ) from error
        self._camera = core.getCameraDevice()
        if not self._camera:
            raise CameraError(
                "it configures no camera",
                str(path),
                "Choose a default camera in Micro-Manager's Hardware Configuration Wizard.",
            )
        self._name = (
            f"{core.getDeviceLibrary(self._camera)} {core.getDeviceName(self._camera)} ({self._camera})"
        )
        if core.getNumberOfCameraChannels() > 1:
            raise CameraError(
                "it is several cameras in one", self._name, "Choose one of them as the default camera."
            )
        self._turret = _Turret(core)
        self._number = -1
        self._start()

    def _start(self) -> None:
        """Start the sequence; the numbers of its frames follow those that were."""
        self._exposure_ms = float(self._core.getExposure())
        self._first_number, self._clock = self._number + 1, DeviceClock()
        try:
            # What nobody fetches is written over.
            self._core.startContinuousSequenceAcquisition(0)
        except Exception as error:
            raise CameraError(
                f"it does not start to take frames ({_one_line(error)})",
                self.name,
                "Check it in Micro-Manager.",
            ) from error

    def _newest(self, wait_s: float) -> Frame | None:
        core, ends_s = self._core, time.monotonic() + wait_s
        while not core.getRemainingImageCount():
            if time.monotonic() >= ends_s:
                if not core.isSequenceRunning():
                    raise CameraError(
                        "the camera stopped", self.name, "Check its cable and its power, then open it again."
                    )
                return None
            time.sleep(0.001)
        scale = self._scale()
        try:
            array, stated = core.getLastImageAndMD(fix=False)
            core.clearCircularBuffer()
        except Exception as error:
            raise CameraError(
                f"the camera was lost ({_one_line(error)})", self.name, "Check its cable."
            ) from error
        arrival_s = time.monotonic()
        if self._scale() != scale:
            return None  # taken while the objective changed: of the one or the other
        counted = int(stated.get("ImageNumber") or self._number + 1 - self._first_number) + self._first_number
        self._number = max(self._number + 1, counted)
        elapsed_ms = stated.get("ElapsedTime-ms")
        pixels, bits, bayer = self._pixels(array)
        return Frame(
            pixels=pixels,
            time_s=self._clock.time_s(float(elapsed_ms) / 1000 if elapsed_ms else None, arrival_s),
            number=self._number,
            bits=bits,
            bayer=bayer,
            exposure_ms=self._exposure_ms,
            objective=scale[0],
            pixel_size_um=scale[1],
        )

    def _pixels(self, array: NDArray[Any]) -> tuple[NDArray[Any], int, str]:
        """Return pixels, their bits and their mosaic."""
        if self._core.getNumberOfComponents() == 4:
            import cv2

            # Four values in one wide number: blue, green, red and nothing.
            samples = array.view(f"u{array.itemsize // 4}").reshape(*array.shape, 4)
            return np.asarray(cv2.cvtColor(samples, cv2.COLOR_BGRA2RGB)), self._bits(samples), ""
        if array.dtype.itemsize > 2 or array.ndim != 2:
            raise CameraError(
                f"its pixels are {array.dtype} of {array.ndim} axes, which no camera frame has",
                self.name,
                "Set its pixel type to 8 bit, 16 bit or RGB in Micro-Manager.",
            )
        return array, self._bits(array), self._bayer or self._stated_mosaic()

    def _bits(self, array: NDArray[Any]) -> int:
        if array.dtype.itemsize == 1:
            return 8
        depth = int(self._core.getImageBitDepth())
        return next((bits for bits in _BITS if bits >= depth), 16)

    def _stated_mosaic(self) -> str:
        """Return the mosaic that the name of the camera's pixel type states, as some adapters have it."""
        with contextlib.suppress(Exception):
            known = PixelFormat.named(self._core.getPropertyFromCache(self._camera, "PixelType"))
            return known.bayer if known else ""
        return ""

    def _scale(self) -> tuple[str, float | None]:
        """Return the present objective and the size of a pixel at the specimen with it."""
        assert self._turret is not None
        if not self._turret.answers:
            return "", None
        return self._turret.objective(), self._core.getPixelSizeUm(True) or None

    def _disconnect(self) -> None:
        if self._turret is not None:
            self._turret.stop()
        if self._core is not None:
            for end in ("stopSequenceAcquisition", "unloadAllDevices"):
                with contextlib.suppress(Exception):  # a camera that was unplugged cannot be asked to stop
                    getattr(self._core, end)()
        self._core = self._turret = None

    @property
    def exposure_ms(self) -> float | None:
        """Exposure time in milliseconds; None while it is closed."""
        return float(self._core.getExposure()) if self._open else None

    def set_exposure_ms(self, value: float) -> None:
        """Set the exposure time."""
        self._change(
            "its exposure time cannot be set", lambda: self._core.setExposure(self._camera, float(value))
        )

    @property
    def gain(self) -> float | None:
        """The camera's property Gain; None where it has none."""
        if not self._open or not self._core.hasProperty(self._camera, "Gain"):
            return None
        with contextlib.suppress(ValueError):  # some cameras name their gains
            return float(self._core.getProperty(self._camera, "Gain"))
        return None

    def set_gain(self, value: float) -> None:
        """Set the camera's property Gain."""
        if self.gain is None:
            raise self._cannot("set its gain")
        core, camera = self._core, self._camera
        allowed = ""
        if core.hasPropertyLimits(camera, "Gain"):
            lowest, highest = (
                core.getPropertyLowerLimit(camera, "Gain"),
                core.getPropertyUpperLimit(camera, "Gain"),
            )
            allowed = f"It may be {lowest:g} to {highest:g}."
        self._change(
            "its gain cannot be set", lambda: core.setProperty(camera, "Gain", f"{value:g}"), allowed
        )

    def _change(self, failure: str, change: Any, allowed: str = "") -> None:
        """Make a change, with the sequence stopped where the camera does not take it otherwise."""
        if not self._open:
            raise CameraError("the camera is closed", self.name, "Open it first.")
        with self._device_lock:
            try:
                change()
            except Exception:
                with contextlib.suppress(Exception):
                    self._core.stopSequenceAcquisition()
                try:
                    change()
                except Exception as error:
                    raise CameraError(f"{failure} ({_one_line(error)})", self.name, allowed) from error
                finally:
                    self._start()
            self._exposure_ms = float(self._core.getExposure())


class _Turret:
    """The objective turret of a configuration, asked again and again by a thread of its own.

    A turret that is turned by hand, or answers slowly over a serial line, must not hold up the frames.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._device = self._objective_device()
        self.answers = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turret", daemon=True)
        self._thread.start()

    def objective(self) -> str:
        """Return the objective in place, such as ``"20x"``; empty where it is not known.

        The turret's label tells; without a turret the name of the pixel size group's configuration.
        """
        with contextlib.suppress(Exception):
            if self._device:
                return objective_in(self._core.getPropertyFromCache(self._device, "Label"))
            return objective_in(self._core.getCurrentPixelSizeConfig(True))
        return ""

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(JOIN_S)

    def _objective_device(self) -> str:
        """Return the state device that holds the objectives, by its name and labels; empty without one."""
        for device in self._core.guessObjectiveDevices():
            if any(objective_in(label) for label in self._core.getStateLabels(device)):
                return str(device)
        return ""

    def _run(self) -> None:
        while self._device and not self._stopped.wait(_TURRET_S):
            try:
                self._core.getProperty(self._device, "Label")  # asks the device, and keeps the answer
                self.answers = True
            except Exception:  # whatever the reason, the objective is not known now
                self.answers = False


def found() -> list[CameraInfo]:
    """Return the configurations that lie beside Micro-Manager's device adapters.

    Raises
    ------
    LinceiError
        When pymmcore-plus is not installed.
    """
    folder = _adapter_folder()
    if folder is None:
        return []
    return [
        CameraInfo(
            f"micromanager:{DEMO if path.name == _DEMO_FILE else path}",
            f"Micro-Manager configuration {path.name}",
        )
        for path in sorted(folder.glob("*.cfg"))
    ]


def _configuration(text: str) -> tuple[Path, Path]:
    """Return the configuration's file and the folder of the device adapters."""
    folder = _adapter_folder()
    if text == DEMO and folder is not None and (folder / _DEMO_FILE).is_file():
        return folder / _DEMO_FILE, folder
    path = Path(text).expanduser()
    if not text or not path.is_file():
        what = (
            "there is no such Micro-Manager configuration" if text else "name a Micro-Manager configuration"
        )
        raise CameraError(
            what,
            f"micromanager:{text}",
            there_are(found(), "Save one with Micro-Manager's Hardware Configuration Wizard (a .cfg file)."),
        )
    beside = path.resolve().parent
    if any(beside.glob("*mmgr_dal_*")):
        return path, beside
    if folder is None:
        raise CameraError("Micro-Manager's device adapters are not found", str(path), _INSTALL)
    return path, folder


def _adapter_folder() -> Path | None:
    find = _pymmcore_plus().find_micromanager
    folder = find()
    return Path(folder) if folder else None


def _new_core(adapters: Path) -> Any:
    """Return a core of our own, apart from one that another part of the program may hold."""
    core = _pymmcore_plus().CMMCorePlus(mm_path=str(adapters))
    # Its events call into Python from the core's threads; while Python ends, that aborts the process.
    import pymmcore

    pymmcore.CMMCore.registerCallback(core, None)
    return core


def _pymmcore_plus() -> Any:
    try:
        import pymmcore_plus
    except ImportError as error:
        raise LinceiError(
            f"Micro-Manager's cameras need the package pymmcore-plus ({error})",
            "micromanager",
            "Install it with: pip install 'lincei[arm]'.",
        ) from error
    return pymmcore_plus


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
