"""Tiles with halos that join without a seam, read, computed and written at the same time.

Tile origins and sizes are multiples of the network's total stride and the halo covers all that the network
sees, so that the result is the same however the image is cut. Measured: an origin off the stride changes the
result by as much as the signal.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image, and the larger one that a network computes for it.

    Parameters
    ----------
    rows, columns : slice
        The tile within the image.
    height, width : int
        What is computed: multiples of the stride, more than the tile at the far borders.
    """

    rows: slice
    columns: slice
    height: int
    width: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """The part of a computed (height, width) result that lies within the image."""
        return (
            slice(0, self.rows.stop - self.rows.start),
            slice(0, self.columns.stop - self.columns.start),
        )


def plan_tiles(height: int, width: int, tile_px: int, stride: int) -> list[Tile]:
    """Cover an image with tiles of one size, row by row.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.
    tile_px : int
        Largest side of a tile; at least one stride is taken.
    stride : int
        Total stride of the network.

    Returns
    -------
    list of Tile
        All of the same computed size, so that an engine compiles the network once.

    Examples
    --------
    >>> [(t.rows.start, t.columns.start, t.width) for t in plan_tiles(100, 100, 64, 16)]
    [(0, 0, 64), (0, 64, 64), (64, 0, 64), (64, 64, 64)]
    """
    sides = [_side(size, tile_px, stride) for size in (height, width)]
    return [
        Tile(slice(y, min(y + sides[0], height)), slice(x, min(x + sides[1], width)), *sides)
        for y in range(0, height, sides[0])
        for x in range(0, width, sides[1])
    ]


def _side(size: int, tile_px: int, stride: int) -> int:
    """Return the side that covers ``size`` with as few tiles as possible, of sizes as equal as possible."""
    largest = max(stride, tile_px // stride * stride)
    count = -(-size // largest)
    return -(-size // (count * stride)) * stride


def mirrored(index: NDArray[np.integer], size: int) -> NDArray[np.integer]:
    """Return the pixel that stands for each index when the image is mirrored at its borders, endlessly.

    Examples
    --------
    >>> mirrored(np.arange(-2, 5), 3)
    array([2, 1, 0, 1, 2, 1, 0])
    """
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.where(index >= size, period - index, index)


def read_tile(image: Image, tile: Tile, halo: int, *, t: int = 0, channel: int = 0) -> NDArray[Any]:
    """Read a tile with its halo; beyond the image's borders it is mirrored.

    Parameters
    ----------
    image : Image
        The image.
    tile : Tile
        One of `plan_tiles`.
    halo : int
        Pixels around it.
    t, channel : int
        Time point and channel.

    Returns
    -------
    ndarray
        Shape (Z, tile.height + 2 halo, tile.width + 2 halo), the image's data type.
    """
    wanted = [
        mirrored(np.arange(part.start - halo, part.start + side + halo), size)
        for part, side, size in (
            (tile.rows, tile.height, image.shape[3]),
            (tile.columns, tile.width, image.shape[4]),
        )
    ]
    boxes = [slice(int(index.min()), int(index.max()) + 1) for index in wanted]
    region = {"T": slice(t, t + 1), "C": slice(channel, channel + 1), "Y": boxes[0], "X": boxes[1]}
    pixels = image.read(region)[0, 0]
    for axis, (index, box) in enumerate(zip(wanted, boxes, strict=True), start=1):
        if not np.array_equal(index, np.arange(box.start, box.stop)):
            pixels = np.take(pixels, index - box.start, axis=axis)
    return pixels


@dataclass(frozen=True)
class TileTimes:
    """Where the time went while tiles were run, in s.

    Parameters
    ----------
    computing_s : float
        Computing.
    waiting_to_read_s, waiting_to_write_s : float
        Nothing was computed, because the next item was not read, or an earlier one not written.
    """

    computing_s: float
    waiting_to_read_s: float
    waiting_to_write_s: float


def run_tiles(
    items: Sequence[Any],
    read: Callable[[Any], Any],
    compute: Callable[[Any, Any], ResultT],
    write: Callable[[Any, ResultT], None],
    *,
    stage: str,
    ahead: int = 1,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> TileTimes:
    """Run ``write(item, compute(item, read(item)))`` over all items, the three at the same time.

    A few items are read ahead and one is written behind, so that memory stays flat.

    Parameters
    ----------
    items : sequence
        Tiles, or what names them.
    read, compute, write : callable
        ``read`` and ``write`` run in threads of their own, ``compute`` here. Items are computed and written
        in their order; with ``ahead`` above 1, several are read at the same time.
    stage : str
        Named in the progress.
    ahead : int
        How many items are read ahead, each by a thread of its own.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    TileTimes
        How long computing took, and how long it waited.

    Raises
    ------
    Exception
        The first that any of the three raises; the rest is not begun.
    """
    computing = waiting_to_read = waiting_to_write = 0.0
    with ThreadPoolExecutor(ahead) as reader, ThreadPoolExecutor(1) as writer:
        left = iter(items)
        pending = deque(reader.submit(read, item) for item in itertools.islice(left, ahead))
        behind: Future[None] | None = None
        try:
            for number, item in enumerate(items):
                stop_if_cancelled(cancelled)
                started = time.perf_counter()
                pixels = pending.popleft().result()
                pending.extend(reader.submit(read, after) for after in itertools.islice(left, 1))
                was_read = time.perf_counter()
                result = compute(item, pixels)
                del pixels  # not held while the next item is waited for
                computed = time.perf_counter()
                if behind is not None:
                    behind.result()
                behind = writer.submit(write, item, result)
                del result
                waiting_to_read += was_read - started
                computing += computed - was_read
                waiting_to_write += time.perf_counter() - computed
                report(progress, Progress(stage, number + 1, len(items)))
            computed = time.perf_counter()
            if behind is not None:
                behind.result()
            waiting_to_write += time.perf_counter() - computed
        finally:
            reader.shutdown(cancel_futures=True)
    return TileTimes(computing, waiting_to_read, waiting_to_write)
