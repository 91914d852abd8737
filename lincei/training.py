"""What the trainers share: a loop with a time budget that can be stopped and resumed.

The loop works on any compiled Keras model and calls only `train_on_batch`, `get_weights` and `set_weights`,
so that it runs with TensorFlow, JAX and PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shlex
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import CancelledError, LinceiError, LinceiWarning
from lincei.progress import CancelCheck, Progress, ProgressCallback, report

Weights = list[NDArray[Any]]

# Why a loop ended: someone asked it to finish with what it had.
BY_THE_USER = "by the user"

# The learning rate rises over the first steps, then follows half a cosine down to 2 % of its peak.
WARM_UP_STEPS = 100
_FLOOR = 0.02
_AVERAGE_EVERY = 5  # steps between two contributions to the averaged weights
_AVERAGE_MEMORY = 200  # steps that the averaged weights remember
_LOSS_EVERY_S = 0.5  # between two reports within an epoch


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and how to report.

    Parameters
    ----------
    max_minutes : float
        Time for the whole loop, earlier parts of a resumed training included.
    peak_learning_rate : float
        Highest learning rate.
    epoch_steps : int
        Steps between two evaluations.
    patience : float
        Share of ``max_minutes`` without improvement after which training stops.
    max_steps : int, optional
        Stop after so many steps (0: time alone decides). With it, the learning rate follows the steps.
    """

    max_minutes: float
    peak_learning_rate: float = 1e-3
    epoch_steps: int = 50
    patience: float = 0.35
    max_steps: int = 0


@dataclass
class LoopState:
    """Everything that a stopped training needs to go on."""

    steps: int = 0
    epoch: int = 0
    elapsed_s: float = 0.0
    best_score: float = -np.inf
    best_epoch: int = 0
    best_elapsed_s: float = 0.0
    best_steps: int = 0
    stopped: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    weights: Weights = field(default_factory=list)
    averaged: Weights = field(default_factory=list)
    best: Weights = field(default_factory=list)
    optimizer: Weights = field(default_factory=list)


@dataclass(frozen=True)
class LoopResult:
    """What a loop ends with.

    Parameters
    ----------
    weights : list of ndarray
        The best averaged weights, for ``model.set_weights``.
    best_steps, steps : int
        Steps after which these weights were reached, and all steps.
    minutes : float
        Time spent training.
    score : float
        Their score on tune.
    history : list of dict
        One entry per epoch.
    stopped : {"time", "no improvement", "steps", "by the user"}
        Why the loop ended.
    """

    weights: Weights
    best_steps: int
    steps: int
    minutes: float
    score: float
    history: list[dict[str, float]]
    stopped: str


class TrainingStoppedError(Exception):
    """The user stopped a training; its state is kept and it can be resumed."""

    def __init__(self, state_path: Path) -> None:
        super().__init__(f"training stopped; its state is in {state_path}")
        self.state_path = state_path


Batches = Callable[[np.random.Generator], Any]
Evaluate = Callable[[], Mapping[str, float]]


def run_loop(
    model: Any,
    batches: Callable[[np.random.Generator], tuple[Any, Any]],
    evaluate: Callable[[], Mapping[str, float]],
    settings: LoopSettings,
    *,
    seed: int,
    fingerprint: str,
    state_path: Path | None = None,
    resume: bool = False,
    stage: str = "training",
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    finish: CancelCheck | None = None,
    preview: Callable[[], Any] | None = None,
) -> LoopResult:
    """Train until the time is up or nothing improves, and return the best averaged weights.

    Parameters
    ----------
    model : keras.Model
        Compiled; its optimizer has a ``learning_rate`` variable.
    batches : callable
        Makes one batch ``(x, y)`` from a random generator; called in a thread of its own.
    evaluate : callable
        Called after each epoch while the model holds the averaged weights. Returns figures; ``"score"``
        (higher is better) decides which weights are kept.
    settings : LoopSettings
        Time, learning rate, epochs.
    seed : int
        Seed of the batches.
    fingerprint : str
        Identifies data and options; a state with another one is not resumed.
    state_path : Path, optional
        Where the state is kept after each epoch and after a stop (``.npz``); the caller removes it when
        the model is written.
    resume : bool
        Go on from ``state_path`` where there is one; a loop that had ended returns its result at once.
    stage : str
        Named in the progress.
    progress, cancelled : callable, optional
        See `lincei.progress`. The metrics of a report are those of an epoch (``epoch``, ``steps``, ``loss``
        and what ``evaluate`` returns) or, a few times a second in between, ``steps`` and the ``loss`` since
        the last report alone.
    finish : callable, optional
        When it turns true, the loop ends after the step with the best weights so far, as if its time were up.
    preview : callable, optional
        Called after ``evaluate``, the model still holding the averaged weights; returns the preview of the
        epoch's report.

    Raises
    ------
    TrainingStoppedError
        When ``cancelled`` turned true; the state was kept.
    LinceiError
        When the state belongs to another training, or the loss is no longer a number.
    """
    state = LoopState()
    if resume and state_path is not None and state_path.exists():
        state = load_state(state_path, fingerprint)
        model.set_weights(state.weights)
        _set_optimizer(model, state.optimizer)
    else:
        state.averaged = [np.array(weight) for weight in model.get_weights()]
    started = time.monotonic() - state.elapsed_s
    budget_s = settings.max_minutes * 60
    losses: list[float] = []
    told, told_s = 0, time.monotonic()  # losses of this epoch that were reported, and when
    stopped = state.stopped
    if stopped:
        return _result(state)
    with _prefetched(batches, np.random.default_rng([seed, state.steps])) as next_batch:
        while not stopped:
            state.elapsed_s = time.monotonic() - started
            share = state.elapsed_s / budget_s
            if settings.max_steps:
                share = max(share, state.steps / settings.max_steps)
            model.optimizer.learning_rate = learning_rate(settings.peak_learning_rate, state.steps, share)
            loss = float(np.mean(model.train_on_batch(*next_batch())))
            if not np.isfinite(loss):
                raise LinceiError(
                    "the training became unstable (its loss is no longer a number)",
                    "",
                    "Try again with another --seed, or check the images for extreme values.",
                )
            losses.append(loss)
            state.steps += 1
            if state.steps % _AVERAGE_EVERY == 0:
                _average(state, model.get_weights())
            state.elapsed_s = time.monotonic() - started
            if cancelled is not None and cancelled():
                _keep(state, model, state_path, fingerprint)
                raise TrainingStoppedError(state_path or Path())
            if state.elapsed_s >= budget_s:
                stopped = "time"
            elif settings.max_steps and state.steps >= settings.max_steps:
                stopped = "steps"
            elif finish is not None and finish():
                stopped = BY_THE_USER
            if stopped or state.steps % settings.epoch_steps == 0:
                figures, picture = _evaluated(model, state, evaluate, preview)
                state.epoch += 1
                mean_loss = float(np.mean(losses))
                entry = {"epoch": state.epoch, "steps": state.steps, "loss": mean_loss, **figures}
                losses.clear()
                told, told_s = 0, time.monotonic()
                state.history.append(entry)
                if figures["score"] > state.best_score or not state.best:
                    state.best_score, state.best_epoch = figures["score"], state.epoch
                    state.best_elapsed_s, state.best_steps = state.elapsed_s, state.steps
                    state.best = [np.array(weight) for weight in state.averaged]
                elif state.elapsed_s - state.best_elapsed_s > settings.patience * budget_s:
                    stopped = stopped or "no improvement"
                state.stopped = stopped
                _keep(state, model, state_path, fingerprint)
                metrics = {name: float(value) for name, value in entry.items()}
                report(
                    progress,
                    Progress(
                        stage,
                        _thousandths(state.elapsed_s / budget_s, share),
                        1000,
                        epoch_line(state, settings),
                        metrics,
                        picture,
                    ),
                )
            elif progress is not None and time.monotonic() - told_s > _LOSS_EVERY_S:
                metrics = {"steps": float(state.steps), "loss": float(np.mean(losses[told:]))}
                told, told_s = len(losses), time.monotonic()
                done = _thousandths(state.elapsed_s / budget_s, share)
                progress(Progress(stage, done, 1000, metrics=metrics))
    return _result(state)


def _thousandths(*shares: float) -> int:
    """Return how much of a training is over by the share that is furthest."""
    return round(1000 * min(max(shares), 1.0))


def _result(state: LoopState) -> LoopResult:
    return LoopResult(
        state.best,
        state.best_steps,
        state.steps,
        state.elapsed_s / 60,
        state.best_score,
        state.history,
        state.stopped,
    )


def learning_rate(peak: float, step: int, share: float) -> float:
    """Return the learning rate after ``step`` steps when a ``share`` (0 to 1) of the training is over."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    cosine = 0.5 * (1 + np.cos(np.pi * min(share, 1.0)))
    return float(peak * warm * (_FLOOR + (1 - _FLOOR) * cosine))


def epoch_line(state: LoopState, settings: LoopSettings) -> str:
    """Return what a person wants to know at the end of an epoch."""
    entry = state.history[-1]
    skipped = ("epoch", "steps", "loss", "score")
    minutes = f"{state.elapsed_s / 60:.1f} of {settings.max_minutes:g} min"
    line = f"epoch {state.epoch}, {minutes}: loss {entry['loss']:.3f}"
    figures = ", ".join(f"{name} {value:.3f}" for name, value in entry.items() if name not in skipped)
    if not figures:  # nothing is held out that could be measured
        return line
    best = "best so far" if state.best_epoch == state.epoch else f"best was epoch {state.best_epoch}"
    return f"{line}, {figures} ({best})"


def load_state(path: Path, fingerprint: str) -> LoopState:
    """Read the state of a stopped training.

    Raises
    ------
    LinceiError
        When it is damaged or belongs to other data or options.
    """
    start_anew = "Leave out --resume to start anew."
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            lists = {
                name: [archive[f"{name}_{i}"] for i in range(count)]
                for name, count in header.pop("counts").items()
            }
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LinceiError("the state of the stopped training is damaged", str(path), start_anew) from error
    if header.pop("fingerprint") != fingerprint:
        raise LinceiError(
            "the stopped training had other images or options",
            str(path),
            f"Give the same ones as then to go on. {start_anew}",
        )
    state = LoopState(**header)
    for name, arrays in lists.items():
        setattr(state, name, arrays)
    return state


def fingerprint_of(*parts: Any) -> str:
    """Return a SHA-256 of JSON-able parts and arrays: equal data and options have equal fingerprints."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def remove_state(folder: Path) -> None:
    """Remove the folder in which a training kept its state."""
    for path in folder.glob("*.npz*"):  # and what a stop in the middle of writing left of one
        path.unlink()
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def kept_when_stopped() -> Iterator[None]:
    """Turn the stop of a training into a warning that says where its state is, and a `CancelledError`."""
    try:
        yield
    except TrainingStoppedError as stopped:
        warnings.warn(
            f"training was stopped and its state kept in {stopped.state_path.parent}; give the same command "
            "with --resume to go on.",
            LinceiWarning,
            stacklevel=4,
        )
        raise CancelledError from stopped


def typed_command() -> str:
    """Return what the user typed, for a model's card, with the data folder by its variable.

    The card is read elsewhere, where the folder lies in another place. ``--resume`` is left out: it is no
    part of what was made.
    """
    return "lincei " + " ".join(_quoted(word) for word in sys.argv[1:] if word != "--resume")


def _quoted(word: str) -> str:
    data = os.environ.get("LINCEI_DATA", "").rstrip("/\\")
    # Only a whole path, at the beginning or after NAME=.
    shortened = re.sub(rf"(^|=){re.escape(data)}(?=[/\\]|$)", r"\1$LINCEI_DATA", word) if data else word
    return shlex.quote(word) if shortened == word else f'"{shortened}"'


def training_precision() -> str:
    """Return ``"mixed_bfloat16"`` where the machine multiplies bfloat16 in hardware, else ``"float32"``.

    On processors only TensorFlow gains from it; the other back ends emulate it.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return "mixed_bfloat16" if jax.default_backend() == "gpu" else "float32"
    if backend == "torch":
        import torch

        return "mixed_bfloat16" if torch.cuda.is_available() else "float32"
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "mixed_bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return "float32"
    return "mixed_bfloat16" if "amx_bf16" in flags or "avx512_bf16" in flags else "float32"


def _average(state: LoopState, weights: Weights) -> None:
    """Move the averaged weights towards the present ones; early on they follow quickly."""
    contributions = state.steps // _AVERAGE_EVERY
    share = max(_AVERAGE_EVERY / _AVERAGE_MEMORY, 1 / (1 + 0.5 * contributions))
    for average, weight in zip(state.averaged, weights, strict=True):
        if np.issubdtype(average.dtype, np.floating):
            average += np.asarray(share, average.dtype) * (weight - average)
        else:
            average[...] = weight


def _evaluated(
    model: Any,
    state: LoopState,
    evaluate: Callable[[], Mapping[str, float]],
    preview: Callable[[], Any] | None,
) -> tuple[dict[str, float], Any]:
    """Evaluate the averaged weights, make their preview, and put the present weights back."""
    present = model.get_weights()
    model.set_weights(state.averaged)
    try:
        figures = {name: float(value) for name, value in evaluate().items()}
        return figures, preview() if preview is not None else None
    finally:
        model.set_weights(present)


def _keep(state: LoopState, model: Any, path: Path | None, fingerprint: str) -> None:
    """Write the state; an older one stays until the new one is whole."""
    if path is None:
        return
    lists = {
        "weights": model.get_weights(),
        "averaged": state.averaged,
        "best": state.best,
        "optimizer": [np.asarray(variable) for variable in _optimizer_values(model)],
    }
    header = {name: value for name, value in vars(state).items() if name not in lists}
    header["counts"] = {name: len(values) for name, values in lists.items()}
    header["fingerprint"] = fingerprint
    arrays = {f"{name}_{i}": value for name, values in lists.items() for i, value in enumerate(values)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)
    partial.replace(path)


def _optimizer_values(model: Any) -> list[Any]:
    import keras

    return [keras.ops.convert_to_numpy(variable.value) for variable in model.optimizer.variables]


def _set_optimizer(model: Any, values: Weights) -> None:
    """Give the optimizer its momenta back."""
    model.optimizer.build(model.trainable_variables)
    for variable, value in zip(model.optimizer.variables, values, strict=True):
        variable.assign(value)


@contextmanager
def _prefetched(
    batches: Callable[[np.random.Generator], tuple[Any, Any]], random: np.random.Generator
) -> Iterator[Callable[[], tuple[Any, Any]]]:
    """Make batches ahead in a thread; an error in it is raised where the batch is asked for."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=6)
    finished = threading.Event()

    def produce() -> None:
        while not finished.is_set():
            try:
                item: Any = batches(random)
            except Exception as error:  # handed over and raised in the loop
                item = error
            while not finished.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, Exception):
                return

    def next_batch() -> tuple[Any, Any]:
        item = ready.get()
        if isinstance(item, Exception):
            raise item
        result: tuple[Any, Any] = item
        return result

    thread = threading.Thread(target=produce, name="lincei-batches", daemon=True)
    # The step waits for the interpreter's lock several times; at the usual 5 ms each, it took longer.
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    thread.start()
    try:
        yield next_batch
    finally:
        finished.set()
        thread.join()
        sys.setswitchinterval(usual_s)
