"""TIFF in the varieties that microscopes and programs write, and what lincei writes."""

from __future__ import annotations

import logging
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile

from lincei.errors import LinceiError, LinceiWarning
from lincei.formats import tiff
from lincei.formats.lazy import DECODED
from lincei.image import Image, open_image, save_image

RNG = np.random.default_rng(3)
STACK = RNG.integers(0, 4000, (5, 33, 47)).astype(np.uint16)
COLOR = RNG.integers(0, 255, (33, 47, 3)).astype(np.uint8)
HYPERSTACK = RNG.integers(0, 255, (2, 3, 4, 33, 47)).astype(np.uint8)  # T, Z, C, Y, X
REGION = {"Y": slice(5, 20), "X": slice(13, 41)}


def check(path: Path, expected: np.ndarray) -> Image:
    """Open ``path`` and compare the whole and a region of it."""
    image = open_image(path)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image.read(), expected)
    np.testing.assert_array_equal(image.read(REGION), expected[..., 5:20, 13:41])
    return image


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"rowsperstrip": 7},
        {"tile": (16, 32)},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "rowsperstrip": 7},
        {"compression": "zlib", "tile": (16, 32), "predictor": True},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "packbits"},
        {"compression": "zstd", "tile": (32, 16)},
    ],
    ids=str,
)
def test_pages_are_planes_of_a_stack_however_they_are_stored(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", **options)
    image = check(tmp_path / "a.tif", STACK[None, None])
    assert not image.rgb
    np.testing.assert_array_equal(image.read({"Z": slice(2, 4)}), STACK[None, None, 2:4])


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float32, np.float64, np.float16])
def test_pixel_types_are_kept(tmp_path: Path, dtype: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK.astype(dtype), photometric="minisblack")
    check(tmp_path / "a.tif", STACK[None, None].astype(dtype))


def test_one_bit_masks_become_zeros_and_ones(tmp_path: Path) -> None:
    mask = STACK[0] > 2000
    tifffile.imwrite(tmp_path / "a.tif", mask, compression="zlib")
    check(tmp_path / "a.tif", mask[None, None, None].astype(np.uint8))


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (COLOR, {}),
        (COLOR, {"tile": (16, 16), "compression": "zlib", "predictor": True}),
        (np.moveaxis(COLOR, 2, 0), {"planarconfig": "separate"}),
        (np.moveaxis(COLOR, 2, 0), {"planarconfig": "separate", "tile": (16, 16), "compression": "zlib"}),
        (np.moveaxis(COLOR, 2, 0), {"planarconfig": "separate", "rowsperstrip": 5, "compression": "lzw"}),
    ],
    ids=str,
)
def test_rgb_is_three_channels_however_it_is_stored(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **options)
    image = check(tmp_path / "a.tif", np.moveaxis(COLOR, 2, 0)[None, :, None])
    assert image.rgb
    green = image.read({"C": slice(1, 2)})
    np.testing.assert_array_equal(green[0, 0, 0], COLOR[..., 1])


def test_jpeg_tiles_are_decoded(tmp_path: Path) -> None:
    smooth = np.full((64, 64, 3), (180, 90, 140), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, photometric="rgb", compression="jpeg", tile=(16, 16))
    image = open_image(tmp_path / "a.tif")
    assert image.rgb
    assert np.abs(image.read()[0, :, 0].astype(int) - np.moveaxis(smooth, 2, 0)).max() <= 3


def test_an_opaque_alpha_channel_is_dropped_and_a_transparent_one_with_a_warning(tmp_path: Path) -> None:
    expected = np.moveaxis(COLOR, 2, 0)[None, :, None]
    for name, alpha in (("opaque", np.full((33, 47), 255, np.uint8)), ("clear", COLOR[..., 0])):
        pixels = np.dstack([COLOR, alpha])
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    check(tmp_path / "opaque.tif", expected)
    with pytest.warns(LinceiWarning, match="transparency"):
        check(tmp_path / "clear.tif", expected)


def test_a_palette_is_refused(tmp_path: Path) -> None:
    colormap = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", COLOR[..., 0], photometric="palette", colormap=colormap)
    with pytest.raises(LinceiError, match="palette, whose numbers are not intensities"):
        open_image(tmp_path / "a.tif")


def test_axes_that_nobody_states_are_not_guessed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 33, 47), np.uint8), photometric="minisblack")
    with pytest.raises(LinceiError, match="arranged 5 x 6, and it does not say along which axes"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 20000), "CENTIMETER", 0.5),
        ((101600, 101600), "INCH", 0.25),
        ((300, 300), "INCH", None),
        ((1, 1), "NONE", None),
    ],
)
def test_the_resolution_of_a_plain_tiff_is_a_pixel_size_unless_it_is_a_printers(
    tmp_path: Path, resolution: tuple[int, int], unit: str, expected: float | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=resolution, resolutionunit=unit)
    assert open_image(tmp_path / "a.tif").pixel_size_um == expected


# ImageJ


@pytest.mark.parametrize(
    ("unit", "pixel", "spacing", "expected"),
    [
        ("micron", 0.65, 2.0, (0.65, 2.0)),
        ("um", 0.65, 2.0, (0.65, 2.0)),
        ("\\u00B5m", 0.65, 2.0, (0.65, 2.0)),
        ("nm", 65.0, 300.0, (0.065, 0.3)),
        ("pixel", 1.0, 1.0, (None, None)),
    ],
)
def test_an_imagej_hyperstack_states_axes_and_sizes(
    tmp_path: Path, unit: str, pixel: float, spacing: float, expected: tuple[float | None, float | None]
) -> None:
    metadata = {"axes": "TZCYX", "unit": unit, "spacing": spacing, "finterval": 4.0}
    resolution = (1 / pixel, 1 / pixel)
    tifffile.imwrite(tmp_path / "a.tif", HYPERSTACK, imagej=True, resolution=resolution, metadata=metadata)
    image = check(tmp_path / "a.tif", HYPERSTACK.transpose(0, 2, 1, 3, 4))
    assert (image.pixel_size_um, image.z_step_um) == pytest.approx(expected)
    assert image.time_step_s == 4.0


def test_slice_labels_name_the_channels_when_they_agree(tmp_path: Path) -> None:
    names = ["DAPI", "MAP2", "NFH", "phase"]
    for name, labels in (("same", names * 6), ("differ", [f"{n}{i}" for i in range(6) for n in names])):
        metadata = {"axes": "TZCYX", "Labels": labels}
        tifffile.imwrite(tmp_path / f"{name}.tif", HYPERSTACK, imagej=True, metadata=metadata)
    assert open_image(tmp_path / "same.tif").channel_names == tuple(names)
    assert open_image(tmp_path / "differ.tif").channel_names == ()


def test_what_is_saved_for_imagej_is_what_imagej_reads(tmp_path: Path) -> None:
    image = Image(
        HYPERSTACK.transpose(0, 2, 1, 3, 4)[:, :3].astype(np.float32) / 255,
        pixel_size_um=0.5,
        z_step_um=2.0,
        channel_names=("DAPI", "MAP2", "NFH"),
        channel_colors=("#0000FF", "#00FF00", "#FF0000"),
        provenance={"model": "motor-neurons"},
    )
    save_image(image, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        stated = tif.imagej_metadata
        assert stated is not None
        assert (stated["channels"], stated["slices"], stated["frames"]) == (3, 3, 2)
        assert stated["mode"] == "composite"
        assert stated["Labels"] == ["DAPI", "MAP2", "NFH"] * 6
        assert "motor-neurons" in stated["Info"]
        assert [tuple(lut[:, 255]) for lut in stated["LUTs"]] == [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
        assert len(stated["Ranges"]) == 6
        assert all(
            low < high for low, high in zip(stated["Ranges"][::2], stated["Ranges"][1::2], strict=True)
        )
        assert stated["unit"] == "um"


@pytest.mark.parametrize(
    ("dtype", "kept"), [(np.float64, np.float32), (np.float16, np.float32), (bool, np.uint8)]
)
def test_types_that_imagej_lacks_become_the_nearest_it_has(tmp_path: Path, dtype: Any, kept: Any) -> None:
    save_image(Image(HYPERSTACK.astype(dtype)), tmp_path / "a.tif")
    assert open_image(tmp_path / "a.tif").dtype == kept


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int64])
def test_types_that_imagej_cannot_hold_are_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(LinceiError, match="ImageJ hyperstack cannot hold"):
        save_image(Image(HYPERSTACK.astype(dtype)), tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_more_than_4_gb_is_not_for_imagej(tmp_path: Path) -> None:
    huge = np.broadcast_to(np.uint8(0), (1, 1, 70, 8192, 8192))
    with pytest.raises(LinceiError, match="at most 4 GB"):
        save_image(Image(huge), tmp_path / "a.tif")


# OME-TIFF


def ome_xml(pixels: str, inner: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="47" SizeY="33" {pixels}>{inner}</Pixels></Image>'
        "</OME>"
    )


def test_ome_tiff_states_axes_sizes_channels_and_contrast(tmp_path: Path) -> None:
    metadata = {
        "axes": "ZCTYX",
        "PhysicalSizeX": 65.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 65.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 0.3,
        "TimeIncrement": 2.0,
        "TimeIncrementUnit": "min",
        "SignificantBits": 12,
        "Channel": {
            "Name": ["a", "b", "c"],
            "Color": [-16776961, 16711935, 65535],
            "ContrastMethod": ["Phase"] * 3,
        },
    }
    pixels = HYPERSTACK.astype(np.uint16)  # here Z, C, T, Y, X
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=metadata, photometric="minisblack")
    image = check(tmp_path / "a.ome.tif", pixels.transpose(2, 1, 0, 3, 4))
    assert (image.pixel_size_um, image.z_step_um, image.time_step_s) == (0.065, 0.3, 120.0)
    assert image.channel_names == ("a", "b", "c")
    assert image.channel_colors == ("#FF0000", "#00FF00", "#0000FF")
    assert image.modality == "phase contrast"
    assert image.intensity_range == (0, 4095)
    assert image.name == "a"


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["Brightfield"] * 2, "bright field"),
        (["DIC"] * 2, "DIC"),
        (["Fluorescence"] * 2, "fluorescence"),
        (["Phase", "Fluorescence"], None),
        (["HoffmanModulation"] * 2, None),
    ],
)
def test_the_contrast_method_is_the_modality_when_channels_agree(
    tmp_path: Path, methods: list[str], expected: str | None
) -> None:
    metadata = {"axes": "CYX", "Channel": {"ContrastMethod": methods}}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[:2], metadata=metadata, photometric="minisblack")
    assert open_image(tmp_path / "a.ome.tif").modality == expected


def test_pixels_that_are_not_square_are_warned_about(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0], metadata=metadata)
    with pytest.warns(LinceiWarning, match="0.5 x 1 um, not square"):
        assert open_image(tmp_path / "a.ome.tif").pixel_size_um == 0.5


@pytest.fixture
def ome_set(tmp_path: Path) -> list[Path]:
    """Write an image of two z planes, each in a file of its own."""
    paths = [tmp_path / f"set_{z}.ome.tif" for z in range(2)]
    inner = '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>' + "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{path.name}">urn:uuid:0000000{z}-0000-0000-0000-000000000000</UUID></TiffData>'
        for z, path in enumerate(paths)
    )
    for z, path in enumerate(paths):
        xml = ome_xml('SizeZ="2" SizeC="1" SizeT="1" DimensionOrder="XYZCT" Type="uint16"', inner)
        xml = xml.replace('2016-06">', f'2016-06" UUID="urn:uuid:0000000{z}-0000-0000-0000-000000000000">', 1)
        tifffile.imwrite(path, STACK[z], description=xml, metadata=None, compression="zlib")
    return paths


def test_a_multi_file_ome_tiff_opens_from_any_of_its_files(ome_set: list[Path]) -> None:
    for path in ome_set:
        check(path, STACK[None, None, :2])
    assert tiff.ome_set(ome_set[0]) == {path.name for path in ome_set}


def test_a_file_missing_from_an_ome_set_is_not_read_as_black(ome_set: list[Path]) -> None:
    ome_set[1].unlink()
    with pytest.raises(LinceiError, match="missing"):
        open_image(ome_set[0])


def test_several_images_in_one_file_are_scenes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for i in range(2):
            writer.write(
                STACK[i], metadata={"axes": "YX", "PhysicalSizeX": i + 1.0, "PhysicalSizeY": i + 1.0}
            )
    second = open_image(tmp_path / "a.ome.tif", scene=1)
    np.testing.assert_array_equal(second.read()[0, 0, 0], STACK[1])
    assert second.pixel_size_um == 2.0
    with pytest.warns(LinceiWarning, match="holds 2 images"):
        first = open_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(first.read()[0, 0, 0], STACK[0])


def test_what_is_saved_is_valid_ome_xml_with_tiles_and_zlib(tmp_path: Path) -> None:
    image = Image(
        HYPERSTACK.transpose(0, 2, 1, 3, 4)[:, :3].astype(np.float32),
        pixel_size_um=0.5,
        z_step_um=2.0,
        time_step_s=3.0,
        channel_names=("DAPI", "MAP2", "NFH"),
        channel_colors=("#0000FF", "#00FF00", "#FF0000"),
        modality="fluorescence",
        provenance={"model": {"name": "motor-neurons"}, "predicted": True},
    )
    save_image(image, tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        xml = tif.ome_metadata
        page = tif.pages.first
        assert (page.tilewidth, page.tilelength) == (256, 256)
        assert page.compression.name == "ADOBE_DEFLATE"
        assert not tif.is_bigtiff
    assert xml is not None
    ome_types.validate_xml(xml)
    ome = ome_types.from_xml(xml)
    pixels = ome.images[0].pixels
    assert pixels.physical_size_x == 0.5
    assert [channel.name for channel in pixels.channels] == ["DAPI", "MAP2", "NFH"]
    assert [channel.color.as_rgb_tuple()[:3] for channel in pixels.channels] == [
        (0, 0, 255), (0, 255, 0), (255, 0, 0)
    ]  # fmt: skip
    maps = {annotation.namespace: annotation for annotation in ome.structured_annotations.map_annotations}
    assert {entry.k: entry.value for entry in maps["lincei/provenance"].value.ms}["predicted"] == "true"


def test_a_pyramid_is_written_as_levels_of_half_the_size(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:1031, :1500]
    pixels = np.stack([(rows + columns) % 256, (rows * 2) % 256], 0).astype(np.uint8)[None, :, None]
    save_image(Image(pixels, pixel_size_um=0.25), tmp_path / "a.ome.tif", pyramid=True)
    image = open_image(tmp_path / "a.ome.tif")
    assert [level.shape[3:] for level in image.levels] == [(516, 750), (258, 375)]
    assert [level.pixel_size_um for level in image.levels] == pytest.approx([0.5, 1.0])
    np.testing.assert_array_equal(image.read(), pixels)
    blocks = pixels[..., :1030, :].reshape(1, 2, 1, 515, 2, 750, 2)
    expected = np.rint(blocks.mean((4, 6)))
    np.testing.assert_array_equal(image.levels[0].read()[..., :515, :], expected)
    coarsest = open_image(tmp_path / "a.ome.tif", level=2)
    assert coarsest.shape == (1, 2, 1, 258, 375)
    assert coarsest.levels == ()


def test_of_one_provenance_there_is_one_file_byte_for_byte(tmp_path: Path) -> None:
    pixels = RNG.random((1, 2, 1, 700, 530), np.float32)
    contents = []
    for name, provenance in (("a", {"model": "m"}), ("b", {"model": "m"}), ("c", {"model": "other"})):
        path = save_image(Image(pixels, provenance=provenance), tmp_path / f"{name}.ome.tif", pyramid=True)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    ids = [content.split(b'UUID="')[1][:45] for content in contents]
    assert ids[0] != ids[2]


def test_small_images_get_no_pyramid_and_large_ones_do(tmp_path: Path) -> None:
    save_image(Image(np.zeros((1, 1, 1, 600, 600), np.uint8)), tmp_path / "small.ome.tif")
    assert open_image(tmp_path / "small.ome.tif").levels == ()
    save_image(Image(np.zeros((1, 1, 1, 16, 4097), np.uint8)), tmp_path / "wide.ome.tif")
    assert len(open_image(tmp_path / "wide.ome.tif").levels) == 4


def test_what_nears_4_gb_is_written_as_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "BIGTIFF_ABOVE", STACK.nbytes - 1)
    save_image(Image(STACK[None, None]), tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.is_bigtiff
    check(tmp_path / "a.ome.tif", STACK[None, None])


def test_halving_keeps_the_mean_and_lets_an_odd_edge_count_twice() -> None:
    np.testing.assert_array_equal(tiff.halved(np.array([[0, 2, 5], [4, 6, 7]], np.uint8)), [[3, 6]])
    np.testing.assert_array_equal(tiff.halved(np.array([[1.0], [2.0], [4.0]], np.float32)), [[1.5], [4.0]])
    assert tiff.halved(np.full((2, 2), 2**40 + 1, np.int64))[0, 0] == 2**40 + 1


# Damage


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"metadata": None, "compression": "zlib"},
        {"tile": (16, 16), "compression": "lzw"},
        {"imagej": True},
        {"ome": True},
    ],
    ids=str,
)
def test_a_file_that_is_cut_short_is_refused_and_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], cut: float
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    caplog.set_level(logging.WARNING)
    with pytest.raises(LinceiError) as error:
        open_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not caplog.records


def test_an_incomplete_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(LinceiError):
        open_image(tmp_path / "a.tif")


def test_strips_that_cannot_be_decoded_are_found_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset + 50 : offset + 400] = bytes(350)
    path.write_bytes(data)
    with pytest.raises(LinceiError, match="damaged"):
        open_image(path).read()


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (STACK[0][:20], "differ in size: 20 x 47 and 33 x 47"),
        (COLOR[..., 0], "differ in data type: uint16 and uint8"),
    ],
)
def test_pages_that_differ_are_no_stack(tmp_path: Path, second: np.ndarray, reason: str) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(STACK[0], metadata=None)
        writer.write(second, metadata=None)
    with pytest.raises(LinceiError, match=reason):
        open_image(tmp_path / "a.tif")


def test_complex_numbers_are_not_intensities(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0].astype(np.complex64))
    with pytest.raises(LinceiError, match="not intensities"):
        open_image(tmp_path / "a.tif")


def test_a_hyperstack_that_promises_more_planes_than_it_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    description = "ImageJ=1.53t\nimages=9\nslices=9\nhyperstack=true\n"
    tifffile.imwrite(path, STACK, photometric="minisblack", description=description, metadata=None)
    with pytest.raises(LinceiError):
        open_image(path).read()


def test_an_offset_into_nowhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0])
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    with pytest.raises(LinceiError):
        open_image(path)


# Reading at once and letting go


def test_threads_read_one_image_at_once(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression="zlib", tile=(16, 16))
    image = open_image(tmp_path / "a.tif")
    corners = [(z, y, x) for z in range(5) for y in range(0, 30, 5) for x in range(0, 40, 8)]

    def agrees(corner: tuple[int, int, int]) -> bool:
        z, y, x = corner
        region = {"Z": slice(z, z + 1), "Y": slice(y, y + 9), "X": slice(x, x + 13)}
        return bool((image.read(region)[0, 0, 0] == STACK[z, y : y + 9, x : x + 13]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(agrees, corners * 4))


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files through /proc, which Linux has")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_no_file_stays_open(tmp_path: Path, compression: str | None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression=compression)
    image = open_image(tmp_path / "a.tif")
    image.read()
    open_files = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert str(tmp_path / "a.tif") not in open_files


def test_a_file_that_changes_after_it_was_opened_is_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[:1], compression="zlib")
    image = open_image(path)
    image.read()
    tifffile.imwrite(path, STACK[:1, :20], compression="zlib")
    with pytest.raises(LinceiError, match="has changed since it was opened"):
        image.read()


def test_what_was_decoded_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], compression="zlib", rowsperstrip=33)
    image = open_image(tmp_path / "a.tif")
    first = image.read({"Y": slice(0, 5)})
    calls: list[Any] = []
    monkeypatch.setattr(DECODED, "get", _counting(DECODED.get, calls))
    image.read({"Y": slice(5, 9)})
    assert calls == [False]
    first[...] = 0
    np.testing.assert_array_equal(image.read()[0, 0, 0], STACK[0])


def _counting(get: Any, calls: list[Any]) -> Any:
    """Wrap the cache's get to note whether it had to decode."""

    def counted(key: Any, decode: Any) -> Any:
        decoded: list[bool] = []
        array = get(key, lambda: decoded.append(True) or decode())
        calls.append(bool(decoded))
        return array

    return counted
