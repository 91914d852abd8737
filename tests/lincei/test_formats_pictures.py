"""PNG and JPEG of the kinds that microscopes and viewers write."""

from __future__ import annotations

import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from lincei.errors import LinceiError, LinceiWarning
from lincei.image import open_image

RNG = np.random.default_rng(7)
GRAY = RNG.integers(0, 255, (33, 47)).astype(np.uint8)
COLOR = RNG.integers(0, 255, (33, 47, 3)).astype(np.uint8)
OPAQUE = np.full((33, 47), 255, np.uint8)


def png(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    return path


@pytest.mark.parametrize("pixels", [GRAY, GRAY.astype(np.uint16) * 257 + 3], ids=["8 bits", "16 bits"])
def test_a_gray_png_keeps_its_bits(tmp_path: Path, pixels: np.ndarray) -> None:
    image = open_image(png(tmp_path / "a.png", pixels))
    assert image.shape == (1, 1, 1, 33, 47)
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image.read()[0, 0, 0], pixels)
    np.testing.assert_array_equal(image.read({"X": slice(3, 9)})[0, 0, 0], pixels[:, 3:9])


@pytest.mark.parametrize("pixels", [COLOR, COLOR.astype(np.uint16) * 257 + 3], ids=["8 bits", "16 bits"])
def test_an_rgb_png_keeps_its_bits(tmp_path: Path, pixels: np.ndarray) -> None:
    image = open_image(png(tmp_path / "a.png", pixels))
    assert image.rgb
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(pixels, 2, 0))


@pytest.mark.parametrize("pixels", [GRAY[..., None], COLOR], ids=["gray", "rgb"])
def test_alpha_is_dropped_with_a_warning_unless_everything_is_opaque(
    tmp_path: Path, pixels: np.ndarray
) -> None:
    opaque = png(tmp_path / "opaque.png", np.dstack([pixels, OPAQUE]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = open_image(opaque)
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(pixels, 2, 0))
    with pytest.warns(LinceiWarning, match="transparency"):
        image = open_image(png(tmp_path / "clear.png", np.dstack([pixels, GRAY])))
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(pixels, 2, 0))


def test_jpeg_opens_gray_and_rgb(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(33), np.arange(47)).astype(np.uint8) + 50
    (tmp_path / "gray.jpg").write_bytes(imagecodecs.jpeg8_encode(smooth, level=95))
    (tmp_path / "rgb.jpeg").write_bytes(imagecodecs.jpeg8_encode(np.dstack([smooth] * 3), level=95))
    for name, channels in (("gray.jpg", 1), ("rgb.jpeg", 3)):
        image = open_image(tmp_path / name)
        assert image.shape == (1, channels, 1, 33, 47)
        assert image.rgb == (channels == 3)
        assert np.abs(image.read()[0, 0, 0].astype(int) - smooth).max() <= 4


def test_a_palette_png_is_refused(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.png_encode(GRAY))
    data[25] = 3  # the color type in the header
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(LinceiError, match="palette"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("keep", [5, 40, -20])
def test_a_picture_that_is_cut_short_is_refused(tmp_path: Path, name: str, keep: int) -> None:
    data = imagecodecs.png_encode(COLOR) if name == "a.png" else imagecodecs.jpeg8_encode(COLOR)
    (tmp_path / name).write_bytes(data[:keep])
    with pytest.raises(LinceiError) as error:
        open_image(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_png_damaged_inside_is_refused_when_read(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.png_encode(COLOR))
    data[200:260] = bytes(60)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(LinceiError, match="damaged"):
        open_image(tmp_path / "a.png").read()


def test_a_jpeg_of_four_inks_is_refused(tmp_path: Path) -> None:
    inks = np.dstack([COLOR, GRAY])
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(inks, colorspace="CMYK", outcolorspace="CMYK"))
    with pytest.raises(LinceiError, match="4 components"):
        open_image(tmp_path / "a.jpg")


def test_a_picture_that_changes_after_it_was_opened_is_not_mixed_up(tmp_path: Path) -> None:
    image = open_image(png(tmp_path / "a.png", GRAY))
    png(tmp_path / "a.png", GRAY[:20])
    with pytest.raises(LinceiError, match="has changed since it was opened"):
        image.read()
