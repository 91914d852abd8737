"""From a camera's raw frame to colors as a model takes them: display values, empty glass pale.

Behind a mosaic, gray values are linear in light: they are balanced, given a display curve, and only then
joined to colors. At a scale of about a half or less each 2x2 cell of the mosaic is one pixel, and nothing is
made up between pixels. Color frames are display values already, and only balanced.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.frames import BAYER_PATTERNS, Frame
from arm_overlay.imaging import opencv
from lincei.errors import LinceiError

Colors = NDArray[np.uint8]

# Empty glass is developed to this value: pale, with room for the noise of the brightest pixels.
GLASS = 245.0
# Up to this scale a 2x2 cell of the mosaic is one pixel; above it colors are filled in between.
SUPERPIXEL_SCALE = 0.6
# Nothing is enlarged further.
LARGEST_SCALE = 4.0
# Cells of the flat field along the frame's longer side. Light falls off smoothly.
FLAT_FIELD_CELLS = 48
# In an empty field, blocks differ in color by less than this share of their mean; measured on simulated
# cameras, tissue of 10 % of the field exceeds it.
_EVEN_COLOR = 0.04
_SATURATED_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Developing:
    """How a camera's frames become colors.

    Parameters
    ----------
    white_balance : tuple of float
        Factors of red, green and blue: of light behind a mosaic, of values in color frames.
    flat_field : ndarray or None
        Shape (rows, columns, 3), float32: factors of the developed values, spread over the frame; see
        `flat_field_of`.
    gamma : float
        Behind a mosaic, values become light to the power of 1 / gamma.
    black_level : float
        Gray value without light, as a share of the brightest; of frames behind a mosaic.
    """

    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    flat_field: NDArray[np.float32] | None = None
    gamma: float = 2.2
    black_level: float = 0.0

    def __post_init__(self) -> None:
        if len(self.white_balance) != 3 or not all(0.01 <= factor <= 100 for factor in self.white_balance):
            raise LinceiError(
                f"the white balance is {self.white_balance}", "", "Balance an empty field again."
            )
        if not 1 <= self.gamma <= 4 or not 0 <= self.black_level < 0.5:
            raise LinceiError(
                f"gamma is {self.gamma:g} and the black level {self.black_level:g}",
                "",
                "Gamma lies between 1 and 4, the black level between 0 and 0.5.",
            )
        flat = self.flat_field
        if flat is not None and (
            flat.ndim != 3 or flat.shape[2] != 3 or not (np.isfinite(flat).all() and flat.min() > 0)
        ):
            raise LinceiError("the flat field is damaged", "", "Take it from an empty field again.")


NEUTRAL = Developing()


def developed_size(size_px: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return width and height of a frame of ``size_px`` developed at a scale."""
    return max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale))


def developed(frame: Frame, developing: Developing = NEUTRAL, scale: float = 1.0) -> Colors:
    """Return a frame as red, green and blue.

    Parameters
    ----------
    frame : Frame
        Of a color camera.
    developing : Developing
        White balance and the like.
    scale : float
        Pixels of the result for one of the frame, along each side: the frame's pixel size over that wanted.

    Returns
    -------
    ndarray
        Shape (Y, X, 3), uint8, of `developed_size`. With a neutral `developing`, a color frame of the right
        scale comes back itself, not a copy.

    Raises
    ------
    LinceiError
        When the camera sends gray frames, or pixels of a kind that no camera has.
    """
    check_in_color(frame)
    if not 0 < scale <= LARGEST_SCALE:
        raise LinceiError(
            f"the frame would be enlarged {scale:.3g} times",
            f"frame {frame.number}",
            f"Check the pixel size; up to {LARGEST_SCALE:g} times is possible.",
        )
    size = developed_size(frame.size_px, scale)
    if frame.bayer:
        colors = _resized(_from_mosaic(frame, developing, scale), size)
    else:
        colors = _from_colors(frame, developing, scale)
    if developing.flat_field is None:
        return colors
    factors, unit = _flat_factors(developing, size)
    evened: Colors = opencv().multiply(colors, factors, scale=unit)
    return evened


def check_in_color(frame: Frame) -> None:
    """Refuse a frame that cannot be developed.

    Raises
    ------
    LinceiError
        As `developed` does.
    """
    pixels = frame.pixels
    where = f"frame {frame.number}"
    if pixels.dtype not in (np.uint8, np.uint16):
        raise LinceiError(f"its pixels are {pixels.dtype}, not whole numbers of 8 or 16 bits", where)
    if not frame.in_color:
        raise LinceiError(
            "the camera is monochrome, and tumor is found by the colors of the stain",
            where,
            "Use a color camera; if this one is, set its pixel format to RGB or Bayer.",
        )
    known = pixels.ndim == 2 and frame.bayer in BAYER_PATTERNS and min(pixels.shape) >= 2
    if not known and not (not frame.bayer and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size):
        mosaic = f" behind a mosaic {frame.bayer!r}" if frame.bayer else ""
        raise LinceiError(
            f"its pixels have the shape {pixels.shape}{mosaic}",
            where,
            "Set the camera's pixel format to RGB or Bayer.",
        )


def white_balance_of(frame: Frame, developing: Developing = NEUTRAL) -> Developing:
    """Return how to develop frames so that this one, of an empty field, is white.

    Parameters
    ----------
    frame : Frame
        Of empty glass, in focus or not.
    developing : Developing
        What else is kept.

    Raises
    ------
    LinceiError
        When the field is overexposed, too dark, or not empty.
    """
    plain = dataclasses.replace(developing, white_balance=(1.0, 1.0, 1.0), flat_field=None)
    field = _blocks_of_empty_field(frame, plain)
    exponent = plain.gamma if frame.bayer else 1.0
    red, green, blue = ((GLASS / _brightest(field)) ** exponent).tolist()
    return dataclasses.replace(developing, white_balance=(red, green, blue))


def flat_field_of(frame: Frame, developing: Developing = NEUTRAL) -> Developing:
    """Return how to develop frames so that this one, of an empty field, is even.

    Parameters
    ----------
    frame : Frame
        Of empty glass, best out of focus, so that dust is not taken for light.
    developing : Developing
        What else is kept.

    Raises
    ------
    LinceiError
        As `white_balance_of` does.
    """
    cv2 = opencv()
    plain = dataclasses.replace(developing, white_balance=(1.0, 1.0, 1.0), flat_field=None)
    field = cv2.GaussianBlur(_blocks_of_empty_field(frame, plain), (0, 0), 1.5, borderType=cv2.BORDER_REFLECT)
    # Nothing is made darker, as what is bright may have been cut off before.
    flat = np.maximum(_brightest(field) / field, 1.0).astype(np.float32)
    return dataclasses.replace(developing, flat_field=flat)


def write_developing(path: Path, developing: Developing) -> None:
    """Write white balance and flat field as a NumPy archive (``.npz``)."""
    flat = developing.flat_field
    np.savez_compressed(
        path,
        white_balance=np.array(developing.white_balance, np.float64),
        flat_field=np.zeros((0, 0, 3), np.float32) if flat is None else flat,
        curve=np.array([developing.gamma, developing.black_level]),
    )


def read_developing(path: Path) -> Developing:
    """Read what `write_developing` wrote.

    Raises
    ------
    LinceiError
        When there is no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            red, green, blue = (float(factor) for factor in stored["white_balance"])
            gamma, black_level = (float(value) for value in stored["curve"])
            flat = np.asarray(stored["flat_field"], np.float32)
    except FileNotFoundError as error:
        raise LinceiError("there is no such file", str(path), "Balance an empty field again.") from error
    except Exception as error:  # NumPy and zip raise many classes for what is not theirs
        raise LinceiError(
            "this file holds no white balance and flat field", str(path), "Balance an empty field again."
        ) from error
    return Developing((red, green, blue), flat if flat.size else None, gamma, black_level)


def _from_mosaic(frame: Frame, developing: Developing, scale: float) -> Colors:
    """Return colors at the scale wanted, or larger."""
    cv2 = opencv()
    pixels = frame.pixels
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    pixels = _readable(pixels[:height, :width])
    rows = [pixels[row::2].reshape(height // 2, width // 2, 2) for row in range(2)]
    planes = [plane for pair in rows for plane in cv2.split(pair)]
    tables = [_curve(developing, "RGB".index(color), frame) for color in frame.bayer]
    if scale <= SUPERPIXEL_SCALE:
        green, other = (place for place, color in enumerate(frame.bayer) if color == "G")
        planes[green] = cv2.addWeighted(planes[green], 0.5, planes[other], 0.5, 0)
        places = (frame.bayer.index("R"), green, frame.bayer.index("B"))
        shrink = max(1, int(0.5 / scale))
        smaller = (max(1, width // 2 // shrink), max(1, height // 2 // shrink))
        colors: Colors = cv2.merge([_looked_up(shrunk(planes[p], smaller), tables[p]) for p in places])
        return colors
    balanced = np.empty((height, width), np.uint8)
    for row in range(2):
        pair = [_looked_up(planes[2 * row + x], tables[2 * row + x]) for x in range(2)]
        cv2.merge(pair, balanced[row::2].reshape(height // 2, width // 2, 2))
    colors = cv2.cvtColor(balanced, getattr(cv2, f"COLOR_Bayer{frame.bayer}2RGB"))
    return colors


def _from_colors(frame: Frame, developing: Developing, scale: float) -> Colors:
    """Return a color frame balanced, at the scale wanted, or larger."""
    cv2 = opencv()
    pixels = _readable(frame.pixels)
    height, width = pixels.shape[:2]
    shrink = max(1, int(1 / scale))
    pixels = shrunk(pixels, (max(1, width // shrink), max(1, height // shrink)))
    pixels = _resized(pixels, developed_size(frame.size_px, scale))
    if pixels.dtype == np.uint8 and frame.bits == 8 and developing.white_balance == (1.0, 1.0, 1.0):
        return pixels
    tables = [_curve(developing, channel, frame) for channel in range(3)]
    if pixels.dtype == np.uint8:
        colors: Colors = cv2.LUT(pixels, np.stack(tables, axis=-1)[None])
        return colors
    colors = cv2.merge([_looked_up(p, table) for p, table in zip(cv2.split(pixels), tables, strict=True)])
    return colors


def _readable(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels whose rows lie as OpenCV reads them; a copy only where they do not."""
    row_px = pixels.dtype.itemsize * (3 if pixels.ndim == 3 else 1)
    inner = pixels.strides[1] == row_px and pixels.strides[-1] == pixels.dtype.itemsize
    return pixels if inner and pixels.strides[0] > 0 else np.ascontiguousarray(pixels)


def shrunk(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return pixels averaged over blocks of whole pixels, at least as large as ``size``.

    At the far edges a rest of a block is left out.
    """
    cv2 = opencv()
    # Twice by two is much quicker than once by four.
    while pixels.shape[1] >= 2 * size[0] and pixels.shape[0] >= 2 * size[1]:
        height, width = pixels.shape[:2]
        step = 2 if (width // size[0]) % 2 == 0 and (height // size[1]) % 2 == 0 else width // size[0]
        smaller = (width // step, height // step)
        covered = pixels[: smaller[1] * step, : smaller[0] * step]
        pixels = cv2.resize(covered, smaller, interpolation=cv2.INTER_AREA)
    return pixels


def _resized(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return pixels at a size that is less than two times smaller, or larger."""
    if pixels.shape[1::-1] == size:
        return pixels
    cv2 = opencv()
    resized: NDArray[Any] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return resized


def _looked_up(plane: NDArray[Any], table: NDArray[np.uint8]) -> Colors:
    """Return a plane's values in a table."""
    values: Colors = opencv().LUT(plane, table[None])
    return values


@functools.lru_cache(maxsize=32)
def _table(
    factor: float, gamma: float, black_level: float, bits: int, deep: bool, linear: bool
) -> NDArray[np.uint8]:
    """Return the developed value of each gray value of a camera."""
    values = np.arange(65536 if deep else 256) / (2**bits - 1)
    if linear:
        light = np.clip((values - black_level) / (1 - black_level), 0, None) * factor
        values = light ** (1 / gamma)
    else:
        values = values * factor
    table: NDArray[np.uint8] = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    table.setflags(write=False)
    return table


def _curve(developing: Developing, channel: int, frame: Frame) -> NDArray[np.uint8]:
    """Return the table of a channel of a frame."""
    return _table(
        developing.white_balance[channel],
        developing.gamma,
        developing.black_level,
        frame.bits,
        frame.pixels.dtype != np.uint8,
        bool(frame.bayer),
    )


@functools.lru_cache(maxsize=4)
def _flat_factors(developing: Developing, size: tuple[int, int]) -> tuple[Colors, float]:
    """Return the flat field for frames of a size as bytes, and the factor that one step of them is."""
    cv2 = opencv()
    factors = cv2.resize(developing.flat_field, size, interpolation=cv2.INTER_LINEAR)
    unit = float(factors.max()) / 255
    return np.rint(factors / unit).astype(np.uint8), unit


def _brightest(field: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return red, green and blue of the brightest blocks, a few noisy ones left out."""
    brightest: NDArray[np.float64] = np.percentile(field, 95, axis=(0, 1))
    return brightest


def _blocks_of_empty_field(frame: Frame, plain: Developing) -> NDArray[np.float32]:
    """Return an empty field's developed values, averaged over blocks: (rows, columns, 3), float32.

    Raises
    ------
    LinceiError
        When it is overexposed, too dark, or not empty.
    """
    cv2 = opencv()
    where = f"frame {frame.number}"
    check_in_color(frame)
    brightest = 2**frame.bits - 1
    if np.count_nonzero(frame.pixels >= brightest) > _SATURATED_SHARE * frame.pixels.size:
        raise LinceiError(
            "the empty field is overexposed", where, "Shorten the exposure or dim the lamp, and try again."
        )
    colors = developed(frame, plain, 0.5).astype(np.float32)
    height, width = colors.shape[:2]
    cell = max(1, math.ceil(max(height, width) / FLAT_FIELD_CELLS))
    cells = (max(1, width // cell), max(1, height // cell))
    blocks: NDArray[np.float32] = cv2.resize(colors, cells, interpolation=cv2.INTER_AREA)
    means = blocks.mean(axis=(0, 1))
    if means.min() < 10:
        raise LinceiError(
            "the empty field is dark", where, "Light the lamp or lengthen the exposure, and try again."
        )
    # The stain is told by its color: light that falls off has the same color everywhere.
    shares = blocks / means
    hue = shares[..., 1] / shares[..., [0, 2]].mean(axis=-1)
    if float(np.abs(hue - np.median(hue)).max()) > _EVEN_COLOR or blocks.min() < 0.25 * float(blocks.max()):
        raise LinceiError(
            "the field is not empty: its color is not even", where, "Move to clear glass, and try again."
        )
    return blocks


def shrunken(frame: Frame, fits_px: tuple[int, int], developing: Developing = NEUTRAL) -> Colors:
    """Return a frame in colors, no larger than it must be: it is made small before it is converted.

    Parameters
    ----------
    frame : Frame
        Of any camera; gray where the camera is.
    fits_px : tuple of int
        Width and height that it is to fit into.
    developing : Developing
        White balance and the like.

    Returns
    -------
    ndarray
        Shape (Y, X, 3), uint8, of the frame's proportions.
    """
    width, height = frame.size_px
    scale = min(fits_px[0] / width, fits_px[1] / height, 1.0)
    if frame.in_color:
        return developed(frame, developing, scale)
    cv2 = opencv()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    gray = cv2.resize(frame.pixels, size, interpolation=cv2.INTER_AREA)
    if frame.bits > 8:
        gray = cv2.convertScaleAbs(gray, alpha=255 / (2**frame.bits - 1))
    rgb: Colors = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    return rgb
