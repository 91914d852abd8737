"""Training a tumor network: what it learns from, how that is split, and what the card says."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from arm_overlay.annotated import AnnotatedField, annotated_field, mosaic_of
from arm_overlay.augmentation import photographed, restained, with_glass
from arm_overlay.crops import CropRange, crop_maker
from arm_overlay.field_score import field_score
from arm_overlay.imaging import CameraModel, recorded, transmitted
from arm_overlay.model_folder import drawn_section
from arm_overlay.network import OUTPUT_STRIDE, TumorNetworkConfig
from arm_overlay.recording import write_snapshot
from arm_overlay.train_files import AnnotatedSet, read_set
from arm_overlay.train_options import NOTHING, TrainTumorOptions
from arm_overlay.training import (
    Calibration,
    Seen,
    calibration_of,
    check_fields,
    dealt_out,
    enlarged,
    objectives_of,
    split_fields,
    strips,
    train,
)
from arm_overlay.tumor_model import TumorModel
from lincei.errors import LinceiError, UsageError
from lincei.metrics import roc_auc
from lincei.model import Model

pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'lincei[arm]'")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Bounded by its steps: however slow the machine, the result is the same.
QUICK = TrainTumorOptions(
    start_from=NOTHING, max_minutes=60, max_steps=60, crop_px=96, batch=4, learning_rate=3e-3
)


def drawn_field(seed, side_px=192, **known):
    colors, nest = drawn_section(np.random.default_rng(seed), side_px)
    return annotated_field(f"drawn {seed}", colors, nest, 1.0, **known)


def flat_field(name, shape=(64, 64), tumor=0.5, **known):
    colors = np.full((*shape, 3), 200, np.uint8)
    mask = np.zeros(shape, bool)
    mask[: round(tumor * shape[0])] = True
    return annotated_field(name, colors, mask, 1.0, **known)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")


@pytest.fixture(scope="module")
def trained(keras, tmp_path_factory) -> Model:
    """A model that learned from drawn sections as a scanner sees them."""
    fields = [drawn_field(seed) for seed in range(6)]
    return train(fields, tmp_path_factory.mktemp("models") / "drawn", QUICK, command="lincei train-tumor ...")


class TestTheModel:
    def test_it_finds_what_was_outlined_on_images_it_has_not_seen(self, trained):
        figures = trained.card.figures["held_out"]["images"]
        assert figures["fields"] == 2
        assert figures["objectives"]["40x"]["auc"] > 0.9

    def test_its_card_says_how_it_is_used_at_each_objective(self, trained):
        model = TumorModel.open(trained.folder)
        choice = model.for_objective("10x")
        assert choice is not None
        assert choice.pixel_size_um == trained.card.settings["objectives"]["10x"]["pixel_size_um"]
        assert model.for_objective("100x") is None

    def test_bare_glass_is_not_tumor(self, trained):
        assert trained.card.figures["glass"]["highest_probability"] < 0.3

    def test_its_card_says_in_words_what_was_measured_and_for_what_it_is_not(self, trained):
        text = trained.file("README.md").read_text("utf-8")
        auc = trained.card.figures["held_out"]["images"]["objectives"]["40x"]["auc"]
        for words in ("Research use only", f"{auc:.3f}", "few slides", "lincei train-tumor ...", "0.98"):
            assert words in text

    def test_the_engine_answers_as_the_network_did(self, trained):
        with TumorModel.open(trained.folder).open_engine() as engine:
            answer = engine.run(trained.test_input())["probability"]
        np.testing.assert_allclose(answer, trained.test_outputs()["probability"], atol=1e-3)

    def test_the_two_halves_that_were_kept_back_are_told_apart(self, trained):
        training = trained.card.training
        names = [training["train_fields"], training["tune_fields"], training["test_fields"]]
        assert sorted(name for part in names for name in part) == [f"drawn {i}" for i in range(6)]
        assert all(names)


def seen_by_shifted_camera(colors, seed):
    """A camera that nobody balanced, and that mixes red and blue up."""
    camera = CameraModel(
        sensor_colors=((0.1, 0.2, 0.7), (0.1, 0.7, 0.2), (0.8, 0.15, 0.05)),
        white_balance=(0.6, 1.0, 0.5),
        gamma=1.2,
        full_well_e=1000.0,
    )
    return recorded(transmitted(colors), camera, np.random.default_rng(seed))


def write_bundle(folder, colors, nest, pixel_size_um):
    """A snapshot as `lincei arm` takes it, with the outlines that its user corrected."""
    from arm_overlay.frames import Frame
    from arm_overlay.outline import regions_of
    from arm_overlay.overlay import Overlay

    size_px = (colors.shape[1], colors.shape[0])
    regions = regions_of(nest[::4, ::4].astype(np.float32), 0.5, cell_px=4.0, size_px=size_px)
    frame = Frame(pixels=colors, time_s=0.0, number=0, pixel_size_um=pixel_size_um)
    overlay = Overlay(0, 0.0, size_px, regions=regions, pixel_size_um=pixel_size_um)
    return write_snapshot(folder, frame, overlay, develop=lambda frame: frame.pixels, settings={})


def test_corrected_snapshots_of_a_camera_with_other_colors_teach_the_model_that_camera(trained, tmp_path):
    for seed in range(100, 104):
        colors, nest = drawn_section(np.random.default_rng(seed), 192)
        write_bundle(tmp_path / "shots" / f"s{seed}", seen_by_shifted_camera(colors, seed), nest, 1.0)
    fields = read_set(AnnotatedSet(str(tmp_path / "shots")), QUICK)
    assert [field.group for field in fields] == ["s100", "s101", "s102", "s103"]
    options = dataclasses.replace(QUICK, start_from=str(trained.folder))
    adapted = train(fields, tmp_path / "adapted", options)
    before = adapted.card.figures["before"]["images"]["objectives"]["40x"]["auc"]
    after = adapted.card.figures["held_out"]["images"]["objectives"]["40x"]["auc"]
    assert after > before + 0.02
    assert after > 0.85
    assert "with what the training started from (model drawn)" in adapted.file("README.md").read_text("utf-8")


def test_folds_are_measured_by_networks_that_have_not_seen_them(keras, tmp_path):
    fields = [drawn_field(seed, 96, group=f"slide {seed % 2}") for seed in range(2)]
    options = dataclasses.replace(QUICK, max_steps=2, crop_px=64, folds=2, folds_out=str(tmp_path / "folds"))
    model = train(fields, tmp_path / "crossed", options)
    assert {entry["groups"][0] for entry in model.card.figures["held_out"].values()} == {"slide 0", "slide 1"}
    assert model.card.training["train_fields"] == ["drawn 0", "drawn 1"]
    kept = {folder.name: Model.from_folder(folder) for folder in (tmp_path / "folds").iterdir()}
    assert set(kept) == {"crossed-without-1", "crossed-without-2"}
    without = kept["crossed-without-1"].card
    assert without.training["train_fields"] == ["drawn 1"]
    assert without.figures["held_out"]["images (1)"]["groups"] == ["slide 0"]


def test_a_stopped_training_goes_on_where_it_was(keras, tmp_path):
    from lincei.training import TrainingStoppedError

    fields = [drawn_field(seed, 128) for seed in range(3)]
    options = dataclasses.replace(QUICK, max_steps=4, crop_px=64)
    calls = 0

    def after_two_steps():
        nonlocal calls
        calls += 1
        return calls == 2

    with pytest.raises(TrainingStoppedError):
        train(fields, tmp_path / "m", options, cancelled=after_two_steps)
    assert (tmp_path / "m.training").is_dir()
    other = dataclasses.replace(options, resume=True)
    with pytest.raises(LinceiError, match="other images or options"):
        train([*fields[:2], drawn_field(9, 128)], tmp_path / "m", other)
    model = train(fields, tmp_path / "m", other)
    assert model.card.training["steps"] == 4
    assert not (tmp_path / "m.training").exists()


class TestWhatIsLearnedFrom:
    def test_a_field_is_kept_no_finer_than_the_network_looks(self):
        colors = np.full((200, 400, 3), 180, np.uint8)
        tumor = np.zeros((200, 400), bool)
        tumor[:, :200] = True
        field = annotated_field("f", colors, tumor, 0.25)
        assert (field.pixel_size_um, field.colors.shape) == (0.5, (100, 200, 3))
        assert field.tumor.mean() == pytest.approx(0.5)

    def test_nothing_is_known_along_a_coarse_edge(self):
        field = flat_field("f", edge_um=5)
        assert not field.known[28:36].any()
        assert field.known[:26].all()
        assert field.known[38:].all()

    def test_a_mask_of_another_size_is_refused(self):
        with pytest.raises(LinceiError, match="8 x 8 pixels and the image 9 x 9"):
            annotated_field("f", np.zeros((9, 9, 3), np.uint8), np.zeros((8, 8), bool), 1.0)

    def test_of_a_tumor_patch_only_the_middle_is_known(self):
        colors = np.zeros((16, 16, 3), np.uint8)
        patches = [annotated_field("p", colors, np.full((16, 16), value), 1.0) for value in (True, False)] * 2
        mosaic = mosaic_of(patches, 2)
        assert mosaic.truth.shape == (32, 32, 2)
        assert mosaic.tumor[8, 8]
        assert mosaic.known[8, 8]
        assert not mosaic.known[1, 1]  # the border of a tumor patch
        assert mosaic.known[1, 17]  # the border of a normal one
        assert not mosaic.tumor[:, 16:].any()

    @pytest.mark.parametrize(("tumor", "said"), [(0.0, "not tumor"), (1.0, "outlined is tumor")])
    def test_fields_of_one_kind_teach_nothing(self, tumor, said):
        with pytest.raises(LinceiError, match=said):
            check_fields([flat_field("f", tumor=tumor)])


class TestCrops:
    def test_a_crop_has_the_truth_of_its_cells(self):
        colors = np.full((300, 300, 3), 250, np.uint8)
        tumor = np.zeros((300, 300), bool)
        tumor[100:200, 100:200] = True
        colors[tumor] = (120, 40, 120)
        field = annotated_field("f", colors, tumor, 1.0)
        make = crop_maker([field], CropRange(128, (0.99, 1.0, 1.01)), batch=16)
        pixels, truth = make(np.random.default_rng(0))
        assert pixels.shape == (16, 128, 128, 3)
        assert truth.shape == (16, 16, 16, 2)
        green = pixels[..., 1].reshape(16, 16, OUTPUT_STRIDE, 16, OUTPUT_STRIDE).mean(axis=(2, 4))
        # Dark cells are tumor, whatever stain and camera made of them.
        assert roc_auc(-green, truth[..., 0] > 0.5) > 0.97

    def test_the_same_seed_makes_the_same_crops(self):
        make = crop_maker([drawn_field(0)], CropRange(64), batch=2)
        first, second = (make(np.random.default_rng(3))[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_sets_count_by_their_shares_and_not_by_their_size(self):
        dark = [flat_field(f"d{i}", set_name="dark") for i in range(9)]
        dark = [dataclasses.replace(field, colors=np.full_like(field.colors, 60)) for field in dark]
        make = crop_maker([*dark, flat_field("b", set_name="bright")], CropRange(32), batch=200)
        pixels, _ = make(np.random.default_rng(1))
        assert np.mean(pixels.mean(axis=(1, 2, 3)) < 130) == pytest.approx(0.5, abs=0.12)

    def test_glass_stays_bright_and_is_never_tumor(self):
        random = np.random.default_rng(0)
        glass = np.full((32, 32, 3), 250, np.uint8)
        seen = [photographed(restained(glass, random), 1.0, random) for _ in range(100)]
        assert {pixels.dtype for pixels in seen} == {np.dtype(np.float32)}
        assert np.mean(seen) > 200
        assert min(pixels.mean() for pixels in seen) > 120  # a dim lamp and a steep curve
        truth = np.ones((64, 64, 2), np.float32)
        bare = [with_glass(np.zeros((64, 64, 3), np.float32), truth, random) for _ in range(100)]
        covered = [(colors, t) for colors, t in bare if (t[..., 0] == 0).any()]
        assert 3 <= len(covered) <= 30
        for colors, t in covered:
            assert colors[t[..., 0] == 0].mean() > 120


class TestSplits:
    def test_every_image_has_one_use(self):
        fields = [flat_field(f"f{i:02}") for i in range(11)]
        split = split_fields(fields)
        names = [field.name for part in (split.train, split.tune, split.test) for field in part]
        assert sorted(names) == [f"f{i:02}" for i in range(11)]
        assert min(len(split.tune), len(split.test)) >= 1
        assert "by image (11)" in split.description

    def test_a_slide_is_never_parted(self):
        fields = [flat_field(f"f{i}", group=f"slide {i % 4}") for i in range(12)]
        split = split_fields(fields)
        groups = [{field.group for field in part} for part in (split.train, split.tune, split.test)]
        assert sorted(group for part in groups for group in part) == [f"slide {i}" for i in range(4)]

    def test_one_large_image_is_cut_with_guards_between(self):
        field = flat_field("f", (200, 1400))
        field.colors[:, :, 0] = (np.arange(1400) % 256).astype(np.uint8)
        parts = strips(field)
        assert [parts[use].colors.shape[0] for use in ("train", "tune", "test")] == [200] * 3
        halo = TumorNetworkConfig().halo_px
        assert sum(part.colors.shape[1] for part in parts.values()) == 1400 - 2 * halo

    def test_one_small_image_is_too_little(self):
        with pytest.raises(LinceiError, match="three images or more"):
            split_fields([flat_field("f", (400, 400))])

    def test_groups_are_dealt_out_to_the_folds(self):
        fields = [flat_field(f"f{i}") for i in range(5)]
        folds = dealt_out(fields, 2)
        assert sorted(folds) == [f"f{i}" for i in range(5)]
        assert sorted(folds.values()) == ["1", "1", "1", "2", "2"]
        with pytest.raises(LinceiError, match="5 groups for 6 folds"):
            dealt_out(fields, 6)


def told(logits: NDArray, tumor: NDArray, part="tune", size_um=1.0) -> Seen:
    """A network's answers for a field of as many cells."""
    mask = np.kron(tumor, np.ones((OUTPUT_STRIDE, OUTPUT_STRIDE))) > 0
    field = annotated_field("f", np.zeros((*mask.shape, 3), np.uint8), mask, size_um)
    return Seen(part, field, size_um, logits.astype(np.float32))


class TestCalibration:
    def test_it_undoes_logits_that_are_too_sure(self):
        random = np.random.default_rng(0)
        logits = np.repeat(np.repeat(random.normal(0, 2, (12, 12)), 5, 0), 5, 1)
        tumor = random.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))
        calibration = calibration_of([told(3 * logits + 1, tumor)])
        # Between cells logits are interpolated and the truth is not, so not quite 1/3.
        assert calibration.sharpening == pytest.approx(1 / 3, abs=0.05)
        assert calibration.probability(np.float32([1.0]))[0] == pytest.approx(0.5, abs=0.05)

    def test_a_perfect_separation_has_an_end(self):
        tumor = np.zeros((12, 12), bool)
        tumor[:6] = True
        calibration = calibration_of([told(np.where(tumor, 4.0, -4.0), tumor)])
        assert 0 < calibration.sharpening <= 20

    def test_without_tumor_nothing_is_changed(self):
        nothing = told(np.zeros((4, 4)), np.zeros((4, 4), bool))
        assert calibration_of([nothing]) == Calibration()

    def test_the_threshold_is_where_dice_is_best(self):
        random = np.random.default_rng(1)
        tumor = np.zeros((20, 20), bool)
        tumor[4:12, 4:12] = True
        logits = np.where(tumor, 2.5, 1.0) + random.normal(0, 0.2, tumor.shape)
        table = objectives_of([told(logits, tumor)], Calibration())
        assert 1 / (1 + np.exp(-1.2)) < table["40x"]["threshold"] < 1 / (1 + np.exp(-2.4))
        assert table["4x"]["threshold"] == 0.5  # nothing was seen at that pixel size

    def test_cells_lie_where_the_network_saw_them(self):
        cells = np.zeros((4, 6), np.float32)
        cells[1, 2] = 1
        # Seen at half the image's resolution: a cell of 8 px spans 16 of the image's.
        image = enlarged(cells, (64, 96), OUTPUT_STRIDE, 0.5)
        assert np.unravel_index(image.argmax(), image.shape)[0] in (23, 24)
        assert np.unravel_index(image.argmax(), image.shape)[1] in (39, 40)


def test_a_small_tumor_makes_a_high_field_score_and_noise_does_not():
    field = np.full((40, 40), 0.05)
    assert field_score(field) == pytest.approx(0.05)
    field[:10, :10] = 0.95
    assert field_score(field) == pytest.approx(0.95)
    noise = np.full((40, 40), 0.05)
    noise[3, 3] = 1.0
    assert field_score(noise) < 0.1
    assert field_score(np.full((2, 2), np.nan)) == 0.0


def test_options_that_make_no_sense_are_refused():
    for wrong, said in (({"folds": 1}, "--folds is 1"), ({"crop_px": 100}, "multiple of 16")):
        with pytest.raises(UsageError, match=said):
            TrainTumorOptions(**wrong)


def test_a_model_of_another_trainer_is_no_start(trained, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(trained.folder, other)
    network = json.loads((other / "network.json").read_text("utf-8"))
    (other / "network.json").write_text(json.dumps({**network, "builder": "focusqc.network:build_network"}))
    with pytest.raises(LinceiError, match="differs"):
        train([drawn_field(0)], tmp_path / "m", QUICK, start_from=str(other))


def test_a_field_answers_for_itself_as_annotated():
    field = flat_field("f")
    assert isinstance(field, AnnotatedField)
    assert field.at(2.0).truth.shape == (32, 32, 2)
    assert [level.pixel_size_um for level in field.pyramid] == [1.0, 2.0]
