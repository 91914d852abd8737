"""Training from sharp images: the loss, the split, learning, stopping and going on, and the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from focusqc.options import TrainFocusOptions
from focusqc.scenes import drawn_scene
from focusqc.training import (
    ranked_loss,
    ranked_score,
    sharp_fields,
    split_fields,
    train,
    with_structure,
)
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image
from lincei.model_check import check_model
from lincei.training import TrainingStoppedError

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUICK = TrainFocusOptions(max_minutes=0.35, width=4, learning_rate=5e-3)


def sharp(name, seed=0, shape=(240, 260)):
    scene = drawn_scene(np.random.default_rng(seed), max(shape))[: shape[0], : shape[1]]
    return Image.from_array((100 + 900 * scene).astype(np.uint16), name=name)


def after(asks):
    """Return a cancel check that turns true after so many asks."""
    counter = iter(range(10**6))
    return lambda: next(counter) >= asks


# The loss


def test_the_loss_is_least_for_the_truth_and_grows_with_the_distance_from_it():
    def loss(level):
        logits = np.full((1, 11), -20.0, np.float32)
        logits[0, level] = 20
        return float(ranked_loss(np.array([4]), logits))

    values = [loss(level) for level in (4, 5, 7, 10)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-3)


def test_where_nothing_tells_the_level_the_uniform_answer_is_best():
    levels = np.arange(11)
    uniform = float(ranked_loss(levels, np.zeros((11, 11), np.float32)))
    random = np.random.default_rng(0)
    for _ in range(20):
        other = np.repeat(random.normal(0, 0.5, (1, 11)).astype(np.float32), 11, axis=0)
        assert uniform < float(ranked_loss(levels, other))


def test_the_ranked_score_is_that_of_its_definition():
    p = np.array([[0.5, 0.5] + [0.0] * 9])
    # Truth at level 2: both cumulated probabilities before it are too high, by 0.5 and by 1.
    assert ranked_score(p, np.array([2])) == pytest.approx(0.25 + 1)


# The fields and the split


def test_channels_and_times_are_images_of_their_own_and_color_is_seen_in_gray():
    two = Image.from_array(np.random.default_rng(0).integers(0, 99, (2, 3, 200, 200)), "TCYX", name="a")
    color = Image.from_array(np.random.default_rng(0).integers(0, 99, (200, 200, 3)), "YXS", name="b")
    fields = sharp_fields({"": [two, color]}, {})
    assert len(fields) == 2 * 3 + 1
    np.testing.assert_allclose(fields[-1].plane, color.read()[0, :, 0].mean(axis=0))


def test_stacks_small_unsuited_and_broken_images_are_refused_by_name():
    random = np.random.default_rng(0)
    cases = {
        "z planes": Image.from_array(random.random((4, 200, 200)), "ZYX", name="stack"),
        "training needs 168": Image.from_array(random.random((100, 400)), name="small"),
        "known to be phase contrast": Image.from_array(
            random.random((200, 200)), name="phase", modality="phase contrast"
        ),
        "no numbers": Image.from_array(np.full((200, 200), np.nan), name="broken"),
    }
    for words, image in cases.items():
        with pytest.raises(LinceiError, match=words) as caught:
            sharp_fields({"": [image]}, {})
        assert image.name in str(caught.value)


def test_images_of_one_group_are_held_out_together():
    images = [sharp(f"well{i // 2}_site{i % 2}", i) for i in range(16)]
    groups = {"": {image.name: image.name.partition("_")[0] for image in images}}
    split = split_fields(sharp_fields({"": images}, groups))
    parts = [{field.group for field in part} for part in (split.train, split.tune, split.test)]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(len(part) for part in (split.train, split.tune, split.test)) == 16
    assert "by group (8)" in split.description


def test_a_single_image_is_cut_with_a_guard_band_as_wide_as_light_is_blurred():
    image = sharp("only", shape=(200, 600))
    split = split_fields(sharp_fields({"": [image]}, {}))
    widths = [part[0].plane.shape[1] for part in (split.train, split.tune, split.test)]
    assert min(widths) >= 84
    assert sum(widths) == 600 - 2 * 26
    scene = image.read()[0, 0, 0]
    np.testing.assert_array_equal(split.train[0].plane, scene[:, : widths[0]])
    np.testing.assert_array_equal(split.test[0].plane, scene[:, -widths[2] :])
    assert "cut into parts" in split.description


def test_an_image_too_small_to_be_cut_is_refused():
    with pytest.raises(LinceiError, match="too small to be cut"):
        split_fields(sharp_fields({"": [sharp("small", shape=(200, 290))]}, {}))


def test_of_two_groups_one_trains_and_the_other_tunes_and_tests():
    images = [sharp(f"run{1 if i < 5 else 2}_{i}", i) for i in range(8)]
    groups = {"": {image.name: image.name.partition("_")[0] for image in images}}
    split = split_fields(sharp_fields({"": images}, groups))
    assert {field.group for field in split.train} == {"/run1"}
    assert {field.group for field in (*split.tune, *split.test)} == {"/run2"}
    assert split.tune
    assert split.test


def test_every_set_is_split():
    sets = {"a": [sharp(f"a{i}", i) for i in range(5)], "b": [sharp("b", 9, (200, 600))]}
    split = split_fields(sharp_fields(sets, {}))
    for part in (split.train, split.tune, split.test):
        assert {field.set_name for field in part} == {"a", "b"}


def test_empty_fields_are_left_out_and_named():
    noise = np.random.default_rng(0).poisson(100, (200, 200)).astype(np.uint16)
    images = [
        sharp("cells"),
        Image.from_array(noise, name="nothing here"),
        Image.from_array(np.zeros((200, 200), np.uint8), name="all black"),
    ]
    with pytest.warns(LinceiWarning) as warned:
        kept = with_structure(sharp_fields({"": images}, {}), bright_field=False)
    assert [field.name for field in kept] == ["cells"]
    assert "nothing here" in str(warned[0].message)
    assert "all black" in str(warned[1].message)


def test_a_set_of_empty_fields_is_named():
    noise = Image.from_array(np.random.default_rng(0).poisson(100, (200, 200)), name="noise")
    fields = sharp_fields({"good": [sharp("cells")], "empty": [noise]}, {})
    with pytest.warns(LinceiWarning), pytest.raises(LinceiError, match="set 'empty'"):
        with_structure(fields, bright_field=False)


def test_a_part_to_be_kept_that_is_constant_is_refused():
    scene = np.zeros((200, 700), np.uint16)
    scene[:, :300] = sharp("left", shape=(200, 300)).read()[0, 0, 0]
    with pytest.raises(LinceiError, match="is constant"):
        split_fields(sharp_fields({"": [Image.from_array(scene, name="half")]}, {}))


def test_a_folder_with_other_files_is_refused_before_any_training(tmp_path):
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(LinceiError, match="other files"):
        train([sharp("a", 1, (200, 600))], tmp_path, QUICK)
    assert (tmp_path / "mine.txt").exists()


def test_another_split_is_another_training(tmp_path):
    images = [sharp(f"scene {i}", i) for i in range(6)]
    with pytest.raises(TrainingStoppedError):
        train(images, tmp_path / "model", QUICK, max_minutes=10, cancelled=after(10))
    pairs = {"": {image.name: str(i // 2) for i, image in enumerate(images)}}
    with pytest.raises(LinceiError, match="other"):
        train(images, tmp_path / "model", QUICK, resume=True, groups=pairs)


# Learning


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "quick-focus"
    lines = []
    model = train(
        {"scenes": [sharp(f"scene {i}", i) for i in range(6)]},
        folder,
        QUICK,
        max_minutes=0.7,
        measure_on={"others": [sharp("other", 77)]},
        command="lincei train-focus --input x",
        progress=lambda update: lines.append(update.message),
        license="CC0-1.0",
        data_credit="drawn",
    )
    return model, [line for line in lines if line]


def test_even_a_short_training_tells_blurred_from_sharp(trained):
    model, lines = trained
    figures = model.card.figures
    assert figures["test"]["rank_correlation"] > 0.5
    assert figures["other_images"]["others"]["pieces"] == 1
    assert any("epoch 1" in line and "within one" in line for line in lines)


def test_the_card_names_what_was_held_out_and_how_to_train_it_again(trained):
    model, _ = trained
    training = model.card.training
    held_out = set(training["test_fields"])
    assert held_out
    assert not held_out & set(training["train_fields"])
    assert training["command"] == "lincei train-focus --input x"
    readme = model.file("README.md").read_text("utf-8")
    assert "others" in readme
    assert "CC0-1.0" in readme
    assert json.loads(model.file("metrics.json").read_text("utf-8")) == model.card.figures


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "tensorflow"])
def test_every_engine_answers_as_the_trained_network_did(trained, engine):
    checked = check_model(trained[0], engine)
    assert checked.passed, checked.describe()


def test_a_stopped_training_goes_on_where_it_was(tmp_path):
    images = [sharp(f"scene {i}", i) for i in range(4)]
    folder = tmp_path / "stopped"
    with pytest.raises(TrainingStoppedError) as stopped:
        train(images, folder, QUICK, max_minutes=10, cancelled=after(10))
    assert stopped.value.state_path.exists()
    assert not folder.exists()
    model = train(images, folder, QUICK, resume=True, max_minutes=0.1)
    assert model.card.finished
    assert not stopped.value.state_path.exists()


def test_another_training_is_not_gone_on_with(tmp_path):
    folder = tmp_path / "stopped"
    with pytest.raises(TrainingStoppedError):
        train([sharp("a", 1, (200, 600))], folder, QUICK, max_minutes=10, cancelled=after(10))
    with pytest.raises(LinceiError, match="other"):
        train([sharp("b", 2, (200, 600))], folder, QUICK, resume=True)


def test_options_out_of_range_are_named():
    with pytest.raises(UsageError, match="--synthetic-share"):
        TrainFocusOptions(synthetic_share=2)
