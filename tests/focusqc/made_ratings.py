"""Ratings that are made up: of given levels and certainties, for what draws and lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from focusqc.patches import patch_grid
from focusqc.rating import FocusRating, PlaneRating

SIZE_PX = (168, 252)


def distribution(level: float, spread: float) -> npt.NDArray[np.float32]:
    """Return probabilities with their peak at a level; a spread of 0.2 is sure, one of 100 tells nothing."""
    p = np.exp(-(((np.arange(11) - level) / spread) ** 2))
    return (p / p.sum()).astype(np.float32)


def made_plane(
    levels: npt.ArrayLike,
    spread: npt.ArrayLike = 1.0,
    *,
    size_px: tuple[int, int] = SIZE_PX,
    tile_count: Sequence[int] | None = None,
    notes: tuple[str, ...] = (),
    **which: Any,
) -> PlaneRating:
    """Return the rating of a plane; levels and spreads are numbers or of shape (rows, columns)."""
    grid = patch_grid(*size_px, tile_count)
    shape = (len(grid.y), len(grid.x))
    levels, spreads = np.broadcast_to(levels, shape), np.broadcast_to(spread, shape)
    probabilities = np.array(
        [
            [distribution(level, spread) for level, spread in zip(*rows, strict=True)]
            for rows in zip(levels, spreads, strict=True)
        ]
    )
    patch_px = (min(84, size_px[0]), min(84, size_px[1]))
    place = {"time": 0, "channel": 0, "z": 0, "channel_name": "0", **which}
    return PlaneRating(
        **place, y=grid.y, x=grid.x, patch_px=patch_px, probabilities=probabilities, notes=notes
    )


def made_rating(
    file: str, *planes: PlaneRating, size_px: tuple[int, int] = SIZE_PX, **more: Any
) -> FocusRating:
    """Return the rating of an image."""
    return FocusRating(file.rpartition("/")[2], file, planes, size_px, **more)
