"""Predicting fluorescence: from an image to the statistics of each pixel's predictive distribution."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import lincei
from insilico.distribution import LogisticMixture
from insilico.options import LabelOptions
from insilico.transmitted_light import check_modality, transmitted_channel
from insilico.z_planes import DRIFT_WARNING_PX, drift_px, plane_weights
from lincei.engine import Engine, cached_engine
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image
from lincei.model import Model, find_model
from lincei.normalize import IntensityScaling, not_finite, standard_scaling
from lincei.options import resolve_options
from lincei.pixel_size import ResampledArray, zoom_factor
from lincei.progress import CancelCheck, ProgressCallback, report
from lincei.tiles import Tile, plan_tiles, read_tile, run_tiles

Array = NDArray[np.float32]

# Scaled intensities beyond this are dirt or saturation; networks are trained with the same limit.
CLIP = 8.0
SMALLEST_SIDE_PX = 16
# What an engine's own outputs answer; other statistics need the distribution's parameters.
_DIRECT = ("mean", "sd")


class Store(Protocol):
    """Gives the array that a statistic is written to, tile by tile: float32, shape (T, C, Z, Y, X)."""

    def __call__(self, statistic: str, template: Image) -> Any:
        """Return a writable array of the template's shape."""
        ...


@dataclass(frozen=True)
class Plan:
    """One model applied to one image: what is read, at which scale, and where its labels go.

    Parameters
    ----------
    model : Model
        The model.
    image : Image
        The transmitted-light channel at the model's pixel size, lazy.
    weights : ndarray
        From the image's planes to the network's, shape (network planes, planes).
    scaling : IntensityScaling
        Of the whole image.
    chosen : tuple of int
        Which of the model's labels are wanted.
    first : int
        Channel of the result that the first of them becomes.
    factor : float
        By how much the image was enlarged.
    """

    model: Model
    image: Image
    weights: Array
    scaling: IntensityScaling
    chosen: tuple[int, ...]
    first: int
    factor: float


def label(
    image: Image,
    model: str | Model | Sequence[str | Model] | None = None,
    options: LabelOptions | None = None,
    *,
    store: Store | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **overrides: Any,
) -> dict[str, Image]:
    """Predict fluorescence from transmitted light.

    Parameters
    ----------
    image : Image
        Gray; any number of z planes, any size, any bit depth. Time points are kept.
    model : str, Model or several, optional
        Name, folder or `lincei.model.Model`; goes before ``options.model``.
    options : LabelOptions, optional
        The options; single ones can be given as keywords.
    store : callable, optional
        Gives the arrays that results are written to, for images larger than memory; arrays in memory by
        default.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    dict of str to Image
        For each statistic asked for an image, float32, with one channel per label, on the input's own
        pixel grid, on the label's normalized scale (0: background, 1: bright). Whether z is projected is
        in the model's card.

    Raises
    ------
    LinceiError
        When the image does not suit the model, is constant, too small, or has pixels that are no numbers.

    Examples
    --------
    >>> from lincei.image import open_image
    >>> result = label(open_image("stack.tif"), "motor-neurons")  # doctest: +SKIP
    >>> result["mean"].channel_names  # doctest: +SKIP
    ('DAPI', 'MAP2', 'NFH')
    """
    settings = resolve_options(LabelOptions, options, overrides)
    chosen: Sequence[str | Model] = (
        settings.model if model is None else [model] if isinstance(model, (str, Model)) else model
    )
    models = [item if isinstance(item, Model) else find_model(item, task="label") for item in chosen]
    stated = {
        name: value
        for name in ("pixel_size_um", "z_step_um", "modality")
        if (value := getattr(settings, name)) is not None
    }
    image = image.with_(**stated) if stated else image
    channel = transmitted_channel(image, settings.channel)
    if min(image.shape[3:]) < SMALLEST_SIDE_PX:
        raise LinceiError(
            f"the image has too few pixels ({image.shape[3]} x {image.shape[4]})",
            image.source or image.name,
            f"Both sides must have {SMALLEST_SIDE_PX} pixels or more.",
        )
    for item in models:
        check_modality(image, item.card.modality, item.name)
    scaling = standard_scaling(image, channel)
    drift = _measured_drift(image, channel)
    assumed = _assumed_scale(image, models)
    plans = _plans(image, channel, scaling, models, settings)
    template = _template(image, plans)
    outputs = _direct_outputs(settings.statistics)
    engines = [
        cached_engine(plan.model, engine=settings.engine, threads=settings.threads or None, outputs=outputs)
        for plan in plans
    ]
    provenance = {
        "predicted": True,
        "note": "Predicted from transmitted light, not measured. Research use only.",
        "lincei_version": lincei.__version__,
        "models": [
            {
                "name": m.name,
                "version": m.card.created,
                "hash": m.hash,
                "labels": [x.name for x in m.card.labels],
            }
            for m in models
        ],
        "parameters": settings.to_json(),
        "source": image.source or image.name,
        "engine": [f"{e.name} {e.version} ({e.precision})" for e in engines],
        "intensity_scaling": dataclasses.asdict(scaling),
        "z_drift_px": round(drift, 2),
        "scale_assumed": assumed,
    }
    results = {
        name: template.with_(provenance={**provenance, "statistic": name}) for name in settings.statistics
    }
    make = store or _in_memory
    arrays = {name: make(name, result) for name, result in results.items()}
    tiles_before, total = 0, sum(len(_tiles(plan, settings)) * image.shape[0] for plan in plans)
    for plan, engine in zip(plans, engines, strict=True):
        _predict(plan, engine, arrays, settings, _counted(progress, tiles_before, total), cancelled)
        tiles_before += len(_tiles(plan, settings)) * image.shape[0]
    return {name: result.with_(data=arrays[name]) for name, result in results.items()}


def _predict(
    plan: Plan,
    engine: Engine,
    arrays: Mapping[str, Any],
    settings: LabelOptions,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> None:
    """Run one model over all times and tiles, and write its channels."""
    height, width = plan.image.shape[3:]
    channels = slice(plan.first, plan.first + len(plan.chosen))
    targets: Mapping[str, Any] = arrays
    if plan.factor != 1:  # at the model's scale first; brought back to the input's grid at the end
        channels = slice(0, len(plan.chosen))
        shape = (plan.image.shape[0], len(plan.chosen), 1, height, width)
        targets = {name: np.empty(shape, np.float32) for name in arrays}
    items = [(t, tile) for t in range(plan.image.shape[0]) for tile in _tiles(plan, settings)]
    halo = plan.model.card.halo_px

    def read(item: tuple[int, Tile]) -> Array:
        return _network_input(plan, read_tile(plan.image, item[1], halo, t=item[0]))

    def compute(item: tuple[int, Tile], stack: Array) -> dict[str, Array]:
        tile = item[1]
        inside = tuple(slice(halo + part.start, halo + part.stop) for part in tile.inside)
        outputs = {name: value[0][(slice(None), *inside)] for name, value in engine.run(stack[None]).items()}
        return _statistics(outputs, settings.statistics, len(plan.model.card.labels), plan.chosen)

    def write(item: tuple[int, Tile], values: dict[str, Array]) -> None:
        t, tile = item
        for name, value in values.items():
            targets[name][t : t + 1, channels, 0:1, tile.rows, tile.columns] = value[None, :, None]

    run_tiles(items, read, compute, write, stage="labeling", progress=progress, cancelled=cancelled)
    if targets is not arrays:
        into = slice(plan.first, plan.first + len(plan.chosen))
        for name, array in arrays.items():
            back = ResampledArray(targets[name], 1 / plan.factor, (array.shape[3], array.shape[4]))
            for t in range(array.shape[0]):
                array[t : t + 1, into] = back[t : t + 1]


def _network_input(plan: Plan, pixels: NDArray[Any]) -> Array:
    """Scale a tile and bring its planes to the network's."""
    scaled = plan.scaling.apply(pixels)
    if pixels.dtype.kind == "f" and not np.isfinite(scaled).all():
        raise not_finite(plan.image, 0)
    np.clip(scaled, -CLIP, CLIP, out=scaled)
    if np.array_equal(plan.weights, np.eye(*plan.weights.shape, dtype=np.float32)):
        return scaled
    return np.tensordot(plan.weights, scaled, axes=1).astype(np.float32)


def _statistics(
    outputs: Mapping[str, Array], wanted: Sequence[str], labels: int, chosen: Sequence[int]
) -> dict[str, Array]:
    """Return each statistic as (chosen labels, Y, X)."""
    index = list(chosen)
    values = {name: outputs[name][index] for name in wanted if name in outputs}
    if "parameters" in outputs:
        mixtures = LogisticMixture.from_parameters(np.ascontiguousarray(outputs["parameters"]), labels)
        for name in wanted:
            if name not in values:
                values[name] = np.stack([mixtures[i].statistic(name) for i in index]).astype(np.float32)
    return values


def _direct_outputs(statistics: Sequence[str]) -> tuple[str, ...]:
    """Return the engine's outputs that are needed; what is not asked for is not computed."""
    direct = tuple(name for name in _DIRECT if name in statistics)
    return direct if all(name in _DIRECT for name in statistics) else (*direct, "parameters")


def _plans(
    image: Image, channel: int, scaling: IntensityScaling, models: Sequence[Model], settings: LabelOptions
) -> list[Plan]:
    """Work out how each model is applied; models that give none of the wanted labels are left out."""
    names = [label.name for model in models for label in model.card.labels]
    for wanted in settings.labels:
        if wanted not in names:
            raise UsageError(f"there is no label {wanted!r}", "", f"The model gives: {', '.join(names)}.")
    single = image.with_(
        data=_OneChannel(image, channel), channel_names=(), channel_colors=(), rgb=False, levels=()
    )
    plans: list[Plan] = []
    first = 0
    for model in models:
        card = model.card
        chosen = tuple(
            i for i, label in enumerate(card.labels) if not settings.labels or label.name in settings.labels
        )
        if not chosen:
            continue
        factor = zoom_factor(image.pixel_size_um, card.pixel_size_um)
        scaled = single if factor == 1 else single.with_(data=ResampledArray(single.data, factor))
        weights = plane_weights(
            image.shape[2], card.z_planes, z_step_um=image.z_step_um, network_z_step_um=card.z_step_um
        )
        plans.append(Plan(model, scaled, weights, scaling, chosen, first, factor))
        first += len(chosen)
    return plans


class _OneChannel:
    """One channel of an image as a five-axis array."""

    def __init__(self, image: Image, channel: int) -> None:
        self._image, self._channel = image, channel
        t, _, z, y, x = image.shape
        self.shape = (t, 1, z, y, x)
        self.dtype = image.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        t, _, z, y, x = key
        channel = slice(self._channel, self._channel + 1)
        return self._image.read({"T": t, "C": channel, "Z": z, "Y": y, "X": x})


def _template(image: Image, plans: Sequence[Plan]) -> Image:
    """Return the result without its pixels."""
    labels = [(plan.model, plan.model.card.labels[i]) for plan in plans for i in plan.chosen]
    counts = [label.name for _, label in labels]
    names = tuple(
        label.name if counts.count(label.name) == 1 else f"{label.name} ({model.name})"
        for model, label in labels
    )
    shape = (image.shape[0], len(labels), 1, *image.shape[3:])
    return Image(
        _Shape(shape),
        name=image.name,
        source=image.source,
        pixel_size_um=image.pixel_size_um,
        time_step_s=image.time_step_s,
        channel_names=names,
        channel_colors=tuple(label.color for _, label in labels),
        modality="fluorescence",
    )


@dataclass(frozen=True)
class _Shape:
    """Stands for float32 pixels that are not there yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] = dataclasses.field(default_factory=lambda: np.dtype(np.float32))

    def __getitem__(self, key: Any) -> Any:
        raise TypeError("these pixels are not computed yet")


def _in_memory(_statistic: str, template: Image) -> Array:
    return np.empty(template.shape, np.float32)


def _tiles(plan: Plan, settings: LabelOptions) -> list[Tile]:
    return plan_tiles(*plan.image.shape[3:], settings.tile_px, plan.model.card.total_stride)


def _counted(progress: ProgressCallback | None, before: int, total: int) -> ProgressCallback | None:
    """Place one model's progress within all models'."""
    if progress is None:
        return None
    return lambda update: report(
        progress, dataclasses.replace(update, done=before + update.done, total=total)
    )


def _measured_drift(image: Image, channel: int) -> float:
    drift = drift_px(image, channel=channel)
    if drift > DRIFT_WARNING_PX:
        warnings.warn(
            f"{image.name}: the z planes are shifted sideways by up to {drift:.1f} pixels; the prediction is "
            "blurred by as much. Let the stage settle between planes, or register them first.",
            LinceiWarning,
            stacklevel=3,
        )
    return drift


def _assumed_scale(image: Image, models: Sequence[Model]) -> bool:
    """Warn once when the image does not say its scale and a model has one."""
    lacking = []
    if image.pixel_size_um is None and any(m.card.pixel_size_um is not None for m in models):
        lacking.append("pixel size (--pixel-size-um)")
    if image.shape[2] > 1 and image.z_step_um is None and any(m.card.z_step_um is not None for m in models):
        lacking.append("z step (--z-step-um)")
    if lacking:
        warnings.warn(
            f"{image.name}: the {' and the '.join(lacking)} is not known; the model's own is assumed.",
            LinceiWarning,
            stacklevel=3,
        )
    return bool(lacking)
