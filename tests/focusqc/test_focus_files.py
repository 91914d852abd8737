"""What rating files in a batch promises: tables, pictures, failures, stops, and flat memory."""

from __future__ import annotations

import errno
import gc
import threading
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from stand_in_models import gray, noise

import focusqc.focus_files
import focusqc.focus_image
import focusqc.overlay
from focusqc import FocusOptions, focus
from focusqc.focus_files import file_names, files_of, focus_files
from focusqc.rating import IMAGE_COLUMNS
from lincei.errors import LinceiError, LinceiWarning
from lincei.image import Image, open_image, save_image
from lincei.pattern import find_inputs
from lincei.progress import Progress

PLAIN = FocusOptions(overlays=False)


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder, hidden leftovers included."""
    return sorted(path.name for path in folder.iterdir())


def write_series(folder: Path, blurs: Sequence[float], size: tuple[int, int] = (100, 120)) -> list[Path]:
    """Write one image for each blur: 00.tif and so on."""
    return [
        save_image(gray(noise(*size, blur_px=blur, seed=i)), folder / f"{i:02d}.tif")
        for i, blur in enumerate(blurs)
    ]


@pytest.mark.usefixtures("stand_ins")
class TestOutputs:
    def test_a_folder_gives_tables_in_its_order_overlays_and_a_page(self, tmp_path: Path):
        paths = write_series(tmp_path / "in", (0, 3, 0, 1))
        out = tmp_path / "new" / "out"
        summary = focus_files([str(tmp_path / "in")], out, FocusOptions())
        assert names_in(out) == ["exclude.csv", "images.csv", "overlays", "patches.csv", "report.html"]
        assert names_in(out / "overlays") == ["00.png", "01.png", "02.png", "03.png"]
        images = pd.read_csv(out / "images.csv")
        assert list(images["file"]) == ["00.tif", "01.tif", "02.tif", "03.tif"]
        assert list(images["in_focus"]) == ["yes", "no", "yes", "no"]
        assert list(pd.read_csv(out / "exclude.csv")["file"]) == ["01.tif", "03.tif"]
        assert summary.exit_code == 0
        assert summary.notes == ("In focus: 2, out of focus: 2, uncertain: 0.",)
        assert [item.pictures for item in summary.done] == [
            (out / "overlays" / f"{path.stem}.png",) for path in paths
        ]

    def test_the_tables_hold_what_python_gives(self, tmp_path: Path):
        paths = write_series(tmp_path / "in", (0, 1))
        options = FocusOptions(na=0.4, pixel_size_um=0.5, tile_count=(2, 1), overlays=False)
        focus_files([str(tmp_path / "in")], tmp_path / "out", options)
        found = pd.read_csv(tmp_path / "out" / "patches.csv")
        tables = [focus(open_image(path), options=options).to_dataframe() for path in paths]
        expected = pd.concat(tables, ignore_index=True)
        assert list(found.columns) == list(expected.columns)
        for column in expected.columns:
            if column == "file":
                continue
            if pd.api.types.is_numeric_dtype(expected[column]):
                np.testing.assert_allclose(found[column], expected[column], rtol=1e-4, atol=1e-7)
            else:
                assert list(map(str, found[column])) == list(map(str, expected[column]))

    def test_a_stack_in_several_files_is_one_image_whose_sharpest_plane_is_named(self, tmp_path: Path):
        for z, blur in enumerate((2.0, 0.8, 0.0, 0.8)):
            save_image(gray(noise(blur_px=blur)), tmp_path / f"a_z{z}.tif")
        summary = focus_files([str(tmp_path / "a_z{z}.tif")], tmp_path / "out", FocusOptions())
        images = pd.read_csv(tmp_path / "out" / "images.csv")
        assert list(images["file"]) == ["a_z{z}.tif"] * 4
        assert list(images["sharpest"]) == ["no", "no", "yes", "no"]
        assert names_in(tmp_path / "out" / "overlays") == ["a.png"]
        assert summary.notes[1] == "The sharpest plane, counted from 0, is z = 2."
        assert pd.read_csv(tmp_path / "out" / "exclude.csv").empty

    def test_each_time_and_channel_has_an_overlay_of_its_own(self, tmp_path: Path):
        pixels = np.stack([noise(90, 90, seed=i) for i in range(4)]).reshape(2, 2, 1, 90, 90)
        image = gray(pixels, channel_names=("DAPI", "GFP"))
        save_image(image, tmp_path / "in" / "a.ome.tif")
        summary = focus_files([str(tmp_path / "in")], tmp_path / "out", FocusOptions())
        expected = ["a.t0.c0.png", "a.t0.c1.png", "a.t1.c0.png", "a.t1.c1.png"]
        assert names_in(tmp_path / "out" / "overlays") == expected
        assert summary.notes[0].startswith("In focus: 4, out of focus: 0, uncertain: 0 (time points and")

    def test_probabilities_are_written_on_request_as_11_channels(self, tmp_path: Path):
        (path,) = write_series(tmp_path / "in", (1,))
        focus_files([str(path)], tmp_path / "out", FocusOptions(probabilities=True))
        written = open_image(tmp_path / "out" / "probabilities" / "00.tif")
        assert written.shape == (1, 11, 1, 100, 120)
        expected = focus(open_image(path)).probability_image()
        np.testing.assert_allclose(written.read(), expected.read(), atol=1e-6)

    def test_probabilities_that_no_hyperstack_holds_are_an_ome_tiff(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(focusqc.focus_files, "LARGEST_HYPERSTACK_BYTES", 1000)
        (path,) = write_series(tmp_path / "in", (1,))
        focus_files([str(path)], tmp_path / "out", FocusOptions(probabilities=True, overlays=False))
        written = open_image(tmp_path / "out" / "probabilities" / "00.ome.tif")
        expected = focus(open_image(path)).probability_image()
        assert written.channel_names == expected.channel_names
        np.testing.assert_allclose(written.read(), expected.read(), atol=1e-6)

    @pytest.mark.parametrize("color", [False, True])
    def test_the_overlay_of_a_large_plane_is_drawn_on_a_smaller_one(
        self, monkeypatch: pytest.MonkeyPatch, color: bool
    ):
        monkeypatch.setattr(focusqc.overlay, "LONGEST_SIDE_PX", 100)
        monkeypatch.setattr(focusqc.focus_files, "_BAND_PX", 3000)
        pixels = np.stack([noise(250, 370, seed=i) for i in range(3)], axis=-1)
        image = gray(pixels, "uint8", axes="YXS") if color else gray(pixels[..., 0], "uint16")
        rating = focus(image, "focus-fluorescence")
        small, plane = focusqc.focus_files._reduced(image, rating.planes[0])
        whole = np.moveaxis(image.read()[0, :, 0, :249, :369], 0, -1).astype(float)
        expected = whole.reshape(83, 3, 123, 3, -1).mean(axis=(1, 3))
        assert small.dtype == (np.uint8 if color else np.float32)
        np.testing.assert_allclose(small.reshape(expected.shape), expected, atol=1.0 if color else 0.01)
        assert (plane.y, plane.x) == ((0, 28, 55), (0, 28, 56, 84, 95))
        assert plane.patch_px == (28, 28)
        np.testing.assert_array_equal(plane.probabilities, rating.planes[0].probabilities)

    @pytest.mark.parametrize(("height", "width"), [(1, 8300), (12_400, 30), (40, 5), (1, 1)])
    def test_a_thin_image_is_drawn(self, tmp_path: Path, height: int, width: int):
        (path,) = write_series(tmp_path / "in", (0,), (90, 90))
        pixels = np.zeros((1, 1)) if height == width == 1 else noise(height, width)
        save_image(gray(pixels), tmp_path / "in" / "thin.tif")
        summary = focus_files([str(tmp_path / "in")], tmp_path / "out", FocusOptions())
        assert summary.exit_code == 0
        assert names_in(tmp_path / "out" / "overlays") == [f"{path.stem}.png", "thin.png"]
        assert (tmp_path / "out" / "report.html").exists()

    def test_names_in_the_tables_are_paths_within_the_common_folder(self, tmp_path: Path):
        for name in ("x/1.tif", "x/y/2.tif", "z_z0.tif", "z_z1.tif"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        texts = [str(tmp_path / name) for name in ("x/1.tif", "x/y/2.tif", "z_z{z}.tif")]
        assert file_names(find_inputs(texts)) == ["x/1.tif", "x/y/2.tif", "z_z{z}.tif"]
        assert file_names(find_inputs(texts[:2])) == ["1.tif", "y/2.tif"]
        assert file_names(find_inputs(texts[:1])) == ["1.tif"]

    def test_two_runs_give_the_same_tables(self, tmp_path: Path):
        write_series(tmp_path / "in", (0, 1, 2, 0, 1))
        for name in ("one", "two"):
            focus_files([str(tmp_path / "in")], tmp_path / name, PLAIN)
        for name in ("images.csv", "patches.csv", "exclude.csv"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_progress_counts_all_inputs(self, tmp_path: Path):
        write_series(tmp_path / "in", (0, 0, 0))
        heard: list[Progress] = []
        focus_files([str(tmp_path / "in")], tmp_path / "out", PLAIN, progress=heard.append)
        assert [update.done for update in heard] == sorted(update.done for update in heard)
        assert heard[-1].done == heard[-1].total


@pytest.mark.usefixtures("stand_ins")
class TestTrouble:
    def test_a_file_that_cannot_be_read_is_listed_and_the_others_are_rated(self, tmp_path: Path):
        folder = tmp_path / "in"
        paths = write_series(folder, (0,) * 5)
        paths[2].write_bytes(paths[2].read_bytes()[:300])
        paths[3].write_bytes(b"")
        summary = focus_files([str(folder)], tmp_path / "out", FocusOptions())
        assert summary.exit_code == 1
        assert [failure.item for failure in summary.failures] == ["02.tif", "03.tif"]
        images = pd.read_csv(tmp_path / "out" / "images.csv")
        assert list(images["file"]) == ["00.tif", "01.tif", "04.tif"]
        exclude = pd.read_csv(tmp_path / "out" / "exclude.csv")
        assert list(exclude["file"]) == ["02.tif", "03.tif"]
        assert "the file is empty" in exclude["reason"][1]
        assert "02.tif" in (tmp_path / "out" / "report.html").read_text("utf-8")

    def test_a_transmitted_light_image_among_others_is_a_failure_of_its_own(self, tmp_path: Path):
        save_image(gray(noise(), modality="DIC"), tmp_path / "in" / "a.ome.tif")
        save_image(gray(noise()), tmp_path / "in" / "b.ome.tif")
        summary = focus_files([str(tmp_path / "in")], tmp_path / "out", PLAIN)
        assert "a DIC image" in summary.failures[0].sentence()
        assert len(summary.done) == 1

    def test_cautions_are_said_once_in_a_batch_and_stand_in_the_table(self, tmp_path: Path):
        pixels = np.stack([noise(seed=1), noise(seed=2)])
        for name in ("a", "b"):
            image = gray(pixels, axes="CYX", channel_names=("DAPI", "BF"))
            save_image(image, tmp_path / "in" / f"{name}.ome.tif")
        with pytest.warns(LinceiWarning, match="channel BF not rated"):
            focus_files([str(tmp_path / "in")], tmp_path / "out", PLAIN)
        images = pd.read_csv(tmp_path / "out" / "images.csv")
        assert list(images["channel"]) == ["DAPI", "DAPI"]
        assert list(images["note"]) == ["channel BF not rated: transmitted light"] * 2

    def test_equal_names_are_refused_before_work_unless_no_pictures_are_written(self, tmp_path: Path):
        for folder in ("one", "two"):
            write_series(tmp_path / folder, (0,))
        inputs = [str(tmp_path / "one"), str(tmp_path / "two")]
        with pytest.raises(LinceiError, match=r"same name, '00'.*--no-overlays"):
            focus_files(inputs, tmp_path / "out", FocusOptions())
        assert not (tmp_path / "out").exists()
        focus_files(inputs, tmp_path / "out", PLAIN)
        images = pd.read_csv(tmp_path / "out" / "images.csv")
        assert list(images["file"]) == ["one/00.tif", "two/00.tif"]

    def test_an_overlay_that_could_have_another_inputs_name_is_refused(self, tmp_path: Path):
        for name in ("a.tif", "a.t0.c1.tif"):
            save_image(gray(noise()), tmp_path / "in" / name)
        with pytest.raises(LinceiError, match=r"an overlay of .*a\.tif may have the same name"):
            focus_files([str(tmp_path / "in")], tmp_path / "out", FocusOptions())

    def test_inputs_are_never_replaced_by_pictures(self, tmp_path: Path):
        (path,) = write_series(tmp_path / "overlays", (0,))
        for options in (FocusOptions(), PLAIN):
            with pytest.raises(LinceiError, match="Choose another folder with --out"):
                focus_files([str(path)], tmp_path, options)

    @pytest.mark.parametrize("out", ["in", "in/other", "elsewhere"])
    @pytest.mark.parametrize("options", [FocusOptions(), PLAIN])
    def test_pictures_of_an_earlier_run_are_no_inputs(self, tmp_path: Path, out: str, options: FocusOptions):
        (path,) = write_series(tmp_path / "in", (0,))
        focus_files([str(path)], tmp_path / "in", FocusOptions(probabilities=True))
        tables = (tmp_path / "in" / "images.csv").read_bytes()
        for pattern, folder in (("**/*.png", "overlays"), ("**/*.tif", "probabilities")):
            with pytest.raises(LinceiError, match=folder):
                focus_files([str(tmp_path / "in" / pattern)], tmp_path / out, options)
        assert (tmp_path / "in" / "images.csv").read_bytes() == tables

    def test_a_folder_named_overlays_that_no_run_made_is_rated(self, tmp_path: Path):
        (path,) = write_series(tmp_path / "overlays", (0,))
        assert focus_files([str(path)], tmp_path / "out", PLAIN).exit_code == 0

    def test_a_run_that_rates_nothing_leaves_the_results_of_the_last(self, tmp_path: Path):
        write_series(tmp_path / "in", (0, 0))
        out = tmp_path / "out"
        options = FocusOptions()
        first = focus_files([str(tmp_path / "in")], out, options)
        assert len(files_of(out, first)) == 5
        before = {path: path.read_bytes() for path in out.rglob("*.*")}
        mistyped = focus_files([str(tmp_path / "in" / "typo.tif")], out, options)
        stopped = focus_files([str(tmp_path / "in")], out, options, cancelled=lambda: True)
        assert (mistyped.exit_code, stopped.exit_code) == (1, 130)
        assert files_of(out, mistyped) == files_of(out, stopped) == []
        assert {path: path.read_bytes() for path in out.rglob("*.*")} == before

    def test_several_failures_are_results(self, tmp_path: Path):
        inputs = [str(tmp_path / name) for name in ("a.tif", "b.tif")]
        summary = focus_files(inputs, tmp_path / "out", FocusOptions())
        names = ["images.csv", "patches.csv", "exclude.csv", "report.html"]
        assert files_of(tmp_path / "out", summary) == [tmp_path / "out" / name for name in names]
        assert names_in(tmp_path / "out") == sorted(names)

    def test_a_failure_and_a_full_disk_are_no_results(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (path,) = write_series(tmp_path / "in", (0,))

        def save(image: Image, path: Path) -> Path:
            raise LinceiError("no space is left on the disk", str(path)) from OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(focusqc.focus_files, "save_image", save)
        inputs = [str(tmp_path / "in" / "typo.tif"), str(path)]
        options = FocusOptions(probabilities=True, overlays=False)
        summary = focus_files(inputs, tmp_path / "out", options)
        assert (len(summary.failures), summary.stopped_by) == (2, "full disk")
        assert files_of(tmp_path / "out", summary) == []
        assert names_in(tmp_path / "out") == []

    def test_pictures_of_an_earlier_run_are_warned_of(self, tmp_path: Path):
        write_series(tmp_path / "one", (0, 0, 0))
        save_image(gray(noise(90, 90)), tmp_path / "two" / "02.tif")
        out, options = tmp_path / "out", FocusOptions(probabilities=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):  # the second time all are replaced
                focus_files([str(tmp_path / "one")], out, options)
        with pytest.warns(LinceiWarning) as said:
            focus_files([str(tmp_path / "two")], out, options)
        assert [str(warning.message).partition(" of an earlier run")[0] for warning in said] == [
            f"{out / name}: holds 2 pictures" for name in ("overlays", "probabilities")
        ]
        with pytest.warns(LinceiWarning, match="holds 3 pictures of an earlier run"):
            focus_files([str(tmp_path / "two")], out, PLAIN)

    def test_a_model_that_is_not_there_is_found_out_before_work(self, tmp_path: Path):
        write_series(tmp_path / "in", (0,))
        with pytest.raises(LinceiError, match="no model 'focus-nuclei'"):
            focus_files([str(tmp_path / "in")], tmp_path / "out", FocusOptions(model="focus-nuclei"))
        assert not (tmp_path / "out").exists()

    def test_when_the_user_stops_what_is_done_is_kept(self, tmp_path: Path):
        write_series(tmp_path / "in", (0,) * 12)
        asked = threading.Event()

        def progress(update: Progress) -> None:
            if update.done >= 4000:  # the fourth is in the tables
                asked.set()

        options = FocusOptions(probabilities=True)
        out = tmp_path / "out"
        summary = focus_files([str(tmp_path / "in")], out, options, progress=progress, cancelled=asked.is_set)
        assert summary.exit_code == 130
        assert len(summary.done) == 4
        assert len(summary.not_started) == 8
        images = pd.read_csv(out / "images.csv")
        assert list(images["file"]) == ["00.tif", "01.tif", "02.tif", "03.tif"]
        assert names_in(out / "overlays") == [f"0{i}.png" for i in range(4)]
        assert names_in(out / "probabilities") == [f"0{i}.tif" for i in range(4)]
        assert (out / "report.html").exists()

    def test_a_full_disk_ends_the_batch_and_keeps_what_is_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        write_series(tmp_path / "in", (0,) * 6)
        real = focusqc.focus_files.save_image

        def save(image: Image, path: Path) -> Path:
            if path.stem == "02":
                raise LinceiError("no space is left on the disk", str(path)) from OSError(
                    errno.ENOSPC, "full"
                )
            return real(image, path)

        monkeypatch.setattr(focusqc.focus_files, "save_image", save)
        options = FocusOptions(probabilities=True, overlays=False)
        summary = focus_files([str(tmp_path / "in")], tmp_path / "out", options)
        assert summary.stopped_by == "full disk"
        named = ["images.csv", "patches.csv", "exclude.csv", "probabilities"]
        assert [path.name for path in files_of(tmp_path / "out", summary)] == named
        assert len(summary.done) == 2
        assert len(pd.read_csv(tmp_path / "out" / "images.csv")) == 2
        assert pd.read_csv(tmp_path / "out" / "exclude.csv").empty
        assert not [name for name in names_in(tmp_path / "out") if name.startswith(".")]


@pytest.mark.usefixtures("stand_ins")
class TestScale:
    def test_of_300_images_only_a_few_are_held_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        folder = tmp_path / "in"
        folder.mkdir()
        pixels = gray(noise(90, 90)).read()[0, 0, 0]
        for i in range(300):
            tifffile.imwrite(folder / f"{i:03d}.tif", pixels)
        held: weakref.WeakSet[Any] = weakref.WeakSet()
        most, opened, lock = 0, 0, threading.Lock()
        real = focusqc.focus_files.focus_image

        def counted(image: Image, *args: Any, **kwargs: Any) -> Any:
            nonlocal most, opened
            rating = real(image, *args, **kwargs)
            with lock:
                held.add(image)
                held.add(rating)
                opened += 1
                most = max(most, len(held))
            return rating

        monkeypatch.setattr(focusqc.focus_files, "focus_image", counted)
        monkeypatch.setattr(focusqc.focus_files, "usable_cores", lambda: 2)
        summary = focus_files([str(folder)], tmp_path / "out", PLAIN)
        assert len(summary.done) == opened == 300
        assert most <= 16
        gc.collect()
        assert not held
        images = pd.read_csv(tmp_path / "out" / "images.csv")
        assert list(images["file"]) == [f"{i:03d}.tif" for i in range(300)]
        assert list(images.columns) == list(IMAGE_COLUMNS)

    def test_models_are_looked_for_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        write_series(tmp_path / "in", (0,) * 5)
        asked: list[str] = []
        real = focusqc.focus_image.found_model
        monkeypatch.setattr(focusqc.focus_files, "found_model", lambda name: asked.append(name) or real(name))
        focus_files([str(tmp_path / "in")], tmp_path / "out", PLAIN)
        assert asked == ["focus-fluorescence"]

    def test_a_large_image_is_rated_in_bands_and_alike(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        write_series(tmp_path / "in", (0, 1, 0, 2))
        focus_files([str(tmp_path / "in")], tmp_path / "small", PLAIN)
        monkeypatch.setattr(focusqc.focus_files, "IN_MEMORY_BYTES", 1000)
        focus_files([str(tmp_path / "in")], tmp_path / "large", PLAIN)
        assert (tmp_path / "small" / "patches.csv").read_bytes() == (
            tmp_path / "large" / "patches.csv"
        ).read_bytes()
