"""Pixel size: bringing an image to a model's scale, and results back to the image's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.formats.lazy import ArrayLike5D, LazyArray

# Scales closer than this are taken as equal: a stage micrometer is not more exact.
SAME_SCALE = 0.02


def zoom_factor(pixel_size_um: float | None, wanted_um: float | None) -> float:
    """Return by how much an image is enlarged so that its pixels have the size ``wanted_um``.

    1 when either is unknown, or when they are the same to 2 %.

    Examples
    --------
    >>> zoom_factor(0.65, 0.325)
    2.0
    >>> zoom_factor(None, 0.325)
    1.0
    """
    if pixel_size_um is None or wanted_um is None:
        return 1.0
    factor = pixel_size_um / wanted_um
    return 1.0 if abs(factor - 1) <= SAME_SCALE else factor


def resampled_size(size: int, factor: float) -> int:
    """Return the number of pixels after enlarging ``size`` pixels by ``factor``; at least 1."""
    return max(1, round(size * factor))


def resampled(array: NDArray[Any], factor: float, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Enlarge or reduce an array along its first two axes.

    Linear interpolation; when reducing, the triangle that weighs the pixels is as much wider, so that nothing
    is aliased.

    Parameters
    ----------
    array : ndarray
        Shape (Y, X, ...).
    factor : float
        Above 1 enlarges.
    size : tuple of int, optional
        Y and X of the result; `resampled_size` by default.

    Returns
    -------
    ndarray
        float32.
    """
    height, width = size or (resampled_size(n, factor) for n in array.shape[:2])
    result = np.asarray(array, np.float32)
    if factor == 1 and result.shape[:2] == (height, width):
        return result
    result = _along_first(_weights(factor, range(height), range(len(result)), len(result)), result)
    result = np.swapaxes(result, 0, 1)
    return np.swapaxes(
        _along_first(_weights(factor, range(width), range(len(result)), len(result)), result), 0, 1
    )


class ResampledArray(LazyArray):
    """A five-axis array at another pixel size, computed where it is read.

    A pixel's value depends on its place alone, not on the region that is read, so that tiles join.

    Parameters
    ----------
    source : array-like
        Shape (T, C, Z, Y, X).
    factor : float
        Above 1 enlarges.
    size : tuple of int, optional
        Y and X of the result; `resampled_size` by default.
    """

    def __init__(self, source: ArrayLike5D, factor: float, size: tuple[int, int] | None = None) -> None:
        self._source, self._factor = source, factor
        height, width = size or (resampled_size(n, factor) for n in source.shape[3:])
        super().__init__((*source.shape[:3], height, width), np.float32)

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        ranges = [range(part.start, part.stop) for part in box[3:]]
        sizes = self._source.shape[3:]
        wanted = [_source_range(r, self._factor, n) for r, n in zip(ranges, sizes, strict=True)]
        parts = [slice(r.start, r.stop) for r in wanted]
        pixels = np.asarray(self._source[(*box[:3], *parts)])
        along_y, along_x = (
            _weights(self._factor, r, source, n) for r, source, n in zip(ranges, wanted, sizes, strict=True)
        )
        result = np.empty((*pixels.shape[:3], len(ranges[0]), len(ranges[1])), np.float32)
        # Plane by plane: of all at once, several copies as float32 would be held.
        for plane in np.ndindex(*pixels.shape[:3]):
            columns = _along_first(along_y, np.asarray(pixels[plane], np.float32)).T
            result[plane] = _along_first(along_x, columns).T
        return result


def _source_range(wanted: range, factor: float, size: int) -> range:
    """Return the source pixels that a range of result pixels is made of."""
    reach = max(1.0, 1 / factor)
    first = int(np.floor((wanted.start + 0.5) / factor - 0.5 - reach))
    last = int(np.ceil((wanted.stop - 0.5) / factor - 0.5 + reach))
    first = min(max(first, 0), size - 1)
    return range(first, max(min(last + 1, size), first + 1))


def _weights(factor: float, wanted: range, source: range, size: int) -> Any:
    """Return the sparse matrix that makes the pixels ``wanted`` of those in ``source``, ``size`` in all."""
    from scipy import sparse

    reach = max(1.0, 1 / factor)
    centers = np.clip((np.arange(wanted.start, wanted.stop) + 0.5) / factor - 0.5, 0, size - 1)
    first = np.floor(centers - reach).astype(int) + 1
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)))
    weights = np.maximum(0, 1 - np.abs(taps - centers[:, None]) / reach)
    weights[(taps < 0) | (taps >= size)] = 0  # beyond the border there is nothing; the rest adds up to 1
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(wanted)), taps.shape[1])
    columns = np.clip(taps - source.start, 0, len(source) - 1).ravel()
    matrix = sparse.csr_array(
        (weights.ravel().astype(np.float32), (rows, columns)), shape=(len(wanted), len(source))
    )
    matrix.eliminate_zeros()  # 0 times NaN would carry a NaN beyond the pixels that it is part of
    return matrix


def _along_first(weights: Any, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resample the first axis."""
    flat = np.ascontiguousarray(array.reshape(len(array), -1))
    return np.asarray(weights @ flat, np.float32).reshape(weights.shape[0], *array.shape[1:])
