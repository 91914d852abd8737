"""What labeling files in a batch promises: names, contents, failures, and no half-written file."""

from __future__ import annotations

import errno
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tiny_models import TinyModels, gray, stack

import insilico.labeling
from insilico import LabelOptions, label
from insilico.label_files import label_files
from insilico.options import STATISTICS
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image, open_image, save_image
from lincei.progress import Progress


def options(**fields: Any) -> LabelOptions:
    return LabelOptions(**{"model": ("tiny",), **fields})


def results_in(folder: Path) -> list[str]:
    """Return what is in a folder under a final name; a run that was stopped may leave a hidden folder."""
    return [name for name in names_in(folder) if not name.startswith(".")]


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder, hidden leftovers included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Give a stack as OME-TIFF."""
    image = gray(stack(), pixel_size_um=0.325, z_step_um=1.5, modality="phase contrast")
    return save_image(image, tmp_path / "in" / "cells.ome.tif")


@pytest.fixture
def cells_zarr(cells: Path) -> Path:
    """Give the same stack as OME-Zarr."""
    return save_image(open_image(cells), cells.parent.parent / "zarr" / "cells.ome.zarr")


class TestOutputs:
    def test_the_mean_has_the_inputs_name_and_other_statistics_lie_beside_it(
        self, tiny: TinyModels, cells: Path, tmp_path: Path
    ):
        out = tmp_path / "new" / "out"
        summary = label_files([str(cells)], out, options(statistics=STATISTICS))
        others = [name for name in STATISTICS if name != "mean"]
        expected = ["cells.ome.tif", *(f"cells.{name}.ome.tif" for name in others)]
        assert names_in(out) == sorted(expected)
        assert summary.exit_code == 0
        assert [path.name for path in summary.done[0]] == expected

    @pytest.mark.parametrize("kind", ["tiff", "zarr"])
    def test_what_is_written_reads_back_with_all_that_is_known(
        self, tiny: TinyModels, cells: Path, cells_zarr: Path, tmp_path: Path, kind: str
    ):
        source = cells if kind == "tiff" else cells_zarr
        out = tmp_path / "out"
        settings = options(statistics=("mean", "q95"), tile_px=48)
        label_files([str(source)], out, settings)
        suffix = ".ome.tif" if kind == "tiff" else ".ome.zarr"
        assert names_in(out) == sorted([f"cells{suffix}", f"cells.q95{suffix}"])
        expected = label(open_image(source), options=settings)
        for statistic, name in (("mean", f"cells{suffix}"), ("q95", f"cells.q95{suffix}")):
            image = open_image(out / name)
            assert image.shape == (1, 2, 1, 70, 90)
            assert image.dtype == np.float32
            assert image.channel_names == ("DAPI", "MAP2")
            assert image.channel_colors == ("#0000FF", "#00FF00")
            assert image.pixel_size_um == pytest.approx(0.325)
            assert image.modality == "fluorescence"
            np.testing.assert_array_equal(image.read(), expected[statistic].read())
            told = image.provenance
            assert told is not None
            assert told["predicted"] is True
            assert told["source"] == str(source)
            assert told["statistic"] == statistic
            assert told["models"] == [
                {
                    "name": "tiny",
                    "version": tiny.three.card.created,
                    "hash": tiny.three.hash,
                    "labels": ["DAPI", "MAP2"],
                    "out_of_distribution": None,
                }
            ]
            assert told["parameters"] == {k: v for k, v in settings.to_json().items() if k != "resume"}

    def test_a_zarr_gives_what_the_same_tiff_gives(
        self, tiny: TinyModels, cells: Path, cells_zarr: Path, tmp_path: Path
    ):
        for source, out in ((cells, "a"), (cells_zarr, "b")):
            label_files([str(source)], tmp_path / out, options())
        for name in ("cells", "cells.sd"):
            tiff, zarr = (
                open_image(tmp_path / "a" / f"{name}.ome.tif"),
                open_image(tmp_path / "b" / f"{name}.ome.zarr"),
            )
            np.testing.assert_array_equal(tiff.read(), zarr.read())
            assert tiff.channel_names == zarr.channel_names
            assert tiff.pixel_size_um == zarr.pixel_size_um

    @pytest.mark.parametrize("model", ["tiny", "tiny-scaled"])
    def test_a_zarr_is_written_tile_by_tile_and_gets_a_pyramid(
        self, tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
    ):
        image = gray(stack(1, 700, 530), pixel_size_um=0.4)
        source = save_image(image, tmp_path / "large.ome.zarr")

        def whole(*_: object) -> None:
            raise AssertionError("the whole result was held in memory")

        with monkeypatch.context() as patch:
            patch.setattr(insilico.labeling, "_in_memory", whole)
            label_files([str(source)], tmp_path / "out", options(model=(model,), tile_px=100))
        result = open_image(tmp_path / "out" / "large.ome.zarr")
        assert [level.shape[3:] for level in result.levels] == [(350, 265)]
        expected = label(image, model)["mean"].read()
        assert abs(result.read() - expected).max() < 1e-5

    def test_a_stack_in_files_is_named_after_its_pattern(self, tiny: TinyModels, tmp_path: Path):
        for z, plane in enumerate(gray(stack(3)).read()[0, 0]):
            tifffile.imwrite(tmp_path / f"phase_z{z:02}.tif", plane)
        pattern = str(tmp_path / "phase_z{z}.tif")
        label_files([pattern], tmp_path / "out", options(statistics=("mean",)))
        result = open_image(tmp_path / "out" / "phase.ome.tif")
        np.testing.assert_array_equal(result.read(), label(gray(stack(3)), "tiny")["mean"].read())
        assert result.provenance is not None
        assert result.provenance["source"] == pattern

    def test_other_programs_find_names_colors_and_sizes_in_the_ome_xml(
        self, tiny: TinyModels, cells: Path, tmp_path: Path
    ):
        """Fiji shows a channel in the color that OME-XML gives it, a signed RGBA number."""
        import xml.etree.ElementTree as ET

        label_files([str(cells)], tmp_path / "out", options(statistics=("mean",)))
        with tifffile.TiffFile(tmp_path / "out" / "cells.ome.tif") as tif:
            assert tif.is_ome
            assert tif.series[0].axes == "CYX"
            assert tif.ome_metadata is not None
            root = ET.fromstring(tif.ome_metadata)
        channels = root.findall(".//{*}Channel")
        assert [c.get("Name") for c in channels] == ["DAPI", "MAP2"]
        assert [int(c.get("Color", "0")) % 2**32 for c in channels] == [0x0000FFFF, 0x00FF00FF]
        pixels = root.find(".//{*}Pixels")
        assert pixels is not None
        assert pixels.get("Type") == "float"
        assert float(pixels.get("PhysicalSizeX", "0")) == pytest.approx(0.325)
        assert pixels.get("PhysicalSizeXUnit") == "µm"

    def test_an_older_result_is_replaced(self, tiny: TinyModels, cells: Path, tmp_path: Path):
        for labels in ((), ("MAP2",)):
            label_files([str(cells)], tmp_path / "out", options(labels=labels))
        assert open_image(tmp_path / "out" / "cells.ome.tif").channel_names == ("MAP2",)
        assert names_in(tmp_path / "out") == ["cells.ome.tif", "cells.sd.ome.tif"]


class TestBatch:
    def batch(self, folder: Path, count: int = 3, **fields: Any) -> list[str]:
        return [
            str(save_image(gray(stack(seed=i), **fields), folder / f"field{i}.ome.tif")) for i in range(count)
        ]

    def test_a_broken_file_holds_up_no_other_and_is_listed(self, tiny: TinyModels, tmp_path: Path):
        inputs = self.batch(tmp_path / "in")
        Path(inputs[1]).write_bytes(b"")
        summary = label_files(inputs, tmp_path / "out", options(statistics=("mean",)))
        assert names_in(tmp_path / "out") == ["field0.ome.tif", "field2.ome.tif"]
        assert summary.exit_code == 1
        assert [failure.item for failure in summary.failures] == ["field1"]
        text = summary.sentence()
        assert text.startswith("2 of 3 inputs done, 1 failed:")
        assert "field1.ome.tif: the file is empty" in text

    def test_a_missing_pixel_size_is_warned_about_once(self, tiny: TinyModels, tmp_path: Path):
        inputs = self.batch(tmp_path / "in")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            label_files(inputs, tmp_path / "out", options(model=("tiny-scaled",), statistics=("mean",)))
        texts = [str(warning.message) for warning in heard if warning.category is LinceiWarning]
        assert len(texts) == 1
        assert "pixel size and the z step of the input is not known" in texts[0]
        for name in names_in(tmp_path / "out"):
            provenance = open_image(tmp_path / "out" / name).provenance
            assert provenance is not None
            assert provenance["scale_assumed"] is True

    def test_progress_runs_from_0_to_1_once_and_never_back(self, tiny: TinyModels, tmp_path: Path):
        inputs = self.batch(tmp_path / "in", 2)
        for chosen in (inputs, inputs[:1]):
            heard: list[Progress] = []
            label_files(chosen, tmp_path / "out", options(tile_px=32), progress=heard.append)
            shares = [update.done / update.total for update in heard]
            assert shares == sorted(shares)
            assert shares[0] == 0
            assert shares[-1] == 1
            assert len({update.total for update in heard}) == 1
            assert {update.stage.rpartition(", ")[2] for update in heard} >= {"reading", "labeling", "saving"}

    def test_the_models_are_opened_once(
        self, tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        import lincei.engine

        lincei.engine.clear_engines()
        opened: list[object] = []
        real = lincei.engine.open_engine

        def counted(*arguments: Any, **named: Any) -> Any:
            opened.append(arguments)
            return real(*arguments, **named)

        monkeypatch.setattr(lincei.engine, "open_engine", counted)
        label_files(self.batch(tmp_path / "in"), tmp_path / "out", options())
        assert len(opened) == 1

    def test_stopping_keeps_what_is_done_and_leaves_no_half_written_file(
        self, tiny: TinyModels, tmp_path: Path
    ):
        inputs = self.batch(tmp_path / "in")
        heard: list[Progress] = []

        def cancelled() -> bool:
            return bool(heard) and "field1 (2 of 3), labeling" in heard[-1].stage

        summary = label_files(
            inputs, tmp_path / "out", options(tile_px=16), progress=heard.append, cancelled=cancelled
        )
        assert names_in(tmp_path / "out") == ["field0.ome.tif", "field0.sd.ome.tif"]
        assert summary.exit_code == 130
        assert summary.not_started == ("field1", "field2")


class TestBeforeAnyWork:
    """Each is refused before a pixel is computed and before the folder is made."""

    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def labeled(*_: object, **__: object) -> None:
            raise AssertionError("work was begun")

        monkeypatch.setattr("insilico.label_files.label_image", labeled)

    def refused(self, inputs: list[Path], out: Path, match: str, **fields: Any) -> LinceiError:
        existed = out.exists()
        with pytest.raises(LinceiError, match=match) as caught:
            label_files([str(path) for path in inputs], out, options(**fields))
        assert out.exists() is existed
        return caught.value

    def test_two_inputs_of_one_stem(self, tiny: TinyModels, cells: Path, cells_zarr: Path, tmp_path: Path):
        self.refused([cells, cells_zarr], tmp_path / "out", "same name, 'cells'")

    def test_two_inputs_whose_results_meet(self, tiny: TinyModels, cells: Path, tmp_path: Path):
        other = cells.with_name("cells.sd.ome.tif")
        other.write_bytes(cells.read_bytes())
        self.refused([cells, other], tmp_path / "out", r"cells\.sd\.ome\.tif.*Rename one")

    @pytest.mark.parametrize("kind", ["tiff", "zarr"])
    def test_a_result_that_would_replace_its_input(
        self, tiny: TinyModels, cells: Path, cells_zarr: Path, kind: str
    ):
        source = cells if kind == "tiff" else cells_zarr
        before = open_image(source).read()
        with pytest.raises(LinceiError, match=r"would be replaced by the result for 'cells'\. .*--out"):
            label_files([str(source)], source.parent, options())
        np.testing.assert_array_equal(open_image(source).read(), before)

    def test_a_label_or_model_or_engine_that_there_is_not(
        self, tiny: TinyModels, cells: Path, tmp_path: Path
    ):
        out = tmp_path / "out"
        error = self.refused([cells], out, "no label 'NFH'", labels=("NFH",))
        assert isinstance(error, UsageError)
        self.refused([cells], out, "no model 'tinny'", model=("tinny",))
        self.refused([cells], out, "no model is named", model=())

    def test_no_engine_that_works(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        import lincei.engine

        def broken(*_: object) -> None:
            raise ImportError("libtiny.so is missing")

        lincei.engine.clear_engines()
        monkeypatch.setattr(lincei.engine, "ENGINES", {"openvino": broken, "onnxruntime": broken})
        self.refused([cells], tmp_path / "out", r"no engine.*openvino: libtiny\.so.*onnxruntime: libtiny\.so")

    def test_a_folder_in_whose_place_there_is_a_file(self, tiny: TinyModels, cells: Path, tmp_path: Path):
        (tmp_path / "out").write_text("notes", encoding="utf-8")
        self.refused([cells], tmp_path / "out", r"a file or folder is in the way\. Choose another output")

    def test_a_folder_that_may_not_be_written(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def denied(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        (tmp_path / "out").mkdir()
        with monkeypatch.context() as patch:  # a superuser may write where permissions say no
            patch.setattr(tempfile, "TemporaryFile", denied)
            self.refused([cells], tmp_path / "out", r"out: there is no permission to write there\. Choose")

    def test_nothing_that_fits(self, tiny: TinyModels, tmp_path: Path):
        self.refused([tmp_path / "*.tif"], tmp_path / "out", r"\*\.tif")


class TestHalfWritten:
    def full(self, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    @pytest.mark.parametrize("earlier", [False, True])
    def test_a_full_disk_leaves_no_half_written_tiff(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
    ):
        out = tmp_path / "out"
        if earlier:
            label_files([str(cells)], out, options(statistics=("mean",), labels=("DAPI",)))

        def write(self: Any, *arguments: Any, **named: Any) -> None:
            self._fh.write(b"half of it")
            TestHalfWritten.full(self)

        monkeypatch.setattr(tifffile.TiffWriter, "write", write)
        summary = label_files([str(cells)], out, options(statistics=("mean",)))
        assert summary.stopped_by == "full disk"
        assert summary.exit_code == 1
        text = str(summary.failures[0].error)
        assert "cells.ome.tif" in text
        assert "no space is left on the disk. Free some." in text
        assert names_in(out) == (["cells.ome.tif"] if earlier else [])
        if earlier:
            assert open_image(out / "cells.ome.tif").channel_names == ("DAPI",)

    @pytest.mark.parametrize("earlier", [False, True])
    def test_nor_a_half_written_zarr(
        self,
        tiny: TinyModels,
        cells_zarr: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        earlier: bool,
    ):
        import zarr

        out = tmp_path / "out"
        if earlier:
            label_files([str(cells_zarr)], out, options(statistics=("mean",), labels=("DAPI",)))
        monkeypatch.setattr(zarr.Array, "__setitem__", self.full)
        summary = label_files([str(cells_zarr)], out, options())
        assert summary.stopped_by == "full disk"
        assert "no space left on the disk" in str(summary.failures[0].error)
        assert names_in(out) == (["cells.ome.zarr"] if earlier else [])
        if earlier:
            assert open_image(out / "cells.ome.zarr").channel_names == ("DAPI",)

    @pytest.mark.parametrize("kind", ["tiff", "zarr"])
    @pytest.mark.parametrize("stage", ["reading", "labeling", "saving"])
    def test_stopping_leaves_none_whatever_is_being_done(
        self, tiny: TinyModels, tmp_path: Path, kind: str, stage: str
    ):
        name = "large.ome.tif" if kind == "tiff" else "large.ome.zarr"
        source = save_image(gray(stack(1, 600, 520)), tmp_path / name)
        heard: list[Progress] = []
        wanted = "building the pyramid" if (kind, stage) == ("zarr", "saving") else stage

        def cancelled() -> bool:
            return bool(heard) and heard[-1].stage == wanted

        summary = label_files(
            [str(source)],
            tmp_path / "out",
            options(statistics=("mean",), tile_px=200),
            progress=heard.append,
            cancelled=cancelled,
        )
        assert heard[-1].stage == wanted
        assert summary.exit_code == 130
        assert results_in(tmp_path / "out") == []

    @pytest.mark.parametrize("kind", ["tiff", "zarr"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_nor_does_what_nobody_foresaw(
        self,
        tiny: TinyModels,
        cells: Path,
        cells_zarr: Path,
        tmp_path: Path,
        kind: str,
        error: type[BaseException],
    ):
        def progress(update: Progress) -> None:
            if update.stage == "labeling":
                raise error

        source = cells if kind == "tiff" else cells_zarr
        with pytest.raises(error):
            label_files([str(source)], tmp_path / "out", options(tile_px=16), progress=progress)
        assert results_in(tmp_path / "out") == []

    def test_an_input_that_ends_early_leaves_none(self, tiny: TinyModels, cells: Path, tmp_path: Path):
        content = cells.read_bytes()
        values = gray(stack()).read()[0, 0]
        plain = tmp_path / "plain.tif"
        tifffile.imwrite(plain, values, photometric="minisblack")
        plain.write_bytes(plain.read_bytes()[: plain.stat().st_size * 2 // 3])
        cells.write_bytes(content[: len(content) * 2 // 3])
        summary = label_files([str(cells), str(plain)], tmp_path / "out", options())
        assert len(summary.failures) == 2
        assert names_in(tmp_path / "out") == []


def test_memory_held_for_a_zarr_does_not_grow_with_the_image(
    tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The largest array that is written at once is a tile, also when the image is resampled."""
    import zarr

    sizes: list[int] = []
    real: Callable[..., None] = zarr.Array.__setitem__

    def counted(self: Any, key: Any, value: Any) -> None:
        if self.path == "0":  # the other levels are of the pyramid
            sizes.append(int(np.prod(np.shape(value))))
        real(self, key, value)

    source = save_image(gray(stack(1, 640, 510), pixel_size_um=0.3), tmp_path / "in.ome.zarr")
    monkeypatch.setattr(zarr.Array, "__setitem__", counted)
    settings = options(model=("tiny-scaled",), statistics=("mean",), tile_px=64)
    label_files([str(source)], tmp_path / "out", settings)
    labels, tile_on_the_inputs_grid = 2, (64 * 0.5 / 0.3 + 2) ** 2
    assert sum(sizes) == labels * 640 * 510, "each pixel once"
    assert max(sizes) <= labels * tile_on_the_inputs_grid


def test_an_image_object_and_its_file_give_the_same(tiny: TinyModels, cells: Path, tmp_path: Path):
    label_files([str(cells)], tmp_path / "out", options(statistics=("sd",)))
    image: Image = open_image(cells)
    np.testing.assert_array_equal(
        open_image(tmp_path / "out" / "cells.sd.ome.tif").read(), label(image, "tiny")["sd"].read()
    )
