"""Whole slides through OpenSlide.

An svs as Aperio's scanner writes it is made with tifffile and read by the real OpenSlide. No Python
package writes ndpi, mrxs, scn, bif or vms: OpenSlide reads them behind the same interface.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lincei.errors import LinceiError
from lincei.image import open_image

pytest.importorskip("openslide", reason="pip install 'lincei[formats]' to test whole slides")

ROWS, COLUMNS = np.mgrid[:1000, :1500]
SMOOTH = np.stack([ROWS // 8 + 50, COLUMNS // 8 + 30, (ROWS + COLUMNS) // 16], -1).astype(np.uint8)


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    """Write a slide of two levels with a thumbnail between them, as Aperio orders them."""
    path = tmp_path / "slide.svs"
    about = "Aperio Image Library v11.2.1\r\n1500x1000 [0,0 1500x1000] (240x240) |AppMag = 40|MPP = 0.25"
    tiles = {"tile": (240, 240), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(SMOOTH, description=about, **tiles)
        thumbnail = "Aperio Image Library v11.2.1\r\n1500x1000 -> 300x200 - |AppMag = 40|MPP = 0.25"
        writer.write(SMOOTH[::5, ::5], description=thumbnail, photometric="rgb", metadata=None)
        writer.write(SMOOTH[::4, ::4], description=about, **tiles)
    return path


def test_a_slide_is_rgb_with_levels_and_the_scanners_pixel_size(svs: Path) -> None:
    image = open_image(svs)
    assert image.rgb
    assert image.name == "slide"
    assert image.shape == (1, 3, 1, 1000, 1500)
    assert image.pixel_size_um == 0.25
    assert [level.shape for level in image.levels] == [(1, 3, 1, 250, 375)]
    assert image.levels[0].pixel_size_um == pytest.approx(1.0)
    assert open_image(svs, level=1).shape == (1, 3, 1, 250, 375)


def test_a_region_of_a_slide_is_read_from_where_it_lies(svs: Path) -> None:
    image = open_image(svs)
    region = image.read({"Y": slice(300, 420), "X": slice(700, 900)})[0, :, 0]
    expected = np.moveaxis(SMOOTH[300:420, 700:900], 2, 0)
    assert np.abs(region.astype(int) - expected).max() <= 6
    green = image.read({"C": slice(1, 2), "Y": slice(300, 420), "X": slice(700, 900)})
    np.testing.assert_array_equal(green[0, 0, 0], region[1])
    coarse = image.levels[0].read({"Y": slice(75, 105), "X": slice(175, 225)})[0, :, 0]
    assert np.abs(coarse.astype(int) - np.moveaxis(SMOOTH[300:420:4, 700:900:4], 2, 0)).max() <= 6


def test_threads_read_one_slide_at_once(svs: Path) -> None:
    image = open_image(svs)
    whole = image.read()

    def agrees(top: int) -> bool:
        part = image.read({"Y": slice(top, top + 50), "X": slice(100, 300)})
        return bool((part == whole[..., top : top + 50, 100:300]).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(agrees, range(0, 900, 30)))


def test_a_damaged_slide_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(LinceiError, match="OpenSlide cannot read it"):
        open_image(tmp_path / "a.svs")


def test_a_missing_openslide_names_the_extra(svs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(LinceiError, match=r"pip install 'lincei\[formats\]'"):
        open_image(svs)
