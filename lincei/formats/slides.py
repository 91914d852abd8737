"""Whole-slide pyramids through OpenSlide: RGB, read region by region."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError
from lincei.formats.lazy import Box, LazyArray
from lincei.image import Image, readable_errors, refuse_scene, stem

ROWS_AT_ONCE = 4096


def open_slide(path: Path, scene: int | None) -> Image:
    """Open a whole slide with its levels; see `lincei.image.open_image`."""
    try:
        import openslide
    except ImportError as error:
        raise LinceiError(
            "whole slides need the package openslide, which is not installed",
            str(path),
            "Install it with: pip install 'lincei[formats]'.",
        ) from error
    refuse_scene(scene, 1, path)
    try:
        slide = openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise LinceiError(
            f"OpenSlide cannot read it, it is damaged or of an unknown variety ({error})",
            str(path),
            "Copy it, with the folder beside it if it has one, again from the scanner.",
        ) from error
    with slide:
        sizes, downsamples = slide.level_dimensions, slide.level_downsamples
        pixel_size = _pixel_size_um(slide.properties)
        background = _background(slide.properties)
    handle = _Slide(path)
    images = [
        Image(
            SlideArray(handle, level, size, downsample, background),
            name=stem(path),
            source=str(path),
            pixel_size_um=None if pixel_size is None else pixel_size * downsample,
            rgb=True,
        )
        for level, (size, downsample) in enumerate(zip(sizes, downsamples, strict=True))
    ]
    return images[0].with_(levels=tuple(images[1:]))


class _Slide:
    """Opens a slide for the reads under way and closes it when none is left; threads share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._slide: Any = None
        self._users = 0

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Give the open slide, which OpenSlide lets several threads read at once."""
        import openslide

        with self._lock:
            if self._slide is None:
                self._slide = openslide.OpenSlide(self.path)
            self._users += 1
            slide = self._slide
        try:
            yield slide
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    slide.close()
                    self._slide = None


class SlideArray(LazyArray):
    """One level of a slide as an array of shape (1, 3, 1, Y, X) and type uint8.

    Parameters
    ----------
    handle : _Slide
        The slide.
    level : int
        Number of the level, 0 being the finest.
    size : tuple of int
        Width and height of the level in pixels.
    downsample : float
        How many pixels of the finest level one of this level is wide.
    background : tuple of int
        Red, green, blue where the scanner took no picture.
    """

    def __init__(
        self,
        handle: _Slide,
        level: int,
        size: tuple[int, int],
        downsample: float,
        background: tuple[int, int, int],
    ) -> None:
        super().__init__((1, 3, 1, size[1], size[0]), np.uint8)
        self._handle, self._level, self._downsample = handle, level, downsample
        self._background = np.array(background, np.uint8)

    def _read(self, box: Box) -> NDArray[Any]:
        _, channels, _, rows, columns = box
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        with readable_errors(self._handle.path), self._handle.opened() as slide:
            # Read in bands: OpenSlide hands out RGBA, a third more than what is kept.
            for top in range(rows.start, rows.stop, ROWS_AT_ONCE):
                bottom = min(top + ROWS_AT_ONCE, rows.stop)
                corner = (round(columns.start * self._downsample), round(top * self._downsample))
                region = slide.read_region(corner, self._level, (out.shape[1], bottom - top))
                rgba = np.asarray(region)
                band = out[top - rows.start : bottom - rows.start]
                band[...] = rgba[..., :3]
                band[rgba[..., 3] == 0] = self._background
        return np.moveaxis(out, 2, 0)[np.newaxis, channels, np.newaxis]


def _pixel_size_um(properties: Mapping[str, str]) -> float | None:
    """Return the pixel size that the scanner states."""
    for key in ("openslide.mpp-x", "openslide.mpp-y", "aperio.MPP"):
        try:
            size = float(properties[key])
        except (KeyError, ValueError):
            continue
        if size > 0:
            return size
    return None


def _background(properties: Mapping[str, str]) -> tuple[int, int, int]:
    """Return the color of glass that was not scanned, white unless the slide states another."""
    color = properties.get("openslide.background-color", "FFFFFF")
    return (int(color[:2], 16), int(color[2:4], 16), int(color[4:6], 16))
