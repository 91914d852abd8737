"""Outlining a batch: the files of each image, the table, what fails, and a whole slide."""

from __future__ import annotations

import csv
import errno
import json
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest
import roifile
import tifffile
from made_sections import DISKS, GLASS, PALE, PURPLE, SIZE, section
from numpy.typing import NDArray
from tiny_tumor_models import write_all_kinds

from arm_overlay import tumor_files as module
from arm_overlay.annotations import read_annotations
from arm_overlay.options import TumorOptions
from arm_overlay.tumor_files import COLUMNS, files_of, picture_of, tumor_files
from arm_overlay.tumor_image import tumor
from arm_overlay.tumor_model import CLASS_PROBABILITIES, NUMBER, POINTS, PROBABILITY_MAP
from lincei.batch import BatchSummary
from lincei.errors import LinceiError, LinceiWarning
from lincei.image import Image, open_image, save_image
from lincei.model import Model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return write_all_kinds(tmp_path_factory.mktemp("models"))


@pytest.fixture
def options(models: dict[str, Model]) -> TumorOptions:
    return TumorOptions(model=str(models[PROBABILITY_MAP].folder))


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Give a folder with two images: one with disks, one without."""
    folder = tmp_path / "in"
    save_image(section(), folder / "a.ome.tif")
    save_image(section((300, 400), ((200, 150, 4),)), folder / "b.ome.tif")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "tumor.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_image_gets_its_files_and_a_row(slides: Path, tmp_path: Path, options: TumorOptions) -> None:
    out = tmp_path / "out"
    summary = tumor_files([str(slides)], out, options)
    assert summary.exit_code == 0
    assert names_in(out) == {
        "tumor.csv",
        *(f"a{suffix}" for suffix in (".probability.tif", ".outline.png", ".geojson", ".roi.zip")),
        # ImageJ opens no empty set of ROIs.
        *(f"b{suffix}" for suffix in (".probability.tif", ".outline.png", ".geojson")),
    }
    assert set(files_of(out, summary)) == set(out.iterdir())
    first, second = rows_of(out)
    assert tuple(first) == COLUMNS
    assert (first["file"], first["regions"], first["scale_assumed"]) == ("a.ome.tif", "2", "no")
    expected = tumor(section(), options=options)
    assert float(first["percent"]) == pytest.approx(expected.percent, rel=1e-4)
    assert float(first["largest_diameter_um"]) == pytest.approx(expected.largest_diameter_um, rel=1e-4)
    assert float(first["field_score"]) > 0.9
    assert (second["percent"], second["regions"], second["largest_diameter_um"]) == ("0", "0", "")
    assert first["note"] == second["note"] == ""


def test_probability_is_a_tiff_of_the_image_s_size_with_its_pixel_size(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    tumor_files([str(slides / "a.ome.tif")], tmp_path / "out", options)
    path = tmp_path / "out" / "a.probability.tif"
    values = tifffile.imread(path)
    assert (values.shape, values.dtype) == (SIZE, np.float32)
    assert values[300, 300] > 0.9 > 0.1 > values[100, 700]
    probability = open_image(path)
    assert probability.pixel_size_um == pytest.approx(1.0)
    assert probability.channel_names == ("probability",)
    assert probability.provenance is not None
    assert "Research use only" in probability.provenance["note"]


def test_a_large_probability_is_compressed_under_the_same_name(
    slides: Path, tmp_path: Path, options: TumorOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tumor_files([str(slides / "a.ome.tif")], tmp_path / "small", options)
    monkeypatch.setattr(module, "LARGEST_HYPERSTACK_BYTES", 1000)
    tumor_files([str(slides / "a.ome.tif")], tmp_path / "large", options)
    small, large = (tmp_path / name / "a.probability.tif" for name in ("small", "large"))
    assert large.stat().st_size < 0.2 * small.stat().st_size
    np.testing.assert_array_equal(open_image(large).read(), open_image(small).read())
    assert open_image(large).pixel_size_um == pytest.approx(1.0)


def test_the_picture_has_green_outlines_on_the_borders_of_the_disks(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    tumor_files([str(slides / "a.ome.tif")], tmp_path / "out", options)
    drawn = imageio.v3.imread(tmp_path / "out" / "a.outline.png")
    assert drawn.shape == (*SIZE, 3)
    y, x = np.nonzero((drawn[..., 1] > 200) & (drawn[..., 0] < 100))
    from_border = np.min([np.abs(np.hypot(x - x0, y - y0) - radius) for x0, y0, radius in DISKS], axis=0)
    # The note "Research use only" is below the disks.
    assert np.median(from_border[y < 600]) < 2
    assert len(x) > 1000


def test_outlines_are_the_same_in_geojson_and_rois(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    out = tmp_path / "out"
    tumor_files([str(slides / "a.ome.tif")], out, options)
    expected = tumor(section(), options=options).regions
    for name in ("a.geojson", "a.roi.zip"):
        found = [annotation.region for annotation in read_annotations(out / name)]
        assert [round(region.area_px) for region in found] == pytest.approx(
            [round(region.area_px) for region in expected], rel=1e-3
        )
    told = json.loads((out / "a.geojson").read_text("utf-8"))
    assert told["features"][0]["properties"]["measurements"]["Largest diameter um"] == pytest.approx(
        expected[0].diameter_px, abs=0.01
    )


def test_a_stated_pixel_size_is_used_for_all(slides: Path, tmp_path: Path, options: TumorOptions) -> None:
    stated = TumorOptions.from_mapping({**options.to_json(), "pixel_size_um": 0.5})
    tumor_files([str(slides / "a.ome.tif")], tmp_path / "out", stated)
    (row,) = rows_of(tmp_path / "out")
    assert row["pixel_size_um"] == "0.5"
    assert float(row["largest_diameter_um"]) == pytest.approx(120, rel=0.03)
    assert open_image(tmp_path / "out" / "a.probability.tif").pixel_size_um == pytest.approx(0.5)


def test_an_unknown_pixel_size_is_warned_of_once_and_said_in_each_row(
    tmp_path: Path, options: TumorOptions
) -> None:
    for name in "ab":
        save_image(
            section((200, 220), ((90, 90, 50),), pixel_size_um=None), tmp_path / "in" / f"{name}.ome.tif"
        )
    with pytest.warns(LinceiWarning) as caught:
        tumor_files([str(tmp_path / "in")], tmp_path / "out", options)
    assert [("pixel size is not known" in str(one.message)) for one in caught] == [True]
    assert [(row["scale_assumed"], row["pixel_size_um"], row["largest_diameter_um"]) for row in rows_of(
        tmp_path / "out"
    )] == [("yes", "", "")] * 2  # fmt: skip


def test_points_are_written_for_qupath_and_imagej(tmp_path: Path, models: dict[str, Model]) -> None:
    save_image(section(disks=((300, 300, 8), (700, 500, 8))), tmp_path / "a.ome.tif")
    out = tmp_path / "out"
    tumor_files([str(tmp_path / "a.ome.tif")], out, TumorOptions(model=str(models[POINTS].folder)))
    (feature,) = json.loads((out / "a.geojson").read_text("utf-8"))["features"]
    assert feature["geometry"]["type"] == "MultiPoint"
    assert feature["properties"]["classification"]["name"] == "nucleus"
    (roi,) = roifile.roiread(out / "a.roi.zip")
    assert len(roi.coordinates()) == 2
    (row,) = rows_of(out)
    assert (row["points"], row["answer"], row["regions"], row["percent"]) == ("2", "2 x nucleus", "", "")


@pytest.mark.parametrize(
    ("kind", "said"), [(CLASS_PROBABILITIES, "benign: 91 %; tumor: 9 %"), (NUMBER, "dark area: ")]
)
def test_answers_for_the_field_are_in_the_table_and_on_the_picture(
    slides: Path, tmp_path: Path, models: dict[str, Model], kind: str, said: str
) -> None:
    out = tmp_path / "out"
    tumor_files([str(slides / "a.ome.tif")], out, TumorOptions(model=str(models[kind].folder)))
    assert names_in(out) == {"tumor.csv", "a.outline.png"}
    (row,) = rows_of(out)
    assert row["answer"].startswith(said)
    assert row["regions"] == ""


def test_what_fails_is_collected_and_the_rest_goes_on(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    (slides / "broken.tif").write_bytes(b"II*\0")
    save_image(Image.from_array(np.zeros((64, 64), np.uint8)), slides / "gray.ome.tif")
    imageio.v3.imwrite(slides / "glass.png", np.full((64, 64, 3), 250, np.uint8))
    out = tmp_path / "out"
    with pytest.warns(LinceiWarning):
        summary = tumor_files([str(slides)], out, options)
    assert summary.exit_code == 1
    assert [item.file for item in summary.done] == ["a.ome.tif", "b.ome.tif", "glass.png"]
    assert [failure.item for failure in summary.failures] == ["broken.tif", "gray.ome.tif"]
    rows = {row["file"]: row for row in rows_of(out)}
    assert "it is gray" in rows["gray.ome.tif"]["note"]
    assert rows["gray.ome.tif"]["regions"] == ""
    assert "of one color everywhere" in rows["glass.png"]["note"]
    assert (rows["glass.png"]["regions"], rows["glass.png"]["percent"]) == ("0", "")
    assert rows["broken.tif"]["note"]
    assert not any("gray" in name or "broken" in name for name in names_in(out))


def test_when_the_only_image_fails_the_table_of_an_earlier_run_stays(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    out = tmp_path / "out"
    tumor_files([str(slides)], out, options)
    before = (out / "tumor.csv").read_bytes()
    (slides / "broken.tif").write_bytes(b"II*\0")
    summary = tumor_files([str(slides / "broken.tif")], out, options)
    assert (summary.done, len(summary.failures)) == ((), 1)
    assert files_of(out, summary) == []
    assert (out / "tumor.csv").read_bytes() == before


def test_rois_of_an_earlier_run_go_where_there_is_nothing_to_outline_now(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    out = tmp_path / "out"
    source = str(slides / "a.ome.tif")
    tumor_files([source], out, options)
    assert (out / "a.roi.zip").exists()
    stricter = TumorOptions.from_mapping({**options.to_json(), "smallest_um": 500.0})
    tumor_files([source], out, stricter)
    assert not (out / "a.roi.zip").exists()
    assert read_annotations(out / "a.geojson") == []


def test_results_among_the_inputs_are_refused_before_any_work(slides: Path, options: TumorOptions) -> None:
    tumor_files([str(slides)], slides, options)
    with pytest.raises(LinceiError, match="it would be replaced by the result for 'a'") as raised:
        tumor_files([str(slides)], slides, options)
    assert "results of an earlier run" in raised.value.what_to_do


@pytest.mark.parametrize(
    ("inputs", "changes", "said"),
    [
        (["*.png"], {}, "png"),
        (["a.ome.tif"], {"model": "tumor-brest"}, "tumor-brest"),
        (["a.ome.tif", "again/a.ome.tif"], {}, "a"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    slides: Path, tmp_path: Path, options: TumorOptions, inputs: list[str], changes: dict[str, str], said: str
) -> None:
    save_image(section((64, 64), ((32, 32, 9),)), slides / "again" / "a.ome.tif")
    stated = TumorOptions.from_mapping({**options.to_json(), **changes})
    with pytest.raises(LinceiError, match=said):
        tumor_files([str(slides / name) for name in inputs], tmp_path / "out", stated)
    assert not (tmp_path / "out").exists()


def test_a_run_that_makes_nothing_leaves_no_empty_folder(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    (slides / "broken.tif").write_bytes(b"II*\0")
    for out in (tmp_path / "new", tmp_path / "made by the user"):
        if out.name != "new":
            out.mkdir()
        summary = tumor_files([str(slides / "broken.tif")], out, options)
        assert len(summary.failures) == 1
        assert out.exists() == (out.name != "new")


def test_stopping_keeps_what_is_done_and_leaves_nothing_half_written(
    slides: Path, tmp_path: Path, options: TumorOptions
) -> None:
    out = tmp_path / "out"

    def first_is_done() -> bool:
        return (out / "tumor.csv").exists()

    summary = tumor_files([str(slides)], out, options, cancelled=first_is_done)
    assert (summary.exit_code, summary.not_started) == (130, ("b.ome.tif",))
    assert {name.split(".")[0] for name in names_in(out)} == {"a", "tumor"}
    assert len(rows_of(out)) == 1


def test_a_full_disk_stops_the_batch_and_leaves_nothing_half_written(
    slides: Path, tmp_path: Path, options: TumorOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", "out/b.probability.tif")

    out = tmp_path / "out"
    tumor_files([str(slides / "a.ome.tif")], out, options)
    monkeypatch.setattr(module, "save_image", full)
    summary: BatchSummary[Any] = tumor_files([str(slides)], out, options)
    assert summary.stopped_by == "full disk"
    assert "no space left" in str(summary.failures[0].error)
    assert not [name for name in names_in(out) if name.endswith(".part")]


def test_progress_goes_forwards_over_the_batch(slides: Path, tmp_path: Path, options: TumorOptions) -> None:
    done: list[float] = []
    tumor_files([str(slides)], tmp_path / "out", options, progress=lambda p: done.append(p.done / p.total))
    assert done == sorted(done)
    assert done[-1] == 1


def test_pictures_of_large_images_are_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PICTURE_PX", 300)
    monkeypatch.setattr(module, "_READ_AT_ONCE_PX", 900 * 40)
    image = section()
    picture = picture_of(image)
    assert picture.shape == (233, 300, 3)
    assert tuple(picture[100, 100]) == PURPLE
    assert tuple(picture[20, 280]) == PALE
    sixteen = image.with_(data=image.read().astype(np.uint16) * 257)
    np.testing.assert_allclose(picture_of(sixteen).astype(int), picture.astype(int), atol=1)


# A slide with pixels of 0.25 um, most of it not scanned. In two squares of 2 x 2 tiles, which begin at these
# rows and columns of tiles, there is glass with an island of tissue and tumor in its middle.
SLIDE_SIZE = (20_480, 24_576)
ISLANDS = ((4, 5), (17, 20))
TILE_PX = 1024


def slide_level(times: int) -> Iterator[NDArray[np.uint8] | None]:
    """Yield the tiles of a slide reduced by ``times``, None where there is nothing."""
    side = 2 * TILE_PX
    y, x = np.mgrid[: side // times, : side // times] * times + (times - 1) / 2
    distance = np.hypot(y - side / 2, x - side / 2)
    island = np.empty((side // times, side // times, 3), np.uint8)
    island[:] = GLASS
    island[distance < 900] = PALE
    island[distance < 500] = PURPLE
    height, width = (-(-size // times) for size in SLIDE_SIZE)
    for top in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            tile = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
            for row, column in ISLANDS:
                y0, x0 = (place * TILE_PX // times - start for place, start in ((row, top), (column, left)))
                ys, xs = (slice(max(0, a), min(TILE_PX, a + side // times)) for a in (y0, x0))
                if ys.start < ys.stop and xs.start < xs.stop:
                    tile[ys, xs] = island[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0]
            yield tile if tile.any() or (top, left) == (0, 0) else None  # tifffile looks at the first


def write_slide(path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, times in enumerate((1, 4, 16)):
            height, width = (size // times for size in SLIDE_SIZE)
            per_cm = 1e4 / (0.25 * times)
            file.write(
                slide_level(times),
                shape=(height, width, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="zlib",
                subifds=2 if number == 0 else None,
                subfiletype=1 if number else None,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def test_a_whole_slide_is_outlined_in_its_own_pixels_within_bounded_memory(
    tmp_path: Path, options: TumorOptions
) -> None:
    path = tmp_path / "slide.tif"
    write_slide(path)
    image = open_image(path)
    assert image.shape == (1, 3, 1, *SLIDE_SIZE)
    assert image.pixel_size_um == pytest.approx(0.25)
    assert len(image.levels) == 2
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tumor_files([str(path)], tmp_path / "out", options)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The slide is of 1.5 GB, and its probability would be of 2 GB.
    assert peak_bytes < 400 * 2**20
    out = tmp_path / "out"
    probability = open_image(out / "slide.probability.tif")
    assert probability.shape[3:] == (SLIDE_SIZE[0] // 4, SLIDE_SIZE[1] // 4)
    assert probability.pixel_size_um == pytest.approx(1.0)
    (row,) = rows_of(out)
    assert row["regions"] == "2"
    assert float(row["percent"]) == pytest.approx(100 * (500 / 900) ** 2, rel=0.06)
    assert float(row["largest_diameter_um"]) == pytest.approx(250, rel=0.04)
    expected = sorted(((column + 1) * TILE_PX, (row + 1) * TILE_PX) for row, column in ISLANDS)
    for name in ("slide.geojson", "slide.roi.zip"):
        regions = [annotation.region for annotation in read_annotations(out / name)]
        middles = sorted(
            tuple((region.exterior.min(axis=0) + region.exterior.max(axis=0)) / 2) for region in regions
        )
        np.testing.assert_allclose(middles, expected, atol=8)
    picture = imageio.v3.imread(out / "slide.outline.png")
    assert max(picture.shape) == 4096
