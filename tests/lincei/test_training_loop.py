"""The training loop, on a model that needs no Keras."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lincei.errors import LinceiError
from lincei.training import (
    LoopSettings,
    TrainingStoppedError,
    learning_rate,
    remove_state,
    run_loop,
    typed_command,
)


class Optimizer:
    def __init__(self):
        self.learning_rate = 0.0
        self.variables = []

    def build(self, variables):
        pass


class Model:
    """One weight that walks towards 1, a tenth of the way a step."""

    trainable_variables = ()

    def __init__(self, loss=None):
        self.weight, self.optimizer, self.rates, self.loss = np.zeros(1), Optimizer(), [], loss

    def get_weights(self):
        return [self.weight.copy()]

    def set_weights(self, weights):
        self.weight = np.array(weights[0])

    def train_on_batch(self, x, y):
        self.rates.append(self.optimizer.learning_rate)
        self.weight += 0.1 * (1 - self.weight)
        return self.loss if self.loss is not None else float(1 - self.weight[0])


def batches(random):
    return random.normal(size=3), np.zeros(3)


def run(model, tmp_path, evaluate=None, *, steps=60, resume=False, fingerprint="a", **more):
    settings = LoopSettings(max_minutes=5, epoch_steps=10, max_steps=steps)
    evaluate = evaluate or (lambda: {"score": float(model.weight[0])})
    return run_loop(
        model, batches, evaluate, settings, seed=1, fingerprint=fingerprint, resume=resume, **more
    )


def test_the_averaged_weights_are_kept_not_the_last_ones(tmp_path):
    model = Model()
    result = run(model, tmp_path)
    assert result.stopped == "steps"
    assert result.steps == 60
    assert 0.5 < result.weights[0][0] < model.weight[0]


def test_the_best_epoch_is_kept_when_later_ones_are_worse(tmp_path):
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.1, 0.0])
    result = run(Model(), tmp_path, lambda: {"score": next(scores)})
    assert result.best_steps == 20
    assert result.score == 0.9
    assert [entry["score"] for entry in result.history] == [0.1, 0.9, 0.2, 0.3, 0.1, 0.0]


def test_a_score_that_is_no_number_does_not_lose_the_weights(tmp_path):
    result = run(Model(), tmp_path, lambda: {"score": float("nan")})
    assert len(result.weights) == 1


def test_a_loss_that_is_no_number_ends_in_a_sentence(tmp_path):
    with pytest.raises(LinceiError, match="training became unstable"):
        run(Model(loss=float("nan")), tmp_path)


def test_the_learning_rate_warms_up_and_falls(tmp_path):
    rates = [learning_rate(1.0, step, share) for step, share in ((0, 0.0), (99, 0.0), (500, 0.5), (900, 1.0))]
    assert rates[0] == pytest.approx(0.01)
    assert rates[1] == pytest.approx(1.0)
    assert rates[2] == pytest.approx(0.51)
    assert rates[3] == pytest.approx(0.02)


def test_no_improvement_for_long_ends_the_training(monkeypatch):
    import lincei.training

    clock = iter(np.arange(0, 10000, 0.5))
    monkeypatch.setattr(lincei.training.time, "monotonic", lambda: next(clock))
    settings = LoopSettings(max_minutes=10, epoch_steps=10, patience=0.1)
    scores = iter([0.5] + [0.1] * 1000)
    result = run_loop(Model(), batches, lambda: {"score": next(scores)}, settings, seed=1, fingerprint="a")
    assert result.stopped == "no improvement"
    assert result.minutes < 3
    assert result.score == 0.5


def test_an_error_in_making_a_batch_reaches_the_caller(tmp_path):
    def broken(random):
        raise LinceiError("this image is damaged", "a.tif")

    with pytest.raises(LinceiError, match=r"a\.tif: this image is damaged"):
        run_loop(Model(), broken, lambda: {"score": 0.0}, LoopSettings(1), seed=1, fingerprint="a")


def test_a_stopped_loop_goes_on_with_its_weights_and_steps(tmp_path):
    pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
    path = tmp_path / "state.npz"
    asked = iter(range(1000))
    with pytest.raises(TrainingStoppedError):
        run(Model(), tmp_path, state_path=path, cancelled=lambda: next(asked) >= 24)
    model = Model()
    result = run(model, tmp_path, state_path=path, resume=True)
    assert result.steps == 60
    assert len(model.rates) == 35
    again = run(Model(), tmp_path, state_path=path, resume=True)
    assert again.weights[0][0] == result.weights[0][0]  # a loop that had ended trains no more


def test_a_state_of_another_training_or_a_damaged_one_is_refused(tmp_path):
    pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
    path = tmp_path / "state.npz"
    run(Model(), tmp_path, state_path=path)
    with pytest.raises(LinceiError, match="other images or options"):
        run(Model(), tmp_path, state_path=path, resume=True, fingerprint="b")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LinceiError, match="state of the stopped training is damaged"):
        run(Model(), tmp_path, state_path=path, resume=True)


# What is written about it, and what is left


def test_the_data_folder_is_named_by_its_variable_and_nothing_else_is(monkeypatch):
    words = ["train-focus", "--input", "a=/x/data/b/*.tif", "--resume", "--data-credit", "a b"]
    monkeypatch.setattr(sys, "argv", ["lincei", *words])
    monkeypatch.setenv("LINCEI_DATA", "/x/data/")
    assert typed_command() == "lincei train-focus --input \"a=$LINCEI_DATA/b/*.tif\" --data-credit 'a b'"
    monkeypatch.setenv("LINCEI_DATA", "data")
    assert "--data-credit" in typed_command()


def test_only_the_state_is_removed(tmp_path):
    (tmp_path / "training.npz").write_bytes(b"state")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    remove_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "notes.txt").unlink()
    remove_state(tmp_path)
    assert not tmp_path.exists()


def test_a_loop_that_is_asked_to_finish_keeps_the_best_weights_so_far():
    model = Model()
    result = run(model, None, steps=1000, finish=lambda: len(model.rates) >= 25)
    assert result.stopped == "by the user"
    assert result.steps == 25
    assert [entry["steps"] for entry in result.history] == [10, 20, 25]
    assert result.best_steps == 25
    assert result.weights[0][0] > 0


def test_a_preview_is_made_with_the_averaged_weights_and_comes_with_the_epoch():
    model, updates = Model(), []
    run(model, None, steps=20, progress=updates.append, preview=lambda: float(model.weight[0]))
    epochs = [update for update in updates if "epoch" in update.metrics]
    assert [update.preview for update in epochs] == [update.metrics["score"] for update in epochs]


def test_the_loss_is_told_within_a_long_epoch(monkeypatch):
    import lincei.training

    monkeypatch.setattr(lincei.training, "_LOSS_EVERY_S", -1.0)
    model, updates = Model(), []
    run(model, None, steps=10, progress=updates.append)
    assert [update.metrics["steps"] for update in updates] == list(range(1, 11))
    expected = [1 - (1 - 0.9**step) for step in range(1, 10)]
    np.testing.assert_allclose([update.metrics["loss"] for update in updates[:-1]], expected)
    assert set(updates[0].metrics) == {"steps", "loss"}
    assert all(update.message == "" for update in updates[:-1])
