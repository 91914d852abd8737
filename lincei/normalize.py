"""Intensity scaling: one scaling per channel for a whole image, all z planes and all times.

A scaling is measured on a deterministic sample, so that a result depends neither on the gain and offset of
the camera nor on how the image is cut into tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError

if TYPE_CHECKING:
    from lincei.image import Image

SAMPLE_PIXELS = 1_000_000
_READ_PIXELS = 64 * SAMPLE_PIXELS  # where more would be read, planes are left out
_WHOLE_PLANE_PIXELS = 16_000_000  # larger planes are sampled in blocks instead of being read whole
_BLOCK = 256
_BLOCKS_PER_SIDE = 12

# Between the 5th and the 95th percentile of a normal distribution lie 3.29 standard deviations.
_SD_BETWEEN_PERCENTILES = 3.2897


@dataclass(frozen=True)
class IntensityScaling:
    """The linear map ``(value - zero) / unit``.

    Parameters
    ----------
    zero : float
        Gray value that becomes 0.
    unit : float
        Gray values per unit; positive.
    """

    zero: float
    unit: float

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Scale gray values; the result is float32."""
        # In float64 first where 32 bits could not tell neighboring gray values apart.
        if values.dtype.itemsize > 2 and values.dtype != np.float32:
            return ((values.astype(np.float64) - self.zero) / self.unit).astype(np.float32)
        result = values.astype(np.float32)
        result -= np.float32(self.zero)
        result *= np.float32(1 / self.unit)
        return result

    def invert(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return gray values from scaled ones, float32."""
        return (np.asarray(values, np.float32) * np.float32(self.unit) + np.float32(self.zero)).astype(
            np.float32
        )


def sample_channel(image: Image, channel: int) -> NDArray[np.float64]:
    """Return gray values of one channel, evenly spaced over all times, z planes, rows and columns.

    Parameters
    ----------
    image : Image
        The image; only what is sampled is read.
    channel : int
        Index of the channel.

    Returns
    -------
    ndarray
        One-dimensional, float64, about `SAMPLE_PIXELS` values at most. It depends on the image's shape and
        content alone.

    Raises
    ------
    LinceiError
        When a value is NaN or infinite.
    """
    regions = _regions(image, channel)
    pixels = sum(_extent(region["Y"]) * _extent(region["X"]) for region in regions)
    step = max(1, math.ceil(math.sqrt(pixels / SAMPLE_PIXELS)))
    parts = [image.read(region)[..., ::step, ::step].reshape(-1) for region in regions]
    values = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(values).all():
        raise not_finite(image, channel)
    return values


def not_finite(image: Image, channel: int) -> LinceiError:
    """Return the error for NaN or infinite pixels."""
    return LinceiError(
        f"channel {channel} has pixels that are no numbers (NaN or infinite)",
        image.source or image.name,
        "Replace them by numbers, such as the background value, and try again.",
    )


def _regions(image: Image, channel: int) -> list[dict[str, slice]]:
    """Return what is read: whole planes, or of very large planes a grid of blocks."""
    t, _, z, y, x = image.shape
    place = slice(channel, channel + 1)
    if y * x > _WHOLE_PLANE_PIXELS:
        rows, columns = (_blocks(size) for size in (y, x))
    else:
        rows, columns = [slice(0, y)], [slice(0, x)]
    planes = [(i, j) for i in range(t) for j in range(z)]
    per_plane = sum(map(_extent, rows)) * sum(map(_extent, columns))
    # With hundreds of planes, some of them say as much as all.
    planes = planes[:: max(1, len(planes) * per_plane // _READ_PIXELS)]
    return [
        {"T": slice(i, i + 1), "C": place, "Z": slice(j, j + 1), "Y": row, "X": column}
        for i, j in planes
        for row in rows
        for column in columns
    ]


def _extent(part: slice) -> int:
    return int(part.stop - part.start)


def _blocks(size: int) -> list[slice]:
    """Return blocks at the centers of equal parts, so that borders count no more than the rest."""
    part = size / _BLOCKS_PER_SIDE
    if part <= _BLOCK:
        return [slice(0, size)]
    starts = [int((number + 0.5) * part - _BLOCK / 2) for number in range(_BLOCKS_PER_SIDE)]
    return [slice(start, start + _BLOCK) for start in starts]


def standard_scaling(image: Image, channel: int = 0) -> IntensityScaling:
    """Return the scaling of a transmitted-light channel: median to 0, one (robust) standard deviation to 1.

    Raises
    ------
    LinceiError
        When the channel is constant or has pixels that are no numbers.
    """
    low, middle, high = np.percentile(sample_channel(image, channel), [5, 50, 95])
    if not high > low:
        raise constant_image(image, channel)
    return IntensityScaling(float(middle), float(high - low) / _SD_BETWEEN_PERCENTILES)


def percentile_scaling(*images: Image, background: float, bright: float) -> IntensityScaling:
    """Return the scaling of a fluorescence label: one percentile to 0, another to 1.

    Parameters
    ----------
    *images : Image
        The stained image, of one channel; of several, all are scaled alike by the percentiles of all.
    background, bright : float
        Percentiles, 0 to 100.

    Raises
    ------
    LinceiError
        When the percentiles have one value, or pixels are no numbers.
    """
    values = np.concatenate([sample_channel(image, 0) for image in images])
    low, high = np.percentile(values, [background, bright])
    if not high > low:
        raise constant_image(images[0], 0)
    return IntensityScaling(float(low), float(high - low))


def constant_image(image: Image, channel: int) -> LinceiError:
    """Return the error for an image in which nothing is to be seen."""
    return LinceiError(
        f"channel {channel} has (nearly) the same value everywhere, so there is nothing to see in it",
        image.source or image.name,
        "Check that the shutter was open and that this is the right channel.",
    )
