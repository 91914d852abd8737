"""Training a tumor network from annotated fields, measured and calibrated on slides that it has not seen."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.annotated import AnnotatedField
from arm_overlay.augmentation import USUAL
from arm_overlay.crops import CropRange, crop_maker
from arm_overlay.network import OUTPUT_STRIDE, TOTAL_STRIDE, TumorNetworkConfig
from arm_overlay.train_options import IMAGENET, NOTHING, TrainTumorOptions
from lincei.errors import LinceiError
from lincei.keras_network import import_keras
from lincei.metrics import calibration_error, dice, roc_auc
from lincei.model import check_target
from lincei.options import resolve_options
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from lincei.training import LoopSettings, fingerprint_of, remove_state, run_loop

if TYPE_CHECKING:
    from lincei.model import Model

Array = NDArray[np.float32]
Bools = NDArray[np.bool_]

# How the network is run at each objective: coarser where the field of view is larger, so that a frame takes
# about as long. benchmarks/tumor_fields.py measures what that costs.
OBJECTIVES_UM: Mapping[str, float] = {"4x": 3.5, "10x": 2.0, "20x": 1.25, "40x": 1.0}
MODEL_PIXEL_SIZE_UM = 1.0
# What starts from ImageNet and stays: the encoder up to a stride of 4.
KEPT_LAYERS = ("stem", "block_0_", "block_1_", "block_2_")
EPOCH_STEPS = 100
DICE_WEIGHT = 0.5
# Shares of the groups of a set that are held out.
TUNE_SHARE, TEST_SHARE = 0.15, 0.2
# Thresholds that are compared on tune.
_THRESHOLDS = np.round(np.linspace(0.1, 0.9, 33), 4)
# Fields are looked at in pieces of at most this side, with so much around them.
_PIECE_PX, _AROUND_PX = 1024, 64


@dataclass(frozen=True)
class TumorSplit:
    """What is trained on, tuned on, and only measured on, and how that was chosen, in words."""

    train: tuple[AnnotatedField, ...]
    tune: tuple[AnnotatedField, ...]
    test: tuple[AnnotatedField, ...]
    description: str


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network says of one field that it has not learned from, at one pixel size.

    Parameters
    ----------
    part : str
        The part that the field belongs to: a fold, "tune" or "test".
    field : AnnotatedField
        The field.
    pixel_size_um : float
        Pixel size at which the network looked at it, in um.
    cells : ndarray
        Its logits, shape (Y, X), float32, for cells of `OUTPUT_STRIDE` pixels of that size.
    """

    part: str
    field: AnnotatedField
    pixel_size_um: float
    cells: Array

    @cached_property
    def known(self) -> tuple[Array, Bools]:
        """Logits and truth of every third pixel (along each side) whose truth is known, flat."""
        scale = self.field.pixel_size_um / self.pixel_size_um
        logits = enlarged(self.cells, self.field.truth.shape[:2], OUTPUT_STRIDE, scale)[::3, ::3]
        chosen = self.field.known[::3, ::3]
        return logits[chosen], self.field.tumor[::3, ::3][chosen]


@dataclass(frozen=True)
class Calibration:
    """From logits to probabilities: sigmoid(``sharpening`` * logit + ``offset``)."""

    sharpening: float = 1.0
    offset: float = 0.0

    def probability(self, logits: Array) -> Array:
        """Return probabilities of logits."""
        scaled = np.clip(self.sharpening * logits + self.offset, -60, 60)
        return np.asarray(1 / (1 + np.exp(-scaled)), np.float32)


def train(
    fields: Sequence[AnnotatedField],
    out: str | Path,
    options: TrainTumorOptions | None = None,
    *,
    measure_on: Sequence[AnnotatedField] = (),
    folds: Mapping[str, str] | None = None,
    command: str = "",
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **overrides: Any,
) -> Model:
    """Train a network that finds tumor (or another region), and write it as a model folder.

    Parameters
    ----------
    fields : sequence of AnnotatedField
        What to learn from, one or more (`arm_overlay.annotated.annotated_field` makes them). Sets count by
        their shares, whatever their size.
    out : str or Path
        Folder of the model; its last part is the model's name.
    options : TrainTumorOptions, optional
        The options; single ones can be given as keywords.
    measure_on : sequence of AnnotatedField, optional
        Fields that are only measured on.
    folds : mapping of str to str, optional
        With ``options.folds``: from a group to the name of the fold that holds it out. Groups that are not
        named are never held out. Groups are dealt out in turn when it is left out.
    command : str, optional
        What the user typed, for the card.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    Model
        Complete, or unfinished when Keras does not run on TensorFlow (``lincei models finish`` exports it).

    Raises
    ------
    LinceiError
        Before any training: when there is no tumor or nothing else in the fields, they cannot be split, the
        start weights are not there, or something else than a model lies at ``out``.
    lincei.training.TrainingStoppedError
        When it was cancelled; ``resume=True`` goes on.
    """
    keras = import_keras()
    settings = resolve_options(TrainTumorOptions, options, overrides)
    out = Path(out).expanduser().absolute()
    check_target(out, replace=True)
    check_fields(fields)
    start = Start.of(settings)
    state = out.with_name(f"{out.name}.training")
    keras.utils.set_random_seed(settings.seed)
    job = _Job(settings, start, state, progress, cancelled)
    if settings.folds:
        of_group = dict(folds) if folds is not None else dealt_out(fields, settings.folds)
        names = sorted(set(of_group.values()))
        held: list[Seen] = []
        minutes, fold_networks = 0.0, {}
        for name in names:
            rest = [field for field in fields if of_group.get(field.group) != name]
            check_fields(rest, f"without fold {name}")
            trainer, done = job.run(rest, (), f"fold_{name}", f"training without fold {name}")
            minutes += done.minutes
            held += job.look(trainer, [f for f in fields if of_group.get(f.group) == name], name)
            fold_networks[name] = done.weights
        trainer, done = job.run(fields, (), "all", "training on everything")
        minutes += done.minutes
        kept = sum(field.group not in of_group for field in fields)
        description = (
            f"{len(names)} folds by group ({'; '.join(_fold_words(of_group, name) for name in names)}); each "
            "fold is measured and calibrated with networks that have not seen it, and the model itself "
            f"learned from everything{f' ({kept} fields are in no fold)' if kept else ''}"
        )
        split = TumorSplit(tuple(fields), (), (), description)
        calibrators = {name: calibration_of([s for s in held if s.part != name]) for name in names}
        fitting, measured = held, held
        final = calibration_of(held)
    else:
        split = split_fields(fields)
        trainer, done = job.run(split.train, split.tune, "training", "training")
        minutes, fold_networks = done.minutes, {}
        fitting = job.look(trainer, split.tune, "tune")
        measured = job.look(trainer, split.test, "test")
        final = calibration_of(fitting)
        calibrators = {"test": final}
    config = dataclasses.replace(job.config, sharpening=final.sharpening, offset=final.offset)
    table = objectives_of(fitting, final)
    report(progress, Progress("measuring on held-out images", 0, 0))
    figures: dict[str, Any] = {
        "held_out": figures_by_set(measured, calibrators, fitting, crossed=bool(settings.folds)),
        "other_images": figures_by_set(job.look(trainer, measure_on, "other"), {"other": final}, fitting),
        "before": {} if settings.folds else _before(job, split.test),
        "glass": glass_probability(trainer, final, settings.seed),
        "split": split.description,
        "minutes": round(minutes, 1),
        "steps": done.steps,
    }
    report(progress, Progress("writing the model", 0, 0))
    from arm_overlay.model_folder import write_tumor_model

    training = {
        "command": command,
        "fields": len(fields),
        "groups": sorted({field.group for field in fields}),
        "sets": list(dict.fromkeys(field.set_name for field in fields if field.set_name)),
        "train_fields": [field.name for field in split.train],
        "tune_fields": [field.name for field in split.tune],
        "test_fields": [field.name for field in split.test],
        "split": split.description,
        "start_from": start.name,
        "backend": keras.backend.backend(),
        "steps": done.steps,
        "date": datetime.date.today().isoformat(),
        "options": {**settings.to_json(), "resume": False},
    }
    for name, weights in fold_networks.items():
        if not settings.folds_out:
            break
        fold_trainer = job.trainer(weights)
        other = calibrators[name]
        of_fold = [seen for seen in held if seen.part == name]
        write_tumor_model(
            Path(settings.folds_out).expanduser().absolute() / f"{out.name}-without-{name}",
            fold_trainer,
            dataclasses.replace(job.config, sharpening=other.sharpening, offset=other.offset),
            objectives=objectives_of([s for s in held if s.part != name], other),
            options=settings,
            figures={**figures, "held_out": figures_by_set(of_fold, {name: other}, fitting, crossed=True)},
            training={
                **training,
                "train_fields": [f.name for f in fields if of_group.get(f.group) != name],
                "test_fields": [seen.field.name for seen in of_fold],
            },
        )
    model = write_tumor_model(
        out, trainer, config, objectives=table, options=settings, figures=figures, training=training
    )
    remove_state(state)
    return model


def check_fields(fields: Sequence[AnnotatedField], which: str = "") -> None:
    """Refuse fields from which nothing can be learned.

    Raises
    ------
    LinceiError
        When there are none, or all of what is known is tumor, or none of it.
    """
    where = which or "the images"
    if not fields:
        raise LinceiError(
            "there is no annotated image to learn from", where, "Give more images or fewer folds."
        )
    tumor = any((field.tumor & field.known).any() for field in fields)
    other = any((~field.tumor & field.known).any() for field in fields)
    if not tumor or not other:
        raise LinceiError(
            f"all that is outlined is {'not ' if not tumor else ''}tumor",
            where,
            "Training needs places that are tumor and places that are not.",
        )


def dealt_out(fields: Sequence[AnnotatedField], folds: int) -> dict[str, str]:
    """Deal the groups of each set out in turn; return each group's fold.

    Raises
    ------
    LinceiError
        When there are fewer groups than folds.
    """
    result: dict[str, str] = {}
    for name in dict.fromkeys(field.set_name for field in fields):
        for group in sorted({field.group for field in fields if field.set_name == name}):
            result.setdefault(group, str(len(result) % folds + 1))
    if len(result) < folds:
        raise LinceiError(
            f"there are {len(result)} groups for {folds} folds",
            "",
            "Give fewer folds, or say with --split-by what tells the slides apart.",
        )
    return result


def split_fields(fields: Sequence[AnnotatedField]) -> TumorSplit:
    """Split each set into train, tune and test by groups, evenly spread over their names.

    Of a set with less than three groups each field is cut into three strips, with a guard band as wide as the
    network's receptive field between them.

    Raises
    ------
    LinceiError
        When such a field is too small to be cut, or no tumor is left to learn from.
    """
    parts: dict[str, list[AnnotatedField]] = {"train": [], "tune": [], "test": []}
    words = []
    for set_name in dict.fromkeys(field.set_name for field in fields):
        members = [field for field in fields if field.set_name == set_name]
        groups = sorted({field.group for field in members})
        called = f"{set_name}: " if set_name else ""
        if len(groups) >= 3:
            test = set(groups[:: round(1 / TEST_SHARE)])
            rest = [group for group in groups if group not in test]
            tune = set(rest[:: round(1 / TUNE_SHARE)]) if len(rest) > 2 else {rest[0]}
            counts = {"train": 0, "tune": 0, "test": 0}
            for field in members:
                use = "test" if field.group in test else "tune" if field.group in tune else "train"
                parts[use].append(field)
                counts[use] += 1
            words.append(
                f"{called}{counts['train']} images train, {counts['tune']} tune, {counts['test']} test, by "
                f"{'image' if len(groups) == len(members) else 'group'} ({len(groups)})"
            )
            continue
        for field in members:
            for use, part in strips(field).items():
                parts[use].append(part)
        words.append(
            f"{called}{len(members)} image(s), each cut into strips for training, tuning and testing"
        )
    check_fields(parts["train"], "what is left for training")
    return TumorSplit(tuple(parts["train"]), tuple(parts["tune"]), tuple(parts["test"]), "; ".join(words))


def strips(field: AnnotatedField) -> dict[str, AnnotatedField]:
    """Cut a field along its longer side into strips for training, tuning and testing, with guard bands.

    Raises
    ------
    LinceiError
        When it is too small.
    """
    guard = round(TumorNetworkConfig().halo_px * MODEL_PIXEL_SIZE_UM / field.pixel_size_um)
    axis = int(np.argmax(field.truth.shape[:2]))
    length = field.truth.shape[axis]
    test_from = length - round(length * TEST_SHARE)
    tune_from = test_from - guard - round(length * TUNE_SHARE)
    cuts = {
        "train": slice(0, max(0, tune_from - guard)),
        "tune": slice(max(0, tune_from), test_from - guard),
        "test": slice(test_from, length),
    }
    if cuts["train"].stop < length * 0.3:
        needed = 2 * guard / (0.7 - TEST_SHARE - TUNE_SHARE) * field.pixel_size_um
        raise LinceiError(
            f"it is {length * field.pixel_size_um:.0f} um long, too small to be cut into parts for training, "
            "tuning and testing",
            field.name,
            f"Give three images or more, or one of {needed:.0f} um.",
        )
    parts = {}
    for use, cut in cuts.items():
        box = (cut, slice(None)) if axis == 0 else (slice(None), cut)
        parts[use] = dataclasses.replace(
            field, name=f"{field.name} ({use} part)", colors=field.colors[box], truth=field.truth[box]
        )
    return parts


@dataclass(frozen=True, eq=False)
class Start:
    """What a training goes on from.

    Parameters
    ----------
    name : str
        In words, for the card.
    weights : list of ndarray or None
        All weights of the network, in Keras' order; None where they are made from the images.
    config : TumorNetworkConfig
        Its size.
    """

    name: str
    weights: list[NDArray[Any]] | None
    config: TumorNetworkConfig

    @classmethod
    def of(cls, options: TrainTumorOptions) -> Start:
        """Find the start that the options name.

        Raises
        ------
        LinceiError
            When there is no such model, or it was made by another trainer.
        """
        plain = TumorNetworkConfig()
        if options.start_from == NOTHING:
            return cls("chance", None, plain)
        if options.start_from == IMAGENET:
            from arm_overlay.imagenet import CREDIT, imagenet_weights

            imagenet_weights()  # so that a missing package is said before the images are read
            return cls(CREDIT, None, plain)
        from lincei.model import find_model

        model = find_model(options.start_from, task="tumor")
        if model.network().get("builder") != BUILDER:
            raise LinceiError(
                "its network is not one that train-tumor makes, so it cannot be trained further",
                f"model {model.name}",
                "Give --start-from tumor-breast, imagenet or nothing.",
            )
        config = TumorNetworkConfig.from_json(model.network()["config"])
        return cls(f"model {model.name}", model.load_keras().get_weights(), config)


BUILDER = "arm_overlay.network:build_network"


@dataclass
class _Done:
    """A trained network's weights and what it took."""

    weights: list[NDArray[Any]]
    minutes: float
    steps: int


class _Job:
    """What the networks of one training share."""

    def __init__(
        self,
        options: TrainTumorOptions,
        start: Start,
        state: Path,
        progress: ProgressCallback | None,
        cancelled: CancelCheck | None,
    ) -> None:
        self.options, self.start, self.state = options, start, state
        self.progress, self.cancelled = progress, cancelled
        # The recalibration of what it starts from is not that of what it becomes.
        self.config = dataclasses.replace(start.config, sharpening=1.0, offset=0.0)

    def trainer(self, weights: Sequence[NDArray[Any]] | None = None) -> Any:
        """Return the network in training, with these weights."""
        from arm_overlay.network import build_trainer

        network = build_trainer(self.config)
        if weights is not None:
            network.set_weights(list(weights))
        return network

    def run(
        self, fields: Sequence[AnnotatedField], tune: Sequence[AnnotatedField], key: str, stage: str
    ) -> tuple[Any, _Done]:
        """Train one network; without fields to tune on, its last weights are kept."""
        import keras

        options = self.options
        crops = CropRange(options.crop_px)
        augmentation = USUAL.with_colors(options.color_variation)
        batches = crop_maker(fields, crops, batch=options.batch, augmentation=augmentation)
        network = self.trainer(self.start.weights)
        if self.start.weights is None and options.start_from == IMAGENET:
            from arm_overlay.imagenet import imagenet_weights, slimmed

            colors, _ = batches(np.random.default_rng([options.seed, 1]))
            for layer, arrays in slimmed(imagenet_weights(), self.config, colors).items():
                network.get_layer(layer).set_weights(arrays)
                # Edges and textures are alike in photographs and sections; so few sections could only spoil
                # them, and a step takes a third less time.
                network.get_layer(layer).trainable = not layer.startswith(KEPT_LAYERS)
        network.compile(
            keras.optimizers.AdamW(options.learning_rate, weight_decay=1e-4, clipnorm=1.0),
            loss=tumor_loss,
            # XLA compiles depthwise convolutions into code that is many times slower on processors.
            jit_compile=False,
        )
        epochs = 0

        def score() -> dict[str, float]:
            nonlocal epochs
            epochs += 1
            if not tune:
                return {"score": float(epochs)}
            values = [seen.known for seen in self.look(network, tune, "tune", (MODEL_PIXEL_SIZE_UM,))]
            logits, truth = (np.concatenate(parts) for parts in zip(*values, strict=True))
            entropy = float(np.mean(np.logaddexp(0, logits) - truth * logits))
            return {"cross entropy": entropy, "AUC": roc_auc(logits, truth), "score": -entropy}

        result = run_loop(
            network,
            batches,
            score,
            LoopSettings(
                options.max_minutes,
                options.learning_rate,
                min(EPOCH_STEPS, options.max_steps or EPOCH_STEPS),
                patience=0.6,
                max_steps=options.max_steps,
            ),
            seed=options.seed,
            fingerprint=fingerprint_of(
                # A stopped training may be given more time, and another credit.
                {
                    **options.to_json(),
                    **dict.fromkeys(("resume", "max_minutes", "license", "data_credit", "folds_out"), 0),
                },
                self.config.to_json(),
                [[field.name, field.set_name, field.group, field.pixel_size_um] for field in fields],
                *(np.ascontiguousarray(array) for field in fields for array in (field.colors, field.truth)),
            ),
            state_path=self.state / f"{key}.npz",
            resume=options.resume,
            stage=stage,
            progress=self.progress,
            cancelled=self.cancelled,
        )
        network.set_weights(result.weights)
        return network, _Done(result.weights, result.minutes, result.steps)

    def look(
        self,
        network: Any,
        fields: Sequence[AnnotatedField],
        part: str,
        sizes_um: Sequence[float] = (),
    ) -> list[Seen]:
        """Return what a network says of fields, at the pixel size of each objective."""
        result = []
        for field in fields:
            usual = (MODEL_PIXEL_SIZE_UM,) if field.patch else sorted(set(OBJECTIVES_UM.values()))
            for size_um in sizes_um or usual:
                stop_if_cancelled(self.cancelled)
                cells = logits_of(network, field.at(size_um).colors)
                result.append(Seen(part, field, size_um, cells))
        return result


def tumor_loss(truth: Any, logits: Any) -> Any:
    """Return cross entropy over what is known, and a part of the soft Dice loss, of a batch.

    The Dice coefficient (Milletari et al., V-Net, 2016) is of the batch as a whole, so that crops without
    tumor do not make it jump.
    """
    from keras import ops

    tumor, known = truth[..., 0], truth[..., 1]
    logit = ops.cast(logits, "float32")[..., 0]
    entropy = ops.sum(known * (ops.softplus(logit) - tumor * logit)) / (ops.sum(known) + 1.0)
    probability = ops.sigmoid(logit) * known
    overlap = 2 * ops.sum(probability * tumor) + 1.0
    dice = overlap / (ops.sum(probability) + ops.sum(tumor * known) + 1.0)
    return entropy + DICE_WEIGHT * (1 - dice)


def logits_of(network: Any, colors: NDArray[Any]) -> Array:
    """Return what a network says of a section, piece by piece; beyond its borders it is mirrored.

    Parameters
    ----------
    network : keras.Model
        From `arm_overlay.network.build_trainer`.
    colors : ndarray
        Shape (Y, X, 3), display values.

    Returns
    -------
    ndarray
        Shape (ceil(Y / 8), ceil(X / 8)), float32.
    """
    from keras import ops

    from lincei.tiles import mirrored

    height, width = colors.shape[:2]
    rows = []
    for top in range(0, height, _PIECE_PX):
        row = []
        for left in range(0, width, _PIECE_PX):
            sizes = [min(_PIECE_PX, n - start) for n, start in ((height, top), (width, left))]
            index = [
                mirrored(
                    np.arange(
                        start - _AROUND_PX, start + -(-size // TOTAL_STRIDE) * TOTAL_STRIDE + _AROUND_PX
                    ),
                    n,
                )
                for start, size, n in ((top, sizes[0], height), (left, sizes[1], width))
            ]
            piece = colors[np.ix_(*index)].astype(np.float32)
            answer = ops.convert_to_numpy(network(piece[None], training=False))[0, ..., 0]
            margin = _AROUND_PX // OUTPUT_STRIDE
            row.append(
                answer[margin:, margin:][: -(-sizes[0] // OUTPUT_STRIDE), : -(-sizes[1] // OUTPUT_STRIDE)]
            )
        rows.append(np.concatenate(row, axis=1))
    return np.asarray(np.concatenate(rows, axis=0), np.float32)


def enlarged(cells: Array, shape: tuple[int, int], cell_px: int, scale: float) -> Array:
    """Return a map of cells at the pixels of the image that it belongs to.

    Parameters
    ----------
    cells : ndarray
        Shape (Y, X).
    shape : tuple of int
        Height and width of the image.
    cell_px : int
        Pixels that the network saw along one side of a cell.
    scale : float
        Pixels that the network saw for one of the image's.
    """
    import cv2

    step = scale / cell_px
    # Centers of pixels and cells lie half a pixel and half a cell from the corner that they share.
    matrix = np.array([[step, 0, 0.5 * step - 0.5], [0, step, 0.5 * step - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result = cv2.warpAffine(cells, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(result, np.float32)


def calibration_of(seen: Sequence[Seen]) -> Calibration:
    """Return the calibration with the highest likelihood.

    Fields are thinned, at each pixel size, to between 20,000 and 40,000 pixels, so that the large ones do not
    decide alone; a smaller one counts with the pixels it has.

    Two parameters, as Platt scaling has (Platt, 1999); found with Newton's method.
    """
    fields = [entry.known for entry in seen if not entry.field.patch]
    fields = [(logits, truth) for logits, truth in fields if len(logits)]
    if not fields:
        return Calibration()
    most = 20_000
    logits = np.concatenate([f[:: max(1, len(f) // most)] for f, _ in fields]).astype(np.float64)
    truth = np.concatenate([t[:: max(1, len(t) // most)] for _, t in fields]).astype(np.float64)
    if truth.min() == truth.max():
        return Calibration()
    columns = np.stack([logits, np.ones_like(logits)], axis=1)
    # As if a pixel of each kind in a thousand were turned round: a perfect separation has no end otherwise.
    truth = 0.001 + 0.998 * truth
    values = np.array([1.0, 0.0])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(columns @ values, -40, 40)))
        slope = columns.T @ (chance - truth)
        curve = (columns * (chance * (1 - chance))[:, None]).T @ columns + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        values = values - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    # A network that knows nothing of these fields must not be turned round.
    return Calibration(
        round(float(np.clip(values[0], 0.05, 20)), 4), round(float(np.clip(values[1], -20, 20)), 4)
    )


def objectives_of(seen: Sequence[Seen], calibration: Calibration) -> dict[str, dict[str, Any]]:
    """Return the card's table of objectives: the pixel size of each, and the threshold with the best Dice.

    The middle of the thresholds that come within 0.2 % of the best is taken, so that no chance peak decides.
    """
    table: dict[str, dict[str, Any]] = {}
    for objective, size_um in OBJECTIVES_UM.items():
        fields = [entry.known for entry in seen if entry.pixel_size_um == size_um and not entry.field.patch]
        threshold = 0.5
        if fields:
            probability = calibration.probability(np.concatenate([logits for logits, _ in fields]))
            truth = np.concatenate([t for _, t in fields])
            if truth.any():
                scores = np.array([dice(probability > level, truth) for level in _THRESHOLDS])
                threshold = float(np.median(_THRESHOLDS[scores >= 0.998 * scores.max()]))
        table[objective] = {"network": "", "pixel_size_um": size_um, "threshold": round(threshold, 3)}
    return table


def figures_by_set(
    seen: Sequence[Seen],
    calibrators: Mapping[str, Calibration],
    fitting: Sequence[Seen],
    *,
    crossed: bool = False,
) -> dict[str, Any]:
    """Return what was measured on held-out fields, by set and part.

    Parameters
    ----------
    seen : sequence of Seen
        Of held-out fields, at several pixel sizes.
    calibrators : mapping of str to Calibration
        By part.
    fitting : sequence of Seen
        What thresholds are chosen on.
    crossed : bool
        Whether the thresholds of a part are chosen on the other parts.

    Returns
    -------
    dict
        For each set and part: ``fields``, ``groups``; of patches ``patch_auc``; of fields, for each
        objective, ``auc``, ``dice``, ``threshold``, ``calibration_error`` and ``tumor_share`` over pixels.
    """
    result: dict[str, Any] = {}
    for part in dict.fromkeys(entry.part for entry in seen):
        calibration = calibrators[part]
        table = objectives_of([s for s in fitting if not crossed or s.part != part], calibration)
        for name in dict.fromkeys(entry.field.set_name for entry in seen if entry.part == part):
            members = [entry for entry in seen if entry.part == part and entry.field.set_name == name]
            entry: dict[str, Any] = {
                "fields": len({id(m.field) for m in members}),
                "groups": sorted({m.field.group for m in members}),
            }
            called = " ".join(word for word in (name or "images", f"({part})" if crossed else "") if word)
            if members[0].field.patch:
                answers = np.array([calibration.probability(m.cells).mean() for m in members])
                truth = np.array([bool(m.field.tumor.any()) for m in members])
                entry["tumor_patches"] = int(truth.sum())
                entry["patch_auc"] = _rounded(roc_auc(answers, truth))
            else:
                entry["objectives"] = {
                    objective: _pixel_figures(
                        [m for m in members if m.pixel_size_um == row["pixel_size_um"]],
                        calibration,
                        row["threshold"],
                    )
                    for objective, row in table.items()
                }
            result[called] = entry
    return result


def _pixel_figures(seen: Sequence[Seen], calibration: Calibration, threshold: float) -> dict[str, Any]:
    values = [entry.known for entry in seen]
    probability = calibration.probability(np.concatenate([logits for logits, _ in values]))
    truth = np.concatenate([t for _, t in values])
    return {
        "pixel_size_um": seen[0].pixel_size_um,
        "auc": _rounded(roc_auc(probability, truth)),
        "dice": _rounded(dice(probability > threshold, truth)),
        "threshold": threshold,
        "calibration_error": _rounded(
            calibration_error(np.maximum(probability, 1 - probability), (probability > 0.5) == truth)
        ),
        "tumor_share": _rounded(float(truth.mean())),
        "found_share": _rounded(float((probability > threshold).mean())),
    }


def glass_probability(network: Any, calibration: Calibration, seed: int) -> dict[str, float]:
    """Return the largest probability over bare glass of several tints, with a camera's noise."""
    random = np.random.default_rng(seed)
    worst = 0.0
    for level in (255, 245, 235):
        glass = level + random.normal(0, 2, (192, 192, 3)) + random.normal(0, 2, 3)
        cells = logits_of(network, np.clip(glass, 0, 255).astype(np.float32))
        worst = max(worst, float(calibration.probability(cells).max()))
    return {"highest_probability": round(worst, 4)}


def _before(job: _Job, fields: Sequence[AnnotatedField]) -> dict[str, Any]:
    """Return the figures of the model that the training started from, on the same fields."""
    if job.start.weights is None or not fields:
        return {}
    network = job.trainer(job.start.weights)
    calibration = Calibration(job.start.config.sharpening, job.start.config.offset)
    return figures_by_set(job.look(network, fields, "test"), {"test": calibration}, ())


def _fold_words(of_group: Mapping[str, str], name: str) -> str:
    return f"{name}: {', '.join(sorted(group for group, fold in of_group.items() if fold == name))}"


def _rounded(value: float) -> float | None:
    """Return a figure for a card; None where it is not defined."""
    return round(value, 4) if np.isfinite(value) else None
