"""Drawn sections: pale tissue with dark disks, which the tiny models take for tumor."""

from __future__ import annotations

from typing import Any

import numpy as np

from lincei.image import Image

DISKS = ((300.0, 300.0, 120.0), (700.0, 500.0, 60.0))
SIZE = (700, 900)
GLASS = (243, 243, 244)
# The rule finds nothing in it.
PALE = (225, 190, 215)
PURPLE = (90, 50, 110)


def section(
    size: tuple[int, int] = SIZE,
    disks: tuple[tuple[float, float, float], ...] = DISKS,
    *,
    around: float | None = None,
    **fields: Any,
) -> Image:
    """Return pale tissue with dark disks; only so many pixels around each, and else glass, where stated."""
    y, x = np.mgrid[: size[0], : size[1]]
    colors = np.empty((*size, 3), np.uint8)
    colors[:] = PALE if around is None else GLASS
    for x0, y0, radius in disks:
        if around is not None:
            colors[np.hypot(y - y0, x - x0) <= radius + around] = PALE
        colors[np.hypot(y - y0, x - x0) <= radius] = PURPLE
    return Image.from_array(colors, "YXS", **{"pixel_size_um": 1.0, "name": "section", **fields})
