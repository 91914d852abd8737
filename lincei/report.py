"""Self-contained HTML pages: pictures, tables and notes in one file that opens anywhere, offline too.

Pictures are RGB arrays of uint8, shape (Y, X, 3); `gray_to_rgb`, `color_composite` and `map_to_rgb` make
them from measurements. A page embeds them as PNG and never asks the network for anything.
"""

from __future__ import annotations

import base64
import functools
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lincei import __version__

RGB = npt.NDArray[np.uint8]

# Wide enough for a figure that fills the page on a sharp screen; larger only makes the file slow to open.
LONGEST_SIDE_PX = 1024


@dataclass(frozen=True)
class ColorScale:
    """What the colors of `map_to_rgb` stand for: the values at both ends and what they measure."""

    low: float
    high: float
    label: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Parameters
    ----------
    image_rgb : ndarray of uint8, shape (Y, X, 3)
        The picture; shown smaller when a side is longer than 1024 pixels.
    caption : str
        What one sees; shown below.
    alt : str
        The same for somebody who does not see it; read aloud by screen readers. The caption by default.
    pixel_size_um : float, optional
        Draws a scale bar; none is drawn where the pixel size is unknown.
    color_scale : ColorScale, optional
        Shown as a legend below the picture.
    movie : bytes
        An animated WebP, shown in the picture's place.

    Raises
    ------
    ValueError
        When ``image_rgb`` is no RGB picture of uint8, or there is neither caption nor alternative text.
    """

    image_rgb: RGB
    caption: str
    alt: str = ""
    pixel_size_um: float | None = None
    color_scale: ColorScale | None = None
    movie: bytes = b""

    def __post_init__(self) -> None:
        image = self.image_rgb
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"a figure needs uint8 of shape (Y, X, 3), not {image.dtype} of {image.shape}")
        if not (self.caption or self.alt):
            raise ValueError("a figure needs a caption or an alternative text")


@dataclass(frozen=True)
class Table:
    """A table; numbers are right-aligned, floats shown with three significant digits."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row has {len(row)} cells and the header {len(self.header)}: {row}")


@dataclass(frozen=True)
class Section:
    """A part of a page: paragraphs, a grid of figures, tables, then notes (each in a box).

    Parameters
    ----------
    title : str
        Its heading.
    text : tuple of str
        Paragraphs, plain text.
    figures : tuple of Figure
        Shown as a grid.
    tables : tuple of Table
        Shown below the figures.
    notes : tuple of str
        Cautions and limits that the reader should not miss.
    columns : int
        Figures in a row on a wide screen; 0 fits as many as there is room for.
    """

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    columns: int = 0


@dataclass(frozen=True)
class Page:
    """A whole page.

    Parameters
    ----------
    title, lead : str
        Its heading and the sentence below it.
    sections : tuple of Section
        Its content; from three sections on there is a list of them at the top.
    versions : mapping of str to str
        Named in the footer, beside those of lincei and Python.
    """

    title: str
    lead: str = ""
    sections: tuple[Section, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def render_page(page: Page) -> str:
    """Return ``page`` as HTML that needs no other file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lincei", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _figure_uri
    environment.filters["cell"] = _cell
    environment.tests["numeric"] = lambda value: isinstance(value, (int, float))
    stops = _sequential_table()[:: len(_sequential_table()) // 15]
    return environment.get_template("page.html").render(
        page=page,
        versions={"lincei": __version__, "Python": platform.python_version(), **page.versions},
        gradient=", ".join("#{:02x}{:02x}{:02x}".format(*stop) for stop in stops),
    )


def write_page(page: Page, path: str | Path) -> Path:
    """Write ``page`` to ``path``; the file appears there only when it is complete.

    Returns
    -------
    Path
        ``path``.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render_page(page), encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def gray_to_rgb(
    plane: npt.ArrayLike,
    *,
    limits: tuple[float, float] | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> RGB:
    """Return a plane as a gray picture.

    Parameters
    ----------
    plane : array_like, shape (Y, X)
        Intensities of any type; NaN is shown black.
    limits : (float, float), optional
        The values shown black and white; by default the plane's ``percentiles``.
    percentiles : (float, float)
        Used when there are no limits.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
    """
    gray = _to_unit(plane, limits, percentiles)
    return np.repeat(np.round(gray * 255).astype(np.uint8)[..., None], 3, axis=2)


def color_composite(
    planes: Sequence[npt.ArrayLike],
    colors: Sequence[str],
    *,
    limits: tuple[float, float] | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> RGB:
    """Return several labels in one picture, each in its color, added up as light is.

    Parameters
    ----------
    planes : sequence of array_like, shape (Y, X)
        One per label.
    colors : sequence of str
        ``"#RRGGBB"``, one per label.
    limits, percentiles : (float, float)
        As in `gray_to_rgb`, for each plane.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)

    Raises
    ------
    ValueError
        When there are not as many colors as planes, or none.
    """
    if len(planes) != len(colors) or not planes:
        raise ValueError(f"{len(planes)} planes need as many colors, not {len(colors)}")
    light = sum(
        _to_unit(plane, limits, percentiles)[..., None] * _rgb_of(color)
        for plane, color in zip(planes, colors, strict=True)
    )
    return np.round(np.clip(light, 0, 1) * 255).astype(np.uint8)


def map_to_rgb(values: npt.ArrayLike, low: float, high: float) -> RGB:
    """Return values in a sequential, perceptually uniform color map (dark violet to pale yellow).

    Equal differences of value look equally large, and the lightness rises all the way, so that it reads
    in gray and with any color vision. Made for uncertainties and errors.

    Parameters
    ----------
    values : array_like, shape (Y, X)
        What to show; NaN is shown as middle gray.
    low, high : float
        Values at the dark and at the light end; give both to the figure's `ColorScale`.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
    """
    array = np.asarray(values, dtype=np.float64)
    table = _sequential_table()
    position = _to_unit(array, (low, high), (0, 100)) * (len(table) - 1)
    rgb = table[np.round(position).astype(np.intp)]
    rgb[np.isnan(array)] = 128
    return rgb


def shrunk(rgb: RGB, longest_side_px: int) -> RGB:
    """Return a picture of which no side is longer than ``longest_side_px``; pixels are averaged."""
    from PIL import Image as Picture

    height, width = rgb.shape[:2]
    scale = longest_side_px / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Picture.fromarray(rgb).resize(size, Picture.Resampling.BOX))


def scale_bar(image_rgb: RGB, pixel_size_um: float | None) -> RGB:
    """Return a copy of a picture with a scale bar in its lower right corner.

    The bar has a round length (1, 2 or 5 times a power of ten) of about a fifth of the picture's width.
    Without a pixel size, and on a picture too small to hold a bar, the picture comes back as it is.

    Parameters
    ----------
    image_rgb : ndarray of uint8, shape (Y, X, 3)
        The picture.
    pixel_size_um : float or None
        Size of its pixels.
    """
    height_px, width_px = image_rgb.shape[:2]
    if pixel_size_um is None or width_px < 48 or height_px < 32:
        return image_rgb.copy()
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    length_um = _round_length(width_px * pixel_size_um / 5)
    length_px = max(1, round(length_um / pixel_size_um))
    font_px = max(10, round(min(width_px, height_px) / 20))
    margin_px, thick_px = max(4, font_px // 2), max(2, font_px // 5)
    picture = Picture.fromarray(image_rgb)
    draw = ImageDraw.Draw(picture)
    right, bottom = width_px - margin_px, height_px - margin_px
    left, top = right - length_px, bottom - thick_px
    edge_px = max(1, thick_px // 3)  # black around white: readable on any background
    draw.rectangle((left - edge_px, top - edge_px, right - 1 + edge_px, bottom - 1 + edge_px), fill="black")
    draw.rectangle((left, top, right - 1, bottom - 1), fill="white")
    text, font = _length_text(length_um), ImageFont.load_default(size=font_px)
    half_px = draw.textlength(text, font=font) / 2
    draw.text(
        (min((left + right) / 2, right - half_px), top - edge_px - font_px // 4),  # never cut off at the edge
        text,
        font=font,
        anchor="ms",
        fill="white",
        stroke_width=edge_px,
        stroke_fill="black",
    )
    return np.asarray(picture).copy()


def _to_unit(
    plane: npt.ArrayLike, limits: tuple[float, float] | None, percentiles: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return a plane scaled to 0..1, NaN as 0."""
    array = np.asarray(plane, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"a picture is made of one plane (Y, X), not of shape {array.shape}")
    if limits is None:
        finite = array[np.isfinite(array)]
        limits = tuple(np.percentile(finite, percentiles)) if finite.size else (0.0, 1.0)
    low, high = limits
    span = high - low if high > low else 1.0
    return np.clip(np.nan_to_num((array - low) / span, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)


def _rgb_of(color: str) -> npt.NDArray[np.float64]:
    """Return ``"#RRGGBB"`` as three numbers from 0 to 1."""
    digits = color.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"a color is written #RRGGBB, not {color!r}")
    return np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])


@functools.cache
def _sequential_table() -> RGB:
    """Return 256 colors from dark violet to pale yellow in equal steps of the OKLab color space.

    A path of rising lightness whose hue turns from violet through red to yellow, measured and divided
    evenly in OKLab, where equal distances look equal (B. Ottosson, "A perceptual color space for image
    processing", 2020).
    """
    along = np.linspace(0.0, 1.0, 2048)
    lightness = 0.14 + 0.82 * along
    hue = np.deg2rad(285.0 + 180.0 * along)
    chroma = 0.175 * np.sin(np.pi * (0.12 + 0.74 * along)) ** 0.8
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0.0, travelled[-1], 256)
    lab = np.stack([np.interp(even, travelled, lab[:, i]) for i in range(3)], axis=1)
    table: RGB = np.round(np.clip(oklab_to_srgb(lab), 0, 1) * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def oklab_to_srgb(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert OKLab to sRGB (Ottosson 2020; IEC 61966-2-1 for the gamma).

    Parameters
    ----------
    lab : ndarray, shape (..., 3)
        Lightness from 0 to 1, a and b.

    Returns
    -------
    ndarray of float64, shape (..., 3)
        0 to 1; above 1 for colors that no screen shows.
    """
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0, None)
    srgb: npt.NDArray[np.float64] = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return srgb


def _round_length(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above ``length``."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(factor for factor in (1, 2, 5) if factor * power <= length * (1 + 1e-9)) * power


def _length_text(length_um: float) -> str:
    """Return a length with its unit; micrometers are "um", since the drawing font has no Greek mu."""
    if length_um >= 1000:
        return f"{length_um / 1000:g} mm"
    return f"{length_um:g} um" if length_um >= 1 else f"{length_um * 1000:g} nm"


def _figure_uri(figure: Figure) -> str:
    """Return a figure's picture, with its scale bar, as the address that embeds it."""
    import imageio.v3

    if figure.movie:
        return f"data:image/webp;base64,{base64.b64encode(figure.movie).decode('ascii')}"
    image, pixel_size_um = shrunk(figure.image_rgb, LONGEST_SIDE_PX), figure.pixel_size_um
    if pixel_size_um is not None:
        pixel_size_um *= figure.image_rgb.shape[1] / image.shape[1]
    encoded = imageio.v3.imwrite("<bytes>", scale_bar(image, pixel_size_um), extension=".png")
    return f"data:image/png;base64,{base64.b64encode(encoded).decode('ascii')}"


def _cell(value: Any) -> str:
    """Return a table cell's text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
