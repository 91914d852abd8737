"""Pictures that set prediction, uncertainty and error beside the truth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.report import color_composite, gray_to_rgb, map_to_rgb

Array = NDArray[np.floating[Any]]
RGB = NDArray[np.uint8]

# Of the paper: orange is light predicted where there is none, blue is light that was missed.
FALSE_POSITIVE = np.array([255, 140, 0])
FALSE_NEGATIVE = np.array([60, 120, 255])

# The label's scale shown from its background to its bright end; errors and sd up to half of it.
LABEL_LIMITS = (0.0, 1.0)
ERROR_LIMIT = 0.5

_CELL_HEIGHT_PX = 160
_MARGIN_PX, _TEXT_PX = 4, 13


def label_panel(plane: Array, color: str) -> RGB:
    """Return a label's plane in its display color, on the label's normalized scale."""
    return color_composite([plane], [visible_color(color)], limits=LABEL_LIMITS)


def visible_color(color: str) -> str:
    """Return a color that is seen on black: pure blue, which is nearly as dark, becomes a lighter one."""
    return "#4C7DFF" if color.upper() == "#0000FF" else color


def error_panel(prediction: Array, truth: Array) -> RGB:
    """Return the difference: black none, orange predicted but not there, blue there but not predicted."""
    error = np.clip((np.asarray(prediction) - truth) / ERROR_LIMIT, -1, 1)[..., None]
    return np.where(error > 0, error * FALSE_POSITIVE, -error * FALSE_NEGATIVE).round().astype(np.uint8)


def held_out_picture(
    stack: Array, truth: Array, mean: Array, sd: Array, labels: Sequence[str], colors: Sequence[str]
) -> RGB:
    """Return one picture of a part that was not trained on.

    Parameters
    ----------
    stack : ndarray
        Shape (Y, X, planes).
    truth, mean, sd : ndarray
        Shape (Y, X, labels); NaN truth is left out.
    labels, colors : sequence of str
        Names and display colors.

    Returns
    -------
    ndarray
        uint8, shape (height, width, 3): a column per label; rows input, truth, prediction, uncertainty,
        error.
    """
    height, width = stack.shape[:2]
    window = np.s_[: min(height, 2 * width), : min(width, 2 * height)]
    step = max(1, round(min(stack[window].shape[:2]) / _CELL_HEIGHT_PX))
    middle = gray_to_rgb(stack[window][::step, ::step, stack.shape[-1] // 2])
    columns = []
    for i, color in enumerate(colors):
        t, m, s = (array[window][::step, ::step, i] for array in (truth, mean, sd))
        columns.append(
            [
                middle,
                label_panel(t, color),
                label_panel(m, color),
                map_to_rgb(s, 0, ERROR_LIMIT),
                error_panel(m, np.nan_to_num(t)),
            ]
        )
    rows = ("input", "truth", "prediction", "uncertainty (sd)", "error")
    return _grid(columns, [f"{name}: {{}}" for name in labels], rows)


def _grid(columns: Sequence[Sequence[RGB]], titles: Sequence[str], rows: Sequence[str]) -> RGB:
    """Lay panels out with a caption above each."""
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    height, width = columns[0][0].shape[:2]
    line = _TEXT_PX + 5
    canvas = Picture.new(
        "RGB",
        (
            len(columns) * (width + _MARGIN_PX) + _MARGIN_PX,
            len(rows) * (height + line + _MARGIN_PX) + _MARGIN_PX,
        ),
        "white",
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_TEXT_PX)
    for i, (column, title) in enumerate(zip(columns, titles, strict=True)):
        for j, (panel, row) in enumerate(zip(column, rows, strict=True)):
            x = _MARGIN_PX + i * (width + _MARGIN_PX)
            y = _MARGIN_PX + j * (height + line + _MARGIN_PX)
            draw.text((x + 2, y), title.format(row), font=font, fill="black")
            canvas.paste(Picture.fromarray(panel), (x, y + line))
    return np.asarray(canvas)


def png_bytes(picture: RGB) -> bytes:
    """Return a picture as a small PNG file: 256 colors, which panels of few colors do well with."""
    from PIL import Image as Picture

    buffer = io.BytesIO()
    Picture.fromarray(picture).quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
