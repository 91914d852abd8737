"""Outlining tumor in a still image of any size, from a photo of one field to a whole slide."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lincei
from arm_overlay.developing import LARGEST_SCALE
from arm_overlay.field_score import field_score
from arm_overlay.options import TumorOptions
from arm_overlay.outline import cells_in, points_of, regions_of
from arm_overlay.overlay import Overlay, Region
from arm_overlay.tissue import Tissue, find_tissue
from arm_overlay.tumor_model import (
    CLASS_PROBABILITIES,
    NUMBER,
    POINTS,
    PROBABILITY_MAP,
    NetworkChoice,
    TumorModel,
)
from lincei.engine import Engine, cached_engine
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.formats.lazy import ArrayLike5D, ReorderedArray
from lincei.image import Image
from lincei.model import Model
from lincei.options import resolve_options
from lincei.pixel_size import SAME_SCALE, ResampledArray, resampled_size, zoom_factor
from lincei.progress import CancelCheck, ProgressCallback
from lincei.tiles import Tile, plan_tiles, read_tile, run_tiles

# Of images larger than this the probability is given at the model's scale.
FULL_SIZE_UP_TO_PX = 20_000
MODALITIES = ("H&E", "bright field")
_TILE_PX = 1024
# Around tissue, so many cells are looked at as well, so that no outline is cut where it meets glass.
_AROUND_TISSUE_CELLS = 4
# A model that answers for a field as a whole is given no more than this, at its scale.
_LARGEST_FIELD_PX = 4096
# Glass, or the palest tissue, is brighter than this in every picture that is not underexposed.
_LEAST_BRIGHT = 100.0
# Pixels that are so much larger than the network's show too little.
_COARSEST = 2.0


@dataclass(frozen=True, eq=False)
class TumorOutline:
    """What a model found in an image.

    Parameters
    ----------
    kind : str
        The model's kind of output (`arm_overlay.tumor_model`); what the other kinds give is empty.
    model : str
        The model's name.
    size_px : tuple of int
        Width and height of the image.
    pixel_size_um : float or None
        Of the image; None where it is not known.
    threshold : float
        Probability from which on something counts as tumor (or as a point).
    regions : tuple of Region
        The largest first, in pixels of the image.
    probability : Image or None
        float32, 0 to 1: as large as the image, or at the model's scale where that is larger than 20,000
        pixels. Computed from the network's own map where it is read. 0 on glass.
    percent : float or None
        Share of the tissue that lies in the regions, in percent; None where there is no tissue.
    field_score : float or None
        How likely there is tumor anywhere in the tissue, 0 to 1 (`arm_overlay.field_score`); None where
        there is no tissue.
    points : ndarray or None
        Shape (N, 2), float32: x and y in pixels of the image, of a model that finds points.
    classes : mapping of str to float
        Probability of each class, of a model that classifies the field.
    number : float or None
        Of a model that gives a number.
    texts : tuple of str
        What a model says that draws nothing, in words.
    warnings : tuple of str
        What the user should know.
    provenance : mapping
        How it was made; JSON-able.
    heat : ndarray or None
        Shape (rows, columns), float32: the network's own map, 0 on glass, of which `probability` is made.
    tissue : ndarray or None
        Of the same shape, bool: the cells of that map that are tissue.
    cell_px : float or None
        Side of a cell in pixels of the image.
    """

    kind: str
    model: str
    size_px: tuple[int, int]
    pixel_size_um: float | None
    threshold: float
    regions: tuple[Region, ...] = ()
    probability: Image | None = None
    percent: float | None = None
    field_score: float | None = None
    points: NDArray[np.float32] | None = None
    classes: Mapping[str, float] = field(default_factory=dict)
    number: float | None = None
    texts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    heat: NDArray[np.float32] | None = None
    tissue: NDArray[np.bool_] | None = None
    cell_px: float | None = None

    @property
    def scale_assumed(self) -> bool:
        """Whether the pixel size was not known, so that the model looked at the pixels as they are."""
        return self.pixel_size_um is None

    @property
    def largest_diameter_um(self) -> float | None:
        """Largest diameter of a region, in um; None where the pixel size is not known or there is none."""
        if self.pixel_size_um is None or not self.regions:
            return None
        return self.pixel_size_um * max(region.diameter_px for region in self.regions)

    def with_regions(self, regions: Sequence[Region]) -> TumorOutline:
        """Return the outline with other regions, such as corrected ones, measured on the same map and tissue.

        Parameters
        ----------
        regions : sequence of Region
            In pixels of the image; they do not overlap. Their scores are measured anew.

        Raises
        ------
        UsageError
            When the model gives no map of probabilities.
        """
        if self.heat is None or self.tissue is None or self.cell_px is None:
            raise UsageError(f"the model {self.model} gives {self.kind}, which outlines no regions")
        measured = []
        for region in regions:
            measured.append(dataclasses.replace(region, score=_mean_in(region, self.heat, self.cell_px)))
        largest_first = tuple(sorted(measured, key=lambda region: -region.area_px))
        return dataclasses.replace(
            self, regions=largest_first, percent=_percent(largest_first, self.tissue, self.cell_px)
        )

    def overlay(self, mode: str = "outline") -> Overlay:
        """Return what is drawn over the image; see `arm_overlay.rendering`."""
        return Overlay(
            frame_number=0,
            frame_time_s=0.0,
            frame_size_px=self.size_px,
            mode=mode,
            regions=self.regions,
            points=self.points,
            texts=self.texts,
            model=self.model,
            pixel_size_um=self.pixel_size_um,
        )


def tumor(
    image: Image,
    model: str | Path | Model | None = None,
    options: TumorOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **overrides: Any,
) -> TumorOutline:
    """Outline tumor in an image. Research use only.

    Parameters
    ----------
    image : Image
        A stained section in color, of any size: red, green and blue, with glass near white. Of a pyramid the
        level is read that fits the model's scale. Glass is not looked at.
    model : str, Path or Model, optional
        Name, folder or `lincei.model.Model`; goes before ``options.model``.
    options : TumorOptions, optional
        The options; single ones can be given as keywords.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    TumorOutline

    Raises
    ------
    LinceiError
        When this is no color image of a section, it has several planes, or is too small at the model's scale;
        when there is no such model, or it answers for fields smaller than this image.

    Warns
    -----
    LinceiWarning
        When the pixel size is not known, or the image is unlike what the model was made for.

    Examples
    --------
    >>> from lincei.image import open_image
    >>> outline = tumor(open_image("section.svs"), "tumor-breast")  # doctest: +SKIP
    >>> outline.percent, len(outline.regions)  # doctest: +SKIP
    (23.1, 4)
    """
    settings = resolve_options(TumorOptions, options, overrides)
    refuse_other_images(image)
    return tumor_image(
        image, found_model(settings.model if model is None else model), settings, progress=progress,
        cancelled=cancelled,
    )  # fmt: skip


def found_model(name: str | Path | Model) -> TumorModel:
    """Return a model that finds tumor; see `TumorModel.open`."""
    return TumorModel(name) if isinstance(name, Model) else TumorModel.open(name)


def open_engine_for(choice: NetworkChoice, settings: TumorOptions) -> Engine:
    """Open a network; it stays open for the next call.

    Raises
    ------
    LinceiError
        When no engine works, or the model is damaged.
    """
    return cached_engine(
        choice.model.model,
        engine=settings.engine,
        threads=settings.threads or None,
        outputs=(choice.model.output.name,),
    )


def refuse_other_images(image: object) -> None:
    """Raise a sentence for what is no color image of a section, one plane of it."""
    if not isinstance(image, Image):
        what = "an array" if isinstance(image, np.ndarray) else repr(image)
        raise LinceiError(
            f"this is {what}, not an image",
            "",
            "From lincei.image, use Image.from_array(pixels, axes='YXS') or open_image(path).",
        )
    where = image.source or image.name
    if image.modality is not None and image.modality not in MODALITIES:
        raise LinceiError(
            f"it is a {image.modality} image, and tumor is outlined in stained sections",
            where,
            "Give an image of a section stained with hematoxylin and eosin, in color.",
        )
    t, channels, z = image.shape[:3]
    if t > 1 or z > 1:
        planes = f"{t} time points" if t > 1 else f"{z} z planes"
        raise LinceiError(
            f"it has {planes}, and one image of the section is needed",
            where,
            "Save the sharpest plane as an image of its own; lincei focus tells which it is.",
        )
    if not _in_color(image):
        what = "it is gray" if channels == 1 else f"its {channels} channels are not red, green and blue"
        raise LinceiError(
            f"{what}, and tumor is told from other tissue by its colors too",
            where,
            "Give the image in color, saved as RGB.",
        )
    if image.intensity_range is None:
        raise LinceiError(
            "its colors are floating-point numbers, and nothing says which of them is white",
            where,
            "Save it as RGB of 8 or 16 bits.",
        )


def tumor_image(
    image: Image,
    model: TumorModel,
    settings: TumorOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    warn: Callable[[str], None] | None = None,
) -> TumorOutline:
    """Outline tumor in an image that `refuse_other_images` let pass; see `tumor`.

    Parameters
    ----------
    image : Image
        What to look at.
    model : TumorModel
        The model.
    settings : TumorOptions
        The options; their ``model`` is not looked at.
    progress, cancelled : callable, optional
        As for `tumor`.
    warn : callable, optional
        Hears of what the user should know about the result; a `LinceiWarning` by default.

    Returns
    -------
    TumorOutline
    """
    said: list[str] = []

    def caution(text: str) -> None:
        said.append(text)
        if warn is None:
            warnings.warn(text, LinceiWarning, stacklevel=5)  # where `tumor` was called
        else:
            warn(text)

    pixel_size = settings.pixel_size_um or image.pixel_size_um
    choice = _choice(model, pixel_size)
    scene = _Scene.of(image, pixel_size, choice)
    _say_scale(choice, pixel_size, caution)
    engine = open_engine_for(choice, settings)
    threshold = choice.threshold if settings.threshold is None else settings.threshold
    common: dict[str, Any] = {
        "kind": model.kind,
        "model": model.name,
        "size_px": (image.shape[4], image.shape[3]),
        "pixel_size_um": pixel_size,
        "threshold": threshold,
        "provenance": _provenance(image, choice, settings, threshold, pixel_size, engine),
    }
    if model.kind in (CLASS_PROBABILITIES, NUMBER):
        answers = _field_answers(scene, choice, engine)
        return TumorOutline(**common, **answers, warnings=tuple(said))
    tissue = find_tissue(
        scene.level, scene.zoom / scene.stride_px, scene.cells, scene.white, progress=progress,
        cancelled=cancelled,
    )  # fmt: skip
    _say_tissue(tissue, image, caution)
    heat = _heat_map(scene, tissue, choice, engine, progress, cancelled)
    probability = _probability_image(heat, image, scene, pixel_size, choice, common["provenance"])
    cell_px = scene.cell_px
    common |= {"heat": heat, "tissue": tissue.cells, "cell_px": cell_px}
    if model.kind == POINTS:
        points = points_of(heat, threshold, cell_px=cell_px)
        texts = (f"{len(points)} x {choice.model.point_name}",)
        return TumorOutline(
            **common, probability=probability, points=points, texts=texts, warnings=tuple(said)
        )
    assert model.kind == PROBABILITY_MAP  # others are refused with the card
    # Where the scale is not known, the image is taken to be at the model's.
    smallest_px = settings.smallest_um / (pixel_size or choice.pixel_size_um)
    regions = regions_of(heat, threshold, cell_px=cell_px, size_px=common["size_px"], smallest_px=smallest_px)
    return TumorOutline(
        **common,
        regions=regions,
        probability=probability,
        percent=_percent(regions, tissue.cells, cell_px),
        field_score=field_score(heat[tissue.cells]) if tissue.cells.any() else None,
        warnings=tuple(said),
    )


@dataclass(frozen=True, eq=False)
class _Scene:
    """An image as a network looks at it.

    Parameters
    ----------
    level : Image
        The level of a pyramid that is read, its coarser ones below it.
    planes : Image
        The level at the network's scale, its colors as z planes, which tiles are read with.
    zoom : float
        Pixels at the network's scale for one of the level.
    level_px : float
        Pixels of the image for one of the level.
    stride_px : int
        Pixels at the network's scale for one cell of its map.
    white : float
        The value that stands for full brightness.
    """

    level: Image
    planes: Image
    zoom: float
    level_px: float
    stride_px: int
    white: float

    @classmethod
    def of(cls, image: Image, pixel_size_um: float | None, choice: NetworkChoice) -> _Scene:
        """Return the scene of an image, from the coarsest level that shows what the network needs."""
        level = image
        if pixel_size_um is not None:
            for coarser in image.levels:
                size = pixel_size_um * image.shape[4] / coarser.shape[4]
                if size <= choice.pixel_size_um * (1 + SAME_SCALE):
                    level = coarser
        if pixel_size_um is not None and pixel_size_um > LARGEST_SCALE * choice.pixel_size_um:
            raise LinceiError(
                f"its pixels of {pixel_size_um:g} um are too coarse for the model, which needs "
                f"{choice.pixel_size_um:g} um",
                image.source or image.name,
                f"Check its pixel size (--pixel-size-um states it); up to "
                f"{LARGEST_SCALE * choice.pixel_size_um:g} um is possible.",
            )
        coarser_levels = tuple(other for other in image.levels if other.shape[4] < level.shape[4])
        level = level.with_(levels=coarser_levels)
        level_px = image.shape[4] / level.shape[4]
        zoom = zoom_factor(None if pixel_size_um is None else pixel_size_um * level_px, choice.pixel_size_um)
        height, width = (resampled_size(size, zoom) for size in level.shape[3:])
        stride = choice.model.card.total_stride
        if min(height, width) < stride:
            raise LinceiError(
                f"it has {width} x {height} pixels at the model's scale of {choice.pixel_size_um:g} um, and "
                f"the network needs {stride}",
                image.source or image.name,
                "Check its pixel size; --pixel-size-um states it.",
            )
        colors: ArrayLike5D = ReorderedArray(level.data, "TZCYX")
        if zoom != 1:
            colors = ResampledArray(colors, zoom)
        assert image.intensity_range is not None  # refused before
        return cls(
            level,
            Image(colors, name=image.name, source=image.source),
            zoom,
            level_px,
            choice.model.downsampling,
            image.intensity_range[1],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width at the network's scale."""
        return self.planes.shape[3], self.planes.shape[4]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the network's map."""
        rows, columns = (math.ceil(size / self.stride_px) for size in self.shape)
        return rows, columns

    @property
    def cell_px(self) -> float:
        """Side of a cell in pixels of the image."""
        return self.stride_px / self.zoom * self.level_px

    def read(self, tile: Tile, halo: int) -> NDArray[np.float32]:
        """Read a tile with its halo as the network takes it, shape (1, 3, Y, X)."""
        colors = read_tile(self.planes, tile, halo).astype(np.float32)
        if self.white != 255:
            colors *= np.float32(255 / self.white)
        return colors[np.newaxis]


def _in_color(image: Image) -> bool:
    names = tuple(name.casefold() for name in image.channel_names)
    return image.rgb or names in (("red", "green", "blue"), ("r", "g", "b"))


def _choice(model: TumorModel, pixel_size_um: float | None) -> NetworkChoice:
    """Return the network for a scale, and how it is run: coarser images as at the objective of that scale."""
    own = NetworkChoice(model, model.pixel_size_um, model.threshold)
    if pixel_size_um is None or pixel_size_um <= own.pixel_size_um * (1 + SAME_SCALE):
        return own
    others = [model.for_objective(objective) for objective in model.objectives]
    coarser = [other for other in others if other is not None and other.pixel_size_um > own.pixel_size_um]
    return min([own, *coarser], key=lambda choice: abs(math.log(choice.pixel_size_um / pixel_size_um)))


def _say_scale(choice: NetworkChoice, pixel_size_um: float | None, caution: Callable[[str], None]) -> None:
    """Warn of a scale that is not known, or is too coarse."""
    needed = f"{choice.pixel_size_um:g} um"
    if pixel_size_um is None:
        caution(
            f"The pixel size is not known, and is taken to be that of the model ({needed}). "
            "Give it with --pixel-size-um."
        )
    elif pixel_size_um > _COARSEST * choice.pixel_size_um:
        caution(
            f"Its pixels of {pixel_size_um:g} um show less than the model needs ({needed}): "
            "do not rely on the outlines."
        )


def _say_tissue(tissue: Tissue, image: Image, caution: Callable[[str], None]) -> None:
    """Warn of an image in which there is nothing to see."""
    where = image.source or image.name
    if tissue.constant:
        caution(f"{where}: it is of one color everywhere, so nothing is outlined.")
    elif tissue.brightest < _LEAST_BRIGHT:
        caution(
            f"{where}: it is dark (glass or the palest tissue at {tissue.brightest:.0f} of 255), and the "
            "model was made for images in which glass is nearly white. Check exposure and bit depth."
        )
    elif not tissue.cells.any():
        caution(f"{where}: no stained tissue is found in it, so nothing is outlined.")
    elif tissue.tinted:
        caution(
            f"{where}: its glass is not white but tinted, and the model was made for images in which it is "
            "nearly white. Balance the white of the image."
        )


def _heat_map(
    scene: _Scene,
    tissue: Tissue,
    choice: NetworkChoice,
    engine: Engine,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> NDArray[np.float32]:
    """Return the network's map, 0 on glass; tiles of glass alone are left out."""
    heat = np.zeros(scene.cells, np.float32)
    if not tissue.cells.any():
        return heat
    card, output = choice.model.card, choice.model.output.name
    looked_at = tissue.widened(_AROUND_TISSUE_CELLS)
    halo = -(-card.halo_px // card.total_stride) * card.total_stride
    tiles = [
        tile
        for tile in plan_tiles(*scene.shape, _TILE_PX, card.total_stride)
        if looked_at[_cells_of(tile, scene)].any()
    ]

    def compute(tile: Tile, colors: NDArray[np.float32]) -> NDArray[np.float32]:
        del tile
        border = halo // scene.stride_px
        answer = engine.run(colors)[output][0, 0]
        return answer[border : answer.shape[0] - border, border : answer.shape[1] - border]

    def write(tile: Tile, answer: NDArray[np.float32]) -> None:
        cells = _cells_of(tile, scene)
        target = heat[cells]
        target[...] = answer[: target.shape[0], : target.shape[1]]

    run_tiles(
        tiles,
        lambda tile: scene.read(tile, halo),
        compute,
        write,
        stage="outlining",
        progress=progress,
        cancelled=cancelled,
    )
    heat *= looked_at
    return heat


def _cells_of(tile: Tile, scene: _Scene) -> tuple[slice, slice]:
    """Return the cells of a tile."""
    rows, columns = (
        slice(part.start // scene.stride_px, -(-part.stop // scene.stride_px))
        for part in (tile.rows, tile.columns)
    )
    return rows, columns


def _field_answers(scene: _Scene, choice: NetworkChoice, engine: Engine) -> dict[str, Any]:
    """Run a model that answers for the whole field."""
    height, width = scene.shape
    model, stride = choice.model, choice.model.card.total_stride
    if max(height, width) > _LARGEST_FIELD_PX:
        raise LinceiError(
            f"the model {model.name} gives {model.kind} of one field of view, and this image is larger: "
            f"{width} x {height} pixels at the model's scale",
            scene.planes.source or scene.planes.name,
            "Cut a field out of it, or choose a model that gives a probability map.",
        )
    (tile,) = plan_tiles(height, width, max(height, width) + stride, stride)
    values = engine.run(scene.read(tile, 0))[model.output.name][0].ravel()
    if model.kind == NUMBER:
        unit = f" {model.number_unit}" if model.number_unit else ""
        number = float(values[0])
        return {"number": number, "texts": (f"{model.number_name}: {number:.3g}{unit}",)}
    classes = {name: float(value) for name, value in zip(model.class_names, values, strict=True)}
    likeliest = sorted(classes.items(), key=lambda item: -item[1])
    return {"classes": classes, "texts": tuple(f"{name}: {100 * p:.0f} %" for name, p in likeliest)}


def _probability_image(
    heat: NDArray[np.float32],
    image: Image,
    scene: _Scene,
    pixel_size_um: float | None,
    choice: NetworkChoice,
    provenance: Mapping[str, Any],
) -> Image:
    """Return the network's map enlarged, computed where it is read."""
    whole = max(image.shape[3:]) <= FULL_SIZE_UP_TO_PX
    size = (image.shape[3], image.shape[4]) if whole else scene.shape
    enlarged = ResampledArray(
        heat[np.newaxis, np.newaxis, np.newaxis], scene.cell_px if whole else scene.stride_px, size
    )
    known = pixel_size_um is not None
    return Image(
        enlarged,
        name=image.name,
        source=image.source,
        pixel_size_um=(pixel_size_um if whole else choice.pixel_size_um) if known else None,
        channel_names=("probability",),
        intensity_range=(0.0, 1.0),
        provenance=provenance,
    )


def _mean_in(region: Region, heat: NDArray[np.float32], cell_px: float) -> float:
    """Return the mean of a map's cells whose centers lie in a region."""
    corners = np.array([region.exterior.min(axis=0), region.exterior.max(axis=0)], np.float64)
    first, last = np.floor((corners + 0.5) / cell_px).astype(int).clip(0, np.array(heat.shape)[::-1] - 1)
    part = heat[first[1] : last[1] + 1, first[0] : last[0] + 1]
    rings = [np.asarray(ring - first * cell_px) for ring in (region.exterior, *region.holes)]
    inside = part[cells_in([Region(rings[0], tuple(rings[1:]))], (part.shape[0], part.shape[1]), cell_px)]
    # Between the centers of cells there is nothing to average: the cell that it lies in stands for it.
    return float((inside if inside.size else part).mean())


def _percent(regions: tuple[Region, ...], tissue: NDArray[np.bool_], cell_px: float) -> float | None:
    """Return the share of the tissue's cells that lie in regions, in percent."""
    count = int(tissue.sum())
    if count == 0:
        return None
    shape = (tissue.shape[0], tissue.shape[1])
    return 100 * int((tissue & cells_in(regions, shape, cell_px)).sum()) / count


def _provenance(
    image: Image,
    choice: NetworkChoice,
    settings: TumorOptions,
    threshold: float,
    pixel_size_um: float | None,
    engine: Engine,
) -> dict[str, Any]:
    """Return how a result came about."""
    model = choice.model
    return {
        "note": "Found by a network. Research use only.",
        "lincei_version": lincei.__version__,
        "model": {"name": model.name, "version": model.card.created, "hash": model.model.hash},
        "parameters": {**settings.to_json(), "model": model.name, "threshold": threshold},
        "network_pixel_size_um": choice.pixel_size_um,
        "pixel_size_um": pixel_size_um,
        "scale_assumed": pixel_size_um is None,
        "source": image.source or image.name,
        "engine": f"{engine.name} {engine.version} ({engine.precision})",
    }
