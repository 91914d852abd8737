"""Learning and predicting labels in a worker process, as windows and other programs have it done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("appose", reason="Appose is not installed: pip install 'lincei[napari]'")
pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

from insilico.jobs import model_target, stopped_training
from lincei.errors import CancelledError, LinceiError, UsageError
from lincei.model import find_model, list_models
from lincei.progress import Progress
from lincei.worker_process import WorkerProcess
from sample_data.cells import simulate_cells, write_fields

# Long beside anything that happens here, so that only a hang is one.
SOON_S = 300.0
# The time is never up: each training ends because it is asked to.
QUICK = {
    "max_minutes": 600.0,
    "start_from": "scratch",
    "width": 8,
    "scales": 2,
    "components": 2,
    "crop_px": 32,
    "learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def worker(models: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(environment={"LINCEI_MODELS": str(models)}) as opened:
        yield opened


@pytest.fixture
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have this process look for models where the worker does."""
    monkeypatch.setenv("LINCEI_MODELS", str(models))
    return models


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    """Three fields as a viewer has them: arrays with their axes."""
    fields = [simulate_cells(seed, size_px=96, planes=2, cells=6) for seed in range(3)]
    return [
        {
            "image": {"array": f.stack.read()[0, 0], "axes": "ZYX", "pixel_size_um": 0.65, "name": "phase"},
            "labels": {"nuclei": {"array": f.labels["nuclei"].read()[0, 0, 0], "axes": "YX"}},
        }
        for f in fields
    ]


class Heard:
    """Progress as it came, and a moment to wait for."""

    def __init__(self) -> None:
        self.updates: list[Progress] = []
        self._more = threading.Condition()

    def __call__(self, update: Progress) -> None:
        with self._more:
            self.updates.append(update)
            self._more.notify_all()

    def first(self, wanted: Callable[[Progress], bool]) -> Progress:
        with self._more:
            assert self._more.wait_for(lambda: any(map(wanted, self.updates)), SOON_S)
            return next(filter(wanted, self.updates))


def is_epoch(update: Progress) -> bool:
    return "epoch" in update.metrics


def test_a_training_that_is_asked_to_finish_gives_a_model_that_labels_at_once(worker, here, pairs):
    heard = Heard()
    job = worker.start("train", {"out": "my-nuclei", "pairs": pairs}, QUICK, progress=heard)
    epoch = heard.first(is_epoch)
    job.finish()
    result = job.wait(SOON_S)
    assert np.isfinite(epoch.metrics["loss"])
    assert -1 <= epoch.metrics["r(nuclei)"] <= 1
    assert epoch.message.startswith("epoch 1, ")
    assert epoch.preview.dtype == np.uint8
    assert epoch.preview.shape[2] == 3
    assert epoch.preview.shape[1] <= 400
    assert epoch.preview.max() > 200
    # Recalibrated, measured and named, and where every program looks.
    assert result["model"] == "my-nuclei"
    assert Path(result["folder"]) == here / "my-nuclei"
    assert result["finished"] is True
    assert 0 < result["figures"]["test"]["nuclei"]["coverage_90"] <= 1
    assert "Research use only" in result["readme"]
    assert "my-nuclei" in [model.name for model in list_models("label")]
    assert find_model("my-nuclei").card.pixel_size_um == 0.65
    assert not stopped_training("my-nuclei")
    predicted = worker.start("label", {"image": pairs[0]["image"]}, {"model": ["my-nuclei"]}).wait(SOON_S)
    assert predicted["labels"] == ["nuclei"]
    assert predicted["statistics"]["mean"].shape == (1, 1, 1, 96, 96)
    assert predicted["statistics"]["mean"].dtype == np.float32
    assert predicted["scale_assumed"] is False


def test_a_training_whose_program_is_closed_keeps_its_state_and_goes_on_elsewhere(worker, here, pairs):
    data, heard = {"out": "stopped", "pairs": pairs}, Heard()
    with WorkerProcess(environment={"LINCEI_MODELS": str(here)}) as own:
        job = own.start("train", data, QUICK, progress=heard)
        heard.first(is_epoch)
        own.close(SOON_S)
    with pytest.raises(CancelledError):
        job.wait(SOON_S)
    steps = max(update.metrics.get("steps", 0) for update in heard.updates)
    assert stopped_training("stopped")
    assert "stopped" not in [model.name for model in list_models()]
    on = Heard()
    job = worker.start("train", data, {**QUICK, "resume": True}, progress=on)
    assert on.first(lambda update: "steps" in update.metrics).metrics["steps"] > steps
    job.finish()
    assert job.wait(SOON_S)["model"] == "stopped"
    assert not stopped_training("stopped")


def test_files_are_learned_from_by_their_patterns_and_a_second_training_is_not_half_done(
    worker, here, tmp_path
):
    write_fields(tmp_path / "fields", 3, size_px=96, planes=2)
    data = {
        "out": tmp_path / "elsewhere" / "from-files",
        "input": f"{tmp_path}/fields/stack_{{field}}.ome.tif",
        "labels": {"nuclei": f"{tmp_path}/fields/nuclei_{{field}}.ome.tif"},
    }
    heard = Heard()
    job = worker.start("train", data, {**QUICK, "refit": True}, progress=heard)
    heard.first(is_epoch)
    job.finish()
    result = job.wait(SOON_S)
    assert Path(result["folder"]) == tmp_path / "elsewhere" / "from-files"
    assert "refit" not in result["figures"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pairs": []}, "there is nothing to train from"),
        ({"pairs": [{"image": {"array": np.ones((96, 96))}}]}, "have no 'labels'"),
        ({"pairs": [{"image": "nowhere.tif", "labels": {"a": "nowhere.tif"}}]}, "nowhere.tif"),
        ({"pairs": [{"image": {"array": np.ones((2, 96, 96))}, "labels": {"a": "b"}}]}, "3 axes"),
        ({"out": "a:b"}, "'a:b' is no name for a model"),
        ({"out": ""}, "'' is no name for a model"),
    ],
)
def test_what_cannot_be_trained_from_is_a_sentence(worker, pairs, change, sentence):
    with pytest.raises(LinceiError, match=sentence):
        worker.start("train", {"out": "m", "pairs": pairs, **change}, QUICK).wait(SOON_S)


def test_a_stain_of_another_size_is_a_sentence_that_names_the_pair(worker, pairs):
    small = {"nuclei": {"array": np.eye(90, dtype=np.uint16), "axes": "YX"}}
    with pytest.raises(LinceiError, match=r"pair 3, nuclei: the label 'nuclei' is 90 x 90.*input 96 x 96"):
        worker.start("train", {"out": "m", "pairs": [*pairs[:2], {**pairs[2], "labels": small}]}, QUICK).wait(
            SOON_S
        )


def test_a_plain_name_is_a_model_of_the_users_and_a_path_is_a_folder(here, tmp_path):
    assert model_target("my cells") == here / "my cells"
    assert model_target(f"{tmp_path}/a") == tmp_path / "a"
    for name in ("..", ".hidden", " ", "_private"):
        with pytest.raises(UsageError, match="is no name for a model"):
            model_target(name)
