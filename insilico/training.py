"""Training a labeling network from pairs of transmitted-light and fluorescence images."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from insilico.artifacts import measure_artifacts
from insilico.augmentation import Augmentation, random_crop
from insilico.distribution import LogisticMixture
from insilico.label_curve import curved
from insilico.options import SCRATCH, TrainOptions
from insilico.out_of_distribution import Reference, fit_reference
from insilico.pair_files import TrainingPair
from insilico.registration import corrected, estimate_shifts, in_words
from insilico.transmitted_light import transmitted_channel
from insilico.z_planes import interpolation_weights, network_planes, plane_weights
from lincei.errors import LinceiError, UsageError
from lincei.image import Image
from lincei.keras_network import import_keras
from lincei.metrics import coverage, nrmse, pearson_r, ssim
from lincei.model import check_target
from lincei.normalize import IntensityScaling, not_finite, percentile_scaling, standard_scaling
from lincei.options import resolve_options
from lincei.pixel_size import resampled, zoom_factor
from lincei.progress import CancelCheck, Progress, ProgressCallback, report
from lincei.recalibration import best_factor
from lincei.tiles import mirrored
from lincei.training import (
    BY_THE_USER,
    LoopResult,
    LoopSettings,
    fingerprint_of,
    remove_state,
    run_loop,
    training_precision,
)

if TYPE_CHECKING:
    from insilico.network import NetworkConfig
    from lincei.model import Model

Array = NDArray[np.float32]

BATCH = 4
# Shares of the pixels (or fields) that are held out; the rest is trained on.
TUNE_SHARE, TEST_SHARE = 0.12, 0.2
SMALLEST_STRIP_PX = 24
# Of test parts, this much is painted on with artifacts.
_SPOILED_SIDE_PX, _SPOILED_PX = 704, 1_000_000
# What is shown of tune while the network learns.
_PREVIEW_PX, _PREVIEW_LABELS = 252, 3
# The weight of the squared error of the mean beside the log likelihood of the distribution's shape.
MEAN_WEIGHT = 50.0

_COLORS = {
    "#0000FF": ("dapi", "hoechst", "dna", "nuclei", "nucleus", "nuclear", "draq5"),
    "#00FF00": ("map2", "dendrites", "dendrite", "gfp", "actin", "fitc"),
    "#FF0000": ("nfh", "axons", "axon", "rfp", "mcherry", "tubulin"),
    "#FFFF00": ("yfp",),
    "#00FFFF": ("cfp", "membrane"),
    "#FF00FF": ("cy5", "propidium iodide", "pi", "dead"),
}
_OTHER_COLORS = ("#FF8000", "#80FF00", "#00FF80", "#8000FF", "#FF0080")


@dataclass(frozen=True)
class Field:
    """A field as the network learns from it.

    Parameters
    ----------
    name : str
        Its image's name, with the time where there are several.
    stack : ndarray
        Shape (Y, X, planes), float32, scaled; as many planes as the network takes, or fewer.
    truth : ndarray
        Shape (Y, X, labels), float32, on the labels' normalized scale; NaN where it is not known.
    weights : ndarray, optional
        From the stack's planes to the network's, shape (network planes, planes); as they are when left out.
    group, use, set_name, share
        As in `insilico.pair_files.TrainingPair`.
    """

    name: str
    stack: Array
    truth: Array
    weights: Array | None = None
    group: str = ""
    use: str = ""
    set_name: str = ""
    share: float = 1.0

    def seen(self, stack: Array) -> Array:
        """Return a part of the stack with the network's number of planes."""
        return stack if self.weights is None else stack @ self.weights.T


@dataclass(frozen=True)
class Part:
    """A rectangle of a field."""

    field: Field
    rows: slice
    columns: slice

    @property
    def stack(self) -> Array:
        """The stack within the rectangle."""
        return self.field.stack[self.rows, self.columns]

    @property
    def truth(self) -> Array:
        """The truth within the rectangle."""
        return self.field.truth[self.rows, self.columns]


@dataclass(frozen=True)
class Split:
    """What is trained on, what is tuned on, what is only measured on, and how that was chosen, in words."""

    train: tuple[Part, ...]
    tune: tuple[Part, ...]
    test: tuple[Part, ...]
    description: str


def train(
    pairs: Sequence[TrainingPair],
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    command: str = "",
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    finish: CancelCheck | None = None,
    previews: bool = False,
    **overrides: Any,
) -> Model:
    """Train a network that predicts the pairs' labels, and write it as a model folder.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        From one field upwards. Three or more are split by field into train, tune and test; one or two are
        cut into strips with a guard band between them.
    out : str or Path
        Folder of the model; its last part is the model's name.
    options : TrainOptions, optional
        The options; single ones can be given as keywords.
    command : str, optional
        What the user typed, for the card.
    progress, cancelled : callable, optional
        See `lincei.progress`. Every epoch reports a line that a person understands, and its metrics: the
        ``loss`` and, for each label, its correlation on tune, ``r(LABEL)``.
    finish : callable, optional
        When it turns true, the training ends with the best weights so far: the model is recalibrated,
        measured and written as if the time were up, without ``refit``.
    previews : bool
        Whether each epoch's report brings a picture of a part of tune: input, truth and prediction, uint8,
        shape (height, width, 3), 400 pixels wide at most.

    Returns
    -------
    Model
        Complete, or unfinished when Keras does not run on TensorFlow (``lincei models finish`` exports it).

    Raises
    ------
    LinceiError
        When the pairs do not fit each other, are too small, or have nothing in them.
    lincei.training.TrainingStoppedError
        When it was cancelled; ``resume=True`` goes on.
    """
    keras = import_keras()
    from insilico.network import NetworkConfig

    settings = resolve_options(TrainOptions, options, overrides)
    out = Path(out).expanduser().absolute()
    check_target(out, replace=True)
    labels = _label_names(pairs)
    curves = _curves(pairs)
    start = _start_model(settings)
    planes = settings.planes or max(pair.image.shape[2] for pair in pairs)
    pixel_size_um = settings.pixel_size_um or (start.card.pixel_size_um if start else None)
    if pixel_size_um is None:
        pixel_size_um = _common([pair.image.pixel_size_um for pair in pairs], pairs)
    z_step_um = _common([pair.image.z_step_um for pair in pairs if pair.image.shape[2] > 1], pairs)
    report(progress, Progress("reading the images", 0, len(pairs)))
    fields = read_fields(pairs, labels, planes, z_step_um, pixel_size_um, settings)
    report(progress, Progress("measuring the registration", 0, 0))
    shifts = estimate_shifts(fields, labels, progress=progress, cancelled=cancelled)
    registration = in_words(shifts, moved=settings.register)
    for sentence in registration:
        report(progress, Progress("measuring the registration", 0, 0, sentence))
    if settings.register:
        fields = corrected(fields, labels, shifts)
    if start is None:
        config = NetworkConfig(
            len(labels), planes, settings.width, settings.scales, settings.components, settings.dropout
        )
    else:
        stored = {**start.network()["config"], "labels": len(labels), "planes": planes, "spread": ()}
        config = NetworkConfig(**stored)
    split = split_fields(fields, config.reach_px)
    state = out.with_name(f"{out.name}.training")
    fingerprint = fingerprint_of(
        # A stopped training may be given more time.
        {**settings.to_json(), "resume": False, "max_minutes": 0},
        config.to_json(),
        labels,
        *[array for field in fields for array in (field.stack, np.nan_to_num(field.truth, nan=-1e9))],
    )
    keras.utils.set_random_seed(settings.seed)
    trainer = _compiled(config, settings)
    if start is not None:
        folded = plane_weights(
            planes, start.card.z_planes, z_step_um=z_step_um, network_z_step_um=start.card.z_step_um
        )
        copy_weights(start, trainer, labels, folded)
    first_weights = trainer.get_weights()

    def loop(
        parts: Sequence[Part],
        stage: str,
        evaluate: Callable[[], Mapping[str, float]],
        steps: int,
        preview: Callable[[], Any] | None = None,
    ) -> LoopResult:
        return run_loop(
            trainer,
            _batches(parts, settings),
            evaluate,
            LoopSettings(
                settings.max_minutes,
                settings.learning_rate,
                _epoch_steps(parts, settings),
                max_steps=steps,
            ),
            seed=settings.seed,
            fingerprint=fingerprint,
            state_path=state / f"{stage}.npz",
            resume=settings.resume,
            stage=stage,
            progress=progress,
            cancelled=cancelled,
            finish=finish,
            preview=preview,
        )

    untuned = config
    result = loop(
        split.train,
        "training",
        lambda: _tune_figures(trainer, untuned, split.tune, labels),
        0,
        _preview(trainer, untuned, split.tune, labels) if previews else None,
    )
    trainer.set_weights(result.weights)
    report(progress, Progress("recalibrating", 0, 0))
    config = dataclasses.replace(config, spread=recalibrated_spread(trainer, config, split.tune))
    report(progress, Progress("measuring on the test part", 0, 0))
    figures: dict[str, Any] = {
        "test": measure(trainer, config, split.test, labels),
        "pearson_r_by_planes": measure_fewer_planes(trainer, config, split.test, labels),
        "artifacts": measure_spoiled(trainer, config, split.test, labels),
        "split": split.description,
        "epochs": len(result.history),
        "minutes": round(result.minutes, 1),
    }
    # Of several sets, the part that shows most.
    most = max(split.test, key=lambda part: np.isfinite(part.truth).any((0, 1)).sum())
    cover = _held_out_picture(trainer, config, most, labels)
    refit = settings.refit and result.stopped != BY_THE_USER
    if refit:
        measured_weights = trainer.get_weights()
        keras.utils.set_random_seed(settings.seed + 1)
        trainer = _compiled(config, settings)
        trainer.set_weights(first_weights)
        whole = [Part(f, slice(0, f.stack.shape[0]), slice(0, f.stack.shape[1])) for f in fields]
        steps_done = iter(range(10**9))
        refitted = loop(
            whole, "training on everything", lambda: {"score": float(next(steps_done))}, result.steps
        )
        refit = refitted.stopped != BY_THE_USER
        # Half of a second training is worth less than the whole first one.
        trainer.set_weights(refitted.weights if refit else measured_weights)
    if refit:
        figures["refit"] = (
            "These figures are of a network trained without the tune and test parts. The weights in this "
            f"folder were then trained anew in the same way, for the same {result.steps} steps, on all "
            "parts; no figure of theirs on these images would mean anything."
        )
    report(progress, Progress("writing the model", 0, 0))
    from insilico.model_folder import write_labeling_model

    model = write_labeling_model(
        out,
        trainer,
        config,
        labels={name: label_color(name, i) for i, name in enumerate(labels)},
        curves=curves,
        options=settings,
        figures=figures,
        modalities=_modalities(pairs, settings),
        pixel_size_um=pixel_size_um,
        z_step_um=z_step_um,
        training={
            "command": command,
            "fields": len(fields),
            "field_names": _learned_from(fields if refit else split),
            "sets": [name for name in dict.fromkeys(field.set_name for field in fields) if name],
            "split": split.description,
            "registration": registration,
            "backend": keras.backend.backend(),
            "precision": training_precision(),
            "steps": result.steps,
            "start_from": start.name if start is not None else None,
            "date": datetime.date.today().isoformat(),
            "options": {**settings.to_json(), "resume": False},
        },
        out_of_distribution=_look_of(split).to_json(),
        cover=cover,
    )
    remove_state(state)
    return model


def stain_of(name: str) -> str | None:
    """Return the display color of the stains that a label's name belongs to; None for an unknown one."""
    lowered = name.lower()
    for color, words in _COLORS.items():
        if lowered in words or any(lowered.startswith(word) for word in words if len(word) > 2):
            return color
    return None


def label_color(name: str, index: int = 0) -> str:
    """Return the display color of a label: blue for nuclei, green for dendrites, red for axons, and so on."""
    return stain_of(name) or _OTHER_COLORS[index % len(_OTHER_COLORS)]


def split_fields(fields: Sequence[Field], guard_px: int) -> Split:
    """Split each set into train, tune and test.

    The test is of the fields that say so, else of one in five groups or, without groups, of one in five
    fields. Tune is taken from the rest in the same way; by field where few groups are left. One or two fields
    are cut into strips with guard bands between them.

    Parameters
    ----------
    fields : sequence of Field
        The fields.
    guard_px : int
        Width of the band between two strips that is used for nothing: as far as the network reaches, so
        that no pixel whose stain is trained on is seen when another part is predicted.

    Raises
    ------
    LinceiError
        When the fields are too small to be cut into strips, or nothing is left to train on.
    """
    names = list(dict.fromkeys(field.set_name for field in fields))
    splits = [_split_set([field for field in fields if field.set_name == name], guard_px) for name in names]
    if len(splits) == 1:
        return splits[0]
    return Split(
        tuple(part for split in splits for part in split.train),
        tuple(part for split in splits for part in split.tune),
        tuple(part for split in splits for part in split.test),
        "; ".join(f"{name}, {split.description}" for name, split in zip(names, splits, strict=True)),
    )


def _split_set(fields: Sequence[Field], guard_px: int) -> Split:
    groups = list(dict.fromkeys(field.group for field in fields))
    test, tune = ([field for field in fields if field.use == use] for use in ("test", "tune"))
    if not test:
        if len(groups) < 2 and len(fields) < 3:
            return _strips(fields, guard_px)
        # Every k-th, so that a folder sorted by condition gives some of each.
        free = [field for field in fields if not field.use]
        test = _drawn(free, TEST_SHARE, by_group=len(groups) > 1)
    train = _without(fields, [*test, *tune])
    if not tune and len(train) > 1:
        # With few groups left, each is needed to learn from.
        tune = _drawn(train, TUNE_SHARE, by_group=len({field.group for field in train}) > 3)
        train = _without(train, tune)
    if not (train and tune):
        raise LinceiError(
            f"nothing is left to train on: of {len(fields)} fields {len(test)} are kept for the test and "
            f"{len(tune)} to tune",
            fields[0].name,
            "Give more fields, or keep fewer for them.",
        )
    unit = "group" if len(groups) > 1 else "field"
    kept = list(dict.fromkeys((field.group if unit == "group" else field.name) for field in test))
    return Split(
        tuple(map(_whole, train)),
        tuple(map(_whole, tune)),
        tuple(map(_whole, test)),
        f"by {unit}: {len(train)} fields to train, {len(tune)} to tune, {len(test)} to test "
        f"({', '.join(kept[:8])}{', ...' if len(kept) > 8 else ''})",
    )


def _without(fields: Sequence[Field], others: Sequence[Field]) -> list[Field]:
    return [field for field in fields if not any(field is other for other in others)]


def _drawn(fields: Sequence[Field], share: float, *, by_group: bool) -> list[Field]:
    """Draw a share of the groups, or of the fields; always the same ones."""
    units: list[Any] = list(dict.fromkeys(field.group for field in fields)) if by_group else list(fields)
    order = np.random.default_rng(0).permutation(len(units))
    chosen = [units[i] for i in order[: max(1, round(share * len(units)))]]
    if by_group:
        return [field for field in fields if field.group in chosen]
    return [field for field in fields if any(field is other for other in chosen)]


def _whole(field: Field) -> Part:
    return Part(field, slice(0, field.stack.shape[0]), slice(0, field.stack.shape[1]))


def _strips(fields: Sequence[Field], guard_px: int) -> Split:
    """Cut one or two fields into strips along their longer side."""
    parts: tuple[list[Part], list[Part], list[Part]] = ([], [], [])
    words = []
    for part in map(_whole, fields):
        height, width = part.field.stack.shape[:2]
        length = max(height, width)
        usable = length - 2 * guard_px
        tune_px, test_px = round(TUNE_SHARE * usable), round(TEST_SHARE * usable)
        if min(tune_px, test_px) < SMALLEST_STRIP_PX:
            least = int(np.ceil(SMALLEST_STRIP_PX / TUNE_SHARE)) + 2 * guard_px
            raise LinceiError(
                f"the field is too small to train from: {height} x {width} pixels",
                part.field.name,
                f"Its longer side must have {least} pixels or more, or give three fields or more.",
            )
        train_px = usable - tune_px - test_px
        edges = (
            (0, train_px),
            (train_px + guard_px, train_px + guard_px + tune_px),
            (length - test_px, length),
        )
        for list_of_parts, (first, last) in zip(parts, edges, strict=True):
            strip = slice(first, last)
            rows, columns = (strip, part.columns) if height >= width else (part.rows, strip)
            list_of_parts.append(Part(part.field, rows, columns))
        side = "rows" if height >= width else "columns"
        words.append(
            f"{part.field.name}, {side} "
            + ", ".join(
                f"{first} to {last - 1} {use}"
                for use, (first, last) in zip(("train", "tune", "test"), edges, strict=True)
            )
        )
    return Split(
        tuple(parts[0]),
        tuple(parts[1]),
        tuple(parts[2]),
        f"strips of {'one field' if len(fields) == 1 else 'two fields'} with {guard_px} px between them: "
        + "; ".join(words),
    )


def predict_part(trunk: Any, part: Part, config: NetworkConfig) -> list[LogisticMixture]:
    """Predict a part with a trunk under training, seeing the field around it.

    Returns
    -------
    list of LogisticMixture
        One per label, over the part's pixels, with the configuration's spread.
    """
    import keras

    from insilico.network import distribution_of

    outputs, inside = _run_part(trunk, part, config)
    mean = np.asarray(outputs["mean"][0], np.float32)[inside]
    halves = distribution_of(keras.ops.convert_to_tensor(outputs["shape"]), config.labels, config.components)
    weights, offsets, scales = (
        np.repeat(np.repeat(np.asarray(keras.ops.convert_to_numpy(half), np.float32)[0], 2, 0), 2, 1)[inside]
        for half in (keras.ops.exp(halves[0]), halves[1], keras.ops.exp(halves[2]))
    )
    return [
        LogisticMixture(
            np.moveaxis(weights[:, :, i], -1, 0),
            np.moveaxis(mean[:, :, i, None] + offsets[:, :, i], -1, 0),
            np.moveaxis(scales[:, :, i], -1, 0),
        ).with_spread(config.spread[i])
        for i in range(config.labels)
    ]


def _run_part(trunk: Any, part: Part, config: NetworkConfig) -> tuple[Mapping[str, Any], tuple[slice, slice]]:
    """Return the trunk's outputs for a part with the field around it, and where the part lies in them."""
    halo, stride = config.halo_px, config.total_stride
    height, width = part.field.stack.shape[:2]
    rows, columns = (
        np.arange(s.start - halo, s.start + -(-(s.stop - s.start) // stride) * stride + halo)
        for s in (part.rows, part.columns)
    )
    stack = part.field.seen(part.field.stack[np.ix_(mirrored(rows, height), mirrored(columns, width))])
    inside = np.s_[halo : halo + part.truth.shape[0], halo : halo + part.truth.shape[1]]
    return trunk.predict_on_batch(stack[None]), inside


def measure(
    trunk: Any, config: NetworkConfig, parts: Sequence[Part], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return Pearson r, NRMSE, SSIM, CRPS and 90 % coverage for each label, over all pixels of ``parts``.

    Truth and prediction are on the label's normalized scale; nothing is fitted. SSIM is the parts' mean.
    """
    predicted = [(part, predict_part(trunk, part, config)) for part in parts]
    figures: dict[str, dict[str, float]] = {}
    for i, label in enumerate(labels):
        known = _known_pairs(predicted, i)
        if not known:
            continue
        truth = np.concatenate([t.ravel() for t, _ in known])
        mean = np.concatenate([d.mean.ravel() for _, d in known])
        low, high = (np.concatenate([d.quantile(q).ravel() for _, d in known]) for q in (0.05, 0.95))
        figures[label] = {
            "pearson_r": pearson_r(mean, truth),
            "nrmse": nrmse(mean, truth),
            "ssim": float(np.mean([ssim(d.mean, t) for t, d in known])),
            "crps": float(np.mean(np.concatenate([d.crps(t).ravel() for t, d in known]))),
            "coverage_90": coverage(low, high, truth),
        }
    return figures


def measure_fewer_planes(
    trunk: Any, config: NetworkConfig, parts: Sequence[Part], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return Pearson r of each label when the parts are seen through fewer planes, spread over the stack.

    Returns
    -------
    dict
        Number of planes (as text) to label to r. A single plane is the middle one.
    """
    figures = {}
    parts = [part for part in parts if part.field.weights is None]
    for count in sorted({1, 3, 5, 7, config.planes}) if parts else ():
        if count > config.planes:
            continue
        half = (config.planes - 1) / 2
        places = np.linspace(0, config.planes - 1, count) if count > 1 else np.array([half])
        seen = plane_weights(count, config.planes) @ interpolation_weights(places, config.planes)
        thinned = [
            dataclasses.replace(part, field=dataclasses.replace(part.field, stack=part.field.stack @ seen.T))
            for part in parts
        ]
        measured = measure_r(trunk, config, thinned, labels)
        figures[str(count)] = {name: round(value, 4) for name, value in measured.items()}
    return figures


def measure_spoiled(
    trunk: Any, config: NetworkConfig, parts: Sequence[Part], labels: Sequence[str]
) -> dict[str, Any]:
    """Return how the labels fare where artifacts are painted on test parts; see `measure_artifacts`.

    Parts with as many planes as the network takes are painted on where there are some, about a megapixel of
    them.
    """
    most = max(part.field.stack.shape[-1] for part in parts)
    chosen = [part for part in parts if part.field.stack.shape[-1] == most]
    weights = chosen[0].field.weights
    side = np.s_[:_SPOILED_SIDE_PX, :_SPOILED_SIDE_PX]
    count = max(1, _SPOILED_PX // chosen[0].truth[side].shape[0] ** 2)

    def predict(stack: Array) -> list[LogisticMixture]:
        unknown = np.zeros((*stack.shape[:2], config.labels), np.float32)
        return predict_part(trunk, _whole(Field("", stack, unknown, weights)), config)

    return measure_artifacts(
        predict,
        [part.stack[side] for part in chosen[:count]],
        [part.truth[side] for part in chosen[:count]],
        labels,
    )


def _learned_from(used: Sequence[Field] | Split) -> list[str]:
    """Return the names of the fields that the weights have seen a part of, the first hundred."""
    if isinstance(used, Split):
        used = [part.field for part in (*used.train, *used.tune)]
    return list(dict.fromkeys(field.name for field in used))[:100]


def _look_of(split: Split) -> Reference:
    """Return what the training images look like, set by set, with limits from what was kept of each."""
    trained: dict[str, list[Array]] = {}
    kept: dict[str, list[Array]] = {}
    for stacks, parts in ((trained, split.train), (kept, (*split.tune, *split.test))):
        for part in parts:
            stacks.setdefault(part.field.set_name or "training", []).append(part.field.seen(part.stack))
    return fit_reference(trained, kept)


def _held_out_picture(trunk: Any, config: NetworkConfig, part: Part, labels: Sequence[str]) -> bytes:
    """Return a PNG file that shows the first test part: input, truth, prediction, uncertainty, error."""
    from insilico.panels import held_out_picture, png_bytes

    mixtures = predict_part(trunk, part, config)
    shown = [i for i in range(len(labels)) if _known_window(part.truth[..., i])]
    mean, sd = (np.stack([getattr(mixtures[i], name) for i in shown], axis=-1) for name in ("mean", "sd"))
    colors = [label_color(labels[i], i) for i in shown]
    names = [labels[i] for i in shown]
    return png_bytes(held_out_picture(part.stack, part.truth[..., shown], mean, sd, names, colors))


def _preview(
    trunk: Any, config: NetworkConfig, parts: Sequence[Part], labels: Sequence[str]
) -> Callable[[], NDArray[np.uint8]]:
    """Return what draws the brightest region of tune with what the trunk predicts there at the time."""
    from insilico.panels import progress_picture

    part = max(parts, key=lambda part: np.isfinite(part.truth).any((0, 1)).sum())
    part = _brightest(part, _PREVIEW_PX)
    shown = [i for i in range(len(labels)) if _known_window(part.truth[..., i])][:_PREVIEW_LABELS]
    colors = [label_color(labels[i], i) for i in shown]

    def picture() -> NDArray[np.uint8]:
        outputs, inside = _run_part(trunk, part, config)
        mean = np.asarray(outputs["mean"][0], np.float32)[inside]
        return progress_picture(part.stack, part.truth[..., shown], mean[..., shown], colors)

    return picture


def _brightest(part: Part, side_px: int) -> Part:
    """Return the rectangle of a part, so many pixels at most along each side, that has most stain in it."""
    stain = np.nan_to_num(part.truth).clip(0, 1).sum(axis=-1, dtype=np.float64)
    height, width = (min(side_px, length) for length in stain.shape)
    total = np.pad(stain.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    top, left = (int(place) for place in np.unravel_index(sums.argmax(), sums.shape))
    row, column = part.rows.start + top, part.columns.start + left
    return Part(part.field, slice(row, row + height), slice(column, column + width))


def recalibrated_spread(trunk: Any, config: NetworkConfig, parts: Sequence[Part]) -> tuple[float, ...]:
    """Return, for each label, the widening of its distributions that gives the best CRPS on ``parts``.

    Correlation and mean do not change. A label without truth in ``parts`` keeps its spread.
    """
    plain = dataclasses.replace(config, spread=())
    predicted = [(part, predict_part(trunk, part, plain)) for part in parts]
    factors = []
    for i in range(config.labels):
        # Every second pixel along y and x: as good an average in a quarter of the time.
        known = [(t[::2, ::2], _window(d, np.s_[::2, ::2])) for t, d in _known_pairs(predicted, i)]

        def score(factor: float, known: Sequence[tuple[Array, LogisticMixture]] = tuple(known)) -> float:
            return float(np.mean([d.with_spread(factor).crps(t).mean() for t, d in known]))

        factors.append(best_factor(score) if known else 1.0)
    return tuple(factors)


def _known_window(truth: Array) -> tuple[slice, slice] | None:
    """Return where a label's truth is known: all of a part, or a rectangle of it; None where nothing is.

    A target that was moved onto its input has a border of which nothing is known.
    """
    finite = np.isfinite(truth)
    if not finite.any():
        return None
    rows, columns = (np.flatnonzero(finite.any(axis=axis)) for axis in (1, 0))
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _known_pairs(
    predicted: Sequence[tuple[Part, list[LogisticMixture]]], label: int
) -> list[tuple[Array, LogisticMixture]]:
    """Return a label's truth and prediction where the truth is known."""
    pairs = []
    for part, mixtures in predicted:
        window = _known_window(part.truth[..., label])
        if window is not None:
            pairs.append((part.truth[(*window, label)], _window(mixtures[label], window)))
    return pairs


def _window(mixture: LogisticMixture, window: tuple[slice, slice]) -> LogisticMixture:
    """Return the distributions of some of the pixels."""
    inside = (slice(None), *window)
    return LogisticMixture(mixture.weights[inside], mixture.locations[inside], mixture.scales[inside])


def measure_r(
    trunk: Any, config: NetworkConfig, parts: Sequence[Part], labels: Sequence[str]
) -> dict[str, float]:
    """Return the Pearson r of each label that ``parts`` have, over all their pixels."""
    known: dict[str, list[tuple[Array, Array]]] = {label: [] for label in labels}
    for part in parts:
        outputs, inside = _run_part(trunk, part, config)
        mean = np.asarray(outputs["mean"][0], np.float32)[inside]
        for i, label in enumerate(labels):
            window = _known_window(part.truth[..., i])
            if window is not None:
                known[label].append((mean[(*window, i)].ravel(), part.truth[(*window, i)].ravel()))
    return {
        label: pearson_r(*(np.concatenate(arrays) for arrays in zip(*pairs, strict=True)))
        for label, pairs in known.items()
        if pairs
    }


def _tune_figures(
    trunk: Any, config: NetworkConfig, parts: Sequence[Part], labels: Sequence[str]
) -> dict[str, float]:
    """Return the correlation of each label on tune, and their mean as the score."""
    measured = measure_r(trunk, config, parts, labels)
    finite = [value for value in measured.values() if np.isfinite(value)]
    score = float(np.mean(finite)) if finite else -1.0
    return {**{f"r({label})": value for label, value in measured.items()}, "score": score}


def _compiled(config: NetworkConfig, settings: TrainOptions) -> Any:
    """Build the trunk with its loss and optimizer."""
    import keras

    from insilico.network import build_trunk, mixture_nll

    trunk = build_trunk(config, dtype=training_precision())
    ops = keras.ops

    class Trainer(keras.Model):  # type: ignore[misc]
        """The trunk with the loss of the labels that a field has."""

        def compute_loss(
            self,
            x: Any = None,  # noqa: ARG002 - Keras calls it by these names
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,  # noqa: ARG002
            training: bool = True,  # noqa: ARG002
        ) -> Any:
            y = ops.convert_to_tensor(y)  # PyTorch hands over the array as it is
            truth, known = y[..., : config.labels], y[..., config.labels :]
            squared = ops.square(y_pred["mean"] - truth) * known
            # Only the shape of the distribution learns from the likelihood, and at every second pixel; the
            # mean learns from the squared error, which is what correlation rewards.
            residual = ops.stop_gradient(truth - y_pred["mean"])[:, ::2, ::2]
            nll = mixture_nll(residual, y_pred["shape"], config.components) * known[:, ::2, ::2]
            share = ops.maximum(ops.mean(known), 1e-6)
            return (MEAN_WEIGHT * ops.mean(squared) + ops.mean(nll)) / share

    trainer = Trainer(trunk.inputs, trunk.output, name="trunk")
    trainer.compile(
        optimizer=keras.optimizers.AdamW(settings.learning_rate, weight_decay=1e-3, clipnorm=1.0),
        # Compiling to XLA pays on JAX only: on TensorFlow it loses oneDNN's fast bfloat16 convolutions.
        jit_compile=keras.backend.backend() == "jax",
    )
    return trainer


def _batches(
    parts: Sequence[Part], settings: TrainOptions
) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Return a function that makes a batch; sets take turns alike, within a set large parts come up more."""
    chances = np.array([part.truth.shape[0] * part.truth.shape[1] for part in parts], float)
    names = np.array([part.field.set_name for part in parts])
    for name in np.unique(names):
        of_set = names == name
        chances[of_set] *= parts[int(np.argmax(of_set))].field.share / chances[of_set].sum()
    chances /= chances.sum()
    augmentation = Augmentation(rotate=settings.rotate)

    def batch(random: np.random.Generator) -> tuple[Array, Array]:
        stacks, targets = [], []
        for index in random.choice(len(parts), BATCH, p=chances):
            part = parts[index]
            stack, truth = random_crop(part.stack, part.truth, settings.crop_px, augmentation, random)
            known = np.isfinite(truth)
            stacks.append(part.field.seen(stack))
            targets.append(np.concatenate([np.where(known, truth, 0), known], axis=-1, dtype=np.float32))
        return np.stack(stacks), np.stack(targets)

    return batch


def _epoch_steps(parts: Sequence[Part], settings: TrainOptions) -> int:
    """An epoch shows about three times as many pixels as there are, within limits that keep it readable."""
    pixels = sum(part.truth.shape[0] * part.truth.shape[1] for part in parts)
    return int(np.clip(3 * pixels / (BATCH * settings.crop_px**2), 20, 150))


def _label_names(pairs: Sequence[TrainingPair]) -> list[str]:
    if not pairs:
        raise UsageError("there is nothing to train from", "", "Give at least one image and one label.")
    names = list(dict.fromkeys(name for pair in pairs for name in pair.labels))
    if not names:
        raise UsageError("no label is given", "", "Add --label NAME=PATTERN.")
    return names


def read_fields(
    pairs: Sequence[TrainingPair],
    labels: Sequence[str],
    planes: int,
    z_step_um: float | None,
    pixel_size_um: float | None,
    settings: TrainOptions,
) -> list[Field]:
    """Read, check, scale and resample all pairs; each time point becomes a field.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        The pairs.
    labels : sequence of str
        Names of all labels, in the order of the network's outputs.
    planes : int
        Z planes that the network takes.
    z_step_um, pixel_size_um : float or None
        What the network works at.
    settings : TrainOptions
        Channel and percentiles.

    Raises
    ------
    LinceiError
        When an image and its label do not fit each other or have nothing in them.
    """
    alike: dict[tuple[str, ...], list[Image]] = {}
    for pair in pairs:
        for name, label in pair.labels.items() if pair.label_scaling != "image" else ():
            alike.setdefault(_scaled_with(pair, name), []).append(label)
    together = {
        key: percentile_scaling(
            *images, background=settings.background_percentile, bright=settings.bright_percentile
        )
        for key, images in alike.items()
    }
    return [
        field
        for pair in pairs
        for field in _fields(pair, labels, planes, z_step_um, pixel_size_um, settings, together)
    ]


def _scaled_with(pair: TrainingPair, name: str) -> tuple[str, ...]:
    """Return what the images have in common that share a label's scaling."""
    return (name, pair.set_name, pair.group if pair.label_scaling == "group" else "")


def _fields(
    pair: TrainingPair,
    labels: Sequence[str],
    planes: int,
    z_step_um: float | None,
    pixel_size_um: float | None,
    settings: TrainOptions,
    together: Mapping[tuple[str, ...], IntensityScaling],
) -> list[Field]:
    image, where = pair.image, pair.image.source or pair.image.name
    channel = transmitted_channel(image, settings.channel)
    scaling = standard_scaling(image, channel)
    own = image.shape[2]
    # More planes than the network takes are reduced here, once; fewer are spread out where they are used.
    weights = plane_weights(own, planes, z_step_um=image.z_step_um, network_z_step_um=z_step_um)
    reducing, spreading = (weights, None) if own >= planes else (np.eye(own, dtype=np.float32), weights)
    truths: dict[str, Image] = {}
    for name, label in pair.labels.items():
        if label.shape[3:] != image.shape[3:] or label.shape[0] != image.shape[0]:
            raise LinceiError(
                f"the label {name!r} is {label.shape[3]} x {label.shape[4]} pixels (y by x) "
                f"at {label.shape[0]} time(s), its input {image.shape[3]} x {image.shape[4]} "
                f"at {image.shape[0]}",
                label.source or label.name,
                f"Label and input ({where}) must lie pixel on pixel; crop or resize one of them.",
            )
        if label.shape[1] != 1:
            raise LinceiError(
                f"the label {name!r} has {label.shape[1]} channels, and one is needed",
                label.source or label.name,
                "Save the channel of this label as an image of its own.",
            )
        truths[name] = label
    scalings = {
        name: together.get(_scaled_with(pair, name))
        or percentile_scaling(
            label, background=settings.background_percentile, bright=settings.bright_percentile
        )
        for name, label in truths.items()
    }
    fields = []
    for t in range(image.shape[0]):
        moment = {"T": slice(t, t + 1)}
        stack = image.read({**moment, "C": slice(channel, channel + 1)})[0, 0]
        if not np.isfinite(stack).all():
            raise not_finite(image, channel)
        seen = np.moveaxis(network_planes(stack, scaling, reducing), 0, -1)
        truth = np.full((*seen.shape[:2], len(labels)), np.nan, np.float32)
        for name, label in truths.items():
            plane = label.read(moment)[0, 0].max(axis=0)
            if not np.isfinite(plane).all():
                raise not_finite(label, 0)
            truth[..., labels.index(name)] = curved(scalings[name].apply(plane), pair.label_curve)
        if zoom_factor(image.pixel_size_um, pixel_size_um) != 1:
            seen, truth = (
                resampled(array, zoom_factor(image.pixel_size_um, pixel_size_um)) for array in (seen, truth)
            )
        name = image.name if image.shape[0] == 1 else f"{image.name} t={t}"
        seen = np.ascontiguousarray(seen, np.float32)
        fields.append(Field(name, seen, truth, spreading, pair.group, pair.use, pair.set_name, pair.share))
    return fields


def _common(values: Sequence[float | None], pairs: Sequence[TrainingPair]) -> float | None:
    """Return the first image's pixel size or z step; none where sets of different ones come together."""
    if len({pair.set_name for pair in pairs}) > 1 and len(set(values)) > 1:
        return None
    return values[0] if values else None


def _curves(pairs: Sequence[TrainingPair]) -> dict[str, str]:
    """Return the curve of each label's scale."""
    curves: dict[str, str] = {}
    for pair in pairs:
        for name in pair.labels:
            if curves.setdefault(name, pair.label_curve) != pair.label_curve:
                raise UsageError(
                    f"the label {name!r} has a scale of two curves, {curves[name]} and {pair.label_curve}",
                    "",
                    "Give it the same label_curve in all sets, or another name.",
                )
    return curves


def _modalities(pairs: Sequence[TrainingPair], settings: TrainOptions) -> tuple[str, ...]:
    """Return what the inputs are, each modality once; phase contrast where nobody says."""
    if settings.modality:
        return (settings.modality,)
    return tuple(dict.fromkeys(pair.image.modality or "phase contrast" for pair in pairs))


def _start_model(settings: TrainOptions) -> Model | None:
    if settings.start_from == SCRATCH:
        return None
    from lincei.model import find_model

    return find_model(settings.start_from, task="label")


def copy_weights(start: Model, trunk: Any, labels: Sequence[str], folded: Array) -> None:
    """Take over the weights of a trained model.

    Parameters
    ----------
    start : Model
        The trained model.
    trunk : keras.Model
        Takes the weights; the same network but for its labels and planes.
    labels : sequence of str
        Its labels. A label gets the head of one with the same name, or of one that stains the same (DAPI for
        Hoechst); another begins anew.
    folded : ndarray
        From its planes to the start's, shape (start planes, planes). The first layer is linear in the planes,
        so that folding them into its weights is the same as interpolating the stack.
    """
    old = start.load_keras().get_layer("trunk")
    heads = {i: head for i, name in enumerate(labels) if (head := _head_for(name, start)) is not None}
    for layer_new, layer_old in zip(trunk.layers, old.layers, strict=True):
        new, given = layer_new.get_weights(), layer_old.get_weights()
        if layer_new.name not in ("mean", "shape"):
            if given and given[0].ndim == 4 and given[0].shape != new[0].shape:
                given[0] = np.einsum("yxpf,pn->yxnf", given[0], folded)
            # The smoothing's kernel is a constant of as many labels, no weight.
            layer_new.set_weights(given)
            continue
        per_label = new[1].size // len(labels)
        for i, j in heads.items():
            into, from_ = slice(i * per_label, (i + 1) * per_label), slice(j * per_label, (j + 1) * per_label)
            if layer_new.name == "mean":  # a transposed convolution: kernel (y, x, out, in)
                new[0][:, :, into], new[1][into] = given[0][:, :, from_], given[1][from_]
            else:
                new[0][..., into], new[1][into] = given[0][..., from_], given[1][from_]
        layer_new.set_weights(new)


def _head_for(name: str, start: Model) -> int | None:
    """Return the place of the start's label of that name, or of the first that stains the same."""
    known = [label.name for label in start.card.labels]
    if name in known:
        return known.index(name)
    stain = stain_of(name)
    kin = [i for i, other in enumerate(known) if stain and stain_of(other) == stain]
    return kin[0] if kin else None
