"""A simulated optical path: the light of a display, through optics, on top of tissue, into a camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def tissue_picture(size_px: tuple[int, int], seed: int = 0, brightness: float = 0.7) -> NDArray[np.float32]:
    """Return something structured as tissue is, shape (Y, X), 0 to 1: dark nuclei on a bright ground."""
    random = np.random.default_rng(seed)
    width, height = size_px
    nuclei = np.zeros((height, width), dtype=np.float32)
    count = width * height // 1500
    for x, y, r in zip(
        random.integers(0, width, count),
        random.integers(0, height, count),
        random.integers(3, 9, count),
        strict=True,
    ):
        cv2.circle(nuclei, (int(x), int(y)), int(r), float(random.uniform(0.3, 0.8)), cv2.FILLED)
    stroma = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0), 15)
    ground = 0.1 * stroma / stroma.std()
    return np.clip(brightness * (1 - cv2.GaussianBlur(nuclei, (0, 0), 1) * 0.6 + ground * 0.3), 0.02, 1)


def some_map(
    camera_size_px: tuple[int, int],
    display_size_px: tuple[int, int],
    *,
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    shear: float = 0.0,
    mirrored: bool = False,
    shift_px: tuple[float, float] = (0.0, 0.0),
    keystone: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Return the true map from camera to display; ``scale`` 1 fits the camera's view into the display."""
    angle = np.deg2rad(rotation_deg)
    fitting = scale * min(d / c for d, c in zip(display_size_px, camera_size_px, strict=True))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[1, shear], [0, 1]]) @ np.diag([-fitting if mirrored else fitting, fitting])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    camera_middle, display_middle = ((np.array(size) - 1) / 2 for size in (camera_size_px, display_size_px))
    bend = np.eye(3)
    bend[2, :2] = np.array(keystone) / camera_size_px
    back = np.eye(3)
    back[:2, 2] = -camera_middle
    forth = np.eye(3)
    forth[:2, 2] = display_middle + shift_px
    return forth @ matrix @ bend @ back


@dataclass
class OpticalPath:
    """What a camera sees of the tissue and of the display.

    Parameters
    ----------
    matrix : ndarray
        The true map from camera pixels to display pixels.
    camera_size_px : tuple of int
        Width and height of a frame.
    light : float
        What a white display pixel adds, as a part of the camera's range.
    brightness : float
        Of empty glass, as a part of the camera's range; 0 with the lamp off.
    blur_px : float
        Sigma of the camera's blur, in camera pixels.
    noise : float
        Sigma of the noise, as a part of the range.
    """

    matrix: NDArray[np.float64]
    camera_size_px: tuple[int, int] = (640, 400)
    light: float = 0.2
    brightness: float = 0.6
    blur_px: float = 1.0
    noise: float = 0.01
    seed: int = 0
    picture: NDArray[np.uint8] | None = field(default=None)

    def __post_init__(self) -> None:
        self.tissue = tissue_picture(self.camera_size_px, self.seed, self.brightness)
        self._random = np.random.default_rng(self.seed)

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show a picture on the display."""
        self.picture = picture

    def frame(self) -> NDArray[np.uint8]:
        """Return what the camera sees now, gray, shape (Y, X)."""
        width, height = self.camera_size_px
        seen = self.tissue.copy()
        if self.picture is not None:
            seen += self.light * self._through(self.picture.astype(np.float32) / 255, (width, height))
        seen = cv2.GaussianBlur(seen, (0, 0), self.blur_px) if self.blur_px else seen
        seen += self.noise * self._random.standard_normal(seen.shape, dtype=np.float32)
        return np.clip(np.round(255 * seen), 0, 255).astype(np.uint8)

    def _through(self, picture: NDArray[Any], size_px: tuple[int, int]) -> NDArray[Any]:
        # Four samples along each side of a camera pixel: light is collected over its area.
        fine = 4
        finely = self.matrix @ np.array(
            [[1 / fine, 0, -(fine - 1) / 2 / fine], [0, 1 / fine, -(fine - 1) / 2 / fine], [0, 0, 1]]
        )
        large = cv2.warpPerspective(
            picture,
            finely,
            (size_px[0] * fine, size_px[1] * fine),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        return cv2.resize(large, size_px, interpolation=cv2.INTER_AREA)
