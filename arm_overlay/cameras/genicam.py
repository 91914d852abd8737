"""GenICam cameras (GigE Vision, USB3 Vision, CoaXPress) through a GenTL producer, with harvesters.

The producer is the camera maker's driver, a ``.cti`` file. ``genicam`` alone takes the first camera of the
producers that the environment variable GENICAM_GENTL64_PATH names; ``genicam:FILE.cti`` the first of that
producer; ``genicam:FILE.cti#2`` its third, and ``genicam:FILE.cti#ID`` the one with this serial number, name
or identifier. Features of the camera may follow, by the names that its maker gives them:
``genicam:FILE.cti,PixelFormat=BayerRG12,Width=1920``.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import signal
import threading
import time
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import CameraError, CameraInfo
from arm_overlay.cameras.polled import DeviceClock, NewestFrames, PolledCamera, split_settings, there_are
from arm_overlay.frames import Frame
from lincei.errors import LinceiError

# As the GenICam Pixel Format Naming Convention (EMVA, PFNC 2.4) and GigE Vision before it name them.
_FORMAT = re.compile(
    r"(Mono|Bayer(?:RG|GR|GB|BG)|RGBa|BGRa|RGB|BGR)(8|10|12|14|16)(p|Packed)?", re.IGNORECASE
)
_MOSAICS = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}
# Frames that the driver may fill while we copy one.
_BUFFERS = 5
# Exposure time in microseconds, in the standard's name and those of older cameras.
_EXPOSURE = ("ExposureTime", "ExposureTimeAbs", "ExposureTimeRaw")


@dataclass(frozen=True)
class PixelFormat:
    """What the name of a camera's pixel format says.

    Parameters
    ----------
    name : str
        As the camera names it.
    bits : int
        Significant bits of a pixel.
    bayer : str
        One of `arm_overlay.frames.BAYER_PATTERNS`, or empty.
    colors : str
        ``"rgb"``, ``"bgr"``, ``"rgba"`` or ``"bgra"`` in the order of the bytes; empty for one value a pixel.
    packed : bool
        Whether pixels of 10 or 12 bits share bytes.
    """

    name: str
    bits: int
    bayer: str = ""
    colors: str = ""
    packed: bool = False

    @classmethod
    def named(cls, name: str) -> PixelFormat | None:
        """Return the format of this name; None for one that is not read (YCbCr, polarization, depth).

        Examples
        --------
        >>> PixelFormat.named("BayerRG12p")
        PixelFormat(name='BayerRG12p', bits=12, bayer='RGGB', colors='', packed=True)
        >>> PixelFormat.named("YCbCr422_8") is None
        True
        """
        found = _FORMAT.fullmatch(name)
        if not found:
            return None
        kind, bits, ending = found[1].lower(), int(found[2]), (found[3] or "").lower()
        bayer = _MOSAICS[kind[-2:].upper()] if kind.startswith("bayer") else ""
        colors = kind if kind not in ("mono",) and not bayer else ""
        # "RGB8Packed" of older cameras is three bytes a pixel; "Mono12Packed" is two pixels in three bytes.
        packed = ending == "p" or (ending == "packed" and not colors)
        if packed and ending == "packed" and bits == 10:
            return None  # harvesters 1.4 takes it for shorter than it is; such cameras offer 8 bits too
        return cls(name, bits, bayer, colors, packed and bits not in (8, 16))

    def frame_pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return pixels as a `Frame` holds them; a copy where the order of colors differs.

        Parameters
        ----------
        array : ndarray
            uint8 or uint16, shape (Y, X), or (Y, X, 3 or 4) in the order of `colors`.
        """
        if self.colors in ("", "rgb"):
            return np.ascontiguousarray(array)
        import cv2

        code = {"bgr": cv2.COLOR_BGR2RGB, "bgra": cv2.COLOR_BGRA2RGB, "rgba": cv2.COLOR_RGBA2RGB}[self.colors]
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), code))


def readable_format(present: str, offered: Sequence[str]) -> PixelFormat | None:
    """Return the pixel format to use: the present one, or where that is not read the best that is offered.

    Colors go before none, behind a mosaic before interpolated (a third of the data), 8 bits before more.
    """
    if now := PixelFormat.named(present):
        return now
    readable = [known for name in offered if (known := PixelFormat.named(name))]
    return min(
        readable,
        key=lambda known: (not (known.bayer or known.colors), bool(known.colors), known.packed, known.bits),
        default=None,
    )


class Features:
    """The features of a GenICam camera by name, through whichever Python library holds its node map.

    Parameters
    ----------
    node_map : object
        Of genicam (``node.value``) or of pypylon (``node.Value``).
    camera : str
        For messages.
    """

    def __init__(self, node_map: Any, camera: str) -> None:
        self._node_map, self._camera = node_map, camera

    def value(self, *names: str) -> Any:
        """Return the value of the first of these features that can be read; None where none can."""
        for name in names:
            value = self._part(name, "value")
            if value is not None:
                return value
        return None

    def choices(self, name: str) -> tuple[str, ...]:
        """Return what an enumeration may be set to; empty for other features."""
        return tuple(self._part(name, "symbolics") or ())

    def first(self, *names: str) -> str | None:
        """Return the first of these features that the camera has; None where it has none."""
        return next((name for name in names if self._part(name, "value") is not None), None)

    def set(self, name: str, value: str | float) -> None:
        """Set a feature; text is turned into what the feature holds.

        Raises
        ------
        CameraError
            When there is no such feature, or it does not take the value: with the values that it takes.
        """
        present = self._part(name, "value")
        if present is None:
            near = difflib.get_close_matches(name, self._names(), n=1)
            raise CameraError(
                f"the camera has no feature {name}",
                self._camera,
                f"Did you mean {near[0]}?" if near else "Its maker's viewer lists them.",
            )
        node = self._node(name)
        try:
            converted: Any = value
            if isinstance(present, bool):
                converted = str(value).lower() in ("1", "true", "on", "yes")
            elif isinstance(present, int):
                converted = round(float(value))
            elif isinstance(present, float):
                converted = float(value)
            setattr(node, "value" if hasattr(node, "value") else "Value", converted)
        except Exception as error:
            raise CameraError(
                f"{name} cannot be set to {value}", self._camera, self._allowed(name, value, error)
            ) from error

    def bring(self, name: str, value: str) -> None:
        """Set an enumeration where the camera has it, knows this value and is set to another one."""
        if value in self.choices(name) and self.value(name) != value:
            self.set(name, value)

    def _allowed(self, name: str, value: str | float, error: Exception) -> str:
        choices = self.choices(name)
        if choices and value not in choices:
            return f"Choose from: {', '.join(choices)}."
        lowest, highest = self._part(name, "min"), self._part(name, "max")
        if lowest is not None and highest is not None:
            return f"It may be {lowest:g} to {highest:g}."
        return f"The camera says: {_one_line(error)}"

    def _names(self) -> list[str]:
        with contextlib.suppress(Exception):
            if hasattr(self._node_map, "GetNodes"):
                return [node.Node.GetName() for node in self._node_map.GetNodes()]
            return [node.node.name for node in self._node_map.nodes]
        return []

    def _node(self, name: str) -> Any:
        try:
            if hasattr(self._node_map, "GetNode"):
                return self._node_map.GetNode(name)
            return self._node_map.get_node(name)
        except Exception:  # the libraries raise errors of their own for a name that there is not
            return None

    def _part(self, name: str, part: str) -> Any:
        node = self._node(name)
        for spelled in (part, part.capitalize()):
            with contextlib.suppress(Exception):  # not readable now
                return getattr(node, spelled)
        return None


class FrameCounter:
    """Counts a camera's frames by the numbers that it gives them, those that were lost on the way included.

    Examples
    --------
    >>> counter = FrameCounter()
    >>> [counter.step(number) for number in (7, 8, 11, 1, None)]  # 9 and 10 were lost; 1 is a new count
    [1, 1, 3, 1, 1]
    """

    def __init__(self) -> None:
        self._last: int | None = None

    def step(self, number: int | None) -> int:
        """Return how many frames were taken since the last one; ``number`` is None where unknown."""
        last, self._last = self._last, number
        return number - last if number is not None and last is not None and number > last else 1


class GenICamDevice(PolledCamera):
    """What cameras with GenICam's features share, whatever library brings their frames."""

    # The exposure time of the frames where the camera does not choose it by itself: asking for it with each
    # frame would cost a message to the camera.
    _fixed_exposure_ms: float | None = None

    @property
    @abstractmethod
    def _features(self) -> Features:
        """The camera's features; raises `CameraError` while it is closed."""

    def _set_up(self, settings: dict[str, str]) -> PixelFormat:
        """Make the settings of the specification, and return the pixel format of the frames."""
        features = self._features
        features.bring("AcquisitionMode", "Continuous")
        if "TriggerMode" not in settings:
            self._switch_triggers_off()
        for name, value in settings.items():
            features.set(name, value)
        present, offered = str(features.value("PixelFormat")), features.choices("PixelFormat")
        chosen = readable_format(present, offered)
        if chosen is None:
            raise CameraError(
                f"it offers no pixel format that is read, only {', '.join(offered) or present}",
                self.name,
                "Mono, Bayer and RGB of 8 to 16 bits are read.",
            )
        if chosen.name != present:
            features.set("PixelFormat", chosen.name)
        self._note_exposure()
        return chosen

    def _switch_triggers_off(self) -> None:
        """Have the camera take frames by itself; one that waits for a trigger sends nothing."""
        features = self._features
        for selector in features.choices("TriggerSelector") or ("",):
            with contextlib.suppress(CameraError):  # some triggers cannot be chosen with others
                if selector:
                    features.set("TriggerSelector", selector)
                features.bring("TriggerMode", "Off")

    def _note_exposure(self) -> None:
        automatic = self._features.value("ExposureAuto") not in (None, "Off")
        exposure_us = self._features.value(*_EXPOSURE)
        self._fixed_exposure_ms = None if automatic or exposure_us is None else exposure_us / 1000

    @property
    def frame_interval_s(self) -> float | None:
        """Time between two frames as the camera states it; None where it does not."""
        rate = self._stated(
            "ResultingFrameRate",
            "ResultingFrameRateAbs",
            "AcquisitionResultingFrameRate",
            "AcquisitionFrameRate",
            "AcquisitionFrameRateAbs",
        )
        return 1 / rate if rate else None

    @property
    def exposure_ms(self) -> float | None:
        """Exposure time in milliseconds; None where the camera does not tell."""
        exposure_us = self._stated(*_EXPOSURE)
        return None if exposure_us is None else exposure_us / 1000

    def set_exposure_ms(self, value: float) -> None:
        """Set the exposure time, and switch off the camera's own choice of it."""
        self._set_by_hand("set its exposure time", "ExposureAuto", _EXPOSURE, value * 1000)
        self._note_exposure()

    @property
    def gain(self) -> float | None:
        """Gain as the camera states it (dB, or a factor); None where it does not tell."""
        return self._stated("Gain", "GainRaw")

    def set_gain(self, value: float) -> None:
        """Set the gain, and switch off the camera's own choice of it."""
        self._set_by_hand("set its gain", "GainAuto", ("Gain", "GainRaw"), value)

    def set_white_balance(self, red: float, blue: float) -> None:
        """Set the camera's factors of red and blue, and of green to 1."""
        for color, factor in (("Green", 1.0), ("Red", red), ("Blue", blue)):
            if color not in self._features.choices("BalanceRatioSelector"):
                if color == "Green":  # a camera that has no factor of green takes it as 1
                    continue
                raise self._cannot("balance colors itself")
            self._features.set("BalanceRatioSelector", color)
            self._set_by_hand(
                "balance colors itself", "BalanceWhiteAuto", ("BalanceRatio", "BalanceRatioAbs"), factor
            )

    def _set_by_hand(self, what: str, automatic: str, names: Sequence[str], value: float) -> None:
        name = self._features.first(*names)
        if name is None:
            raise self._cannot(what)
        self._features.bring(automatic, "Off")
        self._features.set(name, value)

    def _stated(self, *names: str) -> float | None:
        if not self._open:
            return None
        value = self._features.value(*names)
        return None if value is None else float(value)


class GenICamCamera(GenICamDevice):
    """A camera of a GenTL producer."""

    kind = "genicam"

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        path_and_device, self._settings = split_settings(spec)
        path, _, self._wanted = path_and_device.partition("#")
        self._path = Path(path).expanduser() if path else None
        self._borrowed_path: Path | None = None
        self._name = f"genicam:{spec}" if spec else "genicam"
        self._harvester: Any = None
        self._acquirer: Any = None
        self._frames: NewestFrames | None = None
        self._format: PixelFormat | None = None
        self._number, self._counter, self._clock = -1, FrameCounter(), DeviceClock()

    @property
    def name(self) -> str:
        """Maker, model and serial number."""
        return self._name

    @property
    def _features(self) -> Features:
        if self._acquirer is None:
            raise CameraError("the camera is closed", self.name, "Open it first.")
        return Features(self._acquirer.remote_device.node_map, self.name)

    def _connect(self) -> None:
        device = self._chosen()
        with (
            _interrupt_kept(),
            _library_errors(self._name, "it cannot be opened; another program may use it"),
        ):
            self._acquirer = self._harvester.create(device)
        self._name = _device_name(device)
        self._format = self._set_up(self._settings)
        # Waits of 1 ms, as harvesters has them, keep a processor busy.
        self._acquirer.timeout_period_on_update_event_data_call = 20
        self._acquirer.num_buffers = max(_BUFFERS, self._acquirer.min_num_buffers)
        self._number, self._counter, self._clock = -1, FrameCounter(), DeviceClock()
        with _library_errors(self._name, "it does not start to take frames"):
            self._acquirer.start()
        self._frames = NewestFrames(self._read)

    def _chosen(self) -> Any:
        """Return the camera that the specification means; its producer stays borrowed."""
        paths = [self._path] if self._path else producers()
        if not paths:
            raise CameraError(
                "it is not known which driver brings the camera's frames",
                self.name,
                "Name the camera maker's .cti file, as in genicam:/opt/maker/lib/maker.cti, or set the "
                "environment variable GENICAM_GENTL64_PATH to its folder.",
            )
        place = 0
        cameras: list[CameraInfo] = []
        for path in paths:
            self._borrow(path)
            devices = list(self._harvester.device_info_list)
            for device in devices:
                if not self._wanted or self._wanted in _identities(device):
                    return device
            if self._wanted.isdecimal() and place <= int(self._wanted) < place + len(devices):
                return devices[int(self._wanted) - place]
            place, cameras = place + len(devices), cameras + _listed(path, self._harvester)
            self._let_go()
        what = f"there is no camera {self._wanted!r}" if self._wanted else "there is no GenICam camera"
        raise CameraError(what, self.name, there_are(cameras, _CHECK_CABLE))

    def _borrow(self, path: Path) -> None:
        self._harvester, self._borrowed_path = _borrow(path), path

    def _let_go(self) -> None:
        if self._borrowed_path is not None:
            _give_back(self._borrowed_path)
        self._harvester = self._borrowed_path = None

    def _newest(self, wait_s: float) -> Frame | None:
        assert self._frames is not None
        return self._frames.take(wait_s)

    def _read(self) -> Frame | None:
        try:
            buffer = self._acquirer.try_fetch(timeout=0.05)
        except Exception as error:
            raise CameraError(
                f"the camera was lost ({_one_line(error)})", self.name, "Check its cable and its power."
            ) from error
        if buffer is None:
            return None
        arrival_s = time.monotonic()
        try:
            return self._frame(buffer, arrival_s)
        finally:
            buffer.queue()

    def _frame(self, buffer: Any, arrival_s: float) -> Frame | None:
        parts = [
            part for part in (buffer.payload.components if buffer.payload else ()) if hasattr(part, "width")
        ]
        if not parts:
            return None  # a frame without an image, such as one of metadata alone
        part = parts[0]
        self._number += self._counter.step(_stated(buffer.module, "frame_id"))
        pixel_format = PixelFormat.named(part.data_format) or self._format
        assert pixel_format is not None
        samples = max(1, len(pixel_format.colors))
        # Behind each line, and behind the last one, there may be bytes that fill up.
        rows = part.height + (part.y_padding if part.has_part() else 0)
        lines = part.data.reshape(rows, -1)[: part.height, : part.width * samples]
        shape = (part.height, part.width, samples) if pixel_format.colors else lines.shape
        pixels = pixel_format.frame_pixels(lines.reshape(shape))
        return Frame(
            pixels=pixels if pixels.base is None else pixels.copy(),  # out of the driver's buffer
            time_s=self._clock.time_s(_stamp_s(buffer), arrival_s),
            number=self._number,
            bits=pixel_format.bits,
            bayer=pixel_format.bayer,
            exposure_ms=self._fixed_exposure_ms,
        )

    def _disconnect(self) -> None:
        if self._frames is not None:
            self._frames.stop()
        for end in ("stop", "destroy"):
            if self._acquirer is not None:
                with contextlib.suppress(Exception):  # a camera that was unplugged cannot be asked to stop
                    getattr(self._acquirer, end)()
        self._frames = self._acquirer = None
        self._let_go()


def found() -> list[CameraInfo]:
    """Return the cameras of the producers that GENICAM_GENTL64_PATH names.

    Raises
    ------
    LinceiError
        When harvesters is not installed, or a producer cannot be loaded.
    """
    _harvester_class()
    cameras = []
    for path in producers():
        with _borrowed(path) as harvester:
            cameras += _listed(path, harvester)
    return cameras


def producers() -> list[Path]:
    """Return the GenTL producers in the folders that GENICAM_GENTL64_PATH names."""
    folders = os.environ.get("GENICAM_GENTL64_PATH", "").split(os.pathsep)
    return [path for folder in folders if folder for path in sorted(Path(folder).glob("*.cti"))]


_CHECK_CABLE = (
    "Check its cable, its power and the maker's driver; `lincei arm cameras` lists the cameras there are."
)

# A producer can be opened once in a process: its harvester is shared by the open cameras, which are counted.
_harvesters: dict[Path, tuple[Any, int]] = {}
_harvesters_lock = threading.Lock()


def _borrow(path: Path) -> Any:
    """Return the harvester of a producer, which has looked for its cameras."""
    with _harvesters_lock:
        harvester, users = _harvesters.get(path, (None, 0))
        # Looking for cameras again would close those that are open.
        harvester = harvester or _new_harvester(path)
        _harvesters[path] = (harvester, users + 1)
        return harvester


def _give_back(path: Path) -> None:
    """Close a producer when no camera of it is open."""
    with _harvesters_lock:
        harvester, users = _harvesters.pop(path)
        if users > 1:
            _harvesters[path] = (harvester, users - 1)
        else:
            with contextlib.suppress(Exception):  # a driver that failed cannot be closed in order
                harvester.reset()


@contextlib.contextmanager
def _borrowed(path: Path) -> Iterator[Any]:
    harvester = _borrow(path)
    try:
        yield harvester
    finally:
        _give_back(path)


def _new_harvester(path: Path) -> Any:
    harvester = _harvester_class()()
    if not path.is_file():
        known = ", ".join(map(str, producers()))
        raise CameraError(
            "there is no such GenTL producer",
            str(path),
            f"There are: {known}." if known else "Check the path.",
        )
    try:
        harvester.add_file(str(path), check_existence=True, check_validity=True)
    except OSError as error:
        raise CameraError(
            f"this GenTL producer cannot be loaded ({_one_line(error)})",
            str(path),
            "Install the camera maker's driver again, for this processor and system.",
        ) from error
    with _library_errors(str(path), "its cameras cannot be looked for"):
        harvester.update()
    return harvester


def _harvester_class() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG's types, in genicam
            from harvesters.core import Harvester
    except ImportError as error:
        raise LinceiError(
            f"GenICam cameras need the package harvesters ({error})",
            "genicam",
            "Install it with: pip install 'lincei[arm]'.",
        ) from error
    # What goes wrong is said by our own sentences.
    logging.getLogger("harvesters").addHandler(logging.NullHandler())
    return Harvester


def _listed(path: Path, harvester: Any) -> list[CameraInfo]:
    return [
        CameraInfo(f"genicam:{path}#{_identity(device)}", _device_name(device))
        for device in harvester.device_info_list
    ]


def _identities(device: Any) -> list[str]:
    stated = [_stated(device, name) for name in ("id_", "serial_number", "user_defined_name")]
    return [str(name) for name in stated if name]


def _identity(device: Any) -> str:
    return next(iter(_identities(device)), "")


def _device_name(device: Any) -> str:
    parts = [_stated(device, name) for name in ("vendor", "model", "serial_number")]
    return " ".join(str(part) for part in parts if part) or str(_stated(device, "display_name") or "GenICam")


def _stated(thing: Any, name: str) -> Any:
    """Return a property that a producer need not have."""
    with contextlib.suppress(Exception):
        return getattr(thing, name)
    return None


def _stamp_s(buffer: Any) -> float | None:
    """Return the camera's time stamp of a buffer in seconds; None where it has none."""
    nanoseconds = _stated(buffer.module, "timestamp_ns")
    if nanoseconds:
        return nanoseconds / 1e9
    ticks = _stated(buffer.module, "timestamp")
    device = _stated(_stated(buffer.module, "parent"), "parent")
    ticks_per_s = _stated(device, "timestamp_frequency")
    return ticks / ticks_per_s if ticks and ticks_per_s else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _library_errors(where: str, what: str) -> Iterator[None]:
    """Turn what the camera's library raises into a sentence."""
    try:
        yield
    except LinceiError:
        raise
    except Exception as error:
        raise CameraError(f"{what} ({_one_line(error)})", where, _CHECK_CABLE) from error


@contextlib.contextmanager
def _interrupt_kept() -> Iterator[None]:
    """Keep Ctrl-C as it is: harvesters puts a handler of its own in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
