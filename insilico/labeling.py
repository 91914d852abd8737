"""Predicting fluorescence: from an image to the statistics of each pixel's predictive distribution."""

from __future__ import annotations

import dataclasses
import math
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

import lincei
from insilico.distribution import KIND, LogisticMixture
from insilico.options import STATISTICS, LabelOptions
from insilico.out_of_distribution import OutOfDistribution, in_words, reference_of, score_image
from insilico.transmitted_light import check_modality, transmitted_channel
from insilico.z_planes import DRIFT_WARNING_PX, drift_px, network_planes, plane_weights
from lincei.doctor import usable_cores
from lincei.engine import Engine, cached_engine
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.formats.ome_zarr import ArraySpec
from lincei.image import Image, Region
from lincei.model import Model, find_model
from lincei.normalize import IntensityScaling, not_finite, standard_scaling
from lincei.options import resolve_options
from lincei.pixel_size import ResampledArray, zoom_factor
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from lincei.tiles import Tile, plan_tiles, read_tile, run_tiles

Array = NDArray[np.float32]
ValueT = TypeVar("ValueT")

SMALLEST_SIDE_PX = 16
# Pixel sizes further apart than this are a slip (nanometers, inches), or no model could bridge them.
LARGEST_FACTOR = 10.0
# What an engine's own outputs answer; other statistics need the distribution's parameters.
_DIRECT = ("mean", "sd")
# Sides of pieces are multiples of this, so that chunks of a file can divide them evenly.
_PIECE_UNIT = 16
# An input that is reduced for the model is read in pieces of this many times the tile's side at most.
_LARGEST_REDUCED = 2
_MOST_READ_AHEAD = 4

# Of a piece of a result: number of the model, time point, first row, first column.
PieceKey = tuple[int, int, int, int]


class Store(Protocol):
    """Gives the array that a statistic is written to, tile by tile: float32, shape (T, C, Z, Y, X)."""

    def __call__(self, statistic: str, template: Image) -> Any:
        """Return a writable array of the template's shape."""
        ...


class Record(Protocol):
    """Remembers which pieces of a result are written, so that a run that was stopped can go on."""

    def holds(self, piece: PieceKey, checksum: Callable[[], int]) -> bool:
        """Tell whether a piece is written; ``checksum`` gives that of what can be read back."""
        ...

    def add(self, piece: PieceKey, checksum: int) -> None:
        """Take note of a piece that is written; called from one thread at a time."""
        ...


class Measurements:
    """What is measured on an image as a whole, so that a second region of it needs no second measurement.

    Intensity scaling, drift and likeness to the training images are those of the whole image, whichever
    region is labeled. One of these belongs to one image; when its pixels change, take a new one.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def once(self, what: Hashable, measure: Callable[[], ValueT]) -> ValueT:
        """Return what was measured under this name, measuring it the first time."""
        if what not in self._known:
            self._known[what] = measure()
        value: ValueT = self._known[what]
        return value


@dataclass(frozen=True)
class Piece:
    """A rectangle of the result, and the tile whose run gives it.

    Parameters
    ----------
    rows, columns : slice
        On the input's own grid. No pixel is in two pieces.
    tile : Tile
        At the model's pixel size; holds all that the piece is interpolated from.
    """

    rows: slice
    columns: slice
    tile: Tile


@dataclass(frozen=True)
class Plan:
    """One model applied to one image: what is read, at which scale, and where its labels go.

    Parameters
    ----------
    model : Model
        The model.
    image : Image
        The transmitted-light channel at the model's pixel size, lazy.
    channel : int
        Which of the input's channels that is.
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
    full : tuple of int
        Y and X of the input's own grid.
    region : tuple of slice
        T, Y and X of what is labeled, on the input's own grid: the result is that large.
    pieces : tuple of Piece
        What is computed at a time; of the same places for all models of a result.
    """

    model: Model
    image: Image
    channel: int
    weights: Array
    scaling: IntensityScaling
    chosen: tuple[int, ...]
    first: int
    factor: float
    full: tuple[int, int]
    region: tuple[slice, slice, slice]
    pieces: tuple[Piece, ...]

    @property
    def halo(self) -> int:
        """Pixels around a tile that the network computes besides it: a multiple of its stride."""
        stride = self.model.card.total_stride
        return -(-self.model.card.halo_px // stride) * stride

    @property
    def items(self) -> list[tuple[int, Piece]]:
        """What the network runs on, one after the other: time points, and the pieces of each."""
        times = self.region[0]
        return [(t, piece) for t in range(times.start, times.stop) for piece in self.pieces]


def label(
    image: Image,
    model: str | Path | Model | Sequence[str | Path | Model] | None = None,
    options: LabelOptions | None = None,
    *,
    region: Region | None = None,
    measurements: Measurements | None = None,
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
    model : str, Path, Model or several, optional
        Name, folder or `lincei.model.Model`; goes before ``options.model``.
    options : LabelOptions, optional
        The options; single ones can be given as keywords.
    region : mapping of str to slice, optional
        Labels a part only, such as ``{"Y": slice(100, 612), "X": slice(0, 512), "T": slice(3, 4)}``, in the
        input's pixels and time points. The result is that part of what the whole image gives, to the
        rounding of 32-bit numbers: the intensity scaling is the whole image's, and what lies around the
        part is seen.
    measurements : Measurements, optional
        Keeps what is measured on the whole image, for the next region of it.
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
    UsageError
        When the options name a label or channel that there is not, or the region is not within the image.

    Examples
    --------
    >>> from lincei.image import open_image
    >>> result = label(open_image("stack.tif"), "motor-neurons")  # doctest: +SKIP
    >>> result["mean"].channel_names  # doctest: +SKIP
    ('DAPI', 'MAP2', 'NFH')
    """
    settings = resolve_options(LabelOptions, options, overrides)
    if model is None:
        chosen: Sequence[str | Path | Model] = settings.model
    else:
        chosen = [model] if isinstance(model, (str, Path, Model)) else model
    models = models_for(settings, chosen)
    return label_image(
        image,
        models,
        settings,
        region=region,
        measurements=measurements,
        store=store,
        progress=progress,
        cancelled=cancelled,
    )


def models_for(settings: LabelOptions, chosen: Sequence[str | Path | Model]) -> list[Model]:
    """Find the models that are asked for and check that they give what is asked of them.

    Parameters
    ----------
    settings : LabelOptions
        Names labels and statistics.
    chosen : sequence of str, Path or Model
        Names, folders or models; one that is there twice counts once.

    Returns
    -------
    list of Model
        Those that give at least one of the wanted labels.

    Raises
    ------
    UsageError
        When no model or no statistic is asked for, or a label that none of them gives.
    LinceiError
        When there is no such model, or it cannot give what is asked for.
    """
    found = [item if isinstance(item, Model) else find_model(item, task="label") for item in chosen]
    models = list({(item.hash, item.name): item for item in found}.values())
    if not models:
        raise UsageError("no model is named", "", "Name one with --model; see `lincei models list`.")
    if not settings.statistics:
        raise UsageError("no statistic is named", "", f"Choose from: {', '.join(STATISTICS)}.")
    names = [label.name for item in models for label in item.card.labels]
    for wanted in settings.labels:
        if wanted not in names:
            raise UsageError(f"there is no label {wanted!r}", "", f"The model gives: {', '.join(names)}.")
    models = [item for item in models if _chosen_labels(item, settings)]
    for item in models:
        _check_model(item, settings.statistics)
    return models


def open_engines(models: Sequence[Model], settings: LabelOptions) -> list[Engine]:
    """Open the models' networks; they stay open for the next call.

    Raises
    ------
    LinceiError
        When no engine works, or a model is damaged.
    """
    return [
        cached_engine(
            item,
            engine=settings.engine,
            threads=settings.threads or None,
            outputs=_needed_outputs(item, settings.statistics),
        )
        for item in models
    ]


def label_image(
    image: Image,
    models: Sequence[Model],
    settings: LabelOptions,
    *,
    region: Region | None = None,
    measurements: Measurements | None = None,
    store: Store | None = None,
    record: Record | None = None,
    noted: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Image]:
    """Predict fluorescence with models that `models_for` found; see `label`.

    Parameters
    ----------
    image : Image
        Transmitted light.
    models : sequence of Model
        From `models_for`, with these settings.
    settings : LabelOptions
        The options.
    region, measurements : optional
        As for `label`.
    store, progress, cancelled : callable, optional
        As for `label`.
    record : Record, optional
        What it holds is not computed again; needs a store whose arrays can be read.
    noted : mapping, optional
        More for the provenance of the result; JSON-able.
    warn : callable, optional
        Hears of what the user should know about the result; a `LinceiWarning` by default.

    Returns
    -------
    dict of str to Image
        As `label` does.
    """
    warn = warn or _warn
    stated = {
        name: value
        for name in ("pixel_size_um", "z_step_um", "modality")
        if (value := getattr(settings, name)) is not None
    }
    image = image.with_(**stated) if stated else image
    channel = transmitted_channel(image, settings.channel)
    place = _region_of(image, region)
    measured = measurements or Measurements()
    _check_size(image)
    for item in models:
        check_modality(image, item.card.modalities, item.name)
        _check_scale(image, item)
    report(progress, Progress("reading", 0, 0))
    scaling = measured.once(("scaling", channel), lambda: standard_scaling(image, channel))
    drift = measured.once(("drift", channel), lambda: drift_px(image, channel=channel))
    if drift > DRIFT_WARNING_PX:
        warn(_drift_sentence(image, drift))
    elif image.shape[2] > 1:
        message = f"{image.name}: the z planes are shifted sideways by {drift:.1f} pixels at most."
        report(progress, Progress("reading", 0, 0, message))
    assumed = _assumed_scale(image, models)
    if assumed:
        warn(assumed)
    plans = _plans(image, channel, scaling, models, settings, place)
    unlike = [measured.once(_look(plan), partial(_out_of_distribution, plan)) for plan in plans]
    for plan, found in zip(plans, unlike, strict=True):
        sentence = in_words(found, image.name, plan.model.name) if found else ""
        if sentence:
            warn(sentence)
    template = _template(image, plans)
    engines = open_engines(models, settings)
    provenance = {
        "predicted": True,
        "note": "Predicted from transmitted light, not measured. Research use only.",
        "lincei_version": lincei.__version__,
        "models": [
            {
                "name": plan.model.name,
                "version": plan.model.card.created,
                "hash": plan.model.hash,
                "labels": [plan.model.card.labels[i].name for i in plan.chosen],
                "out_of_distribution": found.to_json() if found else None,
            }
            for plan, found in zip(plans, unlike, strict=True)
        ],
        # A model may have been given as an object: what was used is named, not what was not asked for.
        # Whether it took two runs is no part of what it is.
        "parameters": {**_parameters(settings), "model": [item.name for item in models]},
        "source": image.source or image.name,
        "engine": [f"{e.name} {e.version} ({e.precision})" for e in engines],
        "intensity_scaling": dataclasses.asdict(scaling),
        "z_drift_px": round(drift, 2),
        "scale_assumed": bool(assumed),
        **({"region": _region_in_json(place)} if region else {}),
        **(noted or {}),
    }
    results = {
        name: template.with_(provenance={**provenance, "statistic": name}) for name in settings.statistics
    }
    make = store or _in_memory
    arrays = {name: make(name, result) for name, result in results.items()}
    counts = [len(plan.items) for plan in plans]
    for number, (plan, engine) in enumerate(zip(plans, engines, strict=True)):
        items = plan.items
        if record is not None:
            items = _not_written(number, plan, arrays, record, cancelled)
        counted = _counted(progress, sum(counts[: number + 1]) - len(items), sum(counts))
        _predict(number, plan, items, engine, arrays, settings, record, counted, cancelled)
    return {name: result.with_(data=arrays[name]) for name, result in results.items()}


def _predict(
    number: int,
    plan: Plan,
    items: Sequence[tuple[int, Piece]],
    engine: Engine,
    arrays: Mapping[str, Any],
    settings: LabelOptions,
    record: Record | None,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> None:
    """Run one model over times and pieces, and write its channels."""
    halo = plan.halo

    def read(item: tuple[int, Piece]) -> Array:
        t, piece = item
        return _network_input(plan, read_tile(plan.image, piece.tile, halo, t=t))

    def compute(item: tuple[int, Piece], stack: Array) -> dict[str, Array]:
        inside = tuple(slice(halo + part.start, halo + part.stop) for part in item[1].tile.inside)
        outputs = engine.run(stack[None])
        cut = {name: value[0][(slice(None), *inside)] for name, value in outputs.items()}
        if "parameters" in cut:  # so many that what lies around the tile is better not kept until written
            cut["parameters"] = cut["parameters"].copy()
        return cut

    def write(item: tuple[int, Piece], outputs: dict[str, Array]) -> None:
        piece = item[1]
        # Here and not with the network, which goes on with the next tile meanwhile.
        values = _statistics(outputs, settings.statistics, len(plan.model.card.labels), plan.chosen)
        place = _place(plan, item)
        pieces: list[Array] = []
        for name, array in arrays.items():
            whole: Any = _Window(
                values[name][None, :, None], (piece.tile.rows, piece.tile.columns), plan.image.shape[3:]
            )
            if plan.factor != 1:
                whole = ResampledArray(whole, 1 / plan.factor, plan.full)
            pixels = whole[:, :, :, piece.rows, piece.columns]
            array[place] = pixels
            pieces.append(pixels)
        if record is not None:
            record.add(_key(number, item), _checksum(pieces))

    cores = settings.threads or usable_cores()
    run_tiles(
        items,
        read,
        compute,
        write,
        stage="labeling",
        # The more cores compute, the more of the time would be spent on waiting for one that reads.
        ahead=min(_MOST_READ_AHEAD, max(1, cores // 2)),
        progress=progress,
        cancelled=cancelled,
    )


def _not_written(
    number: int,
    plan: Plan,
    arrays: Mapping[str, Any],
    record: Record,
    cancelled: CancelCheck | None,
) -> list[tuple[int, Piece]]:
    """Return what is still to be computed: what is not recorded, or does not read back as it was written."""

    def held(item: tuple[int, Piece]) -> bool:
        stop_if_cancelled(cancelled)
        place = _place(plan, item)
        return record.holds(_key(number, item), lambda: _checksum(array[place] for array in arrays.values()))

    with ThreadPoolExecutor(usable_cores()) as pool:
        return [item for item, there in zip(plan.items, pool.map(held, plan.items), strict=True) if not there]


def _key(number: int, item: tuple[int, Piece]) -> PieceKey:
    t, piece = item
    return (number, t, piece.rows.start, piece.columns.start)


def _place(plan: Plan, item: tuple[int, Piece]) -> tuple[slice, slice, slice, slice, slice]:
    """Return where in the result a piece is written: times, labels, z, rows, columns."""
    t, piece = item
    labels = slice(plan.first, plan.first + len(plan.chosen))
    time, rows, columns = (
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip((slice(t, t + 1), piece.rows, piece.columns), plan.region, strict=True)
    )
    return time, labels, slice(0, 1), rows, columns


def _checksum(arrays: Iterable[Array]) -> int:
    """Return a CRC-32 of pixels."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _parameters(settings: LabelOptions) -> dict[str, Any]:
    """Return the options that a result depends on."""
    return {name: value for name, value in settings.to_json().items() if name != "resume"}


class _Window:
    """A part of a result at the model's scale, indexed as the whole."""

    def __init__(self, pixels: Array, place: tuple[slice, slice], whole: Sequence[int]) -> None:
        self._pixels, self._place = pixels, place
        self.shape = (*pixels.shape[:3], *whole)
        self.dtype = pixels.dtype

    def __getitem__(self, key: Any) -> Array:
        *others, rows, columns = key
        (top, left) = (part.start for part in self._place)
        return self._pixels[
            (
                *others,
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
        ]


def _network_input(plan: Plan, pixels: NDArray[Any]) -> Array:
    """Scale a tile and bring its planes to the network's."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise not_finite(plan.image, plan.channel)
    return network_planes(pixels, plan.scaling, plan.weights)


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


def _needed_outputs(model: Model, statistics: Sequence[str]) -> tuple[str, ...]:
    """Return the engine's outputs that are needed; what is not asked for is not computed."""
    there = [tensor.name for tensor in model.card.outputs]
    direct = tuple(name for name in _DIRECT if name in statistics and name in there)
    return direct if len(direct) == len(set(statistics)) else (*direct, "parameters")


def _region_of(image: Image, region: Region | None) -> tuple[slice, slice, slice]:
    """Return T, Y and X of what is labeled, with both ends stated."""
    region = region or {}
    for axis, part in region.items():
        if axis not in ("T", "Y", "X"):
            raise UsageError(
                f"the region names the axis {axis!r}", image.name, "It is a part of T, Y and X; z is whole."
            )
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise UsageError(f"the region along {axis} is not a slice of step 1", image.name)
        if (
            not 0
            <= (part.start or 0)
            < (image.sizes[axis] if part.stop is None else part.stop)
            <= (image.sizes[axis])
        ):
            raise UsageError(
                f"the region along {axis} is from {part.start} to {part.stop}",
                image.name,
                f"It must lie within 0 to {image.sizes[axis]}, and its end after its start.",
            )
    t, y, x = (slice(*region.get(axis, slice(None)).indices(image.sizes[axis])[:2]) for axis in "TYX")
    return t, y, x


def _region_in_json(region: tuple[slice, slice, slice]) -> dict[str, list[int]]:
    return {axis: [part.start, part.stop] for axis, part in zip("TYX", region, strict=True)}


def _plans(
    image: Image,
    channel: int,
    scaling: IntensityScaling,
    models: Sequence[Model],
    settings: LabelOptions,
    region: tuple[slice, slice, slice],
) -> list[Plan]:
    """Work out how each model is applied."""
    single = image.with_(
        data=_OneChannel(image, channel), channel_names=(), channel_colors=(), rgb=False, levels=()
    )
    places = _places(image, models, settings, region[1:])
    plans: list[Plan] = []
    first = 0
    for model in models:
        card = model.card
        chosen = _chosen_labels(model, settings)
        factor = zoom_factor(image.pixel_size_um, card.pixel_size_um)
        scaled = single if factor == 1 else single.with_(data=ResampledArray(single.data, factor))
        weights = plane_weights(
            image.shape[2], card.z_planes, z_step_um=image.z_step_um, network_z_step_um=card.z_step_um
        )
        pieces = _pieces(places, factor, card.total_stride, scaled.shape[3:])
        plans.append(
            Plan(
                model,
                scaled,
                channel,
                weights,
                scaling,
                chosen,
                first,
                factor,
                image.shape[3:],
                region,
                pieces,
            )
        )
        first += len(chosen)
    return plans


def _out_of_distribution(plan: Plan) -> OutOfDistribution | None:
    """Score the image against what the model was trained on, where the model knows that."""
    reference = reference_of(plan.model.card)
    return None if reference is None else score_image(reference, plan.image, plan.scaling, plan.weights)


def _look(plan: Plan) -> Hashable:
    """Return what the likeness of an image to a model's training images depends on, the image aside."""
    return ("out of distribution", plan.model.hash, plan.channel, plan.factor, plan.weights.tobytes())


def _places(
    image: Image, models: Sequence[Model], settings: LabelOptions, region: tuple[slice, slice]
) -> list[tuple[slice, slice]]:
    """Cut the result into the places of its pieces, which suit all models."""
    unit, bounds = _PIECE_UNIT, []
    for card in (model.card for model in models):
        factor = zoom_factor(image.pixel_size_um, card.pixel_size_um)
        bounds.append(min(int(settings.tile_px / factor), _LARGEST_REDUCED * settings.tile_px))
        if factor == 1:
            unit = math.lcm(unit, card.total_stride)  # the tile is the piece
    top, left = (part.start for part in region)
    height, width = (part.stop - part.start for part in region)
    return [
        (
            slice(top + tile.rows.start, top + tile.rows.stop),
            slice(left + tile.columns.start, left + tile.columns.stop),
        )
        for tile in plan_tiles(height, width, min(bounds), unit)
    ]


def _pieces(
    places: Sequence[tuple[slice, slice]], factor: float, stride: int, size: tuple[int, int]
) -> tuple[Piece, ...]:
    """Find the tile for each place: beginning on the stride, and all of one computed size."""
    margin = 0 if factor == 1 else math.ceil(max(1.0, factor)) + 1

    def needed(part: slice, length: int) -> slice:
        """Return the model's pixels that a range of the result's is interpolated from."""
        start = max(0, math.floor(part.start * factor) - margin) // stride * stride
        return slice(start, min(length, math.ceil(part.stop * factor) + margin))

    parts = [(needed(rows, size[0]), needed(columns, size[1])) for rows, columns in places]
    height, width = (
        -(-max(pair[axis].stop - pair[axis].start for pair in parts) // stride) * stride for axis in (0, 1)
    )
    return tuple(
        Piece(*place, Tile(rows, columns, height, width))
        for place, (rows, columns) in zip(places, parts, strict=True)
    )


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
    plain = [label.name for _, label in labels]
    names = [
        name if plain.count(name) == 1 else f"{name} ({m.name})"
        for (m, _), name in zip(labels, plain, strict=True)
    ]
    if len(set(names)) < len(names):  # two models of one name, in different folders
        names = [
            f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name
            for i, name in enumerate(names)
        ]
    t, y, x = (part.stop - part.start for part in plans[0].region)
    shape = (t, len(labels), 1, y, x)
    first = plans[0].pieces[0]
    sides = (first.rows.stop - first.rows.start, first.columns.stop - first.columns.start)
    return Image(
        ArraySpec(shape, np.float32, sides),
        name=image.name,
        source=image.source,
        pixel_size_um=image.pixel_size_um,
        time_step_s=image.time_step_s,
        channel_names=tuple(names),
        channel_colors=tuple(label.color for _, label in labels),
        modality="fluorescence",
    )


def _in_memory(_statistic: str, template: Image) -> Array:
    return np.empty(template.shape, np.float32)


def _counted(progress: ProgressCallback | None, before: int, total: int) -> ProgressCallback | None:
    """Place one model's progress within all models'."""
    if progress is None:
        return None
    return lambda update: report(
        progress, dataclasses.replace(update, done=before + update.done, total=total)
    )


def _chosen_labels(model: Model, settings: LabelOptions) -> tuple[int, ...]:
    """Return which of a model's labels are wanted."""
    labels = model.card.labels
    return tuple(i for i, label in enumerate(labels) if not settings.labels or label.name in settings.labels)


def _check_model(model: Model, statistics: Sequence[str]) -> None:
    """Refuse a model (an imported one, say) whose outputs are not what labeling can use."""
    card, where = model.card, f"model {model.name}"
    outputs = {tensor.name: tensor for tensor in card.outputs}
    has_parameters = "parameters" in outputs and card.distribution.get("kind") == KIND
    lacking = [name for name in statistics if not (name in _DIRECT and name in outputs)]
    if lacking and not has_parameters:
        given = [name for name in _DIRECT if name in outputs]
        raise LinceiError(
            f"the model does not give the {' and the '.join(lacking)} of a pixel's distribution",
            where,
            f"Ask for what it gives: --statistics {','.join(given)}." if given else "Choose another model.",
        )
    if len(card.input.channels) != card.z_planes or card.z_output != "projected":
        raise LinceiError(
            "the model is not of the kind that turns the z planes of a gray stack into one plane",
            where,
            "Choose another with --model.",
        )
    for name in _DIRECT:
        if name in outputs and (
            outputs[name].downsampling != 1 or len(outputs[name].channels) != len(card.labels)
        ):
            raise LinceiError(
                f"the model's output {name!r} does not have one value per label for every pixel",
                where,
                "Choose another with --model.",
            )


def _check_size(image: Image) -> None:
    """Refuse an image with too few pixels to recognize anything in."""
    if min(image.shape[3:]) < SMALLEST_SIDE_PX:
        raise LinceiError(
            f"the image has too few pixels ({image.shape[3]} x {image.shape[4]})",
            image.source or image.name,
            f"Both sides must have {SMALLEST_SIDE_PX} pixels or more.",
        )


def _check_scale(image: Image, model: Model) -> None:
    """Refuse a pixel size that cannot be meant, and an image that shrinks to nothing at the model's."""
    factor = zoom_factor(image.pixel_size_um, model.card.pixel_size_um)
    if factor == 1:
        return
    sizes = (
        f"{image.pixel_size_um:g} um, and the model {model.name!r} works at {model.card.pixel_size_um:g} um"
    )
    if not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise LinceiError(
            f"its pixels are {sizes}, which is too far apart",
            image.source or image.name,
            "If the pixel size is wrong, state it in micrometers with --pixel-size-um; otherwise choose "
            "a model for this magnification.",
        )
    if min(image.shape[3:]) * factor < SMALLEST_SIDE_PX:
        raise LinceiError(
            f"the image shows too little ({image.shape[3]} x {image.shape[4]} pixels of {sizes})",
            image.source or image.name,
            f"At the model's pixel size both sides must have {SMALLEST_SIDE_PX} pixels or more.",
        )


def _drift_sentence(image: Image, drift: float) -> str:
    return (
        f"{image.name}: the z planes are shifted sideways by up to {drift:.1f} pixels; the prediction is "
        "blurred by as much, unless the model learned from such stacks (tilted light shifts planes evenly "
        "too). Let the stage settle between planes, or register them first."
    )


def _assumed_scale(image: Image, models: Sequence[Model]) -> str:
    """Say what of a scale that the models need is not known; the same for every image that lacks the same."""
    lacking = {}
    for card in (model.card for model in models):
        if image.pixel_size_um is None and card.pixel_size_um is not None:
            lacking["pixel size"] = "--pixel-size-um"
        if image.z_step_um is None and card.z_step_um is not None and min(image.shape[2], card.z_planes) > 1:
            lacking["z step"] = "--z-step-um"
    if not lacking:
        return ""
    return (
        f"the {' and the '.join(lacking)} of the input is not known, and the model's own is assumed. If "
        f"it is another, state it with {' and '.join(lacking.values())}."
    )


def _warn(text: str) -> None:
    warnings.warn(text, LinceiWarning, stacklevel=4)
