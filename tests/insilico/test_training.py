"""Training: splitting, learning, stopping and going on, and the model that comes out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import insilico.training
from insilico.options import TrainOptions
from insilico.training import (
    Field,
    TrainingPair,
    label_color,
    split_fields,
    train,
)
from lincei.errors import LinceiError, UsageError
from lincei.image import Image
from lincei.training import TrainingStoppedError
from sample_data.cells import simulate_cells

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

QUICK = TrainOptions(
    max_minutes=0.5, start_from="scratch", width=8, scales=2, components=2, crop_px=64, learning_rate=3e-3
)


def field(height, width, name="a"):
    return Field(name, np.zeros((height, width, 1), np.float32), np.zeros((height, width, 1), np.float32))


def pairs(count, *, size_px=192, planes=3, labels=("nuclei", "cytoplasm")):
    fields = [simulate_cells(seed, size_px=size_px, planes=planes, cells=14) for seed in range(count)]
    return [TrainingPair(f.stack, {name: f.labels[name] for name in labels}) for f in fields]


def after(reports):
    """Return a cancel check that turns true after so many asks."""
    counter = iter(range(10**6))
    return lambda: next(counter) >= reports


# Splitting


def test_one_field_is_cut_into_strips_along_its_longer_side_with_guard_bands_between():
    split = split_fields([field(1000, 600)], guard_px=50)
    (train_part,), (tune,), (test,) = split.train, split.tune, split.test
    assert train_part.rows.start == 0
    assert test.rows.stop == 1000
    assert tune.rows.start - train_part.rows.stop == 50
    assert test.rows.start - tune.rows.stop == 50
    assert all(part.columns == slice(0, 600) for part in (train_part, tune, test))
    assert "rows" in split.description
    assert "50 px" in split.description


def test_a_wide_field_is_cut_along_its_columns():
    split = split_fields([field(300, 1000)], guard_px=50)
    assert split.test[0].rows == slice(0, 300)
    assert split.test[0].columns.stop == 1000


def test_three_fields_or_more_are_split_by_field_and_no_field_serves_twice():
    fields = [field(100, 100, name) for name in "abcdefghij"]
    split = split_fields(fields, guard_px=50)
    names = [[part.field.name for part in parts] for parts in (split.train, split.tune, split.test)]
    assert sorted(name for part in names for name in part) == list("abcdefghij")
    assert [len(n) for n in names] == [7, 1, 2]
    assert all(part.rows == slice(0, 100) for part in split.test)


def test_groups_stay_together_and_the_test_is_of_a_group_that_nothing_else_is_of():
    fields = [replace(field(100, 100, f"{group}{i}"), group=group) for group in "abc" for i in range(5)]
    split = split_fields(fields, guard_px=50)
    of_test = {part.field.group for part in split.test}
    assert len(of_test) == 1
    assert not of_test & {part.field.group for part in (*split.train, *split.tune)}
    assert len(split.train) + len(split.tune) + len(split.test) == 15
    assert split.description.startswith("by group")


def test_many_groups_are_tuned_on_by_group_too():
    fields = [replace(field(100, 100, f"{group}{i}"), group=group) for group in "abcdefgh" for i in range(2)]
    split = split_fields(fields, guard_px=50)
    groups = [{part.field.group for part in parts} for parts in (split.train, split.tune, split.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 8


def test_what_the_user_keeps_to_tune_and_to_test_is_kept():
    fields = [replace(field(100, 100, name), use={"a": "test", "c": "tune"}.get(name, "")) for name in "abcd"]
    split = split_fields(fields, guard_px=50)
    names = [[part.field.name for part in parts] for parts in (split.train, split.tune, split.test)]
    assert names == [["b", "d"], ["c"], ["a"]]


def test_nothing_left_to_train_on_is_said():
    fields = [replace(field(100, 100, name), use="test") for name in "abc"]
    with pytest.raises(LinceiError, match="nothing is left to train on: of 3 fields 3 are kept for the test"):
        split_fields(fields, guard_px=50)


def test_sets_are_split_each_for_itself():
    one = [replace(field(1000, 600), set_name="neurons")]
    many = [replace(field(100, 100, name), set_name="bacteria") for name in "abcde"]
    split = split_fields([*one, *many], guard_px=50)
    for parts in (split.train, split.tune, split.test):
        assert {part.field.set_name for part in parts} == {"neurons", "bacteria"}
    assert "neurons, strips of one field" in split.description
    assert "bacteria, by field" in split.description


def test_sets_are_drawn_from_alike_however_large_they_are():
    from insilico.training import _batches

    small = replace(field(200, 200, "small"), set_name="one")
    large = [
        replace(field(200, 200, str(i)), set_name="two", truth=np.ones((200, 200, 1), np.float32))
        for i in range(20)
    ]
    batch = _batches([_whole_of(f) for f in (small, *large)], QUICK)
    random = np.random.default_rng(0)
    from_large = np.mean([batch(random)[1][..., 0].mean() for _ in range(60)])
    assert 0.35 < from_large < 0.65


def _whole_of(f):
    from insilico.training import Part

    return Part(f, slice(0, f.stack.shape[0]), slice(0, f.stack.shape[1]))


def test_one_exposure_is_scaled_as_one():
    from insilico.training import read_fields

    both = pairs(2, size_px=96, planes=1, labels=("nuclei",))
    dim = both[1].labels["nuclei"]
    both[1] = replace(both[1], labels={"nuclei": dim.with_(data=dim.read() // 4)})
    for scaling, alike in (("image", True), ("all", False)):
        scaled = [replace(pair, label_scaling=scaling) for pair in both]
        bright, faint = (
            float(np.percentile(f.truth, 99.9)) for f in read_fields(scaled, ["nuclei"], 1, None, None, QUICK)
        )
        assert (abs(bright - faint) < 0.05) is alike


def test_a_single_plane_among_stacks_is_learned_as_it_will_be_labeled():
    """One plane stands for all of the network's, in training as in labeling."""
    from insilico.training import read_fields

    stack, plane = pairs(1, size_px=96, planes=3)[0], pairs(1, size_px=96, planes=1)[0]
    three, one = read_fields([stack, plane], ["nuclei", "cytoplasm"], 3, None, None, QUICK)
    assert three.stack.shape[-1] == 3
    assert one.stack.shape[-1] == 1
    seen = one.seen(one.stack)
    assert seen.shape[-1] == 3
    for i in range(3):
        np.testing.assert_array_equal(seen[..., i], one.stack[..., 0])


def test_a_border_of_which_nothing_is_known_is_not_measured():
    from insilico.training import _known_window

    truth = np.full((20, 30), np.nan, np.float32)
    assert _known_window(truth) is None
    truth[2:, :-3] = 1
    assert _known_window(truth) == (slice(2, 20), slice(0, 27))


def test_a_field_too_small_for_strips_says_how_large_it_must_be():
    with pytest.raises(LinceiError, match=r"too small to train from: 200 x 150 pixels.*300 pixels or more"):
        split_fields([field(200, 150)], guard_px=50)


# Learning


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trained for so many steps, however long they take on a busy machine."""
    folder = tmp_path_factory.mktemp("models") / "quick"
    lines = []
    loop_settings = insilico.training.LoopSettings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            insilico.training,
            "LoopSettings",
            lambda *a, **k: loop_settings(*a, **{**k, "max_steps": 300}),
        )
        model = train(
            pairs(4),
            folder,
            replace(QUICK, max_minutes=20),
            command="lincei train",
            progress=lambda update: lines.append(update.message),
        )
    return model, [line for line in lines if line]


def test_the_model_is_complete_and_finds_nuclei_at_once(trained):
    from insilico import label
    from lincei.metrics import pearson_r

    model, _ = trained
    fresh = simulate_cells(77, size_px=200, planes=3, cells=16)
    result = label(fresh.stack, model, statistics=("mean", "q05", "q95"))
    assert result["mean"].channel_names == ("nuclei", "cytoplasm")
    truth = fresh.labels["cytoplasm"].read()[0, 0, 0]
    assert pearson_r(result["mean"].read()[0, 1, 0], truth) > 0.5
    assert (result["q05"].read() <= result["q95"].read()).all()


def test_the_card_says_what_was_measured_on_what(trained):
    model, _ = trained
    figures = model.card.figures
    for label_name in ("nuclei", "cytoplasm"):
        measured = figures["test"][label_name]
        assert set(measured) == {"pearson_r", "nrmse", "ssim", "crps", "coverage_90"}
        assert 0 < measured["coverage_90"] <= 1
        assert measured["crps"] > 0
    assert figures["split"].startswith("by field: 2 fields to train, 1 to tune, 1 to test")
    assert json.loads(model.file("metrics.json").read_text("utf-8")) == figures
    readme = model.file("README.md").read_text("utf-8")
    assert "Research use only" in readme
    assert f"{figures['test']['nuclei']['pearson_r']:.3f}" in readme


def test_every_epoch_reports_a_line_that_a_person_understands(trained):
    _, lines = trained
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert epochs[0].startswith("epoch 1, ")
    assert "r(nuclei)" in epochs[0]
    assert "best so far" in epochs[0]


def test_the_registration_is_told_and_written_into_the_card(trained):
    model, lines = trained
    told = [line for line in lines if not line.startswith("epoch ")]
    assert any("nuclei lies on its input" in line or "could not be estimated" in line for line in told)
    assert model.card.training["registration"] == told


def test_the_card_knows_what_the_training_images_look_like_and_what_dust_does(trained):
    from insilico.out_of_distribution import reference_of

    model, _ = trained
    assert reference_of(model.card) is not None
    assert {"dust", "smear", "bubble"} <= set(model.card.figures["artifacts"])


def test_nothing_of_the_training_state_is_left_behind(trained):
    model, _ = trained
    assert [path.name for path in model.folder.parent.iterdir()] == [model.folder.name]


def test_every_engine_gives_the_trained_networks_answer(trained):
    from lincei.model_check import check_on_all_engines

    reports = check_on_all_engines(trained[0])
    assert len(reports) == 3
    for name, report in reports.items():
        assert report.passed, f"{name}: {report.describe()}"


# Stopping and going on


def test_a_stopped_training_goes_on_where_it_was(tmp_path):
    out, data = tmp_path / "stopped", pairs(3)
    with pytest.raises(TrainingStoppedError) as stopped:
        train(data, out, replace(QUICK, max_minutes=20), cancelled=after(60))
    assert not out.exists()
    assert stopped.value.state_path.exists()
    with np.load(stopped.value.state_path) as state:
        steps = json.loads(str(state["header"]))["steps"]
    assert 0 < steps < 60
    updates = []
    # A stopped training may be given another time.
    less = replace(QUICK, max_minutes=0.25)
    model = train(data, out, less, resume=True, progress=updates.append)
    assert model.card.training["steps"] > steps
    first = next(update for update in updates if update.metrics)
    assert first.metrics["steps"] > steps
    assert not stopped.value.state_path.exists()


def test_a_state_of_other_options_is_not_resumed(tmp_path):
    out, data = tmp_path / "stopped", pairs(3)
    with pytest.raises(TrainingStoppedError):
        train(data, out, replace(QUICK, max_minutes=20), cancelled=after(60))
    with pytest.raises(LinceiError, match="other images or options"):
        train(data, out, QUICK, resume=True, seed=5)


# Labels that not every field has


def test_a_field_without_a_label_teaches_nothing_about_it():
    from insilico.network import NetworkConfig
    from insilico.training import _compiled

    config = NetworkConfig(labels=2, planes=1, width=8, scales=2, components=2)
    trainer = _compiled(config, QUICK)
    random = np.random.default_rng(0)
    predicted = {
        "mean": random.normal(size=(1, 8, 8, 2)).astype(np.float32),
        "shape": random.normal(size=(1, 4, 4, 12)).astype(np.float32),
    }
    truth = random.normal(size=(1, 8, 8, 2)).astype(np.float32)
    known = np.stack([np.ones((1, 8, 8)), np.zeros((1, 8, 8))], axis=-1)
    other = truth.copy()
    other[..., 1] += 100
    losses = [
        float(trainer.compute_loss(y=np.concatenate([t, known], -1).astype(np.float32), y_pred=predicted))
        for t in (truth, other)
    ]
    assert losses[0] == losses[1]
    changed = truth.copy()
    changed[..., 0] += 1
    y = np.concatenate([changed, known], -1).astype(np.float32)
    assert float(trainer.compute_loss(y=y, y_pred=predicted)) != losses[0]


def test_one_network_learns_from_sets_with_different_labels(tmp_path):
    both = pairs(6, size_px=128)
    mixed = [
        TrainingPair(p.image, {k: v for k, v in p.labels.items() if (i % 2 == 0) == (k == "nuclei")})
        for i, p in enumerate(both)
    ]
    model = train(mixed, tmp_path / "mixed", replace(QUICK, max_minutes=0.1))
    assert [label.name for label in model.card.labels] == ["nuclei", "cytoplasm"]
    assert model.card.figures["test"]


def test_a_start_model_gives_its_features_and_the_heads_of_labels_it_knows(trained, tmp_path):
    from insilico.network import NetworkConfig, build_trunk
    from insilico.training import copy_weights

    start, _ = trained
    old = start.load_keras().get_layer("trunk")
    config = NetworkConfig(**{**start.network()["config"], "labels": 2, "spread": ()})
    fresh = build_trunk(config)
    copy_weights(start, fresh, ["membrane", "DAPI"], np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(fresh.layers[1].get_weights()[0], old.layers[1].get_weights()[0])
    new_mean, old_mean = (net.get_layer("mean").get_weights()[0] for net in (fresh, old))
    np.testing.assert_array_equal(new_mean[:, :, 1], old_mean[:, :, 0])
    assert not np.array_equal(new_mean[:, :, 0], old_mean[:, :, 1])


def test_a_network_for_fewer_planes_answers_as_the_start_model_does_when_they_are_interpolated(trained):
    from insilico.network import NetworkConfig, build_trunk
    from insilico.training import copy_weights
    from insilico.z_planes import plane_weights

    start, _ = trained
    config = NetworkConfig(**{**start.network()["config"], "planes": 1})
    fresh, folded = build_trunk(config), plane_weights(1, 3)
    copy_weights(start, fresh, ["nuclei", "cytoplasm"], folded)
    plane = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype(np.float32)
    old = start.load_keras().get_layer("trunk")
    expected = np.asarray(old.predict_on_batch(plane @ folded.T)["mean"])
    np.testing.assert_allclose(np.asarray(fresh.predict_on_batch(plane)["mean"]), expected, atol=1e-4)


# Bad input


def test_a_label_of_another_size_is_refused_with_both_sizes():
    (pair,) = pairs(1, labels=("nuclei",))
    small = Image.from_array(np.zeros((100, 192), np.uint16), name="stain.tif")
    with pytest.raises(LinceiError, match=r"stain.tif: the label 'nuclei' is 100 x 192.*its input 192 x 192"):
        train([TrainingPair(pair.image, {"nuclei": small})], "unused", QUICK)


def test_a_constant_label_is_refused():
    (pair,) = pairs(1, labels=("nuclei",))
    dark = Image.from_array(np.full((192, 192), 7, np.uint16), name="dark.tif")
    with pytest.raises(LinceiError, match=r"dark.tif.*same value everywhere"):
        train([TrainingPair(pair.image, {"nuclei": dark})], "unused", QUICK)


@pytest.mark.parametrize("where", ["image", "label"])
def test_pixels_that_are_no_numbers_are_refused_wherever_they_are(where):
    (pair,) = pairs(1, labels=("nuclei",))
    good = pair.image if where == "image" else pair.labels["nuclei"]
    spoiled = good.read().astype(np.float32)
    spoiled[..., 101, 77] = np.nan
    bad = good.with_(data=spoiled, source="spoiled.tif")
    image, label = (bad, pair.labels["nuclei"]) if where == "image" else (pair.image, bad)
    with pytest.raises(LinceiError, match=r"spoiled\.tif: .*no numbers"):
        train([TrainingPair(image, {"nuclei": label})], "unused", QUICK)


def test_no_pairs_and_no_labels_are_usage_errors():
    with pytest.raises(UsageError, match="nothing to train from"):
        train([], "unused", QUICK)
    (pair,) = pairs(1)
    with pytest.raises(UsageError, match="no label"):
        train([TrainingPair(pair.image, {})], "unused", QUICK)


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("DAPI", "#0000FF"),
        ("Hoechst33342", "#0000FF"),
        ("MAP2", "#00FF00"),
        ("NFH", "#FF0000"),
        ("axons", "#FF0000"),
    ],
)
def test_known_stains_have_their_usual_colors(name, color):
    assert label_color(name) == color
