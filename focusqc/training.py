"""Training a focus network from sharp images alone.

Optics and cameras are simulated, and so are the levels.
"""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focusqc.defocusing import (
    BRIGHT_FIELD,
    FLUORESCENCE,
    USUAL_BRIGHT_FIELD,
    USUAL_FLUORESCENCE,
    CameraRange,
    defocused,
    patch_maker,
    photographed,
)
from focusqc.levels import LEVELS, certainty, expected_level, pooled
from focusqc.options import TrainFocusOptions
from focusqc.patches import PATCH_PX, patch_grid, patch_pixels
from focusqc.scenes import SharpImage, has_structure, normalized_light, scene_from
from lincei.errors import LinceiError, LinceiWarning
from lincei.image import Image
from lincei.keras_network import import_keras
from lincei.metrics import calibration_error, rank_correlation
from lincei.model import check_target
from lincei.options import resolve_options
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from lincei.recalibration import best_factor
from lincei.training import LoopSettings, fingerprint_of, remove_state, run_loop, training_precision

if TYPE_CHECKING:
    from focusqc.network import FocusNetworkConfig
    from lincei.model import Model

Array = NDArray[np.float32]

BATCH = 128
EPOCH_STEPS = 400
# The weight of the log likelihood beside the ranked probability score; without it, small probabilities are
# vague.
LIKELIHOOD_WEIGHT = 0.3
# Shares of the groups of a set that are held out.
TUNE_SHARE, TEST_SHARE = 0.12, 0.2
# Fields that are tuned or measured on are cut into pieces of at most this side ...
FIELD_PX = 700
# ... and of a set at most so many pieces are used, evenly spread over what is held out.
_MOST_PIECES = 24
_BLANK_PATCHES = 500


@dataclass(frozen=True, eq=False)
class SharpField:
    """A sharp image to learn from or to measure on.

    Parameters
    ----------
    name : str
        What it is called, channel included.
    plane : ndarray
        Shape (Y, X), gray values.
    group : str
        Fields of one group (a well, a slide) are never parted.
    set_name : str
        The set it belongs to.
    """

    name: str
    plane: NDArray[Any]
    group: str
    set_name: str = ""


@dataclass(frozen=True)
class FocusSplit:
    """What is trained on, tuned on, and only measured on, and how that was chosen, in words."""

    train: tuple[SharpField, ...]
    tune: tuple[SharpField, ...]
    test: tuple[SharpField, ...]
    description: str


def train(
    images: Sequence[Image] | Mapping[str, Sequence[Image]],
    out: str | Path,
    options: TrainFocusOptions | None = None,
    *,
    measure_on: Mapping[str, Sequence[Image]] | None = None,
    groups: Mapping[str, Mapping[str, str]] | None = None,
    command: str = "",
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **overrides: Any,
) -> Model:
    """Train a network that rates focus, from sharp images, and write it as a model folder.

    Parameters
    ----------
    images : sequence of Image, or mapping of str to sequences of Image
        Sharp images, from one upwards; with names, each set counts alike, whatever its size. Every channel of
        a gray image counts as one image. A color image is seen in gray.
    out : str or Path
        Folder of the model; its last part is the model's name.
    options : TrainFocusOptions, optional
        The options; single ones can be given as keywords.
    measure_on : mapping of str to sequences of Image, optional
        Sharp images of other cells or microscopes, which are only measured on.
    groups : mapping of str to mappings of str to str, optional
        For a set (``""`` where there is only one), from an image's name to its group (well, slide); images of
        one group are held out together. By default each image is a group.
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
        Before any training: when an image is no single plane, is too small or of another modality, there is
        nothing in any image of a set, or something else than a model lies at ``out``.
    lincei.training.TrainingStoppedError
        When it was cancelled; ``resume=True`` goes on.
    """
    keras = import_keras()
    from focusqc.network import FocusNetworkConfig, build_trainer

    settings = resolve_options(TrainFocusOptions, options, overrides)
    out = Path(out).expanduser().absolute()
    check_target(out, replace=True)
    bright_field = settings.modality == "H&E"
    cameras, usual = (
        (BRIGHT_FIELD, USUAL_BRIGHT_FIELD) if bright_field else (FLUORESCENCE, USUAL_FLUORESCENCE)
    )
    sets = dict(images) if isinstance(images, Mapping) else {"": images}
    report(progress, Progress("reading the images", 0, 0))
    fields = with_structure(sharp_fields(sets, groups or {}, settings.modality), bright_field)
    other = with_structure(sharp_fields(measure_on or {}, {}, settings.modality), bright_field)
    split = split_fields(fields)
    state = out.with_name(f"{out.name}.training")
    config = FocusNetworkConfig(settings.width)
    fingerprint = fingerprint_of(
        # A stopped training may be given more time, and another credit.
        {**settings.to_json(), "resume": False, "max_minutes": 0, "license": "", "data_credit": ""},
        config.to_json(),
        [[field.name, field.set_name, field.group] for field in fields],
        *[np.ascontiguousarray(field.plane) for field in fields],
    )
    keras.utils.set_random_seed(settings.seed)
    precision = keras.config.dtype_policy()
    keras.config.set_dtype_policy(training_precision())
    try:
        trainer = build_trainer(config)
    finally:
        keras.config.set_dtype_policy(precision)
    trainer.compile(
        keras.optimizers.AdamW(settings.learning_rate, weight_decay=1e-4, clipnorm=1.0), loss=ranked_loss
    )
    by_set = _sources(split.train, bright_field)
    batches = patch_maker(
        lambda random: scene_from(
            by_set,
            random,
            synthetic_share=settings.synthetic_share,
            magnification=settings.magnification,
            bright_field=bright_field,
        ),
        cameras,
        batch=BATCH,
    )
    tune = simulated_fields(split.tune, usual, settings.seed + 1, cancelled=cancelled)

    def tune_figures() -> dict[str, float]:
        answers = [rating(trainer, patches, 1.0) for _, patches in tune]
        truth = np.array([level for level, _ in tune])
        off = np.abs(np.array([pooled(p).argmax() for p in answers]) - truth)
        levels = np.repeat(truth, [len(p) for p in answers])
        return {
            "exact": float(np.mean(off == 0)),
            "within one": float(np.mean(off <= 1)),
            "score": -ranked_score(np.concatenate(answers), levels),
        }

    result = run_loop(
        trainer,
        batches,
        tune_figures,
        LoopSettings(settings.max_minutes, settings.learning_rate, EPOCH_STEPS, patience=0.5),
        seed=settings.seed,
        fingerprint=fingerprint,
        state_path=state / "training.npz",
        resume=settings.resume,
        progress=progress,
        cancelled=cancelled,
    )
    trainer.set_weights(result.weights)
    report(progress, Progress("recalibrating", 0, 0))
    config = dataclasses.replace(config, sharpening=_recalibrated(trainer, tune))
    report(progress, Progress("measuring on held-out images", 0, 0))
    figures: dict[str, Any] = {
        "test": measure(trainer, config, split.test, usual, settings.seed + 2, cancelled=cancelled),
        "test_sets": {
            name: measure(
                trainer,
                config,
                [field for field in split.test if field.set_name == name],
                usual,
                settings.seed + 2,
                cancelled=cancelled,
            )
            for name in (sets if len(sets) > 1 else ())
        },
        "other_images": {
            name: measure(
                trainer,
                config,
                [field for field in other if field.set_name == name],
                usual,
                settings.seed + 3,
                cancelled=cancelled,
            )
            for name in (measure_on or {})
        },
        "blank": measure_blank(trainer, config, usual, settings.seed + 4),
        "split": split.description,
        "epochs": len(result.history),
        "minutes": round(result.minutes, 1),
    }
    report(progress, Progress("writing the model", 0, 0))
    from focusqc.model_folder import write_focus_model

    model = write_focus_model(
        out,
        trainer,
        config,
        options=settings,
        figures=figures,
        training={
            "command": command,
            "fields": len(fields),
            "sets": [name for name in sets if name],
            "train_fields": [field.name for field in split.train],
            "tune_fields": [field.name for field in split.tune],
            "test_fields": [field.name for field in split.test],
            "split": split.description,
            "backend": keras.backend.backend(),
            "precision": training_precision(),
            "steps": result.steps,
            "date": datetime.date.today().isoformat(),
            "options": {**settings.to_json(), "resume": False},
        },
    )
    remove_state(state)
    return model


def ranked_loss(levels: Any, logits: Any) -> Any:
    """Return the ranked probability score, and a part of the negative log likelihood, of a batch.

    The ranked probability score sums, over the levels, the squared error of the cumulated probability: an
    error counts more the more levels it spans (Epstein, J. Appl. Meteorol. 8:985, 1969). Both are proper
    scores, so that the best answer to a patch that tells nothing is the uniform distribution.
    """
    from keras import ops

    levels = ops.cast(ops.reshape(levels, (-1,)), "int32")
    logits = ops.cast(logits, "float32")
    cumulated = ops.cumsum(ops.softmax(logits), axis=-1)
    reached = ops.cast(ops.arange(LEVELS)[None] >= levels[:, None], "float32")
    ranked = ops.sum((cumulated - reached) ** 2, axis=-1)
    likelihood = ops.sum(ops.one_hot(levels, LEVELS) * ops.log_softmax(logits), axis=-1)
    return ops.mean(ranked - LIKELIHOOD_WEIGHT * likelihood)


def ranked_score(probabilities: NDArray[Any], levels: NDArray[Any]) -> float:
    """Return the mean ranked probability score of distributions for true levels.

    Their shapes are (N, 11) and (N,).
    """
    reached = np.arange(LEVELS)[None] >= np.asarray(levels)[:, None]
    return float(np.mean(np.sum((np.cumsum(probabilities, axis=-1) - reached) ** 2, axis=-1)))


def sharp_fields(
    sets: Mapping[str, Sequence[Image]],
    groups: Mapping[str, Mapping[str, str]],
    modality: str = "fluorescence",
) -> list[SharpField]:
    """Read sharp images as planes.

    Raises
    ------
    LinceiError
        When an image has several z planes, is smaller than two patches, is known to be of another modality,
        or has pixels that are no numbers.
    """
    # A stained section in color is seen in bright field.
    suited = (None, "H&E", "bright field") if modality == "H&E" else (None, modality)
    fields = []
    for set_name, images in sets.items():
        for image in images:
            where = image.source or image.name
            times, channels, planes, height, width = image.shape
            if planes > 1:
                raise LinceiError(
                    f"it has {planes} z planes, of which only some are sharp",
                    where,
                    "Train on single sharp planes: `lincei focus` names the sharpest of a stack.",
                )
            if image.modality not in suited:
                raise LinceiError(
                    f"it is known to be {image.modality}, and the model is for {modality}",
                    where,
                    "Leave it out: only where blur adds up can it be simulated.",
                )
            if min(height, width) < 2 * PATCH_PX:
                raise LinceiError(
                    f"it has {width} x {height} pixels; training needs {2 * PATCH_PX} along each side", where
                )
            pixels = image.read()[:, :, 0]
            if image.rgb:
                pixels = pixels.mean(axis=1, keepdims=True, dtype=np.float32)
                channels = 1
            if not np.isfinite(pixels).all():
                raise LinceiError("it has pixels that are no numbers", where, "Leave it out, or repair it.")
            for t in range(times):
                for c in range(channels):
                    name = image.name + (f" channel {c}" if channels > 1 else "")
                    name += f" time {t}" if times > 1 else ""
                    group = groups.get(set_name, {}).get(image.name, image.name)
                    fields.append(SharpField(name, pixels[t, c], f"{set_name}/{group}", set_name))
    return fields


def with_structure(fields: Sequence[SharpField], bright_field: bool) -> list[SharpField]:
    """Leave out empty fields, with a warning: nothing in them tells whether they are sharp.

    Raises
    ------
    LinceiError
        When none of a set is left; it is named.
    """
    kept = []
    for field in fields:
        if field.plane.min() < field.plane.max() and (bright_field or has_structure(field.plane)):
            kept.append(field)
        else:
            warnings.warn(
                f"{field.name}: nothing stands out from its noise, so it is left out.",
                LinceiWarning,
                stacklevel=3,
            )
    for name in dict.fromkeys(field.set_name for field in fields):
        if not any(field.set_name == name for field in kept):
            raise LinceiError(
                "nothing stands out from the noise in any of its images",
                f"set {name!r}" if name else "the images of --input",
                "Give sharp images of specimens.",
            )
    return kept


def split_fields(fields: Sequence[SharpField]) -> FocusSplit:
    """Split each set into train, tune and test by groups, evenly spread over their names.

    Of two groups the larger trains, and half of the other one's images tunes, half tests. A set that cannot
    be split so is cut: each of its images into three parts side by side, with a guard band as wide as light
    is blurred.
    """
    from focusqc.defocusing import MARGIN_PX

    parts: dict[str, list[SharpField]] = {"train": [], "tune": [], "test": []}
    words = []
    for set_name in dict.fromkeys(field.set_name for field in fields):
        members = [field for field in fields if field.set_name == set_name]
        groups = sorted({field.group for field in members})
        called = f"{set_name}: " if set_name else ""
        if len(groups) >= 3:
            # Every fifth group is kept for the test, every eighth of the rest tunes.
            test = set(groups[:: round(1 / TEST_SHARE)]) if len(groups) > 3 else {groups[0]}
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
        sizes = [sum(field.group == group for field in members) for group in groups]
        if len(groups) == 2 and min(sizes) >= 2:
            larger = groups[int(np.argmax(sizes))]
            others = [field for field in members if field.group != larger]
            parts["train"] += [field for field in members if field.group == larger]
            parts["tune"] += others[: len(others) // 2]
            parts["test"] += others[len(others) // 2 :]
            words.append(
                f"{called}{max(sizes)} images of one group train, those of the other tune "
                f"({len(others) // 2}) and test ({len(others) - len(others) // 2})"
            )
            continue
        for field in members:
            plane = field.plane if field.plane.shape[1] >= field.plane.shape[0] else field.plane.T
            width = plane.shape[1]
            test_from = width - max(PATCH_PX, round(width * TEST_SHARE))
            tune_from = test_from - MARGIN_PX - max(PATCH_PX, round(width * TUNE_SHARE))
            cuts = {
                "train": slice(0, max(0, tune_from - MARGIN_PX)),
                "tune": slice(max(0, tune_from), test_from - MARGIN_PX),
                "test": slice(test_from, width),
            }
            if cuts["train"].stop < PATCH_PX:
                raise LinceiError(
                    "it is too small to be cut into parts for training, tuning and testing",
                    field.name,
                    f"Give three images or more, or one with {3 * PATCH_PX + 2 * MARGIN_PX} pixels a side.",
                )
            for use, cut in cuts.items():
                part = plane[:, cut]
                if part.min() == part.max():
                    raise LinceiError(
                        f"the part of it that is kept for {use} is constant",
                        field.name,
                        "Give three images or more, or crop it to where the specimen is.",
                    )
                name = f"{field.name} ({use} part)"
                parts[use].append(dataclasses.replace(field, plane=part, name=name))
        words.append(f"{called}{len(members)} image(s), each cut into parts for training, tuning and testing")
    return FocusSplit(tuple(parts["train"]), tuple(parts["tune"]), tuple(parts["test"]), "; ".join(words))


def simulated_fields(
    fields: Sequence[SharpField],
    cameras: CameraRange,
    seed: int,
    *,
    cancelled: CancelCheck | None = None,
) -> list[tuple[int, Array]]:
    """Return fields at all levels, photographed with many cameras, as patches.

    Parameters
    ----------
    fields : sequence of SharpField
        Sharp fields, at their own pixel size; cut into pieces of at most `FIELD_PX`.
    cameras : CameraRange
        What they are photographed with.
    seed : int
        Seed.
    cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    list of (int, ndarray)
        For each piece and level the level and the patches of the piece, shape (patches, 84, 84, 1).
    """
    random = np.random.default_rng(seed)
    result = []
    for plane in _pieces(fields):
        stop_if_cancelled(cancelled)
        light = normalized_light(plane, bright_field=cameras is USUAL_BRIGHT_FIELD)
        grid = patch_grid(*light.shape)
        for level in range(LEVELS):
            seen = photographed(defocused(light, level), cameras, random)
            result.append((level, np.moveaxis(patch_pixels(seen, grid, 0, len(grid)), 1, -1)))
    return result


def rating(trainer: Any, patches: Array, sharpening: float) -> NDArray[np.float64]:
    """Return probabilities, shape (N, 11), of patches, shape (N, 84, 84, 1), with the network in training."""
    from keras import ops

    logits = np.concatenate(
        [
            ops.convert_to_numpy(trainer(patches[i : i + 256], training=False))
            for i in range(0, len(patches), 256)
        ]
    ).astype(np.float64)
    powers = np.exp((logits - logits.max(axis=-1, keepdims=True)) * sharpening)
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def measure(
    trainer: Any,
    config: FocusNetworkConfig,
    fields: Sequence[SharpField],
    cameras: CameraRange,
    seed: int,
    *,
    cancelled: CancelCheck | None = None,
) -> dict[str, Any]:
    """Return how well known levels of simulated defocus are found again on sharp fields.

    Returns
    -------
    dict
        ``fields``, and ``pieces`` they were cut into; over pieces: ``exact`` and ``within_one`` (shares),
        ``mean_error`` (levels, predicted minus true), ``rank_correlation`` (Spearman); over patches:
        ``patch_exact``, ``patch_within_one``, ``calibration_error`` (of the most likely level's probability,
        15 bins), ``certainty`` (mean).
    """
    simulated = simulated_fields(fields, cameras, seed, cancelled=cancelled)
    truth = np.array([level for level, _ in simulated])
    answers = [rating(trainer, patches, config.sharpening) for _, patches in simulated]
    per_image = np.array([pooled(p) for p in answers])
    found, expected = per_image.argmax(axis=-1), expected_level(per_image)
    together = np.concatenate(answers)
    patch_truth = np.repeat(truth, [len(p) for p in answers])
    patch_found = together.argmax(axis=-1)
    return {
        "fields": len(fields),
        "pieces": len(simulated) // LEVELS,
        "exact": round(float(np.mean(found == truth)), 4),
        "within_one": round(float(np.mean(np.abs(found - truth) <= 1)), 4),
        "mean_error": round(float(np.mean(found - truth)), 3),
        "rank_correlation": round(rank_correlation(expected, truth), 4),
        "patches": len(together),
        "patch_exact": round(float(np.mean(patch_found == patch_truth)), 4),
        "patch_within_one": round(float(np.mean(np.abs(patch_found - patch_truth) <= 1)), 4),
        "calibration_error": round(calibration_error(together.max(axis=-1), patch_found == patch_truth), 4),
        "certainty": round(float(certainty(together).mean()), 4),
    }


def measure_blank(
    trainer: Any, config: FocusNetworkConfig, cameras: CameraRange, seed: int
) -> dict[str, float]:
    """Return the certainty of patches with nothing in them: a camera's noise, all black, all saturated.

    The noise is that of darkness, or of bare glass where the cameras look at sections in bright field.
    """
    random = np.random.default_rng(seed)
    light = np.full((PATCH_PX, PATCH_PX), float(cameras is USUAL_BRIGHT_FIELD), np.float32)
    noise = np.stack([photographed(light, cameras, random) for _ in range(_BLANK_PATCHES)])[..., None]
    values = certainty(rating(trainer, noise, config.sharpening))
    flat = np.stack([np.full((PATCH_PX, PATCH_PX, 1), value, np.float32) for value in (0, 65535)])
    even = certainty(rating(trainer, flat, config.sharpening))
    return {
        "noise_certainty_mean": round(float(values.mean()), 4),
        "noise_certainty_95th_percentile": round(float(np.percentile(values, 95)), 4),
        "black_certainty": round(float(even[0]), 4),
        "saturated_certainty": round(float(even[1]), 4),
    }


def _recalibrated(trainer: Any, tune: Sequence[tuple[int, Array]]) -> float:
    """Return the factor of the logits with the highest likelihood on tune."""
    plain = np.log(np.concatenate([rating(trainer, patches, 1.0) for _, patches in tune]) + 1e-12)
    levels = np.concatenate([np.full(len(patches), k) for k, patches in tune])

    def score(factor: float) -> float:
        scaled = plain * factor
        scaled -= scaled.max(axis=-1, keepdims=True)
        normal = np.log(np.exp(scaled).sum(axis=-1))
        return float(np.mean(normal - scaled[np.arange(len(levels)), levels]))

    return round(best_factor(score), 4)


def _sources(fields: Sequence[SharpField], bright_field: bool) -> list[list[SharpImage]]:
    """Return what scenes are made from, by set."""
    names = dict.fromkeys(field.set_name for field in fields)
    return [
        [
            SharpImage(field.name, normalized_light(field.plane, bright_field=bright_field))
            for field in fields
            if field.set_name == name
        ]
        for name in names
    ]


def _pieces(fields: Sequence[SharpField]) -> list[NDArray[Any]]:
    """Return pieces of fields for tuning and measuring, at most so many of each set."""
    pieces = []
    for name in dict.fromkeys(field.set_name for field in fields):
        of_set = [
            part
            for field in fields
            if field.set_name == name
            for band in np.array_split(field.plane, -(-field.plane.shape[0] // FIELD_PX), axis=0)
            for part in np.array_split(band, -(-band.shape[1] // FIELD_PX), axis=1)
            if part.min() < part.max()
        ]
        places = np.linspace(0, len(of_set) - 1, min(len(of_set), _MOST_PIECES)).round().astype(int)
        pieces += [of_set[i] for i in places]
    return pieces
