"""`insilico.evaluate`: its figures against other programs, its edge cases, and what it writes."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest
import scoringrules
from numpy.typing import NDArray
from skimage import metrics
from tiny_models import TinyModels, gray, stack, variant

import insilico
from insilico.distribution import LogisticMixture
from insilico.evaluation import DATA_RANGE, Evaluation, ImageFigures, LabelFigures, evaluate
from insilico.evaluation_examples import Example, Gallery, Planes, reduced, worst_window
from insilico.evaluation_page import files_of, means_as_text
from insilico.evaluation_scores import PROBABILITY_BINS, Scores, count_curves
from insilico.options import EvaluateOptions
from insilico.pair_files import TrainingPair
from insilico.panels import PREDICTION_FRAME, TRUTH_FRAME
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image
from lincei.metrics import coverage, pearson_r
from lincei.model import Model
from lincei.model_card import Label

Array = NDArray[np.floating[Any]]
LEVELS = np.linspace(0.005, 0.995, 100)


def stain(values: Array, axes: str = "YX", **fields: Any) -> Image:
    """Return values on a label's scale as a stained image in gray values of float32."""
    return Image.from_array((1000 + 500 * values).astype(np.float32), axes=axes, **fields)


def statistics(model: Model, image: Image, *names: str) -> list[Array]:
    """Return statistics of the model's prediction, each (labels, Y, X)."""
    result = insilico.label(image, model, statistics=names)
    return [result[name].read()[0, :, 0] for name in names]


@pytest.fixture
def field() -> Image:
    return gray(stack(), modality="phase contrast", name="field")


@pytest.fixture
def truth(tiny: TinyModels, field: Image) -> Array:
    """Give truths for which the model's distributions are calibrated: (labels, Y, X)."""
    low, high = statistics(tiny.three, field, "q05", "q95")
    random = np.random.default_rng(0)
    # Nine in ten of the truths inside the 90 % interval, one in twenty beyond either end.
    inside = low + (high - low) * random.uniform(0.01, 0.99, low.shape)
    place = random.uniform(size=low.shape)
    return np.where(place < 0.05, low - 0.1, np.where(place > 0.95, high + 0.1, inside))


@pytest.fixture
def scaled(tiny: TinyModels, truth: Array, tmp_path: Path) -> Model:
    """Give the model with percentiles at which these truths have their 0 and their 1."""
    labels = tuple(
        Label(label.name, label.color, *(100 * float((truth[i] <= value).mean()) for value in (0, 1)))
        for i, label in enumerate(tiny.three.card.labels)
    )
    return variant(tiny.three, tmp_path / "scaled", labels=labels)


@pytest.fixture
def pair(field: Image, truth: Array) -> TrainingPair:
    names = ("DAPI", "MAP2")
    return TrainingPair(field, {name: stain(truth[i], name=name) for i, name in enumerate(names)})


class TestFigures:
    @pytest.fixture
    def done(self, scaled: Model, pair: TrainingPair) -> Mapping[str, LabelFigures]:
        [image] = evaluate([pair], scaled).images
        return image.labels

    @pytest.fixture
    def planes(self, scaled: Model, pair: TrainingPair, done: Mapping[str, LabelFigures]) -> list[Any]:
        """Give prediction and truth of each label, as documented: (gray - zero) / (one - zero)."""
        [mean] = statistics(scaled, pair.image, "mean")
        return [
            (
                mean[i].astype(float),
                (pair.labels[name].read()[0, 0, 0].astype(float) - figures.gray_value_of_0)
                / (figures.gray_value_of_1 - figures.gray_value_of_0),
            )
            for i, (name, figures) in enumerate(done.items())
        ]

    def test_correlation_error_and_similarity_are_numpys_and_scikit_images(
        self, done: Mapping[str, LabelFigures], planes: list[Any]
    ):
        for figures, (mean, true) in zip(done.values(), planes, strict=True):
            expected = {
                "pearson_r": np.corrcoef(mean.ravel(), true.ravel())[0, 1],
                "nrmse": math.sqrt(metrics.mean_squared_error(true, mean)) / DATA_RANGE,
                "ssim": metrics.structural_similarity(true, mean, data_range=DATA_RANGE),
                "psnr": metrics.peak_signal_noise_ratio(true, mean, data_range=DATA_RANGE),
            }
            for name, value in expected.items():
                assert getattr(figures, name) == pytest.approx(value, abs=1e-4), name
            assert figures.data_range == 1

    def test_the_crps_is_scoringrules(
        self, done: Mapping[str, LabelFigures], planes: list[Any], scaled: Model, pair: TrainingPair
    ):
        quantiles = quantiles_of(scaled, pair.image)
        for i, (figures, (_, true)) in enumerate(zip(done.values(), planes, strict=True)):
            # The CRPS of a distribution given by its quantiles: twice the mean of their pinball losses.
            expected = np.mean(scoringrules.crps_quantile(true, np.moveaxis(quantiles[:, i], 0, -1), LEVELS))
            assert figures.crps == pytest.approx(float(expected), rel=0.01)

    def test_coverage_is_the_share_within_the_quantiles_that_labeling_gives(
        self, done: Mapping[str, LabelFigures], planes: list[Any], scaled: Model, pair: TrainingPair
    ):
        low, high = statistics(scaled, pair.image, "q05", "q95")
        for i, (figures, (_, true)) in enumerate(zip(done.values(), planes, strict=True)):
            assert figures.coverage_90 == pytest.approx(coverage(low[i], high[i], true), abs=1e-3)
            assert figures.coverage_90 == pytest.approx(0.9, abs=0.02)

    def test_a_perfect_prediction_is_perfect(self, scaled: Model, tiny: TinyModels, field: Image):
        [mean] = statistics(tiny.three, field, "mean")
        labels = tuple(
            Label(label.name, label.color, *(100 * float((mean[i] <= value).mean()) for value in (0, 1)))
            for i, label in enumerate(tiny.three.card.labels)
        )
        model = variant(tiny.three, tiny.folder.parent / f"perfect-{id(field)}", labels=labels)
        pair = TrainingPair(field, {label.name: stain(mean[i]) for i, label in enumerate(labels)})
        [image] = evaluate([pair], model, nuclear_labels=("DAPI", "MAP2"), nucleus_diameter_um=8).images
        for figures in image.labels.values():
            assert figures.pearson_r == pytest.approx(1, abs=1e-9)
            assert figures.nrmse < 1e-3
            assert figures.psnr > 60
            assert figures.ssim > 0.999
            assert figures.coverage_90 == 1
            assert figures.nuclei_true == figures.nuclei_predicted == figures.nuclei_matched
            assert figures.count_error == 0

    def test_gain_and_offset_of_the_camera_change_nothing(self, scaled: Model, pair: TrainingPair):
        dim = {
            name: Image.from_array(5 + 0.1 * image.read()[0, 0, 0], axes="YX")
            for name, image in pair.labels.items()
        }
        bright, other = (
            evaluate([item], scaled).images[0].labels["DAPI"]
            for item in (pair, dataclasses.replace(pair, labels=dim))
        )
        for name in ("pearson_r", "nrmse", "ssim", "crps", "coverage_90"):
            assert getattr(other, name) == pytest.approx(getattr(bright, name), abs=1e-3)
        assert other.gray_value_of_0 != bright.gray_value_of_0

    def test_the_size_of_tiles_changes_nothing(self, scaled: Model, pair: TrainingPair):
        whole, tiled = (evaluate([pair], scaled, tile_px=side).images[0].labels for side in (1024, 32))
        for name, figures in whole.items():
            for metric in ("pearson_r", "crps", "coverage_90", "ssim"):
                assert getattr(tiled[name], metric) == pytest.approx(getattr(figures, metric), abs=2e-4)

    def test_an_image_of_another_pixel_size_is_measured_on_its_own_grid(self, tiny: TinyModels, field: Image):
        image = field.with_(pixel_size_um=0.8, z_step_um=2.0)
        mean, low, high = statistics(tiny.scaled, image, "mean", "q05", "q95")
        pair = TrainingPair(image, {"MAP2": stain(mean[1])})
        [result] = evaluate([pair], tiny.scaled).images
        figures = result.labels["MAP2"]
        assert figures.pearson_r == pytest.approx(1, abs=1e-6)
        true = (mean[1] * 500 + 1000 - figures.gray_value_of_0) / (
            figures.gray_value_of_1 - figures.gray_value_of_0
        )
        # Distributions between pixels are interpolated, as quantiles are by labeling: nearly the same.
        assert figures.coverage_90 == pytest.approx(coverage(low[1], high[1], true), abs=0.03)
        assert result.pixel_size_um == 0.8

    def test_a_constant_prediction_has_no_correlation_and_is_the_worst(self, tiny: TinyModels):
        figures = dataclasses.replace(example_figures(), pearson_r=math.nan, psnr=math.inf)
        evaluation = evaluation_of(tiny.three, [("a", example_figures()), ("b", figures), ("c", figures)])
        assert [image.name for image, _ in evaluation.of("DAPI")] == ["b", "c", "a"]
        assert evaluation.means("DAPI")["pearson_r"] == (0.5, 1)
        assert "psnr" in means_as_text(evaluation)


def quantiles_of(model: Model, image: Image) -> Array:
    """Return the quantiles at `LEVELS` of each pixel: (levels, labels, Y, X), by the network's parameters."""
    from lincei.engine import cached_engine
    from lincei.normalize import standard_scaling
    from lincei.tiles import plan_tiles, read_tile

    card = model.card
    [tile] = plan_tiles(*image.shape[3:], 1024, card.total_stride)
    halo = -(-card.halo_px // card.total_stride) * card.total_stride
    pixels = standard_scaling(image).apply(read_tile(image, tile, halo))
    inside = np.s_[:, halo : halo + image.shape[3], halo : halo + image.shape[4]]
    parameters = cached_engine(model, outputs=("parameters",)).run(pixels[None])["parameters"][0][inside]
    mixtures = LogisticMixture.from_parameters(np.ascontiguousarray(parameters), len(card.labels))
    return np.stack([[mixture.quantile(float(level)) for mixture in mixtures] for level in LEVELS])


def example_figures() -> LabelFigures:
    return LabelFigures(0.5, 0.1, 0.5, 20.0, 0.05, 0.9, 10.0, 500.0, 0.0)


def evaluation_of(model: Model, figures: list[tuple[str, LabelFigures]]) -> Evaluation:
    from lincei.batch import BatchSummary

    images = tuple(
        ImageFigures(name, "", (1, 1, 3, 70, 90), None, {"DAPI": item}, False) for name, item in figures
    )
    return Evaluation(model, model.card.labels[:1], BatchSummary(images), {}, {}, "", ())


class TestNuclei:
    def nuclei(self, *centers: tuple[int, int]) -> Array:
        y, x = np.ogrid[:70, :90]
        inside = [(y - row) ** 2 + (x - column) ** 2 <= 64 for row, column in centers]
        return np.where(np.any(inside, axis=0), 1.0, 0.0) if centers else np.zeros((70, 90))

    def counted(self, model: Model, field: Image, true: Array, **more: Any) -> LabelFigures:
        noise = np.random.default_rng(0).normal(0, 0.01, true.shape)
        pair = TrainingPair(field, {"DAPI": stain(true + noise)})
        return evaluate([pair], model, **more).images[0].labels["DAPI"]

    def test_they_are_counted_for_labels_that_are_known_to_stain_them(
        self, tiny: TinyModels, field: Image, pair: TrainingPair
    ):
        labels = evaluate([pair], tiny.three).images[0].labels
        assert labels["DAPI"].nuclei_true is not None
        assert labels["MAP2"].nuclei_true is labels["MAP2"].object_f1 is None
        labels = evaluate([pair], tiny.three, nuclear_labels=("MAP2",)).images[0].labels
        assert labels["DAPI"].nuclei_true is None
        assert labels["MAP2"].nuclei_true is not None

    def test_their_size_is_in_micrometers_where_the_pixel_size_is_known(self, tiny: TinyModels, field: Image):
        true = self.nuclei((20, 20), (50, 60))
        assert self.counted(tiny.three, field, true).nuclei_true == 2
        # Of disks of 16 pixels, 8 um each, nuclei of 40 um leave nothing; of 8 um, all.
        image = field.with_(pixel_size_um=0.5)
        assert self.counted(tiny.three, image, true, nucleus_diameter_um=40.0).nuclei_true == 0
        assert self.counted(tiny.three, image, true, nucleus_diameter_um=8.0).nuclei_true == 2
        assert self.counted(tiny.three, field, true, pixel_size_um=0.1).nuclei_true == 0

    def test_an_empty_field_has_none_when_it_is_scaled_with_the_others(self, tiny: TinyModels, field: Image):
        random = np.random.default_rng(0)
        empty = stain(random.normal(0, 0.02, (70, 90)))
        full = stain(self.nuclei((20, 20), (50, 60)) + random.normal(0, 0.02, (70, 90)))
        pairs = [
            TrainingPair(field.with_(name=name), {"DAPI": image}, label_scaling="all")
            for name, image in (("empty", empty), ("full", full))
        ]
        evaluation = evaluate(pairs, tiny.three)
        first, second = (image.labels["DAPI"] for image in evaluation.images)
        assert first.nuclei_true == 0
        assert second.nuclei_true == 2
        assert first.gray_value_of_1 == second.gray_value_of_1
        own = evaluate([dataclasses.replace(item, label_scaling="image") for item in pairs], tiny.three)
        assert own.images[0].labels["DAPI"].gray_value_of_1 < first.gray_value_of_1

    def test_groups_are_scaled_each_by_itself(self, tiny: TinyModels, field: Image, pair: TrainingPair):
        pairs = [
            TrainingPair(
                field.with_(name=f"{group}{i}"),
                {"DAPI": stain(level * (self.nuclei((20, 20)) + 0.1 * i))},
                group=group,
                label_scaling="group",
            )
            for group, level in (("a", 1.0), ("b", 3.0))
            for i in range(2)
        ]
        bright = [image.labels["DAPI"].gray_value_of_1 for image in evaluate(pairs, tiny.three).images]
        assert bright[0] == bright[1]
        assert bright[2] == bright[3] > bright[0]


class TestBatch:
    def test_a_pair_that_fails_is_listed_and_the_others_go_on(
        self, tiny: TinyModels, pair: TrainingPair, tmp_path: Path
    ):
        def named(name: str, **labels: Image) -> TrainingPair:
            return TrainingPair(pair.image.with_(name=name), {**pair.labels, **labels})

        torn = pair.labels["DAPI"].read()[0, 0, 0].copy()
        torn[3, 4] = np.nan
        two = Image.from_array(np.zeros((2, 70, 90), np.uint16), axes="CYX")
        pairs = [
            named("first"),
            named("smaller", DAPI=stain(np.zeros((60, 90)))),
            named("torn", DAPI=Image.from_array(torn, axes="YX")),
            named("constant", MAP2=stain(np.zeros((70, 90)))),
            named("two", MAP2=two),
            named("last"),
        ]
        evaluation = evaluate(pairs, tiny.three, out=tmp_path)
        assert [image.name for image in evaluation.images] == ["first", "last"]
        said = [failure.sentence() for failure in evaluation.batch.failures]
        for sentence, name, words in zip(
            said,
            ("smaller", "torn", "constant", "two"),
            ("60 x 90 pixels", "no numbers", "nothing to see", "2 channels"),
            strict=True,
        ):
            assert name in sentence
            assert words in sentence
        assert evaluation.batch.exit_code == 1
        written = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
        assert [item["image"] for item in written["failures"]] == ["smaller", "torn", "constant", "two"]
        assert written["means"]["DAPI"]["images"] == 2
        assert "Not evaluated: 4 fields" in (tmp_path / "report.html").read_text("utf-8")

    def test_where_everything_fails_nothing_is_written(
        self, tiny: TinyModels, pair: TrainingPair, tmp_path: Path
    ):
        bad = TrainingPair(pair.image, {"DAPI": stain(np.zeros((60, 90)))})
        evaluation = evaluate([bad, bad], tiny.three, out=tmp_path / "out")
        assert evaluation.images == ()
        assert evaluation.batch.exit_code == 1
        assert len(evaluation.batch.failures) == 2
        assert list((tmp_path / "out").iterdir()) == []

    def test_what_was_done_when_it_is_stopped_is_reported(
        self, tiny: TinyModels, pair: TrainingPair, tmp_path: Path
    ):
        asked: list[int] = []

        def cancelled() -> bool:
            asked.append(1)
            return len(asked) > 4

        pairs = [TrainingPair(pair.image.with_(name=f"f{i}"), pair.labels) for i in range(4)]
        evaluation = evaluate(pairs, tiny.three, out=tmp_path, cancelled=cancelled)
        assert 0 < len(evaluation.images) < 4
        assert evaluation.batch.exit_code == 130
        written = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
        assert len(written["images"]) + len(written["not_started"]) == 4

    def test_a_label_may_be_missing_in_some(self, tiny: TinyModels, pair: TrainingPair):
        other = TrainingPair(pair.image.with_(name="other"), {"MAP2": pair.labels["MAP2"]})
        evaluation = evaluate([pair, other], tiny.three)
        assert len(evaluation.of("DAPI")) == 1
        assert len(evaluation.of("MAP2")) == 2

    @pytest.mark.parametrize(
        ("labels", "more", "words"),
        [
            ({"Hoechst": "DAPI"}, {}, "predicts no label 'Hoechst'"),
            ({}, {}, "nothing to evaluate"),
            ({"DAPI": "DAPI"}, {"nuclear_labels": ("MAP2",)}, "'MAP2', which is not evaluated"),
        ],
    )
    def test_a_wrong_label_is_refused_before_any_work(
        self,
        tiny: TinyModels,
        pair: TrainingPair,
        tmp_path: Path,
        labels: dict[str, str],
        more: dict[str, Any],
        words: str,
    ):
        renamed = TrainingPair(pair.image, {new: pair.labels[old] for new, old in labels.items()})
        with pytest.raises(UsageError, match=words):
            evaluate([renamed], tiny.three, out=tmp_path / "out", **more)
        assert not (tmp_path / "out").exists()

    def test_a_model_without_a_distribution_is_refused(
        self, tiny: TinyModels, pair: TrainingPair, tmp_path: Path
    ):
        plain = variant(tiny.three, tmp_path / "plain", distribution={})
        with pytest.raises(LinceiError, match="does not give"):
            evaluate([pair], plain)

    def test_a_field_that_the_model_was_made_with_is_named_as_such(
        self, tiny: TinyModels, pair: TrainingPair, tmp_path: Path
    ):
        card = tiny.three.card
        training = {**card.training, "field_names": ["field", "film t=0", "film t=1"], "split": "by field"}
        model = variant(tiny.three, tmp_path / "known", training=training)
        film = TrainingPair(pair.image.with_(name="film"), pair.labels)
        new = TrainingPair(pair.image.with_(name="fil"), pair.labels)
        with pytest.warns(LinceiWarning, match=r"2 of 3 fields \(field, film\) bear names"):
            evaluation = evaluate([pair, new, film], model, out=tmp_path / "out")
        assert [image.known_to_model for image in evaluation.images] == [True, False, True]
        assert "bear names of fields" in (tmp_path / "out" / "report.html").read_text("utf-8")


class TestSeries:
    def test_times_are_measured_together_with_one_scaling(self, tiny: TinyModels, pair: TrainingPair):
        pixels = np.stack([stack(seed=seed) for seed in (1, 2, 3)])
        film = Image.from_array((20_000 + 4000 * pixels).astype("uint16"), axes="TZYX", name="film")
        result = insilico.label(film, tiny.three)["mean"].read()[:, 0, 0]
        true = stain(result * np.array([1.0, 2.0, 3.0])[:, None, None], axes="TYX")
        [image] = evaluate([TrainingPair(film, {"DAPI": true})], tiny.three).images
        scale = image.labels["DAPI"]
        values = (true.read()[:, 0, 0] - scale.gray_value_of_0) / (
            scale.gray_value_of_1 - scale.gray_value_of_0
        )
        assert scale.pearson_r == pytest.approx(pearson_r(result, values), abs=1e-5)
        assert image.shape == (3, 1, 3, 70, 90)

    def test_a_stack_of_stains_is_projected_to_its_maximum(self, tiny: TinyModels, pair: TrainingPair):
        plane = pair.labels["DAPI"].read()[0, 0, 0]
        layers = np.stack([plane, plane - 100, plane - 300])
        stacked = TrainingPair(pair.image, {"DAPI": Image.from_array(layers, axes="ZYX")})
        flat, deep = (
            evaluate([item], tiny.three).images[0].labels["DAPI"]
            for item in (TrainingPair(pair.image, {"DAPI": pair.labels["DAPI"]}), stacked)
        )
        assert deep.coverage_90 != flat.coverage_90  # percentiles are of all planes, as in training
        assert deep.pearson_r == pytest.approx(flat.pearson_r, abs=1e-6)


class TestSaturation:
    @pytest.mark.parametrize(
        ("dtype", "top", "share"),
        [("uint8", 255, 0.1), ("uint16", 65535, 0.1), ("uint16", 4095, 0.1), ("uint16", 5000, 0.0)],
    )
    def test_its_share_is_that_of_the_highest_gray_value_that_can_be(
        self, tiny: TinyModels, field: Image, dtype: str, top: int, share: float
    ):
        random = np.random.default_rng(0)
        values = random.integers(0, top, (70, 90))
        values[:7] = top
        pair = TrainingPair(field, {"DAPI": Image.from_array(values.astype(dtype), axes="YX")})
        assert evaluate([pair], tiny.three).images[0].labels["DAPI"].saturated_share == pytest.approx(share)


class TestCurves:
    @pytest.fixture
    def scores(self) -> Scores:
        """Give 200x200 pixels, half of them with ten times the spread, and truths drawn from them."""
        random = np.random.default_rng(0)
        scale = np.where(np.arange(200) < 100, 0.01, 0.1)[:, None] * np.ones(200)
        location = random.uniform(0, 1, (200, 200))
        truth = (location + random.logistic(0, scale)).astype(np.float32)
        scores = Scores(truth[None, None])
        template = Image.from_array(np.zeros((200, 200), np.float32), axes="YX")
        parts = {"weights 1": np.ones_like(location), "locations 1": location, "scales 1": scale}
        parts |= {"mean": location, "sd": scale * math.pi / math.sqrt(3)}
        arrays = {name: scores.store(name, template) for name in parts}
        for rows in (slice(0, 120), slice(120, 200)):  # tile by tile
            for name, values in parts.items():
                place = (slice(0, 1), slice(0, 1), slice(0, 1), rows, slice(0, 200))
                arrays[name][place] = values[None, None, None, rows].astype(np.float32)
        return scores

    def test_calibrated_distributions_lie_on_the_diagonal(self, scores: Scores):
        predicted, observed = count_curves(scores, 0).interval_shares()
        assert predicted[0] == observed[0] == 0
        assert predicted[-1] == observed[-1] == 1
        assert observed == pytest.approx(predicted, abs=0.02)
        at_90 = observed[np.flatnonzero(np.isclose(predicted, 0.9))[0]]
        assert at_90 == pytest.approx(scores.inside_90[0] / 40_000, abs=1e-4)

    def test_the_sd_is_the_size_of_the_errors_where_it_is_calibrated(self, scores: Scores):
        predicted, found = count_curves(scores, 0).error_by_sd()
        assert predicted == pytest.approx([0.01814, 0.1814], rel=0.01)
        assert found == pytest.approx(predicted, rel=0.05)

    def test_scores_are_those_of_the_distributions(self, scores: Scores):
        truth, mean = scores.truth[0, 0], scores.mean[0, 0]
        scale = scores.sd[0, 0] * math.sqrt(3) / math.pi
        expected = scoringrules.crps_logistic(truth, mean, scale)
        assert scores.crps[0] == pytest.approx(float(np.sum(expected)), rel=1e-4)

    def test_every_pixel_is_counted_once_and_images_add_up(self, scores: Scores):
        curves = count_curves(scores, 0)
        both = curves + curves
        for one, counts in ((curves, 40_000), (both, 80_000)):
            assert one.probability.sum() == one.density.sum() == one.sd_pixels.sum() == counts
        assert curves.probability.shape == (PROBABILITY_BINS,)


class TestExamples:
    def example(self, name: str, r: float) -> Example:
        planes = Planes(None, *[np.zeros((4, 4), np.float32)] * 4)
        return Example(name, "", dataclasses.replace(example_figures(), pearson_r=r), planes, planes)

    def test_the_worst_the_best_and_a_few_between_are_kept_whatever_the_number(self):
        r = np.random.default_rng(0).uniform(0, 1, 500)
        gallery = Gallery(500, 2)
        for index, value in enumerate(r):
            gallery.add(index, "DAPI", self.example(str(index), float(value)))
        kept = gallery.examples["DAPI"]
        assert len(kept) <= 6
        assert kept[0].image == str(r.argmin())
        assert kept[-1].image == str(r.argmax())
        assert {"0", "499"} <= {example.image for example in kept}

    def test_a_prediction_without_correlation_is_the_worst(self):
        gallery = Gallery(3, 1)
        for index, value in enumerate((0.5, math.nan, -0.5)):
            gallery.add(index, "DAPI", self.example(str(index), value))
        assert [example.image for example in gallery.examples["DAPI"]] == ["1", "2", "0"]

    def test_the_close_up_is_where_the_errors_are(self):
        error = np.zeros((600, 500), np.float32)
        error[400:420, 90:100] = 1
        rows, columns = worst_window(error)
        assert rows.stop - rows.start == columns.stop - columns.start == 192
        assert rows.start <= 400
        assert rows.stop >= 420
        assert columns.start <= 90
        assert columns.stop >= 100
        assert worst_window(error[:50, :60]) == (slice(0, 50), slice(0, 60))

    def test_reduced_planes_are_means_of_blocks(self):
        plane = np.arange(35, dtype=np.float32).reshape(5, 7)
        assert reduced(plane, 2).tolist() == [[4, 6, 8], [18, 20, 22]]
        assert np.array_equal(reduced(plane, 1), plane)


class TestFiles:
    @pytest.fixture
    def out(self, tiny: TinyModels, pair: TrainingPair, tmp_path: Path) -> Path:
        other = TrainingPair(pair.image.with_(name="zweites Bild µ"), pair.labels)
        evaluate([pair, other], tiny.three, out=tmp_path / "out")
        return tmp_path / "out"

    def test_the_metrics_name_model_scale_and_every_figure(self, out: Path, tiny: TinyModels):
        written = json.loads((out / "metrics.json").read_text("utf-8"))
        assert written["model"]["name"] == "tiny"
        assert written["model"]["hash"] == tiny.three.hash
        assert {label["bright_percentile"] for label in written["labels"]} == {99.9}
        dapi, map2 = (written["images"][0]["labels"][name] for name in ("DAPI", "MAP2"))
        asked = {"pearson_r", "nrmse", "ssim", "psnr", "crps", "coverage_90", "data_range"}
        assert asked <= set(map2) <= asked | {"gray_value_of_0", "gray_value_of_1", "saturated_share"}
        assert {"object_f1", "count_error", *asked} <= set(dapi)
        assert dapi["data_range"] == 1.0
        assert written["means"]["DAPI"]["pearson_r"] == pytest.approx(dapi["pearson_r"])
        assert written["means"]["DAPI"]["images"] == 2
        assert set(written["calibration"]) == {"DAPI", "MAP2"}
        assert set(asked) <= set(written["meanings"])

    def test_what_is_not_defined_is_null_and_no_invented_number(self, tiny: TinyModels):
        from insilico.evaluation_page import metrics_json

        figures = dataclasses.replace(
            example_figures(), pearson_r=math.nan, object_f1=math.nan, count_error=0.0, nuclei_true=0
        )
        written = metrics_json(evaluation_of(tiny.three, [("a", figures)]))
        labels = written["images"][0]["labels"]["DAPI"]
        assert labels["pearson_r"] is labels["object_f1"] is None
        assert labels["count_error"] == 0
        json.dumps(written, allow_nan=False)

    def test_the_table_holds_the_same_rows(self, out: Path):
        written = json.loads((out / "metrics.json").read_text("utf-8"))
        with (out / "metrics.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["image"], row["label"]) for row in rows] == [
            (name, label) for name in ("field", "zweites Bild µ") for label in ("DAPI", "MAP2")
        ]
        for row in rows:
            [image] = [item for item in written["images"] if item["image"] == row["image"]]
            for name, value in image["labels"][row["label"]].items():
                assert float(row[name]) == value
        assert rows[1]["object_f1"] == ""

    def test_the_page_stands_alone_and_shows_both_frames(self, out: Path):
        html = (out / "report.html").read_text("utf-8")
        assert not re.search(r"(src|href)=\"(?!data:|#)", html)
        for words in ("Worst field", "90 % interval held", "zweites Bild µ", "Research use only"):
            assert words in html
        pictures = [
            imageio.v3.imread(io.BytesIO(base64.b64decode(text)))
            for text in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
        ]
        corners = {tuple(picture[0, 0].tolist()) for picture in pictures}
        for frame in (TRUTH_FRAME, PREDICTION_FRAME, "#000000"):
            assert tuple(bytes.fromhex(frame[1:])) in corners

    def test_they_are_named_once(self, out: Path):
        assert sorted(path.name for path in out.iterdir()) == sorted(p.name for p in files_of(out))


def test_evaluating_loads_neither_tensorflow_nor_a_plotting_window(
    tiny: TinyModels, pair: TrainingPair, tmp_path: Path
):
    from lincei.image import save_image

    source = save_image(pair.image, tmp_path / "field.ome.tif")
    stained = save_image(pair.labels["DAPI"], tmp_path / "dapi.ome.tif")
    code = (
        "import sys, insilico\n"
        "from insilico import TrainingPair\n"
        "from lincei.image import open_image\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"pair = TrainingPair(open_image({str(source)!r}), {{'DAPI': open_image({str(stained)!r})}})\n"
        f"insilico.evaluate([pair], {str(tiny.three.folder)!r}, out={str(tmp_path / 'out')!r})\n"
        "assert not {'tensorflow', 'keras', 'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_options_can_be_given_as_an_object_or_as_keywords(tiny: TinyModels, pair: TrainingPair):
    options = EvaluateOptions(model="tiny", nucleus_diameter_um=5.0)
    evaluation = insilico.evaluate([pair], options=options, tile_px=64)
    assert evaluation.parameters["tile_px"] == 64
    assert evaluation.parameters["nucleus_diameter_um"] == 5.0
    assert evaluation.model.name == "tiny"
