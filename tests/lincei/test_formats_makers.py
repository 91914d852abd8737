"""Makers' formats through bioio.

A real czi is written with pylibCZIrw, which the reader of czi brings along. No Python package writes nd2
or lif: their readers are replaced by one that answers as bioio's do, so these tests hold how lincei uses
bioio and not how bioio reads the files of Nikon and Leica.
"""

from __future__ import annotations

import sys
import types
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lincei.errors import LinceiError, LinceiWarning
from lincei.image import open_image

RNG = np.random.default_rng(9)
PIXELS = RNG.integers(0, 4000, (2, 2, 3, 50, 60)).astype(np.uint16)


@pytest.fixture
def czi(tmp_path: Path) -> Path:
    pylibczi = pytest.importorskip("pylibCZIrw.czi", reason="pip install 'lincei[formats]' to test czi")
    path = tmp_path / "neurons.czi"
    with pylibczi.create_czi(str(path)) as document:
        for t, c, z in np.ndindex(*PIXELS.shape[:3]):
            document.write(PIXELS[t, c, z][..., None], plane={"T": t, "C": c, "Z": z})
        document.write_metadata(
            "neurons",
            channel_names={0: "DAPI", 1: "phase"},
            scale_x=0.5e-6,
            scale_y=0.5e-6,
            scale_z=2e-6,
        )
    return path


def test_czi_opens_with_pixels_sizes_and_channel_names(czi: Path) -> None:
    image = open_image(czi)
    assert image.name == "neurons"
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.read(), PIXELS)
    region = {"C": slice(1, 2), "Z": slice(1, 2), "Y": slice(3, 9)}
    np.testing.assert_array_equal(image.read(region), PIXELS[:, 1:2, 1:2, 3:9])
    assert (image.pixel_size_um, image.z_step_um) == pytest.approx((0.5, 2.0))
    assert image.channel_names == ("DAPI", "phase")


class FakeReader:
    """Answers as a bioio reader does."""

    scenes: tuple[str, ...] = ("first", "second")
    order = "TCZYX"
    array = PIXELS
    channel_names: list[str] | None = ["DAPI", "MAP2"]  # noqa: RUF012, as bioio gives it
    time_interval: Any = timedelta(seconds=5)

    def __init__(self, path: Path) -> None:
        self.scene = "first"

    def set_scene(self, scene: str) -> None:
        self.scene = scene

    @property
    def dims(self) -> Any:
        return types.SimpleNamespace(order=self.order)

    @property
    def physical_pixel_sizes(self) -> Any:
        return types.SimpleNamespace(X=0.65, Y=0.65, Z=None)

    @property
    def dask_data(self) -> Any:
        import dask.array

        return dask.array.from_array(self.array + (self.scene == "second"), chunks=16)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> type[FakeReader]:
    class Reader(FakeReader):
        pass

    for name in ("bioio_nd2", "bioio_lif"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(Reader=Reader))
    return Reader


@pytest.mark.parametrize(
    ("name", "magic"), [("a.nd2", b"\xda\xce\xbe\x0a"), ("a.lif", b"\x70\0\0\0"), ("A.ND2", b"?")]
)
def test_nd2_and_lif_go_through_their_readers(
    tmp_path: Path, reader: type[FakeReader], name: str, magic: bytes
) -> None:
    (tmp_path / name).write_bytes(magic)
    image = open_image(tmp_path / name, scene=1)
    np.testing.assert_array_equal(image.read(), PIXELS + 1)
    assert (image.pixel_size_um, image.z_step_um, image.time_step_s) == (0.65, None, 5.0)
    assert image.channel_names == ("DAPI", "MAP2")
    with pytest.warns(LinceiWarning, match="holds 2 images"):
        image = open_image(tmp_path / name)
    np.testing.assert_array_equal(image.read({"Z": slice(1, 2)}), PIXELS[:, :, 1:2])


def test_rgb_in_a_makers_file_is_rgb(
    tmp_path: Path, reader: type[FakeReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    color = RNG.integers(0, 255, (1, 1, 1, 20, 30, 3)).astype(np.uint8)
    monkeypatch.setattr(reader, "array", color)
    monkeypatch.setattr(reader, "order", "TCZYXS")
    monkeypatch.setattr(reader, "scenes", ("only",))
    (tmp_path / "a.nd2").write_bytes(b"\xda\xce\xbe\x0a")
    image = open_image(tmp_path / "a.nd2")
    assert image.rgb
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(color[0, 0, 0], 2, 0))


def test_an_axis_that_is_not_an_images_is_refused(
    tmp_path: Path, reader: type[FakeReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "order", "MCZYX")
    monkeypatch.setattr(reader, "scenes", ("only",))
    (tmp_path / "a.lif").write_bytes(b"\x70\0\0\0")
    with pytest.raises(LinceiError, match="axes that are not read: M"):
        open_image(tmp_path / "a.lif")


@pytest.mark.parametrize("suffix", ["nd2", "czi", "lif"])
def test_a_missing_reader_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setitem(sys.modules, f"bioio_{suffix}", None)
    (tmp_path / f"a.{suffix}").write_bytes(b"something")
    with pytest.raises(LinceiError, match=r"pip install 'lincei\[formats\]'"):
        open_image(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nd2", b"\xda\xce\xbe\x0a" + bytes(100)),
        ("a.czi", b"ZISRAWFILE" + bytes(100)),
        ("a.lif", b"\x70\0\0\0" + bytes(100)),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    pytest.importorskip(f"bioio_{name[2:]}", reason="pip install 'lincei[formats]' to test makers' formats")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LinceiError) as error:
        open_image(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_makers_file_without_its_suffix_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"ZISRAWFILE" + bytes(100))
    with pytest.raises(LinceiError, match=r"Give it back its suffix: .nd2, .czi or .lif"):
        open_image(tmp_path / "a.dat")
