"""Our mixture of logistics beside bins with a softmax, as in the 2018 paper: accuracy, calibration, speed.

    python benchmarks/compare_distributions.py --minutes 8

One trunk is trained with both heads for equally long, on the same split of the field of motor neurons (see
`sample_data.registry`), with the same augmentation, loop and recalibration by CRPS on tune. The mixture is
trained by `insilico.train` as it ships; the softmax is kept in this file only.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import (
    MIB,
    RESULTS,
    about,
    in_fresh_process,
    peak_memory_mib,
    spread,
    table,
    use_cores,
    write_results,
)
from numpy.typing import NDArray

from sample_data.registry import locate

Array = NDArray[np.floating[Any]]

LABELS = ("DAPI", "MAP2", "NFH")
MIXTURE = "mixture"
# The whole of a label's normalized scale: 0 is its background, 1 its 99.9th percentile.
LOW, HIGH = 0.0, 1.0
_CHUNK = 1 << 14  # pixels worked on at a time

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Variant:
    """A head with bins, and how it is trained.

    Parameters
    ----------
    bins : int
        Bins per label.
    squared_error : bool
        Whether the squared error of the mean is added to the cross-entropy, weighted as for the mixture; the
        paper has the cross-entropy alone.
    """

    bins: int
    squared_error: bool

    @classmethod
    def from_name(cls, name: str) -> Variant:
        """Read ``softmax-64`` or ``softmax-64-mse``."""
        words = name.split("-")
        if words[0] != "softmax" or not words[1:] or not words[1].isdigit() or words[2:] not in ([], ["mse"]):
            raise typer.BadParameter(f"{name!r} is not {MIXTURE}, softmax-BINS or softmax-BINS-mse")
        return cls(int(words[1]), len(words) == 3)


@dataclass(frozen=True)
class Trained:
    """What came of a training: a model folder, its figures on test, and the steps that it took."""

    folder: str
    figures: dict[str, dict[str, float]]
    steps: int
    split: str


@dataclass(frozen=True)
class Run:
    """Times of a network on a whole image, and the peak memory of its process."""

    engine: str
    seconds: list[float]
    peak_mib: float


@dataclass(frozen=True)
class Binned:
    """Independent binned distributions, uniform within each bin of [LOW, HIGH].

    Parameters
    ----------
    probabilities : ndarray
        Shape (pixels, bins), float.
    """

    probabilities: Array

    @property
    def edges(self) -> Array:
        """The bins' edges."""
        return np.linspace(LOW, HIGH, self.probabilities.shape[1] + 1)

    def mean(self) -> Array:
        """Sum of the bins' centers by their probabilities."""
        centers: Array = (self.edges[1:] + self.edges[:-1]) / 2
        return self.probabilities @ centers

    def cdf_at_edges(self) -> Array:
        """Shape (pixels, bins + 1), from 0 to 1."""
        below = np.cumsum(self.probabilities, axis=1, dtype=np.float64)
        below /= below[:, -1:]
        return np.concatenate([np.zeros((len(below), 1)), below], axis=1)

    def quantile(self, probability: float) -> Array:
        """Return the value below which a share of each distribution lies."""
        below, edges = self.cdf_at_edges(), self.edges
        bin_ = np.clip((below < probability).sum(axis=1) - 1, 0, self.probabilities.shape[1] - 1)
        rows = np.arange(len(below))
        low, high = below[rows, bin_], below[rows, bin_ + 1]
        share = np.clip((probability - low) / np.maximum(high - low, 1e-12), 0, 1)
        result: Array = edges[bin_] + share * (edges[1] - edges[0])
        return result

    def crps(self, truth: Array) -> Array:
        """Return the continuous ranked probability score: the integral of (F - [x >= truth]) squared.

        F is linear within a bin, so that each piece has a closed form; beyond the ends F is 0 or 1.
        """
        below, edges = self.cdf_at_edges(), self.edges
        width = edges[1] - edges[0]
        split = np.clip(truth[:, None], edges[:-1], edges[1:])
        left, right = below[:, :-1], below[:, 1:]
        at_split = left + (right - left) * (split - edges[:-1]) / width
        before = (split - edges[:-1]) / 3 * (left**2 + left * at_split + at_split**2)
        over, end = 1 - at_split, 1 - right
        after = (edges[1:] - split) / 3 * (over**2 + over * end + end**2)
        outside = np.maximum(LOW - truth, 0) + np.maximum(truth - HIGH, 0)
        result: Array = (before + after).sum(axis=1) + outside
        return result


def pairs_of(folder: str) -> list[Any]:
    """Return the field of motor neurons as what `insilico.train` takes."""
    from insilico import TrainingPair
    from lincei.image import open_image
    from lincei.pattern import find_inputs

    (stack,) = find_inputs([str(Path(folder) / "phase_z{z}.tif")])
    stains = {name: open_image(Path(folder) / f"{name.lower()}_confocal_maxproj.tif") for name in LABELS}
    return [TrainingPair(stack.open(), stains)]


def options(minutes: float, seed: int) -> Any:
    """Return the options of both trainings: those of the shipped model, for so many minutes."""
    from insilico import TrainOptions

    return TrainOptions(
        max_minutes=minutes, seed=seed, start_from="scratch", rotate=False, modality="phase contrast"
    )


def train_mixture(folder: str, data: str, minutes: float, seed: int) -> Trained:
    """Train as shipped; called in a fresh process."""
    from insilico import train

    model = train(pairs_of(data), folder, options(minutes, seed), progress=_print_message)
    figures = model.card.figures
    return Trained(folder, dict(figures["test"]), int(model.card.training["steps"]), str(figures["split"]))


def train_softmax(folder: str, data: str, variant: Variant, minutes: float, seed: int) -> Trained:
    """Train the same trunk with a head of bins, in the same way; called in a fresh process."""
    import keras

    # What `insilico.train` is made of: the same fields, split, batches and loop.
    from insilico.network import NetworkConfig
    from insilico.training import _batches, _epoch_steps, _fields, split_fields
    from lincei.metrics import pearson_r
    from lincei.recalibration import best_factor
    from lincei.training import LoopSettings, run_loop

    settings = options(minutes, seed)
    pairs = pairs_of(data)
    fields = [
        field for pair in pairs for field in _fields(pair, LABELS, pair.image.shape[2], None, None, settings)
    ]
    config = NetworkConfig(
        len(LABELS),
        fields[0].stack.shape[-1],
        settings.width,
        settings.scales,
        settings.components,
        settings.dropout,
    )
    split = split_fields(fields, config.reach_px)
    keras.utils.set_random_seed(seed)
    # A trunk that does not learn would make the comparison worthless.
    warnings.filterwarnings("error", message="Gradients do not exist")
    trainer = softmax_trainer(config, variant, settings.learning_rate, split.train)

    def on_tune() -> Mapping[str, float]:
        logits, truth = predicted(trainer, config, variant, split.tune)
        found = {
            f"r({label})": pearson_r(by_chunks(Binned.mean, logits[:, i]), truth[:, i])
            for i, label in enumerate(LABELS)
        }
        return {**found, "score": float(np.mean(list(found.values())))}

    result = run_loop(
        trainer,
        _batches(split.train, settings),
        on_tune,
        LoopSettings(minutes, settings.learning_rate, _epoch_steps(split.train, settings)),
        seed=seed,
        fingerprint="",
        progress=_print_message,
    )
    trainer.set_weights(result.weights)
    sharpness = []
    logits, truth = (array[::4] for array in predicted(trainer, config, variant, split.tune))
    for i in range(config.labels):

        def score(factor: float, logits: Array = logits[:, i], truth: Array = truth[:, i]) -> float:
            return float(by_chunks(Binned.crps, logits * np.float32(factor), truth).mean())

        sharpness.append(best_factor(score))
    logits, truth = predicted(trainer, config, variant, split.test)
    figures = {
        label: measured(logits[:, i] * np.float32(sharpness[i]), truth[:, i])
        for i, label in enumerate(LABELS)
    }
    write_softmax_model(folder, trainer, config, variant, sharpness)
    return Trained(folder, figures, result.steps, split.description)


def softmax_network(config: Any, variant: Variant, *, dtype: str, start: float | Array = 0.0) -> Any:
    """Return the shipped trunk with a head of bins for every pixel; its biases begin at ``start``."""
    import keras
    from keras import layers

    from insilico.network import build_trunk

    trunk = build_trunk(config, dtype=dtype)
    logits = layers.Conv2DTranspose(
        config.labels * variant.bins,
        2,
        strides=2,
        dtype="float32",
        bias_initializer=keras.initializers.Constant(start),
        name="logits",
    )(trunk.get_layer("mean").input)
    return keras.Model(trunk.inputs, logits)


def softmax_trainer(config: Any, variant: Variant, learning_rate: float, parts: Sequence[Any]) -> Any:
    """Return the network with its loss, compiled as the shipped one is."""
    import keras
    from keras import ops

    from insilico.training import MEAN_WEIGHT
    from lincei.training import training_precision

    # The mixture's head starts near plausible shapes; bins start at how frequent they are.
    truth = np.concatenate([part.truth.reshape(-1, config.labels) for part in parts])
    frequencies = np.stack([bin_frequencies(truth[:, i], variant.bins) for i in range(config.labels)])
    network = softmax_network(config, variant, dtype=training_precision(), start=np.log(frequencies).ravel())
    centers = ((np.arange(variant.bins) + 0.5) / variant.bins * (HIGH - LOW) + LOW).astype(np.float32)

    class Trainer(keras.Model):  # type: ignore[misc]
        """The network with the loss of the labels that a field has."""

        def compute_loss(
            self,
            x: Any = None,  # noqa: ARG002 - Keras calls it by these names
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,  # noqa: ARG002
            training: bool = True,  # noqa: ARG002
        ) -> Any:
            truth, known = y[..., : config.labels], y[..., config.labels :]
            shape = ops.shape(truth)
            values = ops.reshape(y_pred, (*shape, variant.bins))
            place = ops.floor((truth - LOW) / (HIGH - LOW) * variant.bins)
            index = ops.cast(ops.clip(place, 0, variant.bins - 1), "int32")
            loss = ops.mean(ops.sparse_categorical_crossentropy(index, values, from_logits=True) * known)
            if variant.squared_error:
                mean = ops.sum(ops.softmax(values, axis=-1) * centers, axis=-1)
                loss = loss + MEAN_WEIGHT * ops.mean(ops.square(mean - truth) * known)
            return loss / ops.maximum(ops.mean(known), 1e-6)

    trainer = Trainer(network.inputs, network.output)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=1e-3, clipnorm=1.0), jit_compile=False
    )
    return trainer


def bin_frequencies(values: Array, bins: int) -> Array:
    """Return how frequent each bin is, none of them never; the end bins take what lies beyond."""
    places = np.clip(np.floor((values - LOW) / (HIGH - LOW) * bins), 0, bins - 1).astype(np.int64)
    counts = np.bincount(places, minlength=bins) + 1.0
    result: Array = counts / counts.sum()
    return result


def predicted(trainer: Any, config: Any, variant: Variant, parts: Sequence[Any]) -> tuple[Array, Array]:
    """Return logits (pixels, labels, bins) and truth (pixels, labels) over all pixels of ``parts``."""
    from lincei.tiles import mirrored

    logits, truths = [], []
    halo, stride = config.halo_px, config.total_stride
    for part in parts:
        rows, columns = (
            np.arange(s.start - halo, s.start + -(-(s.stop - s.start) // stride) * stride + halo)
            for s in (part.rows, part.columns)
        )
        height, width = part.field.stack.shape[:2]
        stack = part.field.stack[np.ix_(mirrored(rows, height), mirrored(columns, width))]
        found = trainer.predict_on_batch(stack[None])[0]
        inside = found[halo : halo + part.truth.shape[0], halo : halo + part.truth.shape[1]]
        logits.append(np.asarray(inside, np.float32).reshape(-1, config.labels, variant.bins))
        truths.append(part.truth.reshape(-1, config.labels))
    return np.concatenate(logits), np.concatenate(truths)


def by_chunks(function: Callable[..., Array], logits: Array, *others: Array) -> Array:
    """Apply ``function`` to the distributions of a few pixels at a time."""
    found = []
    for start in range(0, len(logits), _CHUNK):
        part = logits[start : start + _CHUNK]
        weights = np.exp(part - part.max(axis=1, keepdims=True))
        distribution = Binned(weights / weights.sum(axis=1, keepdims=True))
        found.append(function(distribution, *(other[start : start + _CHUNK] for other in others)))
    return np.concatenate(found)


def measured(logits: Array, truth: Array) -> dict[str, float]:
    """Return what `insilico.training.measure` reports of a mixture and this comparison shows."""
    from lincei.metrics import coverage, pearson_r

    low, high = (by_chunks(functools.partial(Binned.quantile, probability=q), logits) for q in (0.05, 0.95))
    return {
        "pearson_r": pearson_r(by_chunks(Binned.mean, logits), truth),
        "crps": float(by_chunks(Binned.crps, logits, truth).mean()),
        "coverage_90": coverage(low, high, truth),
    }


def write_softmax_model(
    folder: str, trainer: Any, config: Any, variant: Variant, sharpness: Sequence[float]
) -> None:
    """Write a model folder with the outputs mean and sd, and the distribution itself."""
    from keras import ops

    from lincei.keras_network import export_onnx
    from lincei.model import write_model
    from lincei.model_card import Card, Label, Tensor

    edges = np.linspace(LOW, HIGH, variant.bins + 1)
    centers = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    within = (edges[1] - edges[0]) ** 2 / 12  # variance of a uniform distribution within a bin
    factors = np.asarray(sharpness, np.float32)[:, None]
    network = softmax_network(config, variant, dtype="float32")
    network.set_weights(trainer.get_weights())

    def serving(stack: Any, training: bool = False) -> dict[str, Any]:
        logits = network(stack, training=training)
        n, y, x = ops.shape(logits)[:3]
        shares = ops.softmax(ops.reshape(logits, (n, y, x, config.labels, variant.bins)) * factors, axis=-1)
        mean = ops.sum(shares * centers, axis=-1)
        variance = ops.sum(shares * centers**2, axis=-1) - ops.square(mean) + within
        flat = ops.reshape(shares, (n, y, x, config.labels * variant.bins))
        return {"mean": mean, "sd": ops.sqrt(ops.maximum(variance, 0.0)), "probabilities": flat}

    names = [f"{label} bin {i}" for label in LABELS for i in range(variant.bins)]
    card = Card(
        name=Path(folder).name,
        task="label",
        description="The shipped trunk with a softmax over bins, for comparison.",
        modality="phase contrast",
        input=Tensor("stack", tuple(f"z{i}" for i in range(config.planes))),
        outputs=(
            Tensor("mean", LABELS),
            Tensor("sd", tuple(f"{label} sd" for label in LABELS)),
            Tensor("probabilities", tuple(names)),
        ),
        total_stride=config.total_stride,
        halo_px=config.halo_px,
        labels=tuple(Label(label) for label in LABELS),
        z_planes=config.planes,
    )
    with tempfile.TemporaryDirectory() as scratch:
        onnx = export_onnx(
            serving,
            Path(scratch) / "network.onnx",
            channels=config.planes,
            output_names=[tensor.name for tensor in card.outputs],
        )
        write_model(folder, card, onnx=onnx)


def time_engine(
    folder: str, engine: str, outputs: Sequence[str], threads: int, size_px: int, repeats: int
) -> Run:
    """Time a network on one image; called in a fresh process."""
    from lincei.engine import open_engine
    from lincei.model import Model

    model = Model.from_folder(folder)
    random = np.random.default_rng(0)
    stack = random.standard_normal((1, model.card.z_planes, size_px, size_px), np.float32)
    seconds = []
    with open_engine(model, engine=engine, threads=threads, outputs=outputs) as opened:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            opened.run(stack)
            seconds.append(time.perf_counter() - started)
        return Run(f"{opened.name} {opened.version} ({opened.precision})", seconds[1:], peak_memory_mib())


def _print_message(update: Any) -> None:
    """Show how a download or a training goes on."""
    if update.message:
        print(update.message, flush=True)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(min=0.05, help="Minutes of each training.")] = 8.0,
    network: Annotated[
        list[str] | None,
        typer.Option(help=f"{MIXTURE}, softmax-BINS or softmax-BINS-mse; several times for several."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that is timed.")] = "openvino",
    cores: Annotated[int, typer.Option(min=1, help="Processor cores and threads.")] = 2,
    size_px: Annotated[int, typer.Option(min=64, help="Height and width of the image that is timed.")] = 1024,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs after the first.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trainings.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    data = str(locate("isl_motor_neurons", progress=_print_message) or "")
    if not data:
        raise SystemExit("The field of motor neurons cannot be had; set LINCEI_DATA to a folder that has it.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    names = network or [MIXTURE, "softmax-64"]
    variants = {name: Variant.from_name(name) for name in names if name != MIXTURE}
    used = use_cores(cores)
    trained, runs = {}, {}
    with tempfile.TemporaryDirectory(prefix="lincei-benchmark-") as scratch:
        for name in names:
            print(f"== training {name}", flush=True)
            folder = str(Path(scratch) / name)
            if name == MIXTURE:
                trained[name] = in_fresh_process(train_mixture, folder, data, minutes, seed)
            else:
                trained[name] = in_fresh_process(train_softmax, folder, data, variants[name], minutes, seed)
        sizes = {name: (Path(t.folder) / "weights.onnx").stat().st_size / MIB for name, t in trained.items()}
        for name, result in trained.items():
            whole = "parameters" if name == MIXTURE else "probabilities"
            for outputs in (("mean", "sd"), ("mean", "sd", whole)):
                runs[name, len(outputs)] = in_fresh_process(
                    time_engine, result.folder, engine, outputs, used, size_px, repeats
                )
    text = report(trained, runs, sizes, minutes=minutes, size_px=size_px, repeats=repeats, cores=used)
    write_results(out, "distributions", text)


def report(
    trained: Mapping[str, Trained],
    runs: Mapping[tuple[str, int], Run],
    sizes: Mapping[str, float],
    *,
    minutes: float,
    size_px: int,
    repeats: int,
    cores: int,
) -> str:
    """Return the results as Markdown."""
    names = list(trained)
    accuracy = [
        [
            label,
            *(f"{trained[name].figures[label]['pearson_r']:.3f}" for name in names),
            *(f"{trained[name].figures[label]['crps']:.4f}" for name in names),
            *(f"{100 * trained[name].figures[label]['coverage_90']:.1f} %" for name in names),
        ]
        for label in LABELS
    ]
    figures = ("r", "CRPS", "inside the 90 % interval")
    speed = [
        [
            name,
            spread(runs[name, 2].seconds),
            f"{runs[name, 2].peak_mib:.0f} MiB",
            spread(runs[name, 3].seconds),
            f"{runs[name, 3].peak_mib:.0f} MiB",
            f"{sizes[name]:.1f} MiB",
        ]
        for name in names
    ]
    first = trained[names[0]]
    engine = runs[names[0], 2].engine
    return "\n\n".join(
        [
            "# Mixture of logistics or binned softmax",
            about(["keras", "tensorflow", "numpy", "openvino", "onnxruntime"], cores),
            f"The same trunk with each head, trained for {minutes:g} minutes each (not for equally many "
            f"steps: {', '.join(f'{name} took {result.steps}' for name, result in trained.items())}) on the "
            f"motor-neuron field; {first.split}. Same crops, augmentation, optimizer, averaging of weights "
            "and choice of the best epoch by r on tune. Recalibrated on tune by CRPS with one factor a "
            "label: the spread of the mixture, the temperature of the softmax. A softmax has a distribution "
            f"for every pixel, bins over {LOW:g} to {HIGH:g} of the label's scale, values beyond in the end "
            "bins, and learns by cross-entropy as in the paper; `-mse` adds the squared error of its mean, "
            "weighted as for the mixture. One field and one seed: differences of a hundredth in r mean "
            "little.",
            "## Accuracy on test",
            table(["label", *(f"{figure}: {name}" for figure in figures for name in names)], accuracy),
            "## Speed and memory",
            f"{engine} on a {size_px}x{size_px} image, {cores} threads, the network alone. Median of "
            f"{repeats} run(s) after a first one (range in brackets); peak memory of a process that does "
            "nothing else.",
            table(
                [
                    "network",
                    "mean and sd",
                    "peak memory",
                    "with the whole distribution",
                    "peak memory",
                    "ONNX file",
                ],
                speed,
            ),
        ]
    )


if __name__ == "__main__":
    app()
