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
# Frames, of the paper too: purple around what was predicted, teal around what was measured.
PREDICTION_FRAME, TRUTH_FRAME = "#9A4CC8", "#00A096"

# The label's scale shown from its background to its bright end; errors and sd up to half of it.
LABEL_LIMITS = (0.0, 1.0)
ERROR_LIMIT = 0.5

_CELL_HEIGHT_PX = 160
_PROGRESS_CELL_PX = 126  # with frames of 3 pixels, three of them are 396 pixels wide
_MARGIN_PX, _TEXT_PX = 4, 13
_FRAME_SHARE, _WIDEST_FRAME_PX = 0.015, 8


def label_panel(plane: Array, color: str) -> RGB:
    """Return a label's plane in its display color, on the label's normalized scale."""
    return color_composite([plane], [visible_color(color)], limits=LABEL_LIMITS)


def framed(picture: RGB, color: str) -> RGB:
    """Return a picture with a frame of ``color`` ("#RRGGBB") around it."""
    width = min(max(3, round(_FRAME_SHARE * max(picture.shape[:2]))), _WIDEST_FRAME_PX)
    height_px, width_px = (side + 2 * width for side in picture.shape[:2])
    result = np.empty((height_px, width_px, 3), np.uint8)
    result[:] = np.frombuffer(bytes.fromhex(color.removeprefix("#")), np.uint8)
    result[width:-width, width:-width] = picture
    return result


def truth_panel(plane: Array, color: str) -> RGB:
    """Return what was stained, as `label_panel` does, in its frame."""
    return framed(label_panel(plane, color), TRUTH_FRAME)


def prediction_panel(plane: Array, color: str) -> RGB:
    """Return what was predicted, as `label_panel` does, in its frame."""
    return framed(label_panel(plane, color), PREDICTION_FRAME)


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
        Shape (Y, X, labels); where the truth is NaN, no error is shown.
    labels, colors : sequence of str
        Names and display colors.

    Returns
    -------
    ndarray
        uint8, shape (height, width, 3): a column per label; rows input, truth (teal frame), prediction
        (purple frame), uncertainty, error (black frame).
    """
    height, width = stack.shape[:2]
    window = np.s_[: min(height, 2 * width), : min(width, 2 * height)]
    step = max(1, round(min(stack[window].shape[:2]) / _CELL_HEIGHT_PX))
    middle = gray_to_rgb(stack[window][::step, ::step, stack.shape[-1] // 2])
    columns = []
    for i, color in enumerate(colors):
        t, m, s = (array[window][::step, ::step, i] for array in (truth, mean, sd))
        plain = [middle, map_to_rgb(s, 0, ERROR_LIMIT), error_panel(m, np.where(np.isfinite(t), t, m))]
        # Black around the error, as in the paper, and around what has no frame: all are of one size.
        seen, unsure, wrong = (framed(picture, "#000000") for picture in plain)
        columns.append([seen, truth_panel(t, color), prediction_panel(m, color), unsure, wrong])
    rows = ("input", "truth", "prediction", "uncertainty (sd)", "error")
    return _grid(columns, [f"{name}: {{}}" for name in labels], rows)


def progress_picture(stack: Array, truth: Array, mean: Array, colors: Sequence[str]) -> RGB:
    """Return a small picture of what a network under training makes of a region that it does not learn from.

    Parameters
    ----------
    stack : ndarray
        Shape (Y, X, planes).
    truth, mean : ndarray
        Shape (Y, X, labels); a truth that is not known is black.
    colors : sequence of str
        Display colors of the labels.

    Returns
    -------
    ndarray
        uint8, shape (height, width, 3), 400 pixels wide at most: a row per label with the input, the truth
        (teal frame) and the prediction (purple frame).
    """
    step = max(1, -(-max(stack.shape[:2]) // _PROGRESS_CELL_PX))
    seen = framed(gray_to_rgb(stack[::step, ::step, stack.shape[-1] // 2]), "#000000")
    rows = []
    for i, color in enumerate(colors):
        t, m = (np.nan_to_num(array[::step, ::step, i]) for array in (truth, mean))
        rows.append(np.hstack([seen, truth_panel(t, color), prediction_panel(m, color)]))
    return np.vstack(rows)


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
