"""The picture of a rating: the image, a border in every patch, and the key to the colors below it.

The hue of a border is the level, from red (0, sharp) over green to blue (10, blurred), as in the ImageJ
plugin that people use; its lightness is the certainty, from nearly black (uncertain) on. Hues and lightness
are those of the OKLab color space, so that borders of the same certainty look equally light at every level.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from focusqc.levels import LEVELS
from focusqc.rating import PlaneRating
from lincei.image import Image, replacing
from lincei.report import gray_to_rgb, oklab_to_srgb, shrunk

RGB = NDArray[np.uint8]

# Longest side of an overlay that is written to a file.
LONGEST_SIDE_PX = 4096

# Colors of the levels at full certainty, in OKLCh: one lightness, and at every hue nearly as much chroma as a
# screen shows at that lightness. The hues are such that neighbors differ equally (13.9 in CIEDE2000).
_LIGHTEST, _DARKEST = 0.66, 0.12
_HUES_DEG = (27.0, 42.6, 64.4, 89.9, 115.1, 137.7, 157.8, 184.1, 211.8, 238.6, 266.0)
_CHROMAS = (0.223, 0.195, 0.147, 0.133, 0.148, 0.2, 0.153, 0.115, 0.113, 0.146, 0.177)

# Values shown black and white in a gray image, and how many pixels they are found from at most.
_PERCENTILES = (0.5, 99.8)
_MOST_SAMPLED = 1_000_000
_BLOCK_PX = 4_000_000

# Borders are this share of the longest side, so that they are still seen when a large image is shown small,
# but no wider than this share of a patch, so that the specimen is seen too.
_BORDER_SHARE, _BORDER_SHARE_OF_PATCH = 1 / 350, 1 / 11
_THINNEST_PX = 3

_STRIP, _INK, _EDGE = (36, 39, 43), (236, 238, 240), (120, 126, 132)
_SMALLEST_TEXT_PX = 9
# In a narrower strip no text can be read.
_NARROWEST_KEY_PX = 40


def level_colors(levels: ArrayLike, certainties: ArrayLike) -> RGB:
    """Return the colors of levels with their certainties.

    Parameters
    ----------
    levels : array_like
        From 0 (red) to 10 (blue), also between whole levels.
    certainties : array_like
        From 0 (nearly black) to 1; of a shape that goes with that of ``levels``.

    Returns
    -------
    ndarray of uint8, shape (..., 3)
        sRGB.
    """
    level, certain = np.broadcast_arrays(np.asarray(levels, float), np.clip(certainties, 0, 1))
    hues, chromas = np.deg2rad(_HUES_DEG), np.array(_CHROMAS)
    table = (np.full(LEVELS, _LIGHTEST), chromas * np.cos(hues), chromas * np.sin(hues))
    lab = np.stack([np.interp(level, np.arange(LEVELS), axis) for axis in table], axis=-1)
    # All three scaled alike is the same light, dimmed: it stays a color that a screen shows.
    lab *= ((_DARKEST + (_LIGHTEST - _DARKEST) * certain) / _LIGHTEST)[..., None]
    colors: RGB = np.round(np.clip(oklab_to_srgb(lab), 0, 1) * 255).astype(np.uint8)
    return colors


def level_color(level: float, certainty: float) -> tuple[int, int, int]:
    """Return the color of a level with its certainty, as red, green and blue from 0 to 255.

    Parameters
    ----------
    level : float
        From 0 (red) to 10 (blue).
    certainty : float
        From 0 (nearly black) to 1.

    Examples
    --------
    >>> level_color(0, 1), level_color(10, 1), level_color(10, 0)
    ((254, 67, 62), (95, 138, 253), (2, 5, 18))
    """
    red, green, blue = level_colors(level, certainty).tolist()
    return red, green, blue


def plane_pixels(image: Image, rating: PlaneRating) -> NDArray[Any]:
    """Read the plane that a rating belongs to.

    Parameters
    ----------
    image : Image
        What was rated.
    rating : PlaneRating
        Names time, channel and z.

    Returns
    -------
    ndarray
        Shape (Y, X), the image's type; of a color image (Y, X, 3), uint8, in its own colors.
    """
    region = {axis: slice(index, index + 1) for axis, index in (("T", rating.time), ("Z", rating.z))}
    if not image.rgb:
        plane: NDArray[Any] = image.read({**region, "C": slice(rating.channel, rating.channel + 1)})[0, 0, 0]
        return plane
    pixels = np.moveaxis(image.read(region)[0, :, 0], 0, -1)
    if pixels.dtype == np.uint8:
        return pixels
    if image.intensity_range is None:
        # Floating point does not say what its white is: 1 or 255 as a rule.
        brightest = float(np.nanmax(pixels, initial=0.0))
        low, high = 0.0, next((white for white in (1.0, 255.0) if brightest <= white), brightest)
    else:
        low, high = image.intensity_range
    scaled = np.nan_to_num((pixels.astype(np.float32) - low) / (high - low))
    color: RGB = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return color


def overlay_rgb(
    pixels: NDArray[Any], rating: PlaneRating, *, key: bool = True, border_px: int | None = None
) -> RGB:
    """Draw a rating on its plane.

    Parameters
    ----------
    pixels : ndarray, shape (Y, X) or (Y, X, 3)
        The plane, as `plane_pixels` reads it. Gray values of any type are shown from black (their percentile
        0.5) to white (99.8); colors are uint8 and shown as they are.
    rating : PlaneRating
        Its rating.
    key : bool
        Add a strip below the image that says what the colors mean, unless the image is narrower than 40
        pixels.
    border_px : int, optional
        Width of the borders, which lie just inside the patches. By default 3 pixels, more in an image of more
        than 1200 pixels, and never more than 1/11 of a patch. Where patches overlap, each is drawn up to
        the middle of the overlap, so that no border hides another.

    Returns
    -------
    ndarray of uint8, shape (Y + key, X, 3)
        As wide as the plane.

    Raises
    ------
    ValueError
        When ``pixels`` is neither a gray plane nor a color one of uint8.
    """
    if pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype != np.uint8):
        raise ValueError(f"a color plane is uint8 of (Y, X, 3), not {pixels.dtype} of {pixels.shape}")
    if pixels.ndim not in (2, 3):
        raise ValueError(f"a plane is of shape (Y, X) or (Y, X, 3), not {pixels.shape}")
    height, width = pixels.shape[:2]
    strip = key_rgb(width) if key else np.empty((0, width, 3), np.uint8)
    picture = np.empty((height + len(strip), width, 3), np.uint8)
    picture[height:] = strip
    if pixels.ndim == 3:
        picture[:height] = pixels
    else:
        _draw_gray(pixels, picture[:height])
    if border_px is None:
        border_px = border_width_px(max(height, width), min(rating.patch_px))
    colors = level_colors(rating.patch_levels, rating.patch_certainties)
    columns = patch_cells(rating.x, rating.patch_px[1], width)
    for row, (top, bottom) in enumerate(patch_cells(rating.y, rating.patch_px[0], height)):
        for column, (left, right) in enumerate(columns):
            # A view, so that a border never leaves its patch, however narrow that is.
            patch, color = picture[top:bottom, left:right], colors[row, column]
            patch[:border_px] = color
            patch[-border_px:] = color
            patch[:, :border_px] = color
            patch[:, -border_px:] = color
    return picture


def write_overlay(path: str | Path, rgb: RGB) -> Path:
    """Write an overlay as PNG; the file appears under its name only when it is complete.

    Parameters
    ----------
    path : str or Path
        Where to; what is there is replaced.
    rgb : ndarray of uint8, shape (Y, X, 3)
        From `overlay_rgb`; written smaller when a side is longer than 4096 pixels.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    LinceiError
        When the file cannot be written.
    """
    from PIL import Image as Picture

    target = Path(path)
    picture = Picture.fromarray(shrunk(rgb, LONGEST_SIDE_PX))
    with replacing(target) as temporary:
        # Twice as fast as the usual level, for files that are hardly larger.
        picture.save(temporary, format="PNG", compress_level=1)
    return target


def key_rgb(width: int) -> RGB:
    """Return the key to the colors, as a strip.

    Parameters
    ----------
    width : int
        Of the strip, in pixels. Narrow strips have more lines.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Of height 0 when the strip is narrower than 40 pixels, where no text can be read.
    """
    if width < _NARROWEST_KEY_PX:
        return np.empty((0, width, 3), np.uint8)
    # In heights of the text: one line, then two, then the levels in two rows of a line of their own.
    for lines, ems in (
        ((("levels", "gap", "ramp"),), 43.0),
        ((("levels",), ("ramp",)), 27.5),
    ):
        text_px = int(width / ems)
        if text_px >= _SMALLEST_TEXT_PX + 1:
            return _drawn_key(width, lines, text_px)
    narrow = (("sharp",), ("levels 0-5",), ("levels 6-10",), ("blurred",), ("bare ramp",), ("certainty",))
    return _drawn_key(width, narrow, max(_SMALLEST_TEXT_PX, min(12, int(width / 10))))


def _draw_gray(plane: NDArray[Any], target: RGB) -> None:
    """Draw a gray plane block by block, so that a large one is never held as floating point."""
    step = int(np.ceil(np.sqrt(max(1.0, plane.size / _MOST_SAMPLED))))
    sample = np.asarray(plane[::step, ::step], np.float64)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, _PERCENTILES) if sample.size else (0.0, 1.0)
    rows = max(1, _BLOCK_PX // plane.shape[1])
    for first in range(0, len(plane), rows):
        block = slice(first, first + rows)
        target[block] = gray_to_rgb(plane[block], limits=(float(low), float(high)))


def border_width_px(longest_px: int, patch_px: int) -> int:
    """Return how wide borders are drawn on an image of this longest side, with patches of this size."""
    widest = max(1, int(patch_px * _BORDER_SHARE_OF_PATCH))
    return min(max(_THINNEST_PX, round(longest_px * _BORDER_SHARE)), widest)


def patch_cells(starts: Sequence[int], patch_px: int, size: int) -> list[tuple[int, int]]:
    """Return where patches begin and end when those that overlap are cut in the middle of the overlap."""
    ends = [min(start + patch_px, size) for start in starts]
    cells = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first = max(start, (start + ends[i - 1] + 1) // 2) if i else start
        last = min(end, (starts[i + 1] + end + 1) // 2) if i + 1 < len(starts) else end
        cells.append((first, last))
    return cells


def _drawn_key(width: int, lines: Sequence[Sequence[str]], text_px: int) -> RGB:
    """Draw the lines of the key below one another, their parts side by side."""
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    line_px, margin = round(1.9 * text_px), max(2, round(0.5 * text_px))
    spacing = max(1, round(0.25 * text_px))
    height = 2 * margin + len(lines) * line_px + (len(lines) - 1) * spacing
    picture = Picture.new("RGB", (width, height), _STRIP)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=text_px)

    def word(text: str, x: float, middle: float, anchor: str) -> float:
        draw.text((x, middle), text, font=font, fill=_INK, anchor=anchor)
        return draw.textlength(text, font=font)

    def swatches(levels: Sequence[int], left: float, right: float, top: int) -> None:
        edges = np.linspace(left, right, len(levels) + 1).round().astype(int)
        for level, x0, x1 in zip(levels, edges[:-1], edges[1:], strict=True):
            draw.rectangle((x0, top, x1 - 1, top + line_px - 1), fill=level_color(level, 1.0))
            center = ((x0 + x1) / 2, top + line_px / 2)
            draw.text(center, str(level), font=font, fill="black", anchor="mm")

    def ramp(left: float, right: float, top: int) -> None:
        # In three hues, since it means the same in all.
        x0, x1 = round(left), round(right)
        certainties = np.linspace(0, 1, max(2, x1 - x0 - 2))
        hues = np.repeat([0, LEVELS // 2, LEVELS - 1], -(-(line_px - 2) // 3))[: line_px - 2]
        draw.rectangle((x0, top, x1 - 1, top + line_px - 1), fill=_EDGE)
        picture.paste(Picture.fromarray(level_colors(hues[:, None], certainties)), (x0 + 1, top + 1))

    gap = 0.5 * text_px
    for number, parts in enumerate(lines):
        top = margin + number * (line_px + spacing)
        middle, left, right = top + line_px / 2, float(margin), float(width - margin)
        if parts == ("levels", "gap", "ramp"):
            split = margin + 0.6 * (width - 2 * margin)
            spans = {"levels": (left, split - 1.5 * text_px), "ramp": (split, right)}
        else:
            spans = dict.fromkeys(parts, (left, right))
        for part, (begin, end) in spans.items():
            if part in ("levels", "ramp"):
                words = ("sharp", "blurred") if part == "levels" else ("uncertain", "certain")
                begin += word(words[0], begin, middle, "lm") + gap
                end -= word(words[1], end, middle, "rm") + gap
            if part == "levels":
                swatches(range(LEVELS), begin, end, top)
            elif part == "levels 0-5":
                swatches(range(6), begin, end, top)
            elif part == "levels 6-10":
                swatches(range(6, LEVELS), begin, end, top)
            elif part in ("ramp", "bare ramp"):
                ramp(begin, end, top)
            elif part == "sharp":
                word("sharp", begin, middle, "lm")
            elif part == "blurred":
                word("blurred", end, middle, "rm")
            elif part == "certainty":
                word("uncertain", begin, middle, "lm")
                word("certain", end, middle, "rm")
    return np.asarray(picture).copy()
