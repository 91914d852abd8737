"""That the benchmarks of focus quality measure what they say, on images small enough for a test."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from stand_in_models import noise, write_stand_in

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module(name)
    for module in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from _imported("focus_measures", monkeypatch)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for module in _imported("focus_speed", monkeypatch):
        monkeypatch.setattr(module, "DISTINCT_FIELDS", 2)
        yield module


def texture(blur_px: float) -> NDArray[np.float64]:
    return 1000 + 200 * ndimage.gaussian_filter(noise(128, 160, seed=3), blur_px, mode="wrap")


class TestClassicalMeasures:
    def test_all_of_them_fall_with_blur(self, measures: Any):
        for name, measure in measures.CLASSICAL.items():
            values = [measure(texture(blur)) for blur in (0.5, 1.5, 4.0)]
            assert values[0] > values[1] > values[2], name

    def test_the_slope_is_that_of_the_spectrum_and_ignores_gain_and_offset(self, measures: Any):
        """Power that falls as f^-3, summed over rings whose length grows as f, has the slope -2."""
        y, x = np.fft.fftfreq(512, 1 / 512)[:, None], np.fft.fftfreq(512, 1 / 512)
        radius = np.maximum(np.hypot(y, x), 1)
        spectrum = np.fft.fft2(np.random.default_rng(0).normal(size=(512, 512))) * radius**-1.5
        plane = np.fft.ifft2(spectrum).real
        slope = measures.power_log_log_slope(plane)
        assert slope == pytest.approx(-2, abs=0.15)
        assert measures.power_log_log_slope(40 * plane + 500) == pytest.approx(slope, abs=1e-6)
        assert measures.power_log_log_slope(np.full((64, 64), 7)) == 0

    def test_brenner_laplacian_and_normalized_variance_are_those_of_a_step(self, measures: Any):
        step = np.repeat([[0, 0, 0, 6, 6, 6]], 3, axis=0)
        assert measures.brenner_gradient(step) == pytest.approx(2 * 36 / 4)
        assert measures.laplacian_variance(step) == pytest.approx(2 * 36 / 6)
        assert measures.normalized_variance(step) == pytest.approx(9 / 3)


class TestFigures:
    SHARP = np.array([True, True, False, False, False])

    def test_auroc_counts_pairs(self, measures: Any):
        assert measures.auroc(np.array([5.0, 4, 3, 2, 1]), self.SHARP) == 1
        assert measures.auroc(np.array([5.0, 2, 3, 2, 1]), self.SHARP) == pytest.approx((3 + 1.5) / 6)
        assert np.isnan(measures.auroc(np.ones(3), np.ones(3, bool)))

    def test_a_threshold_is_the_best_on_its_own_set(self, measures: Any):
        sharpness = np.array([5.0, 2.5, 3, 2, 1])
        cut = measures.best_threshold(sharpness, self.SHARP)
        # Two right and one wrong beats one right and one missed: 4 / 5 against 2 / 3.
        assert 2 < cut < 2.5
        assert measures.f_score(sharpness >= cut, self.SHARP) == pytest.approx(0.8)

    def test_rank_correlation_is_one_where_blur_follows_defocus(self, measures: Any):
        assert measures.spearman(-(np.arange(5.0) ** 3), np.arange(5.0)) == pytest.approx(1)
        assert measures.spearman(np.ones(5), np.arange(5.0)) == 0


class TestSimulatedDefocus:
    def test_light_is_kept_and_spread_and_the_camera_adds_its_noise(self, measures: Any):
        y, x = np.mgrid[-60:61, -60:61]
        disk = (np.hypot(y, x) < 12).astype(float)
        images = [measures.defocused(disk, level, np.random.default_rng(0)) for level in (0, 10)]
        for image in images:
            signal = image.astype(float) - measures.OFFSET
            assert signal.mean() / measures.GAIN == pytest.approx(measures.PHOTOELECTRONS, rel=0.02)
            dark = image[:20, :20].astype(float)
            assert dark.std() == pytest.approx(measures.GAIN * measures.READ_NOISE, rel=0.3)
        outside = (np.hypot(y, x) > 16) & (np.hypot(y, x) < 22)
        assert images[1][outside].mean() > 10 * images[0][outside].mean()

    def test_every_field_is_seen_at_all_levels(self, measures: Any):
        samples = measures.simulated({"a": texture(0.5), "b": texture(0.5)}, 0)
        assert [sample.defocus for sample in samples] == 2 * list(range(11))
        assert [sample.sharp for sample in samples[:11]] == [True] * 3 + [False] * 8


class TestBeads:
    def made(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a series of four beads, in focus at 22 um between two planes."""
        z = np.arange(0, 50, 5.0)
        centers = np.zeros((200, 200))
        centers[50:151:100, 50:151:100] = 4e5
        planes = [100 + ndimage.gaussian_filter(centers, np.hypot(1.5, 0.2 * (at - 22))) for at in z]
        return z, np.round(planes)

    def test_their_focus_is_found_without_any_measure_that_is_compared(self, measures: Any):
        found = measures.best_z_um(*self.made())
        assert found[measures.FIRST_DEFINITION] == pytest.approx(22, abs=1)
        assert found["brightest plane (percentile 99.9)"] == 20
        assert found["between steps 4 and 5 (the data's README)"] == 17.5

    def test_real_planes_near_the_middle_of_the_stack_are_sharp(
        self, measures: Any, real_data: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("LINCEI_DATA", str(real_data))
        samples = measures.beads(measures.bead_stacks(), measures.FIRST_DEFINITION)
        assert len(samples) == 40
        sharp = np.array([sample.sharp for sample in samples]).reshape(4, 10)
        assert sharp[:, 4].all()
        assert not sharp[:, :3].any()
        assert not sharp[:, 6:].any()


class TestComparison:
    def test_it_reports_all_measures_on_all_sets(
        self, measures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        fields = {"a": texture(0.5), "b": texture(0.7)}
        z, planes = TestBeads().made()
        sets = {
            "BBBC006, real": [
                measures.Sample(f"{blur}", texture(blur), blur < 1) for blur in (0.4, 0.6, 5.0, 6.0)
            ],
            "beads, real": measures.beads({"field": (z, planes)}, measures.FIRST_DEFINITION),
            measures.THRESHOLDS_FROM: measures.simulated(fields, 0),
        }
        monkeypatch.setattr(measures, "all_sets", lambda model, seed: sets)
        monkeypatch.setattr(measures, "bead_stacks", lambda: {"field": (z, planes)})
        monkeypatch.setattr(measures, "use_cores", lambda count: 1)
        model = write_stand_in(tmp_path / "stand-in")
        picture = tmp_path / "beads.png"
        measures.main(str(model.folder), 1, 1, 0, tmp_path / "out", picture)
        results = json.loads((tmp_path / "out" / "focus_measures.json").read_text("utf-8"))
        assert set(results["figures"]) == {measures.OURS, *measures.CLASSICAL}
        assert all(set(by_set) == set(sets) for by_set in results["figures"].values())
        assert results["figures"]["Brenner gradient"]["BBBC006, real"]["auroc"] == 1
        assert results["samples"]["BBBC006, real"] == [2, 4]
        assert list(results["f_score"][measures.OURS]) == [""]
        assert set(results["f_score"]["Brenner gradient"]) == set(sets)
        assert all(taken > 0 for taken in results["ms_per_megapixel"].values())
        text = (tmp_path / "out" / "focus_measures.md").read_text("utf-8")
        assert all(f"| {name} |" in text for name in measures.CLASSICAL)
        assert picture.stat().st_size < 150_000

    def test_held_out_fields_are_those_of_the_card(
        self, measures: Any, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("LINCEI_DATA", str(real_data))
        model = write_stand_in(tmp_path / "stand-in")
        card = dataclasses.replace(
            model.card, training={"test_fields": ["IXMtest_A06_s6.tif", "IXMtest_B24_s9"]}
        )
        found = measures.held_out_fields(dataclasses.replace(model, card=card))
        assert list(found) == ["IXMtest_A06_s6", "IXMtest_B24_s9"]
        with pytest.raises(SystemExit, match="does not say which fields were held out"):
            measures.held_out_fields(model)


class TestSpeed:
    @pytest.mark.filterwarnings("ignore::lincei.errors.LinceiWarning")
    def test_one_image_is_timed_beside_another_network(self, speed: Any, tmp_path: Path):
        ours, other = (str(write_stand_in(tmp_path / name).folder) for name in ("ours", "other"))
        found = speed.time_image(ours, other, "openvino", 1, 300, 2, 10)
        assert found.patches == 16
        assert found.megapixels == pytest.approx(0.09)
        assert len(found.seconds) == len(found.ours_alone_s) == len(found.old_alone_s) == 2
        assert min(*found.seconds, *found.ours_alone_s, *found.old_alone_s) > 0
        assert found.peak_mib >= found.before_mib > 10

    @pytest.mark.filterwarnings("ignore::lincei.errors.LinceiWarning")
    def test_a_folder_is_timed_from_end_to_end(self, speed: Any, tmp_path: Path):
        model = str(write_stand_in(tmp_path / "ours").folder)
        (tmp_path / "in").mkdir()
        speed.write_fields(str(tmp_path / "in"), 4)
        assert len(list((tmp_path / "in").glob("*.tif"))) == 4
        found = speed.time_folder(model, str(tmp_path / "in"), str(tmp_path / "out"), 4, False, "openvino", 1)
        assert (found.files, found.megapixels) == (4, pytest.approx(4 * 520 * 696 / 1e6))
        assert (tmp_path / "out" / "images.csv").is_file()
        assert found.peak_mib >= found.end_mib > 10
        assert found.peak_mib == pytest.approx(max(found.settled_mib, found.end_mib), rel=0.5)

    def test_the_report_names_ratio_and_verdict(self, speed: Any):
        image = speed.ImageTimes("openvino 1", 64.0, 9604, [1.0, 1.1, 1.2], [0.5], [11.0], 200.0, 300.0)
        folder = speed.FolderTimes(True, 2000, 723.8, 40.0, 310.0, 311.0, 350.0)
        text = speed.report("a/model", image, (200.0, 900.0), 29_000_000, [folder], 2, 3, 1024)
        assert "| `focusqc.focus` | 1.100 s (1.000 to 1.200) | 58.2 | 10.0 | 300 MiB | 200 MiB |" in text
        assert "at least 30 megapixels a second, which is reached" in text
        assert "| yes | 40.0 s | 50 | 18.1 | 310 MiB | 311 MiB | 350 MiB |" in text

    def test_the_2018_network_has_the_published_layers(self, monkeypatch: pytest.MonkeyPatch):
        pytest.importorskip("tensorflow", reason="needs the extra lincei[train]")
        for module in _imported("focus_network_2018", monkeypatch):
            network = module.build()
            # 5 5 1 32 + 32, 5 5 32 64 + 64, 21 21 64 1024 + 1024, 1024 11 + 11
            assert network.count_params() == 832 + 51_264 + 28_902_400 + 11_275
            assert network.output_shape == (None, 11)
