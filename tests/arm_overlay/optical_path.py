"""A simulated optical path: the light of a display, through optics, on top of tissue, into a camera."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import Camera
from arm_overlay.displays import Monitor
from arm_overlay.frames import Frame

CAMERA_PX, DISPLAY_PX = (640, 400), (1280, 720)
MONITOR = Monitor("DUMMY1", "", "", "", DISPLAY_PX, (1600, 0), 60.0, False)


def tissue_picture(size_px: tuple[int, int], seed: int = 0, brightness: float = 0.7) -> NDArray[np.float32]:
    """Return something structured as tissue is, shape (Y, X), 0 to 1: dark nuclei on a bright ground."""
    random = np.random.default_rng(seed)
    width, height = size_px
    nuclei = np.zeros((height, width), dtype=np.float32)
    for _ in range(width * height // 1500):
        center = (int(random.integers(0, width)), int(random.integers(0, height)))
        depth = float(random.uniform(0.3, 0.8))
        cv2.circle(nuclei, center, int(random.integers(3, 9)), depth, cv2.FILLED)
    ground = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0), 15)
    ground *= 0.03 / ground.std()
    light = brightness * (1 - 0.6 * cv2.GaussianBlur(nuclei, (0, 0), 1) + ground)
    return np.clip(light, 0.02 * brightness, 1)


def some_map(
    *,
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    shear: float = 0.0,
    mirrored: bool = False,
    shift_px: tuple[float, float] = (0.0, 0.0),
    keystone: tuple[float, float] = (0.0, 0.0),
    camera_px: tuple[int, int] = CAMERA_PX,
    display_px: tuple[int, int] = DISPLAY_PX,
) -> NDArray[np.float64]:
    """Return the true map from camera to display; ``scale`` 1 fits the camera's view into the display."""
    angle = np.deg2rad(rotation_deg)
    fitting = scale * min(d / c for d, c in zip(display_px, camera_px, strict=True))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear, bend, back, forth = (np.eye(3) for _ in range(4))
    linear[:2, :2] = (
        turn @ np.array([[1, shear], [0, 1]]) @ np.diag([-fitting if mirrored else fitting, fitting])
    )
    bend[2, :2] = np.array(keystone) / camera_px
    back[:2, 2] = -(np.array(camera_px) - 1) / 2
    forth[:2, 2] = (np.array(display_px) - 1) / 2 + shift_px
    return forth @ linear @ bend @ back


class OpticalPath:
    """What a camera sees of the tissue and of the display.

    Parameters
    ----------
    matrix : ndarray
        The true map from camera pixels to display pixels.
    light : float
        What a white display pixel adds, as a part of the camera's range.
    brightness : float
        Of empty glass, as a part of the camera's range; 0 with the lamp off.
    blur_px : float
        Sigma of the camera's blur, in camera pixels.
    noise : float
        Sigma of the noise, as a part of the range.
    """

    def __init__(
        self,
        matrix: NDArray[np.float64],
        *,
        light: float = 0.2,
        brightness: float = 0.6,
        blur_px: float = 1.0,
        noise: float = 0.01,
        camera_px: tuple[int, int] = CAMERA_PX,
        seed: int = 0,
    ) -> None:
        self.matrix, self.camera_px = matrix, camera_px
        self.light, self.brightness, self.blur_px, self.noise = light, brightness, blur_px, noise
        self.tissue = tissue_picture(camera_px, seed, brightness)
        self.picture: NDArray[Any] | None = None
        self._random = np.random.default_rng(seed)

    def seen(self) -> NDArray[np.float32]:
        """Return what the camera sees now, shape (Y, X), 0 to 1."""
        light = self.tissue
        if self.picture is not None:
            light = light + self.light * self._through(self.picture.astype(np.float32) / 255)
        if self.blur_px:
            light = cv2.GaussianBlur(light, (0, 0), self.blur_px)
        noise = self.noise * self._random.standard_normal(light.shape, dtype=np.float32)
        return np.clip(light + noise, 0, 1)

    def gray(self) -> NDArray[np.uint8]:
        """Return a gray frame of 8 bits."""
        return np.round(255 * self.seen()).astype(np.uint8)

    def _through(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        # Three samples along each side of a camera pixel: light is collected over its area.
        width, height = self.camera_px
        inner = np.array([[1 / 3, 0, -1 / 3], [0, 1 / 3, -1 / 3], [0, 0, 1]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        large = cv2.warpPerspective(picture, self.matrix @ inner, (3 * width, 3 * height), flags=flags)
        return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)


def largest_error_px(matrix: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return how far off a map is at worst in the camera's view, in display pixels."""
    from arm_overlay.display_alignment import mapped

    x, y = np.meshgrid(np.linspace(0, CAMERA_PX[0] - 1, 9), np.linspace(0, CAMERA_PX[1] - 1, 7))
    points = np.column_stack([x.ravel(), y.ravel()])
    return float(np.linalg.norm(mapped(matrix, points) - mapped(true, points), axis=1).max())


class PathDisplay:
    """A display whose light goes into an optical path."""

    def __init__(self, path: OpticalPath) -> None:
        self.path = path
        self.monitor = MONITOR
        self.trouble = ""
        self.last_picture_s: float | None = None
        self.blanked = 0

    def show_picture(self, picture: NDArray[Any], *, lasts_s: float) -> None:
        assert lasts_s > 0
        assert picture.shape == DISPLAY_PX[::-1]
        self.path.picture = picture
        self.last_picture_s = time.monotonic()

    def blank(self, reason: str) -> None:
        self.path.picture = None
        self.blanked += 1


class PathCamera(Camera):
    """A camera at the end of an optical path, about 100 frames a second."""

    kind: ClassVar[str] = "path"

    def __init__(self, path: OpticalPath, *, bayer: str = "") -> None:
        super().__init__("")
        self.path, self.bayer = path, bayer
        self._number = 0

    @property
    def name(self) -> str:
        return "simulated optical path"

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def grab(self, timeout_s: float = 1.0) -> Frame:
        time.sleep(0.01)
        self._number += 1
        # Exposed after it was asked for, and then read out.
        time_s = time.monotonic()
        if not self.bayer:
            return Frame(self.path.gray(), time_s, self._number)
        # Red, green and blue take up different parts of the light.
        tint = {"R": 1.0, "G": 0.8, "B": 0.6}
        raw = self.path.seen()
        for place, color in enumerate(self.bayer):
            raw[place // 2 :: 2, place % 2 :: 2] *= tint[color]
        pixels = np.round(4095 * raw).astype(np.uint16)
        return Frame(pixels, time_s, self._number, bits=12, bayer=self.bayer)
