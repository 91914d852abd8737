"""OME-Zarr 0.4 and 0.5 in, 0.5 out; an image that is filled piece by piece."""

from __future__ import annotations

import errno
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from lincei.errors import CancelledError, LinceiError, LinceiWarning
from lincei.formats.ome_zarr import ArraySpec, create_ome_zarr
from lincei.image import Image, open_image, save_image

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 4000, (2, 3, 4, 30, 40)).astype(np.uint16)


def axis(name: str, unit: str | None = None) -> dict[str, str]:
    kind = {"t": "time", "c": "channel"}.get(name, "space")
    return {"name": name, "type": kind} | ({"unit": unit} if unit else {})


def multiscale(axes: list[dict[str, str]], scale: list[float], levels: int = 1) -> dict[str, Any]:
    datasets = []
    for level in range(levels):
        halvings = [2**level if one["name"] in "yx" else 1 for one in axes]
        transform = {"type": "scale", "scale": [s * n for s, n in zip(scale, halvings, strict=True)]}
        datasets.append({"path": str(level), "coordinateTransformations": [transform]})
    return {"version": "0.4", "axes": axes, "datasets": datasets}


@pytest.fixture
def version_04(tmp_path: Path) -> Path:
    """Write an OME-Zarr 0.4 with the axes c, z, y, x, two levels and sizes in nm."""
    path = tmp_path / "old.ome.zarr"
    group = zarr.create_group(path, zarr_format=2)
    axes = [axis("c"), axis("z", "nanometer"), axis("y", "nanometer"), axis("x", "nanometer")]
    for level in range(2):
        pixels = PIXELS[0, ..., :: 2**level, :: 2**level]
        group.create_array(str(level), data=pixels, chunks=(1, 1, 16, 16))
    group.attrs["multiscales"] = [multiscale(axes, [1.0, 500.0, 65.0, 65.0], 2)]
    window = {"start": 0, "end": 4000, "min": 0, "max": 65535}
    group.attrs["omero"] = {
        "channels": [
            {"label": name, "color": color, "window": window, "active": True}
            for name, color in (("DAPI", "0000FF"), ("MAP2", "00FF00"), ("NFH", "FF0000"))
        ]
    }
    return path


def check_old(image: Image) -> None:
    assert image.shape == (1, 3, 4, 30, 40)
    np.testing.assert_array_equal(image.read(), PIXELS[:1])
    np.testing.assert_array_equal(image.read({"C": slice(1, 2), "Y": slice(3, 20)}), PIXELS[:1, 1:2, :, 3:20])
    assert (image.pixel_size_um, image.z_step_um, image.time_step_s) == (0.065, 0.5, None)
    assert image.channel_names == ("DAPI", "MAP2", "NFH")
    assert image.channel_colors == ("#0000FF", "#00FF00", "#FF0000")
    assert [level.shape[3:] for level in image.levels] == [(15, 20)]
    assert image.levels[0].pixel_size_um == pytest.approx(0.130)


def test_version_04_opens_with_its_axes_sizes_channels_and_levels(version_04: Path) -> None:
    image = open_image(version_04)
    check_old(image)
    assert image.name == "old"


def test_an_ome_zarr_in_a_zip_file_opens(version_04: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.ome.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(version_04.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(version_04).as_posix())
    check_old(open_image(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LinceiError, match="damaged or cut short"):
        open_image(path)


def test_a_folder_of_one_plane_and_no_units_has_no_pixel_size(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", data=PIXELS[0, 0, 0])
    group.attrs["multiscales"] = [multiscale([axis("y"), axis("x")], [1.0, 1.0])]
    image = open_image(tmp_path / "a.zarr")
    assert image.shape == (1, 1, 1, 30, 40)
    assert image.pixel_size_um is None


def test_incomplete_rendering_hints_do_not_keep_an_image_from_opening(version_04: Path) -> None:
    group = zarr.open_group(version_04, mode="a")
    group.attrs["omero"] = {"channels": [{"label": "DAPI"}]}
    image = open_image(version_04)
    assert image.channel_names == ()
    np.testing.assert_array_equal(image.read(), PIXELS[:1])


def test_images_that_a_converter_numbered_are_scenes(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for number in range(2):
        group = root.create_group(str(number))
        group.create_array("0", data=PIXELS[number, 0, 0])
        group.attrs["multiscales"] = [multiscale([axis("y"), axis("x")], [1.0, 1.0])]
    second = open_image(tmp_path / "a.zarr", scene=1)
    np.testing.assert_array_equal(second.read()[0, 0, 0], PIXELS[1, 0, 0])
    with pytest.warns(LinceiWarning, match="holds 2 images"):
        open_image(tmp_path / "a.zarr")


def test_a_plate_asks_for_a_field(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "plate.zarr", zarr_format=2)
    root.attrs["plate"] = {
        "version": "0.4",
        "rows": [{"name": "A"}],
        "columns": [{"name": "1"}],
        "wells": [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}],
    }
    with pytest.raises(LinceiError, match="is a plate of many fields"):
        open_image(tmp_path / "plate.zarr")


@pytest.mark.parametrize(
    "content",
    [
        '{"zarr_format": 3, "node_type"',
        '{"zarr_format": 3, "node_type": "group", "attributes": {}}',
        '{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5"}}}',
    ],
)
def test_broken_metadata_are_told_in_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr" / "zarr.json").write_text(content, encoding="utf-8")
    with pytest.raises(LinceiError) as error:
        open_image(tmp_path / "a.ome.zarr")
    assert "\n" not in str(error.value)


def test_a_folder_named_zarr_without_metadata_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(LinceiError, match="no OME-Zarr"):
        open_image(tmp_path / "a.ome.zarr")


# Writing


def test_what_is_saved_is_valid_version_05_with_a_pyramid_of_means(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:1100, :1301]
    pixels = ((rows * 3 + columns) % 4001).astype(np.float32)[None, None, None]
    image = Image(
        pixels,
        pixel_size_um=0.5,
        channel_names=("DAPI",),
        channel_colors=("#0000FF",),
        provenance={"model": "motor-neurons"},
    )
    path = save_image(image, tmp_path / "a.ome.zarr")
    yaozarrs.validate_zarr_store(path)
    attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    assert attributes["ome"]["version"] == "0.5"
    assert attributes["lincei"] == {"model": "motor-neurons"}
    assert attributes["ome"]["omero"]["channels"][0]["color"] == "0000FF"
    second = attributes["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert second[0]["scale"][3:] == [1.0, 1.0]
    assert second[1]["translation"][3:] == [0.25, 0.25]
    back = open_image(path)
    assert [level.shape[3:] for level in back.levels] == [(550, 651), (275, 326)]
    assert [level.pixel_size_um for level in back.levels] == [1.0, 2.0]
    expected = pixels[0, 0, 0, :, :1300].reshape(550, 2, 650, 2).mean((1, 3))
    np.testing.assert_allclose(back.levels[0].read()[0, 0, 0, :, :650], expected, rtol=1e-6)
    np.testing.assert_allclose(
        back.levels[0].read()[0, 0, 0, :, 650], pixels[0, 0, 0, :, 1300].reshape(550, 2).mean(1)
    )


@pytest.fixture
def template() -> Image:
    spec = ArraySpec((1, 2, 1, 1100, 700), np.float32)
    return Image(spec, channel_names=("DAPI", "MAP2"), pixel_size_um=0.3, modality="fluorescence")


def test_tiles_written_by_threads_become_an_image_when_finished(tmp_path: Path, template: Image) -> None:
    path = tmp_path / "out" / "a.ome.zarr"
    pixels = RNG.random((1, 2, 1, 1100, 700), np.float32)
    with create_ome_zarr(path, template, provenance={"model": "m"}) as writer:
        assert not path.exists()

        def write(top: int) -> None:
            writer.array[:, :, :, top : top + 512] = pixels[:, :, :, top : top + 512]

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(write, (0, 512, 1024)))
    yaozarrs.validate_zarr_store(path)
    image = open_image(path)
    np.testing.assert_array_equal(image.read(), pixels)
    assert image.channel_names == ("DAPI", "MAP2")
    assert image.pixel_size_um == 0.3
    assert image.modality == "fluorescence"
    assert image.provenance == {"model": "m"}
    assert len(image.levels) == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["a.ome.zarr"]


@pytest.mark.parametrize("error", [CancelledError(), ValueError("a bug"), LinceiError("the network failed")])
def test_a_block_that_raises_leaves_nothing_and_what_was_there(
    tmp_path: Path, template: Image, error: Exception
) -> None:
    save_image(Image(PIXELS), tmp_path / "a.ome.zarr")

    def interrupted() -> None:
        with create_ome_zarr(tmp_path / "a.ome.zarr", template) as writer:
            writer.array[0, 0, 0, :512, :512] = 1
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]
    np.testing.assert_array_equal(open_image(tmp_path / "a.ome.zarr").read(), PIXELS)


def test_a_full_disk_while_a_tile_is_written_is_a_sentence(tmp_path: Path, template: Image) -> None:
    with (
        pytest.raises(LinceiError, match="no space is left"),
        create_ome_zarr(tmp_path / "a.ome.zarr", template),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_the_pyramid_is_built_leaves_nothing(
    tmp_path: Path, template: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = create_ome_zarr(tmp_path / "a.ome.zarr", template)
    writer.array[...] = 1

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", refuse)
    with pytest.raises(LinceiError, match="no space is left"):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_cancelling_while_the_pyramid_is_built_leaves_nothing(tmp_path: Path, template: Image) -> None:
    writer = create_ome_zarr(tmp_path / "a.ome.zarr", template)
    with pytest.raises(CancelledError):
        writer.finish(cancelled=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_a_template_has_no_pixels_to_read(template: Image) -> None:
    with pytest.raises(TypeError, match="still to be written"):
        template.read()


def test_an_ome_zarr_is_not_replaced_by_what_is_made_from_it(tmp_path: Path) -> None:
    path = save_image(Image(PIXELS), tmp_path / "a.ome.zarr")
    image = open_image(path)
    with pytest.raises(LinceiError, match="would be replaced by what is made from it"):
        create_ome_zarr(path, image)
    np.testing.assert_array_equal(image.read(), PIXELS)


@pytest.mark.parametrize(
    ("pieces", "chunks"),
    [
        (None, (512, 512)),
        ((1008, 656), (504, 328)),
        ((1100, 700), (512, 512)),  # a single piece shares its chunks with none
        ((2048, 64), (512, 64)),
        ((1024, 368), (512, 368)),
    ],
)
def test_no_two_pieces_share_a_chunk(
    tmp_path: Path, pieces: tuple[int, int] | None, chunks: tuple[int, int]
) -> None:
    spec = ArraySpec((1, 2, 1, 1100, 700), np.float32, pieces)
    writer = create_ome_zarr(tmp_path / "a.ome.zarr", Image(spec))
    assert writer.array.chunks == (1, 1, 1, *chunks)
    writer.array[...] = 1
    writer.finish()
    yaozarrs.validate_zarr_store(tmp_path / "a.ome.zarr")
    image = open_image(tmp_path / "a.ome.zarr")
    assert [level.shape[3:] for level in image.levels] == [(550, 350), (275, 175)]
    assert all((level.read() == 1).all() for level in image.levels)


def test_a_pyramid_does_not_depend_on_the_chunks(tmp_path: Path) -> None:
    pixels = RNG.random((1, 1, 1, 1301, 1100), np.float32)
    levels = []
    for name, pieces in (("a", None), ("b", (400, 336))):
        template = Image(ArraySpec((1, 1, 1, 1301, 1100), np.float32, pieces))
        with create_ome_zarr(tmp_path / f"{name}.ome.zarr", template) as writer:
            writer.array[...] = pixels
        levels.append(open_image(tmp_path / f"{name}.ome.zarr").levels)
    for one, other in zip(*levels, strict=True):
        np.testing.assert_array_equal(one.read(), other.read())


def test_a_folder_that_was_given_is_gone_on_with_and_stays_when_anything_fails(
    tmp_path: Path, template: Image
) -> None:
    pixels = RNG.random((1, 2, 1, 1100, 700), np.float32)
    path, folder = tmp_path / "a.ome.zarr", tmp_path / "making"

    def stopped(top: int) -> None:
        with create_ome_zarr(path, template, folder=folder) as writer:
            writer.array[:, :, :, top : top + 512] = pixels[:, :, :, top : top + 512]
            raise CancelledError

    for top in (0, 512):
        with pytest.raises(CancelledError):
            stopped(top)
        assert [entry.name for entry in tmp_path.iterdir()] == ["making"]
    # What a kill may leave: a chunk that was being written, a pyramid that was not finished.
    (folder / "0" / "c" / "0" / "0" / "0" / "0" / "1.0123abcd.partial").write_bytes(b"half")
    (folder / "1").mkdir()
    writer = create_ome_zarr(path, template, folder=folder)
    writer.array[:, :, :, 1024:] = pixels[:, :, :, 1024:]
    writer.finish()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]
    np.testing.assert_array_equal(open_image(path).read(), pixels)
    assert not list(path.rglob("*.partial"))
    with create_ome_zarr(tmp_path / "b.ome.zarr", template) as undisturbed:
        undisturbed.array[...] = pixels
    files = [
        {file.relative_to(made): file.read_bytes() for file in made.rglob("*") if file.is_file()}
        for made in (path, tmp_path / "b.ome.zarr")
    ]
    assert files[0] == files[1]


def test_completed_it_waits_for_its_place(tmp_path: Path, template: Image) -> None:
    folder = tmp_path / "making"
    writer = create_ome_zarr(tmp_path / "a.ome.zarr", template, folder=folder)
    writer.array[...] = 1
    writer.complete()
    assert [entry.name for entry in tmp_path.iterdir()] == ["making"]
    assert len(open_image(folder).levels) == 2
