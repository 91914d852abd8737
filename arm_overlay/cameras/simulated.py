"""A slide that moves under a simulated microscope, seen by a simulated camera, in real time.

The specification is ``simulated`` or ``simulated:KEY=VALUE,...``; the keys are the fields of
`SimulatedSettings`. For example, ``simulated:objective=10x,changes=20x@5+40x@12,defocus=8@3-5,bits=12``.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import CameraError, CameraInfo
from arm_overlay.cameras.polled import PolledCamera
from arm_overlay.frames import BAYER_PATTERNS, Frame
from arm_overlay.imaging import (
    NUMERICAL_APERTURES,
    CameraModel,
    View,
    bayer_places,
    blurred,
    digitized,
    displayed,
    electrons_of_glass,
    falloff,
    mosaic,
    moved,
    numerical_aperture,
    opencv,
    projected,
    raw_camera,
    transmitted,
)
from lincei.errors import UsageError
from sample_data.slides import Slide, open_slide

_SIZE = re.compile(r"(\d+)x(\d+)")
_EPISODE = re.compile(r"(-?[\d.]+)(?:@([\d.]+)-([\d.]+))?")
_CHANGE = re.compile(r"(\w+)@([\d.]+)")
# While the turret turns, the light path is closed for so long.
_TURNING_S = 0.4
# The exposure for which the lamp was set.
_USUAL_EXPOSURE_MS = 5.0
# Frames take their noise from a larger field of it, each from another place.
_NOISE_MARGIN_PX = 256
# Rows of a slide that are drawn at once, and how far the light of others blurs into them.
_BAND_PX, _BLUR_PX = 512, 16
# Frames that are drawn beforehand take no more memory than this.
_MOST_RENDERED_BYTES = 4 * 2**30
# A slide is surveyed for its tumor on pixels of this size.
_SURVEY_UM = 16.0

_drawing = threading.Lock()
# Until when a camera that was "unplugged" cannot be opened; it is another object when it is connected again.
_unplugged_until_s: dict[str, float] = {}


@dataclass(frozen=True)
class Episode:
    """A value that holds for a while.

    Parameters
    ----------
    value : float
        The value.
    from_s, to_s : float
        From when on, and until when, in seconds after opening.
    """

    value: float
    from_s: float = 0.0
    to_s: float = float("inf")


@dataclass(frozen=True)
class SimulatedSettings:
    """What is simulated; each field is a key of the specification.

    Parameters
    ----------
    slide : str
        See `sample_data.slides.open_slide`: ``drawn``, ``drawn:SEED``, ``real``, ``real:SET/NAME+SET/NAME``.
    objective : str
        The objective at the start.
    changes : tuple of (float, str)
        When which objective follows; written ``10x@5+40x@12``.
    reports_objective : bool
        Whether frames say which objective is in the light path.
    fps : float
        Frames a second.
    size : tuple of int
        Width and height of a frame in pixels; written ``1920x1200``.
    bayer : str
        The mosaic, or ``none`` for red, green, blue out of the camera, or ``mono`` for a camera without
        colors.
    bits : int
        8, 10, 12, 14 or 16.
    white_balance : bool
        Whether the camera is balanced for its lamp.
    noise : bool
        Whether there is noise.
    exposure_ms : float
        Exposure time at the start, for which the lamp is set.
    speed : float
        Mean speed of the slide while it moves, in widths of the view a second; 0 keeps it still.
    area_um : float
        The slide moves within a square this wide.
    defocus : tuple of Episode
        How far out of focus, in um; written ``6`` or ``8@3-5+12@9-10``.
    light : tuple of Episode
        Brightness of the lamp, 1 as a rule; written likewise.
    seed : int
        Of the way and of the noise.
    rendered : int
        Draws so many frames when the camera is opened, and shows them forward and backward again and again;
        0 draws each frame when it is due.
    unplug_after, stall_after, resize_after : float or None
        Seconds after which the camera is unplugged, stops to send, or sends frames of half the size.
    unplugged_s : float
        How long it cannot be opened after it was unplugged.
    """

    slide: str = "drawn"
    objective: str = "20x"
    changes: tuple[tuple[float, str], ...] = ()
    reports_objective: bool = True
    fps: float = 30.0
    size: tuple[int, int] = (1920, 1200)
    bayer: str = "RGGB"
    bits: int = 8
    white_balance: bool = True
    noise: bool = True
    exposure_ms: float = _USUAL_EXPOSURE_MS
    speed: float = 0.15
    area_um: float = 800.0
    defocus: tuple[Episode, ...] = ()
    light: tuple[Episode, ...] = ()
    seed: int = 0
    rendered: int = 0
    unplug_after: float | None = None
    stall_after: float | None = None
    resize_after: float | None = None
    unplugged_s: float = 1.0

    @classmethod
    def from_spec(cls, spec: str) -> SimulatedSettings:
        """Read a specification.

        Raises
        ------
        UsageError
            When it has an unknown key or a wrong value.
        """
        keys = [field.name for field in dataclasses.fields(cls)]
        values: dict[str, Any] = {}
        for part in filter(None, spec.split(",")):
            key, _, text = part.partition("=")
            if key not in keys:
                raise UsageError(
                    f"the simulated camera has no setting {key!r}",
                    "--camera",
                    f"Write simulated:KEY=VALUE,KEY=VALUE with keys of: {', '.join(keys)}.",
                )
            reader, wanted = _READERS.get(key, (float, "a number"))
            try:
                values[key] = reader(text)
            except ValueError:
                raise UsageError(
                    f"{key} of the simulated camera is {text!r}", "--camera", f"Write {wanted}."
                ) from None
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse values that cannot be simulated.

        Raises
        ------
        UsageError
            Naming the value and what is allowed.
        """
        for name in (self.objective, *(name for _, name in self.changes)):
            numerical_aperture(name)
        limits = {
            "fps": (0.1, 1000.0),
            "exposure_ms": (0.01, 1000.0),
            "speed": (0.0, 20.0),
            "area_um": (1.0, 4000.0),
            "rendered": (0.0, 10_000.0),
            "unplugged_s": (0.0, 3600.0),
        }
        for key, (low, high) in limits.items():
            if not low <= getattr(self, key) <= high:
                raise UsageError(
                    f"{key} of the simulated camera is {getattr(self, key):g}",
                    "--camera",
                    f"It lies between {low:g} and {high:g}.",
                )
        if min(self.size) < 32 or max(self.size) > 8192 or any(length % 2 for length in self.size):
            raise UsageError(
                f"size of the simulated camera is {self.size[0]}x{self.size[1]}",
                "--camera",
                "Both sides are even numbers from 32 to 8192.",
            )
        samples = 3 if self.bayer == "none" else 1
        frame_bytes = math.prod(self.size) * samples * (1 if self.bits == 8 else 2)
        if self.rendered * frame_bytes > _MOST_RENDERED_BYTES:
            raise UsageError(
                f"rendered of the simulated camera is {self.rendered}, which takes "
                f"{self.rendered * frame_bytes / 2**30:.1f} GiB of memory",
                "--camera",
                f"Of these frames at most {_MOST_RENDERED_BYTES // frame_bytes} can be drawn beforehand.",
            )

    def objective_at(self, time_s: float) -> tuple[str, bool]:
        """Return the objective in the light path, and whether the turret turns to another just now."""
        current, turning = self.objective, False
        for since_s, objective in self.changes:
            if time_s >= since_s + _TURNING_S:
                current, turning = objective, False
            elif time_s >= since_s:
                turning = True
        return current, turning

    @property
    def camera_model(self) -> CameraModel:
        """The camera as `arm_overlay.imaging` describes it."""
        bayer = self.bayer if self.bayer in BAYER_PATTERNS else ""
        # The slides' glass is not quite white: exposed so far, no pixel of it is full.
        model = raw_camera(bayer, self.bits, size_px=self.size, glass_level=1.0)
        if not bayer:
            # What comes out of the camera as colors is developed there; grays are what the sensor saw.
            gamma = 1.0 if self.bayer == "mono" else 2.2
            model = dataclasses.replace(model, sensitivity=(1.0, 1.0, 1.0), gamma=gamma)
        if self.white_balance:
            green = model.sensitivity[1]
            red, blue = (green / model.sensitivity[channel] for channel in (0, 2))
            model = dataclasses.replace(model, white_balance=(red, 1.0, blue))
        return model


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError
    return text == "yes"


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError
    return match


def _size(text: str) -> tuple[int, int]:
    match = _matched(_SIZE, text)
    return int(match[1]), int(match[2])


def _changes(text: str) -> tuple[tuple[float, str], ...]:
    matches = [_matched(_CHANGE, part) for part in filter(None, text.split("+"))]
    return tuple(sorted((float(match[2]), match[1]) for match in matches))


def _episodes(text: str) -> tuple[Episode, ...]:
    matches = [_matched(_EPISODE, part) for part in filter(None, text.split("+"))]
    return tuple(
        Episode(float(m[1]), float(m[2]), float(m[3])) if m[2] else Episode(float(m[1])) for m in matches
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def _bits(text: str) -> int:
    return int(_one_of(("8", "10", "12", "14", "16"))(text))


_YES_NO = (_yes_or_no, "yes or no")
_EPISODES = (_episodes, "a number, or VALUE@FROM-TO in seconds, several joined by +, such as 8@3-5+12@9-10")
_BAYERS = (*BAYER_PATTERNS, "none", "mono")
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "slide": (str, "drawn, drawn:SEED, real or real:SET/NAME"),
    "objective": (str, f"one of {', '.join(NUMERICAL_APERTURES)}"),
    "changes": (_changes, "OBJECTIVE@SECONDS, several joined by +, such as 10x@5+40x@12"),
    "reports_objective": _YES_NO,
    "size": (_size, "WIDTHxHEIGHT in pixels, such as 1920x1200"),
    "bayer": (_one_of(_BAYERS), f"one of {', '.join(_BAYERS)}"),
    "bits": (_bits, "8, 10, 12, 14 or 16"),
    "white_balance": _YES_NO,
    "noise": _YES_NO,
    "defocus": _EPISODES,
    "light": _EPISODES,
    "seed": (_count, "a whole number, 0 or above"),
    "rendered": (_count, "a whole number, 0 or above"),
}


@dataclass(frozen=True, eq=False)
class FrameTruth:
    """What is in a frame.

    Parameters
    ----------
    number : int
        Of the frame.
    time_s : float
        When it was exposed, in seconds after opening.
    objective : str
        The objective in the light path.
    turning : bool
        Whether the turret turned: the frame is dark.
    pixel_size_um : float
        Size of its pixels at the specimen.
    left_um, top_um : float
        Where its upper left corner lies on the slide.
    velocity_um_s : tuple of float
        How fast the view moves over the slide, x and y.
    defocus_um, light : float
        Distance from focus; brightness of the lamp.
    tumor : ndarray
        Shape (Y, X), bool: where tumor is in the frame.
    """

    number: int
    time_s: float
    objective: str
    turning: bool
    pixel_size_um: float
    left_um: float
    top_um: float
    velocity_um_s: tuple[float, float]
    defocus_um: float
    light: float
    tumor: NDArray[np.bool_]


class SimulatedCamera(PolledCamera):
    """The simulated microscope; see this module.

    Parameters
    ----------
    spec : str
        What follows ``simulated:``; may be empty.

    Raises
    ------
    UsageError
        When the specification has an unknown key or a wrong value.
    """

    kind: ClassVar[str] = "simulated"

    def __init__(self, spec: str = "") -> None:
        super().__init__(spec)
        self.settings = SimulatedSettings.from_spec(spec)
        self._model = self.settings.camera_model
        self._exposure_ms, self._gain = self.settings.exposure_ms, 1.0
        self._scene: Scene | None = None
        self._began_s = 0.0
        self._last = -1

    @property
    def name(self) -> str:
        """What it simulates."""
        return f"simulated microscope ({self.settings.slide} slide)"

    @property
    def frame_interval_s(self) -> float:
        """Time between two frames."""
        return 1 / self.settings.fps

    @property
    def exposure_ms(self) -> float:
        """Exposure time in milliseconds."""
        return self._exposure_ms

    def set_exposure_ms(self, value: float) -> None:
        """Set the exposure time; longer is brighter, and more blurred while the slide moves."""
        if not value > 0:
            raise CameraError(f"the exposure time cannot be {value:g} ms", self.name, "Take one above 0.")
        self._refuse_when_rendered("set its exposure time")
        self._exposure_ms = float(value)

    @property
    def gain(self) -> float:
        """A factor of the light."""
        return self._gain

    def set_gain(self, value: float) -> None:
        """Set the factor of the light."""
        if not value > 0:
            raise CameraError(f"the gain cannot be {value:g}", self.name, "Take one above 0.")
        self._refuse_when_rendered("set its gain")
        self._gain = float(value)

    @property
    def _brightness(self) -> float:
        """Brightness of frames beside what the lamp was set for."""
        return self._gain * self._exposure_ms / self.settings.exposure_ms

    def set_white_balance(self, red: float, blue: float) -> None:
        """Set the factors of red and blue beside green."""
        self._refuse_when_rendered("balance colors itself")
        self._model = dataclasses.replace(self._model, white_balance=(float(red), 1.0, float(blue)))

    def frame_pixels(self, number: int) -> NDArray[np.unsignedinteger[Any]]:
        """Return the pixels of any frame, drawn now; equal for equal numbers and settings.

        Parameters
        ----------
        number : int
            Counted from 0.
        """
        time_s = number / self.settings.fps
        pixels = self._the_scene().pixels(time_s, number, self._model, self._exposure_ms, self._brightness)
        return self._resized(pixels, time_s)

    def prepare(self) -> None:
        """Draw all of the slide that will be seen, and the frames that are drawn beforehand.

        It takes seconds for each objective, once in a process. Opening the camera does the same, but leaves
        the objectives after the first to a thread.
        """
        self._prepare_rendered()
        self._the_scene().prepare()

    def truth(self, number: int) -> FrameTruth:
        """Return what is in a frame, by the frame's number."""
        drawn = self._drawn_number(number)
        truth = self._the_scene().truth(drawn / self.settings.fps, number)
        return dataclasses.replace(truth, tumor=self._resized(truth.tumor, number / self.settings.fps))

    def _connect(self) -> None:
        until_s = _unplugged_until_s.get(self.spec, 0.0)
        if time.monotonic() < until_s:
            raise CameraError(
                "the simulated camera is unplugged", self.name, "Its setting unplugged_s says for how long."
            )
        self._prepare_rendered()
        if self.settings.changes:
            # Nobody waits for it: a camera that takes long to open seems to hang.
            threading.Thread(target=self._the_scene().prepare, name="slide drawing", daemon=True).start()
        # The slide takes seconds to draw the first time; the clock runs from here.
        self._began_s, self._last = time.monotonic(), -1

    def _newest(self, wait_s: float) -> Frame | None:
        settings = self.settings
        number = max(self._last + 1, int((time.monotonic() - self._began_s) * settings.fps))
        due_s = self._began_s + number / settings.fps
        deadline_s = time.monotonic() + wait_s
        while (now_s := time.monotonic()) < due_s:
            if now_s >= deadline_s or not self._open:
                return None
            time.sleep(min(due_s - now_s, deadline_s - now_s))
        time_s = number / settings.fps
        if settings.unplug_after is not None and time_s >= settings.unplug_after:
            _unplugged_until_s[self.spec] = time.monotonic() + settings.unplugged_s
            raise CameraError("the camera was unplugged", self.name, "Check its cable.")
        if settings.stall_after is not None and time_s >= settings.stall_after:
            time.sleep(max(0.0, deadline_s - time.monotonic()))
            return None
        if settings.rendered:
            drawn = self._the_scene().rendered(self._drawn_number(number), self._model, self._exposure_ms)
            pixels = self._resized(drawn, time_s)
        else:
            pixels = self.frame_pixels(number)
        objective, _ = settings.objective_at(self._drawn_number(number) / settings.fps)
        own_size_um = self._model.pixel_size_um(objective) if settings.reports_objective else None
        self._last = number
        return Frame(
            pixels,
            # Drawing the frame is no part of what is simulated: it is exposed when it is there.
            time.monotonic(),
            number,
            bits=settings.bits,
            bayer=self._model.bayer,
            exposure_ms=self._exposure_ms,
            pixel_size_um=own_size_um,
            objective=objective if settings.reports_objective else "",
        )

    def _disconnect(self) -> None:
        """Let go of nothing: scenes are kept, since they take long to draw."""

    def _resized(self, pixels: NDArray[Any], time_s: float) -> NDArray[Any]:
        """Return a frame, or what is known of its pixels, as large as the camera sends it at a time."""
        resize_after = self.settings.resize_after
        if resize_after is None or time_s < resize_after:
            return pixels
        height, width = (length // 4 * 2 for length in pixels.shape[:2])
        return pixels[:height, :width]

    def _prepare_rendered(self) -> None:
        scene = self._the_scene()
        for number in range(self.settings.rendered):
            scene.rendered(number, self._model, self._exposure_ms)

    def _drawn_number(self, number: int) -> int:
        """Return which frame is shown as that of a number: itself, or one of those drawn beforehand."""
        count = self.settings.rendered
        if not count:
            return number
        # Forward and backward, so that the slide never jumps.
        place = number % max(1, 2 * count - 2)
        return min(place, 2 * count - 2 - place)

    def _the_scene(self) -> Scene:
        if self._scene is None:
            settings = self.settings
            kept = {name: getattr(settings, name) for name in _OF_THE_SCENE}
            # One thread draws; others that want the same wait for it.
            with _drawing:
                self._scene = _scene(SimulatedSettings(**kept))
        return self._scene

    def _refuse_when_rendered(self, what: str) -> None:
        if self.settings.rendered:
            raise self._cannot(f"{what} while it shows frames that were drawn beforehand")


def found() -> list[CameraInfo]:
    """Return the one camera that there always is."""
    return [CameraInfo("simulated", "simulated microscope (a drawn slide)")]


# The settings that a scene depends on; cameras that differ in others share it.
_OF_THE_SCENE = (
    "slide",
    "objective",
    "changes",
    "fps",
    "size",
    "bayer",
    "bits",
    "white_balance",
    "noise",
    "speed",
    "area_um",
    "defocus",
    "light",
    "seed",
    "rendered",
)


@dataclass(frozen=True, eq=False)
class _Strip:
    """The part of the slide where the view moves, as one objective draws it on the camera's pixels.

    Parameters
    ----------
    colors : ndarray
        Shape (Y, X, 3), uint8: what the red, green and blue pixels of the sensor take, as display values.
    tumor : ndarray
        Shape (Y, X), bool.
    left_um, top_um, pixel_size_um : float
        Where it lies on the slide.
    na : float
        Of the objective.
    """

    colors: NDArray[np.uint8]
    tumor: NDArray[np.bool_]
    left_um: float
    top_um: float
    pixel_size_um: float
    na: float


class Scene:
    """A slide, the way the view takes over it, and how that looks; made once for each slide and camera."""

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._slide, self._center_um = _slide(settings.slide)
        self._model = settings.camera_model
        self._way = _Way(settings)
        self._strips: dict[str, _Strip] = {}
        self._frames: dict[tuple[int, float], NDArray[np.unsignedinteger[Any]]] = {}
        self._lock = threading.Lock()
        width, height = settings.size
        colors = (3,) if settings.bayer == "none" else ()
        shape = (height + _NOISE_MARGIN_PX, width + _NOISE_MARGIN_PX, *colors)
        random = np.random.default_rng([settings.seed, 1])
        self._noise = random.standard_normal(shape, np.float32) if settings.noise else None
        self._strip(settings.objective)

    def prepare(self) -> None:
        """Draw what the objectives that follow will show; it is drawn when they come otherwise."""
        for _, objective in self._settings.changes:
            self._strip(objective)

    def truth(self, time_s: float, number: int) -> FrameTruth:
        """Return what is seen at a time."""
        objective, turning = self._settings.objective_at(time_s)
        strip, (left, top), velocity = self._view(time_s)
        width, height = self._settings.size
        return FrameTruth(
            number,
            time_s,
            objective,
            turning,
            strip.pixel_size_um,
            strip.left_um + left * strip.pixel_size_um,
            strip.top_um + top * strip.pixel_size_um,
            velocity,
            _value_at(self._settings.defocus, time_s, 0.0),
            0.0 if turning else _value_at(self._settings.light, time_s, 1.0),
            strip.tumor[top : top + height, left : left + width],
        )

    def rendered(
        self, number: int, model: CameraModel, exposure_ms: float
    ) -> NDArray[np.unsignedinteger[Any]]:
        """Return a frame that is kept once it was drawn."""
        key = number, exposure_ms
        if key not in self._frames:
            self._frames[key] = self.pixels(number / self._settings.fps, number, model, exposure_ms, 1.0)
        return self._frames[key]

    def pixels(
        self, time_s: float, number: int, model: CameraModel, exposure_ms: float, brightness: float
    ) -> NDArray[np.unsignedinteger[Any]]:
        """Return what the camera records at a time.

        Parameters
        ----------
        time_s : float
            Seconds after opening.
        number : int
            For the noise.
        model : CameraModel
            The camera, as it is balanced.
        exposure_ms : float
            Exposure time, for the blur of motion.
        brightness : float
            Factor of the light beside that for which the lamp was set.
        """
        settings = self._settings
        strip, (left, top), velocity = self._view(time_s)
        width, height = settings.size
        colors = strip.colors[top : top + height, left : left + width]
        defocus_um = _value_at(settings.defocus, time_s, 0.0)
        if defocus_um:
            colors = blurred(colors, strip.pixel_size_um, na=strip.na, defocus_um=defocus_um)
        smear = exposure_ms / 1000 / strip.pixel_size_um
        colors = moved(colors, (velocity[0] * smear, velocity[1] * smear))
        plane = mosaic(colors, model.bayer) if model.bayer else colors
        if settings.bayer == "mono":
            plane = opencv().cvtColor(colors, opencv().COLOR_RGB2GRAY)
        _, turning = settings.objective_at(time_s)
        light = 0.0 if turning else _value_at(settings.light, time_s, 1.0)
        electrons = transmitted(plane)
        electrons *= _lamp(model, settings.bayer == "none", light * brightness)
        return digitized(electrons, model, self._noise_of(number))

    def _view(self, time_s: float) -> tuple[_Strip, tuple[int, int], tuple[float, float]]:
        """Return the strip, the left and upper edge of the view in its pixels, and the velocity in um/s."""
        strip = self._strip(self._settings.objective_at(time_s)[0])
        x_um, y_um, velocity = self._way.at(time_s)
        # The way is counted from the middle of the area; the view's middle follows it.
        half_um = self._settings.area_um / 2
        left, top = (round((along + half_um) / strip.pixel_size_um) for along in (x_um, y_um))
        return strip, (left, top), velocity

    def _strip(self, objective: str) -> _Strip:
        with self._lock:
            if objective not in self._strips:
                self._strips[objective] = self._drawn_strip(objective)
            return self._strips[objective]

    def _drawn_strip(self, objective: str) -> _Strip:
        size_um, na = self._model.pixel_size_um(objective), numerical_aperture(objective)
        # A pixel more than the way needs, since it is rounded.
        width, height = (
            length + int(np.ceil(self._settings.area_um / size_um)) + 2 for length in self._settings.size
        )
        left, top = (
            center - length * size_um / 2
            for center, length in zip(self._center_um, (width, height), strict=True)
        )
        sensor = np.array(self._model.sensor_colors, np.float32)
        if self._settings.bayer == "mono":
            sensor = np.eye(3, dtype=np.float32)
        colors = np.empty((height, width, 3), np.uint8)
        tumor = np.empty((height, width), np.bool_)
        # In bands, with what blurs into them: light takes twelve times as much memory as display values.
        for first in range(0, height, _BAND_PX):
            last = min(first + _BAND_PX, height)
            upper, lower = max(0, first - _BLUR_PX), min(height, last + _BLUR_PX)
            part = self._slide.read(left, top + upper * size_um, (width, lower - upper), size_um)
            light = projected(transmitted(part.rgb), size_um, size_um, na=na)
            band = slice(first - upper, last - upper)
            colors[first:last] = displayed(opencv().transform(light[band], sensor))
            tumor[first:last] = part.tumor[band]
        return _Strip(colors, tumor, left, top, size_um, na)

    def _noise_of(self, number: int) -> NDArray[np.float32] | None:
        if self._noise is None:
            return None
        width, height = self._settings.size
        y, x = np.random.default_rng([self._settings.seed, 2, number]).integers(_NOISE_MARGIN_PX, size=2)
        return self._noise[y : y + height, x : x + width]


class _Way:
    """The way of the view over the slide: from place to place, with rests, as people move a slide."""

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._random = np.random.default_rng([settings.seed, 0])
        # Each leg: when it begins, rest, duration of the move, where it begins, and where it ends.
        self._legs: list[tuple[float, float, float, NDArray[Any], NDArray[Any]]] = []
        self._until_s = 0.0
        self._place_um = np.zeros(2)
        self._lock = threading.Lock()

    def at(self, time_s: float) -> tuple[float, float, tuple[float, float]]:
        """Return x and y in um from the middle of the area, and the velocity in um/s."""
        if self._settings.speed == 0:
            return 0.0, 0.0, (0.0, 0.0)
        with self._lock:
            while self._until_s <= time_s:
                self._add_leg()
            number = bisect.bisect_right(self._legs, time_s, key=lambda leg: leg[0]) - 1
            begin, rest, move, start, end = self._legs[number]
        share = min(max((time_s - begin - rest) / move, 0.0), 1.0)
        # Speeding up and slowing down smoothly.
        place = start + (end - start) * (share * share * (3 - 2 * share))
        velocity = (end - start) * (6 * share * (1 - share) / move)
        return float(place[0]), float(place[1]), (float(velocity[0]), float(velocity[1]))

    def _add_leg(self) -> None:
        settings = self._settings
        half_um = settings.area_um / 2
        target = self._random.uniform(-half_um, half_um, 2)
        rest = float(self._random.uniform(0.3, 1.2))
        objective, _ = settings.objective_at(self._until_s)
        width_um = settings.size[0] * settings.camera_model.pixel_size_um(objective)
        distance_um = float(np.hypot(*(target - self._place_um)))
        move = max(distance_um / (settings.speed * width_um), 0.1)
        self._legs.append((self._until_s, rest, move, self._place_um, target))
        self._place_um = target
        self._until_s += rest + move


@functools.lru_cache(maxsize=2)
def _scene(settings: SimulatedSettings) -> Scene:
    """Return the scene of settings; connecting again does not draw it again."""
    return Scene(settings)


@functools.lru_cache(maxsize=4)
def _lamp(model: CameraModel, in_color: bool, brightness: float) -> NDArray[np.float32]:
    """Return how many photoelectrons glass gives each pixel."""
    width, height = model.size_px
    view = View()
    plane = falloff((height, width), view.vignetting, view.vignetting_center)
    electrons = electrons_of_glass(model) * np.float32(brightness)
    if in_color:
        return plane[..., None] * electrons
    if not model.bayer:
        return plane * electrons[1]
    lamp = np.empty_like(plane)
    for channel, rows, columns in bayer_places(model.bayer):
        lamp[rows, columns] = plane[rows, columns] * electrons[channel]
    return lamp


@functools.lru_cache(maxsize=1)
def _slide(name: str) -> tuple[Slide, tuple[float, float]]:
    """Return a slide, and the place on it where the view begins."""
    slide = open_slide(name)
    return slide, _interesting_place(slide)


def _interesting_place(slide: Slide) -> tuple[float, float]:
    """Return a place on the slide, x and y in um, in tissue of which about half is tumor."""
    cv2 = opencv()

    def near(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
        return cv2.blur(mask.astype(np.float32), (side, side), borderType=cv2.BORDER_CONSTANT)

    tissue, tumor = slide.survey(_SURVEY_UM)
    # In what a low and in what a high objective sees.
    unlike = sum(np.abs(near(tumor, side) - 0.5) - near(tissue, side) for side in (65, 25))
    # Nearer the middle of the slide where there is a choice.
    y, x = (np.linspace(-1, 1, n) for n in tumor.shape)
    best = np.argmin(unlike + 0.1 * np.hypot(y[:, None], x[None]))
    row, column = np.unravel_index(int(best), tumor.shape)
    return float(column + 0.5) * _SURVEY_UM, float(row + 0.5) * _SURVEY_UM


def _value_at(episodes: tuple[Episode, ...], time_s: float, otherwise: float) -> float:
    """Return the value of the last episode that holds at a time."""
    holding = [episode.value for episode in episodes if episode.from_s <= time_s < episode.to_s]
    return holding[-1] if holding else otherwise
