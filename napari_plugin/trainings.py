"""Trainings that run in a worker process: they outlive the widget that started them, not napari's window.

`TRAININGS` holds the one that runs, or ran last. Widgets attach to it; the list of models changes by it.
Nothing here imports TensorFlow: it is the worker that does, in this or in another Python environment.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import math
import os
import subprocess
import threading
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from insilico.options import TrainOptions
from lincei import __version__
from lincei.batch import readable_error
from lincei.errors import CancelledError, LinceiError
from lincei.image import Image
from lincei.progress import CancelCheck, Progress, stop_if_cancelled

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from lincei.worker_process import RunningJob, WorkerProcess

# Set in place of an interpreter: this program's own.
OWN_PYTHON = ""
# What the widget needs to offer a stopped training again; lies beside the state that the trainer keeps.
_NOTES_FILE = "napari.json"
_SETTINGS_FILE = "napari.json"
_PYTHON_KEY = "training_python"
# A window that closes gives a training so long to write its state.
_STOPPING_S = 15.0
_CHECK_S = 60.0
_ASK = (
    "import importlib.util as u, json, importlib.metadata as m\n"
    "def version(name):\n"
    "    try: return m.version(name)\n"
    "    except m.PackageNotFoundError: return ''\n"
    "has = {n: u.find_spec(n) is not None for n in ('lincei', 'appose', 'keras', 'tensorflow')}\n"
    "print(json.dumps({'has': has, 'lincei': version('lincei')}))\n"
)

# The states of a training.
RUNNING, STOPPING, STOPPED = "running", "stopping", "stopped"
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class LayerPair:
    """A field to learn from: what its layers show.

    Parameters
    ----------
    image : Image
        Transmitted light.
    labels : mapping of str to Image
        Stained images by the label's name.
    layers : mapping of str to str
        Names of the layers: of the input under ``""``, of each stained one under its label.
    files : mapping of str to str
        In the same way the files that the layers were opened from, where they were.
    """

    image: Image
    labels: Mapping[str, Image]
    layers: Mapping[str, str]
    files: Mapping[str, str]


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be learned.

    Parameters
    ----------
    name : str
        Of the model.
    pairs : tuple of LayerPair
        What it is learned from.
    options : TrainOptions
        How.
    python : str
        Interpreter of the worker; `OWN_PYTHON` is this program's own.
    """

    name: str
    pairs: tuple[LayerPair, ...]
    options: TrainOptions
    python: str = OWN_PYTHON


class Training(QObject):
    """A training that runs, or has ended; all of it is for the window's thread.

    Attributes
    ----------
    changed : Signal()
        There is something new to show.
    request : TrainingRequest
        What is learned.
    state : str
        ``"running"``, ``"stopping"``, ``"stopped"``, ``"finished"`` or ``"failed"``.
    losses : list of (int, float)
        Steps and loss.
    correlations : dict of str to list of (int, float)
        For each label, steps and Pearson r on the region held out to tune on.
    preview : ndarray or None
        uint8, shape (height, width, 3): the held-out region, its stain and what is predicted.
    registration : list of str
        How the stained images lie on the inputs, and what to do.
    stage, message : str
        What it is doing, and the last line that it said.
    share : float
        How much of the time is over, 0 to 1; NaN while that is unknown.
    error, details : str
        Why it failed, as a sentence, and the traceback of an error that was not foreseen.
    warnings : tuple of str
        What the user should know besides, in sentences.
    result : mapping
        What the job gave back: ``"model"``, ``"folder"``, ``"figures"``, ``"finished"``; empty before.
    """

    changed = Signal()
    _told = Signal(object)
    _ended = Signal(object)

    def __init__(self, request: TrainingRequest, before: Sequence[Mapping[str, float]] = ()) -> None:
        super().__init__()
        self.request = request
        self.state = RUNNING
        self.losses: list[tuple[int, float]] = []
        self.correlations: dict[str, list[tuple[int, float]]] = {}
        self.preview: NDArray[np.uint8] | None = None
        self.registration: list[str] = []
        self.stage = "starting the worker process"
        self.message = ""
        self.share = math.nan
        self.error = self.details = ""
        self.warnings: tuple[str, ...] = ()
        self.result: Mapping[str, Any] = {}
        self._lock = threading.Lock()
        self._job: RunningJob | None = None
        self._stop = threading.Event()
        self._finish = threading.Event()
        for figures in before:
            self._take_figures(figures)
        self._told.connect(self._take)
        self._ended.connect(self._take_end)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.state in (RUNNING, STOPPING)

    @property
    def is_finishing(self) -> bool:
        """Whether it was asked to finish with what it has."""
        return self._finish.is_set()

    def stop(self) -> None:
        """Ask it to stop; its state is kept, and it can be resumed."""
        if self.state == RUNNING:
            self.state = STOPPING
            self._stop.set()
            with self._lock:
                job = self._job
            if job is not None:
                job.cancel()
            self.changed.emit()

    def finish(self) -> None:
        """Ask it to end now: the best network so far becomes the model."""
        if self.state == RUNNING and not self.is_finishing:
            self._finish.set()
            with self._lock:
                job = self._job
            if job is not None:
                job.finish()
            self.changed.emit()

    # In a thread of its own

    def _run(self, worker: WorkerProcess) -> None:
        job: RunningJob | None = None
        try:
            data = _data_of(self.request, self._stop.is_set)
            job = worker.start("train", data, self.request.options.to_json(), progress=self._hear)
            del data
            with self._lock:
                self._job = job
            if self._stop.is_set():
                job.cancel()
            if self._finish.is_set():
                job.finish()
            result = job.wait()
        except CancelledError:
            end = _End(STOPPED)
        except Exception as error:  # whatever fails must come to the widget
            end = _end_of(error, job.log if job is not None else "")
        else:
            end = _End(FINISHED, result=result, warnings=job.warnings)
        with contextlib.suppress(RuntimeError):  # the program has ended, and the Qt side of this with it
            self._ended.emit(end)

    def _hear(self, update: Progress) -> None:
        with contextlib.suppress(RuntimeError):
            self._told.emit(update)

    # In the window's thread

    def _take(self, update: Progress) -> None:
        self.stage = update.stage
        if update.message:
            self.message = update.message
        self.share = update.done / update.total if update.total else math.nan
        if update.stage == "measuring the registration" and update.message:
            self.registration.append(update.message)
        if update.stage == "training":
            self._take_figures(update.metrics)
        if update.preview is not None:
            self.preview = np.asarray(update.preview, np.uint8)
        self.changed.emit()

    def _take_figures(self, figures: Mapping[str, float]) -> None:
        steps = int(figures.get("steps", 0))
        for name, value in figures.items():
            if not math.isfinite(value):
                continue
            if name == "loss":
                self.losses.append((steps, float(value)))
            elif name.startswith("r(") and name.endswith(")"):
                self.correlations.setdefault(name[2:-1], []).append((steps, float(value)))

    def _take_end(self, end: _End) -> None:
        self.state, self.error, self.details = end.state, end.error, end.details
        self.result, self.warnings = end.result, end.warnings
        TRAININGS._take_end(self)
        self.changed.emit()


@dataclass(frozen=True)
class _End:
    state: str
    error: str = ""
    details: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def _end_of(error: Exception, log: str) -> _End:
    readable = readable_error(error)
    if readable is not None:
        return _End(FAILED, str(readable), log)
    sentence = f"This failed because of a fault in the program ({type(error).__name__}: {error})."
    return _End(FAILED, sentence, log or "".join(traceback.format_exception(error)))


class Trainings(QObject):
    """The training of this program, and the worker process that it runs in.

    Each training has a worker of its own, which ends with it, also when it was stopped: so nothing is left in
    memory, and one that is resumed takes some seconds more to begin.

    Attributes
    ----------
    started : Signal(object)
        A `Training` has begun.
    models_changed : Signal()
        A model was added or replaced; lists of models are read anew.
    current : Training or None
        The one that runs, or ran last.
    """

    started = Signal(object)
    models_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.current: Training | None = None
        self._worker: WorkerProcess | None = None

    def start(self, request: TrainingRequest, window: QWidget) -> Training:
        """Begin a training; returns at once.

        Parameters
        ----------
        request : TrainingRequest
            What is to be learned.
        window : QWidget
            When it is closed, the training stops and the worker process ends; the state is kept.

        Raises
        ------
        LinceiError
            When one is running, or Appose is not installed.
        """
        from lincei.worker_process import WorkerProcess

        if self.current is not None and self.current.is_running:
            raise LinceiError(
                "another training is running", self.current.request.name, "Stop it, or wait for its end."
            )
        worker = WorkerProcess(request.python or None)
        history = kept_history(request.name) if request.options.resume else ()
        _keep_notes(request)
        training = Training(request, history)
        self._worker = worker
        window.destroyed.connect(functools.partial(self._window_closed, training))
        self.current = training
        thread = threading.Thread(target=training._run, args=(worker,), name="lincei-training", daemon=True)
        thread.start()
        self.started.emit(training)
        return training

    def close(self) -> None:
        """Stop what runs and end the worker process, without waiting for it; the state is kept."""
        if self.current is not None:
            self.current.stop()
        worker, self._worker = self._worker, None
        if worker is not None:
            # Not here, where a window that closes would freeze. A program that ends waits for it: see
            # `lincei.worker_process`.
            threading.Thread(
                target=worker.close, args=(_STOPPING_S,), name="lincei-training-end", daemon=True
            ).start()

    def _window_closed(self, training: Training, *_arguments: object) -> None:
        if training is self.current:
            self.close()

    def _take_end(self, training: Training) -> None:
        name = training.request.name
        if training.state == FINISHED or not is_stopped(name):
            _remove_notes(name)
        if training.state == FINISHED:
            self.models_changed.emit()
        if training is self.current:
            self.close()


TRAININGS = Trainings()


def _data_of(request: TrainingRequest, cancelled: CancelCheck) -> dict[str, Any]:
    """Read the pixels of all pairs, as the job takes them."""
    pairs = []
    for pair in request.pairs:
        stop_if_cancelled(cancelled)
        pairs.append(
            {
                "image": _sent(pair.image),
                "labels": {name: _sent(image) for name, image in pair.labels.items()},
            }
        )
    return {"out": str(_target(request.name)), "pairs": pairs}


def _sent(image: Image) -> dict[str, Any]:
    return {
        "array": np.ascontiguousarray(image.read()),
        "axes": "TCZYX",
        "name": image.name,
        "source": image.source,
        "pixel_size_um": image.pixel_size_um,
        "z_step_um": image.z_step_um,
        "modality": image.modality,
    }


# What a stopped training leaves


@dataclass(frozen=True)
class StoppedTraining:
    """A training that was stopped and can be resumed.

    Parameters
    ----------
    name : str
        Of its model.
    pairs : tuple of (str, str, str)
        Names of the input's layer, of the stained one, and of the label.
    options : mapping
        Fields of `TrainOptions`.
    """

    name: str
    pairs: tuple[tuple[str, str, str], ...]
    options: Mapping[str, Any]


def stopped_trainings() -> list[StoppedTraining]:
    """Return the trainings that were stopped in a viewer, the last one first."""
    from lincei.model import models_folder

    found = []
    for path in models_folder().glob(f"*.training/{_NOTES_FILE}"):
        name = path.parent.name.removesuffix(".training")
        if not any(path.parent.glob("*.npz")):
            continue
        try:
            notes = json.loads(path.read_text("utf-8"))
            pairs = tuple((str(image), str(stain), str(label)) for image, stain, label in notes["pairs"])
            options = TrainOptions.from_mapping(notes["options"]).to_json()
        except (OSError, ValueError, KeyError, TypeError, LinceiError):
            continue  # of another version, perhaps; it can be resumed all the same, by its name
        found.append((path.stat().st_mtime, StoppedTraining(name, pairs, options)))
    return [stopped for _, stopped in sorted(found, key=lambda entry: -entry[0])]


def is_stopped(name: str) -> bool:
    """Tell whether a training of this model was stopped and left its state."""
    from insilico.jobs import stopped_training

    try:
        return stopped_training(name)
    except LinceiError:
        return False


def kept_history(name: str) -> list[dict[str, float]]:
    """Return the figures of a stopped training's epochs; none where there is no state, or it is damaged.

    Whether the state fits images and options is for the trainer to find out.
    """
    path = _state_folder(name) / "training.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            history = json.loads(str(archive["header"]))["history"]
            return [{str(key): float(value) for key, value in entry.items()} for entry in history]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return []


def forget_stopped(name: str) -> None:
    """Remove the state of a stopped training."""
    from lincei.training import remove_state

    (_state_folder(name) / _NOTES_FILE).unlink(missing_ok=True)
    remove_state(_state_folder(name))


def _target(name: str) -> Path:
    from insilico.jobs import model_target

    return model_target(name).absolute()


def _state_folder(name: str) -> Path:
    target = _target(name)
    return target.with_name(f"{target.name}.training")


def as_stopped(request: TrainingRequest) -> StoppedTraining:
    """Return what a widget needs to offer a training again."""
    pairs = tuple(
        (pair.layers[""], pair.layers[label], label) for pair in request.pairs for label in pair.labels
    )
    return StoppedTraining(request.name, pairs, {**request.options.to_json(), "resume": False})


def _keep_notes(request: TrainingRequest) -> None:
    kept = as_stopped(request)
    notes = {"pairs": kept.pairs, "options": kept.options}
    folder = _state_folder(request.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _NOTES_FILE).write_text(json.dumps(notes, indent=1), "utf-8")
    except OSError as error:
        raise LinceiError(
            f"the models' folder cannot be written ({error.strerror})", str(folder), "Make room in it."
        ) from error


def _remove_notes(name: str) -> None:
    folder = _state_folder(name)
    with contextlib.suppress(OSError):
        (folder / _NOTES_FILE).unlink(missing_ok=True)
        folder.rmdir()


# The Python environment that trains


def has_tensorflow() -> bool:
    """Tell whether this program's own environment could train; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("keras", "tensorflow"))


def remembered_python() -> str:
    """Return the interpreter that the user chose for trainings, or `OWN_PYTHON`."""
    try:
        chosen = json.loads(_settings_file().read_text("utf-8"))[_PYTHON_KEY]
    except (OSError, ValueError, KeyError, TypeError):
        return OWN_PYTHON
    return chosen if isinstance(chosen, str) else OWN_PYTHON


def remember_python(python: str) -> None:
    """Keep the interpreter in the user's settings.

    Raises
    ------
    LinceiError
        When they cannot be written.
    """
    path = _settings_file()
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        settings = {}
    if not isinstance(settings, dict):
        settings = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**settings, _PYTHON_KEY: python}, indent=1), "utf-8")
    except OSError as error:
        raise LinceiError(
            f"the settings cannot be written ({error.strerror})", str(path), "Choose it again next time."
        ) from error


def check_python(python: str) -> str:
    """Say whether an interpreter's environment can train; it is asked, which takes a second.

    Parameters
    ----------
    python : str
        Path of the interpreter.

    Returns
    -------
    str
        A sentence.

    Raises
    ------
    LinceiError
        When it cannot; the sentence says what is missing.
    """
    path = Path(python).expanduser()
    if not path.is_file():
        raise LinceiError(
            "there is no such program",
            str(path),
            "Choose the python program of an environment with TensorFlow.",
        )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    try:
        answer = subprocess.run(
            [str(path), "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_CHECK_S,
            stdin=subprocess.DEVNULL,
            env=environment,
            check=True,
        )
        found = json.loads(answer.stdout.strip().splitlines()[-1])
        has, version = found["has"], found["lincei"]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        raise LinceiError(
            "this program does not answer as Python does",
            str(path),
            "Choose the python program of an environment with TensorFlow.",
        ) from error
    missing = [name for name in ("lincei", "appose", "keras", "tensorflow") if not has.get(name)]
    if missing or version not in ("", __version__):
        what = (
            f"this Python has no {', '.join(missing)}"
            if missing
            else f"this Python has lincei {version}, and this program is lincei {__version__}"
        )
        raise LinceiError(
            what, str(path), f"Install it there: pip install 'lincei[train]=={__version__}' appose"
        )
    return f"Trainings run in {path}, which has TensorFlow."


def _settings_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("lincei", appauthor=False) / _SETTINGS_FILE
