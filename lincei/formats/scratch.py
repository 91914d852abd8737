"""Pixels kept in a plain file until it is their turn to be saved."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lincei.formats.lazy import Box, LazyArray, normalized_key


class ScratchArray(LazyArray):
    """An array in an open file, written and read by NumPy slicing, uncompressed.

    The file is not mapped into memory: a full disk is then an error and not the end of the program, and
    what was written does not count as the program's memory.

    Parameters
    ----------
    file : BufferedRandom
        Open for reading and writing; made as long as the array is. Pixels not written yet are those that
        the file holds, or 0. Close it when the array is no longer needed.
    shape : sequence of int
        Sizes of T, C, Z, Y, X.
    dtype : dtype-like
        Data type of the pixels.
    """

    def __init__(self, file: BufferedRandom, shape: Sequence[int], dtype: DTypeLike) -> None:
        super().__init__(shape, dtype)
        self._file = file
        self._lock = threading.Lock()
        file.truncate(int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize)

    def __setitem__(self, key: Any, values: Any) -> None:
        box, strides, _ = normalized_key(key, self.shape)
        if any(stride != 1 for stride in strides):
            raise IndexError("a scratch array is written without steps")
        pixels = np.broadcast_to(np.asarray(values, self.dtype), [part.stop - part.start for part in box])
        with self._lock:
            for offset, part in self._runs(box):
                self._file.seek(offset)
                self._file.write(np.ascontiguousarray(pixels[part]).data)
            # Handed to the system here: what is noted as written must outlive this process.
            self._file.flush()

    def _read(self, box: Box) -> NDArray[Any]:
        out = np.zeros([part.stop - part.start for part in box], self.dtype)
        with self._lock:
            for offset, part in self._runs(box):
                self._file.seek(offset)
                self._file.readinto(out[part].data)
        return out

    def _runs(self, box: Box) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield the byte offset of each run of a box that lies in the file in one piece, and its part."""
        height, width = self.shape[3:]
        top, left = box[3].start, box[4].start
        rows = box[3].stop - top
        whole = box[4].stop - left == width
        for index in np.ndindex(*[part.stop - part.start for part in box[:3]]):
            at = [part.start + i for part, i in zip(box, index, strict=False)]
            plane = int(np.ravel_multi_index(at, self.shape[:3])) * height
            if whole:
                yield (plane + top) * width * self.dtype.itemsize, index
                continue
            for row in range(rows):
                yield ((plane + top + row) * width + left) * self.dtype.itemsize, (*index, row)
