"""A frame as a camera hands it over: pixels, when they were exposed, and what the camera knows about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# The color of the first two pixels of the first two rows, as camera makers name it.
BAYER_PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a camera.

    Parameters
    ----------
    pixels : ndarray
        uint8 or uint16: shape (Y, X), raw behind a Bayer mosaic or monochrome; or (Y, X, 3), red, green,
        blue. Nobody writes into it.
    time_s : float
        When its exposure ended (or it arrived, where the camera does not say), on the clock of
        `time.monotonic`.
    number : int
        Counts the camera's frames from 0, those that nobody fetched included, so that gaps show.
    bits : int
        Significant bits of a pixel: 8, 10, 12, 14 or 16. The brightest value is ``2**bits - 1``.
    bayer : str
        One of `BAYER_PATTERNS`; empty for monochrome and for red, green, blue.
    exposure_ms : float or None
        Exposure time where the camera states it.
    pixel_size_um : float or None
        Size of a pixel at the specimen in micrometers; None where camera and objective do not tell.
    objective : str
        The objective that the microscope reports, such as ``"20x"``; empty where it reports none.
    """

    pixels: NDArray[Any]
    time_s: float
    number: int
    bits: int = 8
    bayer: str = ""
    exposure_ms: float | None = None
    pixel_size_um: float | None = None
    objective: str = ""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[0])

    @property
    def in_color(self) -> bool:
        """Whether the frame holds colors, directly or behind a mosaic."""
        return bool(self.bayer) or self.pixels.ndim == 3
