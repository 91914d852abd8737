"""Arrays that read their pixels when they are indexed, always in the order T, C, Z, Y, X."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lincei.errors import LinceiError

Box = tuple[slice, slice, slice, slice, slice]  # start and stop within the array, step 1


class ArrayLike5D(Protocol):
    """Anything with a shape, a dtype and NumPy basic slicing."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> Any: ...  # noqa: D102

    def __getitem__(self, key: Any, /) -> Any: ...


class LazyArray:
    """Base of the lazy arrays: NumPy basic slicing on top of ``_read``, which reads a box.

    Parameters
    ----------
    shape : sequence of int
        Sizes of T, C, Z, Y, X.
    dtype : dtype-like
        Data type of the pixels; stored in native byte order.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        if len(shape) != 5:
            raise ValueError(f"a lazy array has five axes, not {len(shape)}")
        self.shape = tuple(int(size) for size in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")

    @property
    def ndim(self) -> int:
        """Number of axes: always 5."""
        return 5

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        box, strides, dropped = normalized_key(key, self.shape)
        sizes = tuple(part.stop - part.start for part in box)
        array = self._read(box) if all(sizes) else np.empty(sizes, self.dtype)
        array = array[tuple(slice(None, None, stride) for stride in strides)]
        return array.reshape([n for n, drop in zip(array.shape, dropped, strict=True) if not drop])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a lazy array cannot become an ndarray without a copy")
        return np.asarray(self[...], dtype=dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'x'.join(map(str, self.shape))} {self.dtype}>"

    def _read(self, box: Box) -> NDArray[Any]:
        """Return the pixels of ``box``, which is not empty, as a five-dimensional array."""
        raise NotImplementedError


class JoinedArray(LazyArray):
    """Arrays put one after the other along one axis.

    Parameters
    ----------
    parts : sequence of array-like
        Five-dimensional arrays of one dtype whose sizes agree but along ``axis``.
    axis : int
        Position of the axis in TCZYX.
    """

    def __init__(self, parts: Sequence[ArrayLike5D], axis: int) -> None:
        first = parts[0]
        shape = list(first.shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        super().__init__(shape, first.dtype)
        self._parts = list(parts)
        self._axis = axis

    def _read(self, box: Box) -> NDArray[Any]:
        out = np.empty([part.stop - part.start for part in box], self.dtype)
        wanted = box[self._axis]
        begin = 0
        for part in self._parts:
            end = begin + part.shape[self._axis]
            start, stop = max(begin, wanted.start), min(end, wanted.stop)
            if start < stop:
                source, target = list(box), [slice(None)] * 5
                source[self._axis] = slice(start - begin, stop - begin)
                target[self._axis] = slice(start - wanted.start, stop - wanted.start)
                out[tuple(target)] = part[tuple(source)]
            begin = end
        return out


class ReorderedArray(LazyArray):
    """A view of an array whose axes come in another order or are fewer than five.

    Parameters
    ----------
    array : array-like
        Anything with shape, dtype and NumPy basic slicing that returns something ``np.asarray`` takes.
    axes : str
        One letter of TCZYX for each axis of ``array``.
    convert : callable, optional
        Turns what slicing ``array`` returns into an ndarray, ``np.asarray`` when not given.
    """

    def __init__(
        self, array: ArrayLike5D, axes: str, convert: Callable[[Any], NDArray[Any]] = np.asarray
    ) -> None:
        sizes = dict(zip(axes, array.shape, strict=True))
        super().__init__([sizes.get(letter, 1) for letter in "TCZYX"], array.dtype)
        self._array = array
        self._axes = axes
        self._convert = convert

    def _read(self, box: Box) -> NDArray[Any]:
        parts = dict(zip("TCZYX", box, strict=True))
        array = self._convert(self._array[tuple(parts[letter] for letter in self._axes)])
        present = [letter for letter in "TCZYX" if letter in self._axes]
        array = array.transpose([self._axes.index(letter) for letter in present])
        return array.reshape([part.stop - part.start for part in box]).astype(self.dtype, copy=False)


class DecodedArray(LazyArray):
    """A picture that can only be decoded as a whole; decoded when first needed, then cached.

    Parameters
    ----------
    path : Path
        The file; named in errors, and part of the key in the cache.
    shape : sequence of int
        Sizes of T, C, Z, Y, X.
    dtype : dtype-like
        Data type of the pixels.
    decode : callable
        Returns the whole picture, five-dimensional.
    """

    def __init__(
        self, path: Path, shape: Sequence[int], dtype: DTypeLike, decode: Callable[[], NDArray[Any]]
    ) -> None:
        super().__init__(shape, dtype)
        self._key = file_key(path)
        self._path = path
        self._decode = decode

    def _read(self, box: Box) -> NDArray[Any]:
        array = DECODED.get(self._key, self._decode)
        if array.shape != self.shape:
            raise LinceiError("the file has changed since it was opened", str(self._path), "Open it again.")
        return np.array(array[box])


class DecodedCache:
    """Keeps what was decoded last (strips, tiles, pictures), up to a number of bytes, for all threads.

    Prediction reads an image tile by tile; without a cache a plane that was compressed in one piece
    would be decoded again for each tile.

    Parameters
    ----------
    max_bytes : int
        What is used least recently goes when more than this is held.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array under ``key``, decoding it when it is not held; do not write to it."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        array = decode()
        if array.nbytes <= self._max_bytes // 2:
            with self._lock:
                if key not in self._arrays:
                    self._arrays[key] = array
                    self._bytes += array.nbytes
                while self._bytes > self._max_bytes:
                    self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


DECODED = DecodedCache(256 * 2**20)


def file_key(path: Path) -> tuple[str, int, int]:
    """Return what tells one content of a file from another: path, size and time of change."""
    status = path.stat()
    return (str(path.resolve()), status.st_size, status.st_mtime_ns)


def normalized_key(key: Any, shape: tuple[int, ...]) -> tuple[Box, list[int], list[bool]]:
    """Return the box to read, the stride along each axis within it, and which axes an int drops."""
    keys = list(key) if isinstance(key, tuple) else [key]
    ellipses = [i for i, part in enumerate(keys) if part is Ellipsis]
    if len(ellipses) > 1 or len(keys) - len(ellipses) > 5:
        raise IndexError("too many indices for an image with five axes")
    fill = [slice(None)] * (5 - len(keys) + len(ellipses))
    position = ellipses[0] if ellipses else len(keys)
    keys[position : position + 1] = fill
    box, strides, dropped = [], [], []
    for part, size in zip(keys, shape, strict=True):
        if isinstance(part, slice):
            start, stop, stride = part.indices(size)
            if stride < 1:
                raise IndexError("a lazy array is sliced forwards only")
            box.append(slice(start, max(start, stop)))
            strides.append(stride)
            dropped.append(False)
        else:
            try:
                index = part.__index__()
            except AttributeError:
                raise IndexError(f"a lazy array takes ints and slices, not {part!r}") from None
            if not -size <= index < size:
                raise IndexError(f"index {index} is out of range for an axis of size {size}")
            index %= size
            box.append(slice(index, index + 1))
            strides.append(1)
            dropped.append(True)
    return (box[0], box[1], box[2], box[3], box[4]), strides, dropped
