"""Image, opening by content, stacks, and saves that are all or nothing."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lincei.errors import CancelledError, LinceiError, UsageError
from lincei.formats.lazy import LazyArray
from lincei.image import Image, open_image, open_stack, save_image, stem

RAMP = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)


class Recorded(LazyArray):
    """A computed array that remembers how many pixels it was asked for at once."""

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.uint16) -> None:
        super().__init__(shape, dtype)
        self.largest = 0

    def _read(self, box: tuple[slice, ...]) -> np.ndarray:
        axes = [np.arange(part.start, part.stop) for part in box]
        self.largest = max(self.largest, int(np.prod([axis.size for axis in axes])))
        grid = np.ix_(*axes)
        return (sum(n * part for n, part in zip((11, 7, 5, 3, 1), grid, strict=True)) % 251).astype(
            self.dtype
        )


def sentence(error: pytest.ExceptionInfo[LinceiError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


# What an Image is


def test_an_image_tells_its_sizes_and_type() -> None:
    image = Image(RAMP)
    assert image.shape == (2, 3, 4, 5, 6)
    assert image.sizes == {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
    assert image.dtype == np.uint16


def test_read_gives_the_region_asked_for_with_five_axes() -> None:
    pixels = Image(RAMP).read({"Z": slice(1, 3), "X": slice(2, None)})
    np.testing.assert_array_equal(pixels, RAMP[:, :, 1:3, :, 2:])


def test_read_gives_native_byte_order() -> None:
    pixels = Image(RAMP.astype(">u2")).read()
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, RAMP)


@pytest.mark.parametrize("region", [{"Q": slice(None)}, {"Z": slice(0, 4, 2)}, {"Z": 1}])
def test_read_refuses_a_region_that_is_none(region: Any) -> None:
    with pytest.raises(UsageError):
        Image(RAMP).read(region)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": RAMP[0]}, "4 axes"),
        ({"data": RAMP[:0]}, "empty"),
        ({"data": RAMP.astype(complex)}, "not intensities"),
        ({"channel_names": ("a", "b")}, "2 channel names for 3 channel"),
        ({"channel_colors": ("#FF0000",)}, "1 channel colors"),
        ({"channel_colors": ("red", "green", "blue")}, "#RRGGBB"),
        ({"data": RAMP[:, :2], "rgb": True}, "3 channels, not 2"),
        ({"pixel_size_um": 0.0}, "pixel_size_um is 0"),
        ({"z_step_um": -1.0}, "z_step_um is -1"),
        ({"time_step_s": float("nan")}, "time_step_s"),
        ({"modality": "phase"}, "phase contrast, bright field"),
        ({"intensity_range": (1.0, 1.0)}, "intensity range"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(LinceiError) as error:
        Image(**{"data": RAMP, **changes})
    assert reason in sentence(error)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.uint8, (0, 255)),
        (np.uint16, (0, 65535)),
        (bool, (0, 1)),
        (np.float32, None),
        (np.int8, (-128, 127)),
    ],
)
def test_intensity_range_follows_from_an_integer_type(dtype: Any, expected: Any) -> None:
    assert Image(RAMP.astype(dtype)).intensity_range == expected


def test_new_data_drop_the_old_levels_and_the_range_of_the_old_type() -> None:
    image = Image(RAMP, levels=(Image(RAMP[..., ::2, ::2]),))
    changed = image.with_(data=RAMP.astype(np.float32))
    assert changed.levels == ()
    assert changed.intensity_range is None
    assert image.with_(name="b").levels == image.levels


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        (None, (5, 6), (1, 1, 1, 5, 6)),
        (None, (2, 3, 4, 5, 6), (2, 3, 4, 5, 6)),
        ("ZYX", (4, 5, 6), (1, 1, 4, 5, 6)),
        ("YXC", (5, 6, 2), (1, 2, 1, 5, 6)),
        ("XYT", (6, 5, 2), (2, 1, 1, 5, 6)),
        ("YXS", (5, 6, 3), (1, 3, 1, 5, 6)),
    ],
)
def test_from_array_puts_named_axes_in_order(
    axes: str | None, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    image = Image.from_array(array, axes)
    assert image.shape == expected
    assert image.rgb == (axes == "YXS")
    if axes == "YXC":
        np.testing.assert_array_equal(image.read()[0, 1, 0], array[..., 1])
    if axes == "XYT":
        np.testing.assert_array_equal(image.read()[1, 0, 0], array[..., 1].T)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (None, (4, 5, 6)),
        (None, (5,)),
        ("YX", (4, 5, 6)),
        ("ZZYX", (1, 1, 2, 2)),
        ("ZT", (2, 2)),
        ("YXS", (5, 6, 4)),
    ],
)
def test_from_array_refuses_axes_that_do_not_say_what_they_are(
    axes: str | None, shape: tuple[int, ...]
) -> None:
    with pytest.raises(LinceiError):
        Image.from_array(np.zeros(shape), axes)


def test_from_array_keeps_lazy_data_lazy() -> None:
    class Rows:
        shape, dtype = (5, 6), np.dtype(np.uint8)

        def __init__(self) -> None:
            self.keys: list[Any] = []

        def __getitem__(self, key: Any) -> np.ndarray:
            self.keys.append(key)
            return np.arange(30, dtype=np.uint8).reshape(5, 6)[key]

    rows = Rows()
    image = Image.from_array(rows, "YX")
    assert rows.keys == []
    np.testing.assert_array_equal(image.read({"Y": slice(1, 2)})[0, 0, 0], [[6, 7, 8, 9, 10, 11]])
    assert rows.keys == [(slice(1, 2), slice(0, 6))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("plate.1_a1.tif", "plate.1_a1"),
        ("slide.ome.zarr", "slide"),
        ("x.zarr.zip", "x"),
        ("b.png", "b"),
        ("c.v2.txt", "c.v2.txt"),
        (".tif", ".tif"),
    ],
)
def test_a_stem_loses_extensions_and_keeps_other_dots(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_the_module_imports_no_reader_before_it_is_needed() -> None:
    code = (
        "import sys, lincei.image, lincei.pattern\n"
        "print([m for m in ('tifffile', 'zarr', 'yaozarrs', 'imagecodecs', 'bioio', 'openslide', 'dask')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# Opening


def test_what_the_user_states_goes_before_the_file(tmp_path: Path) -> None:
    save_image(Image(RAMP, pixel_size_um=0.5, z_step_um=2.0), tmp_path / "a.ome.tif")
    image = open_image(tmp_path / "a.ome.tif", pixel_size_um=0.3, modality="DIC")
    assert (image.pixel_size_um, image.z_step_um, image.modality) == (0.3, 2.0, "DIC")


def test_a_file_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "really_a_tiff.png", RAMP[0, 0, 0])
    np.testing.assert_array_equal(open_image(tmp_path / "really_a_tiff.png").read()[0, 0, 0], RAMP[0, 0, 0])


@pytest.mark.parametrize("array", [RAMP, RAMP[0, 0, 0], RAMP.astype(">f4")])
def test_numpy_files_of_two_or_five_axes_open(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    image = open_image(tmp_path / "a.npy")
    assert image.name == "a"
    np.testing.assert_array_equal(image.read().squeeze(), array)
    np.testing.assert_array_equal(image.read({"Y": slice(1, 3)}), image.read()[..., 1:3, :])


def test_pickled_objects_in_a_numpy_file_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(LinceiError):
        open_image(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tif", b"", "empty (0 bytes)"),
        ("a.tif", "Dear diary, µ was measured\n".encode() * 30, "holds text"),
        ("a.tif", bytes(range(256)) * 4, "holds something else"),
        ("a.docx", b"something", "TIFF, ImageJ hyperstack, OME-TIFF, PNG"),
    ],
)
def test_files_that_are_no_images_get_a_sentence(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LinceiError) as error:
        open_image(tmp_path / name)
    assert reason in sentence(error)
    assert str(tmp_path / name) in sentence(error)


def test_a_missing_file_is_named_with_the_nearest_there_is(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "phase_01.tif", RAMP[0, 0, 0])
    with pytest.raises(LinceiError, match=r"no such file. Did you mean phase_01.tif?"):
        open_image(tmp_path / "phase_1.tif")
    with pytest.raises(LinceiError, match="no such folder"):
        open_image(tmp_path / "gone" / "a.tif")


def test_a_folder_or_a_pattern_is_not_one_file(tmp_path: Path) -> None:
    with pytest.raises(LinceiError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(LinceiError, match="is a pattern"):
        open_image(tmp_path / "phase_z{z}.tif")


def test_an_array_of_too_few_axes_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "line.npy", np.zeros(7))
    with pytest.raises(LinceiError, match="has 1 axes"):
        open_image(tmp_path / "line.npy")


def test_no_permission_to_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RAMP[0, 0, 0])

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LinceiError, match="no permission to read"):
        open_image(tmp_path / "a.tif")


def test_a_level_or_scene_that_is_not_there_is_refused(tmp_path: Path) -> None:
    save_image(Image(RAMP), tmp_path / "a.ome.tif")
    with pytest.raises(LinceiError, match="no level 2"):
        open_image(tmp_path / "a.ome.tif", level=2)
    with pytest.raises(LinceiError, match="no scene 3"):
        open_image(tmp_path / "a.ome.tif", scene=3)


# Stacks


@pytest.fixture
def planes(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"z{z}.tif" for z in range(4)]
    for z, path in enumerate(paths):
        tifffile.imwrite(path, RAMP[0, 0, z], compression="zlib")
    return paths


def test_a_stack_reads_only_the_planes_asked_for(planes: list[Path]) -> None:
    image = open_stack(planes, "Z", name="stack")
    assert image.name == "stack"
    np.testing.assert_array_equal(image.read(), RAMP[:1, :1])
    for path in planes[2:]:
        path.unlink()
    np.testing.assert_array_equal(image.read({"Z": slice(0, 2), "X": slice(1, 3)}), RAMP[:1, :1, :2, :, 1:3])
    with pytest.raises(LinceiError, match="gone") as error:
        image.read()
    assert "z2.tif" in sentence(error)


def test_files_of_several_planes_join_too(tmp_path: Path) -> None:
    for name, part in (("a", RAMP[0, 0, :3]), ("b", RAMP[0, 0, 3:])):
        tifffile.imwrite(tmp_path / f"{name}.tif", part, photometric="minisblack")
    image = open_stack([tmp_path / "a.tif", tmp_path / "b.tif"])
    np.testing.assert_array_equal(image.read({"Z": slice(2, 4)}), RAMP[:1, :1, 2:])


def test_channels_that_join_keep_their_names(tmp_path: Path) -> None:
    for name in ("DAPI", "MAP2"):
        one = Image(RAMP[:, :1], channel_names=(name,), channel_colors=("#0000FF",))
        save_image(one, tmp_path / f"{name}.ome.tif")
    image = open_stack([tmp_path / "DAPI.ome.tif", tmp_path / "MAP2.ome.tif"], "C")
    assert image.channel_names == ("DAPI", "MAP2")
    assert image.channel_colors == ("#0000FF", "#0000FF")


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (np.zeros((5, 7), np.uint16), "size along X is 7, and 6 in z0.tif"),
        (np.zeros((5, 6), np.uint8), "pixels are uint8, and uint16"),
        (np.zeros((5, 6, 3), np.uint8), "size along C is 3"),
    ],
)
def test_a_file_that_does_not_fit_its_stack_is_named(
    planes: list[Path], odd: np.ndarray, reason: str
) -> None:
    tifffile.imwrite(planes[2], odd, photometric="rgb" if odd.ndim == 3 else "minisblack")
    with pytest.raises(LinceiError) as error:
        open_stack(planes)
    assert reason in sentence(error)
    assert "z2.tif" in sentence(error)


def test_a_stack_of_nothing_or_along_nothing_is_refused(planes: list[Path]) -> None:
    with pytest.raises(UsageError, match="no files"):
        open_stack([])
    with pytest.raises(UsageError, match="'Q'"):
        open_stack(planes, "Q")


# Saving

FORMATS = ("a.ome.tif", "a.tif", "a.ome.zarr")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_and_metadata_survive_a_round_trip(tmp_path: Path, name: str, dtype: Any) -> None:
    image = Image(
        RAMP.astype(dtype),
        pixel_size_um=0.325,
        z_step_um=1.5,
        time_step_s=30.0,
        channel_names=("DAPI", "MAP2", "NFH, µ <b>"),
        channel_colors=("#0000FF", "#00FF00", "#FF0000"),
        modality="phase contrast",
        intensity_range=(0.0, 4095.0) if dtype == np.uint16 else None,
        provenance={
            "predicted": True,
            "model": {"name": "motor-neurons", "version": "1"},
            "parameters": {"labels": ["DAPI"], "overlap": 0.5},
            "source": "C:\\data\\a {z} & <b>.tif",
            "number as text": "12",
            "several lines": "one\ntwo",
            "nothing": None,
        },
    )
    assert save_image(image, tmp_path / name) == tmp_path / name
    back = open_image(tmp_path / name)
    np.testing.assert_array_equal(back.read(), image.read())
    assert back.dtype == image.dtype
    assert back.name == "a"
    assert back.provenance == image.provenance
    for field in (
        "pixel_size_um", "z_step_um", "time_step_s", "channel_names", "channel_colors", "modality",
        "intensity_range", "rgb",
    ):  # fmt: skip
        assert getattr(back, field) == getattr(image, field), field


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_survives_a_round_trip(tmp_path: Path, name: str, dtype: Any) -> None:
    image = Image(RAMP.astype(dtype), rgb=True, modality="H&E", pixel_size_um=0.25)
    save_image(image, tmp_path / name)
    back = open_image(tmp_path / name)
    assert back.rgb
    assert back.modality == "H&E"
    np.testing.assert_array_equal(back.read(), image.read())


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_known_stays_unknown(tmp_path: Path, name: str) -> None:
    save_image(Image(RAMP[:, :1]), tmp_path / name)
    back = open_image(tmp_path / name)
    assert back.pixel_size_um is None
    assert back.z_step_um is None
    assert back.time_step_s is None
    assert back.modality is None
    assert back.provenance is None
    assert back.channel_names == ()


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_larger_than_memory_is_saved_piece_by_piece(tmp_path: Path, name: str) -> None:
    data = Recorded((2, 2, 3, 1100, 1300))
    save_image(Image(data), tmp_path / name)
    assert data.largest <= 1100 * 1300  # of 17 million pixels, never more than a plane
    np.testing.assert_array_equal(open_image(tmp_path / name).read(), data[...])


@pytest.mark.parametrize("name", FORMATS)
def test_an_older_file_of_the_name_is_replaced(tmp_path: Path, name: str) -> None:
    save_image(Image(RAMP), tmp_path / name)
    save_image(Image(RAMP[:1]), tmp_path / name)
    assert open_image(tmp_path / name).shape[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_progress_counts_up_to_the_end(tmp_path: Path, name: str) -> None:
    reports: list[Any] = []
    save_image(Image(RAMP), tmp_path / name, progress=reports.append)
    saving = [report for report in reports if report.stage == "saving"]
    assert [report.done for report in saving] == list(range(1, saving[0].total + 1))


@pytest.mark.parametrize("name", FORMATS)
def test_cancelling_leaves_the_older_file_and_nothing_half_written(tmp_path: Path, name: str) -> None:
    save_image(Image(RAMP), tmp_path / name)
    calls = iter([False, False])
    with pytest.raises(CancelledError):
        save_image(Image(RAMP + 1), tmp_path / name, cancelled=lambda: next(calls, True))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(open_image(tmp_path / name).read(), RAMP)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EACCES, "no permission to write"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_a_disk_that_refuses_is_told_and_nothing_half_written_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, reason: str
) -> None:
    import zarr

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, "the system's own words")

    monkeypatch.setattr(tifffile.TiffWriter, "write", refuse)
    monkeypatch.setattr(zarr.Array, "__setitem__", refuse)
    with pytest.raises(LinceiError) as error:
        save_image(Image(RAMP), tmp_path / name)
    assert reason in sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_fails_while_saving_is_named_and_nothing_remains(
    tmp_path: Path, planes: list[Path]
) -> None:
    image = open_stack(planes)
    planes[3].write_bytes(planes[3].read_bytes()[:-30])
    out = tmp_path / "out"
    with pytest.raises(LinceiError, match=r"z3.tif: the file has changed"):
        save_image(image, out / "a.ome.tif")
    assert list(out.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way", encoding="utf-8")
    with pytest.raises(LinceiError, match="in the way"):
        save_image(Image(RAMP), tmp_path / "out" / "a.ome.tif")


def test_an_image_does_not_replace_the_file_it_is_read_from(planes: list[Path]) -> None:
    image = open_image(planes[0])
    with pytest.raises(LinceiError, match="would be replaced by what is made from it"):
        save_image(image, planes[0])
    np.testing.assert_array_equal(open_image(planes[0]).read(), RAMP[:1, :1, :1])


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr" / "thesis.docx").write_text("years of work", encoding="utf-8")
    with pytest.raises(LinceiError, match="in the way"):
        save_image(Image(RAMP), tmp_path / "a.ome.zarr")
    assert (tmp_path / "a.ome.zarr" / "thesis.docx").is_file()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a"])
def test_a_format_that_is_not_written_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.ome\.tif"):
        save_image(Image(RAMP), tmp_path / name)
