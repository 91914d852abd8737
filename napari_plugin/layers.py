"""Between napari's layers and `lincei.image.Image`: axes, pixel size, the part in view, places of results.

All of this is for the window's thread; what it returns (images, numbers) may go to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError
from lincei.image import Image

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer

# What the axes of a layer can be, by their number, the likeliest first; red, green, blue not counted.
AXES_BY_NUMBER: Mapping[int, tuple[str, ...]] = {
    2: ("YX",),
    3: ("ZYX", "TYX", "CYX"),
    4: ("TZYX", "CZYX", "ZCYX", "TCYX", "CTYX"),
    5: ("TCZYX", "TZCYX", "CTZYX"),
}
AXIS_WORDS: Mapping[str, str] = {"T": "time", "C": "channel", "Z": "z", "Y": "y", "X": "x"}
_LETTERS: Mapping[str, str] = {
    **{letter.lower(): letter for letter in AXIS_WORDS},
    **{"time": "T", "channel": "C", "channels": "C", "plane": "Z", "depth": "Z"},
}
# What readers leave in a layer's metadata for the widgets: fields of `Image`.
METADATA_KEY = "lincei"


def axes_choices(layer: ImageLayer) -> tuple[str, ...]:
    """Return what the axes of an image layer can be, the likeliest first.

    Axes that the layer names go before all others.

    Raises
    ------
    LinceiError
        When it has more axes than an image has.
    """
    number = layer.ndim
    if number not in AXES_BY_NUMBER:
        raise LinceiError(
            f"the layer has {number} axes; an image has time, channel, z, y and x at most",
            layer.name,
            "Choose a part of it, or split it into layers.",
        )
    usual = AXES_BY_NUMBER[number]
    named = "".join(_LETTERS.get(str(name).lower(), "?") for name in layer.axis_labels)
    if "?" not in named and len(set(named)) == number and named.endswith("YX"):
        return (named, *(axes for axes in usual if axes != named))
    return usual


def finest(layer: ImageLayer) -> Any:
    """Return the layer's array, the finest of a pyramid."""
    return layer.data[0] if layer.multiscale else layer.data


def known_fields(layer: Layer) -> dict[str, Any]:
    """Return what a reader of lincei knows of the layer beyond its pixels: fields of `Image`."""
    known = layer.metadata.get(METADATA_KEY, {})
    return dict(known) if isinstance(known, Mapping) else {}


def axis_size_um(layer: Layer, axis: int) -> float | None:
    """Return the step along an axis in um, or None when the layer does not say.

    A scale in pixels is no size; other units of length are converted.
    """
    unit, scale = layer.units[axis], float(layer.scale[axis])
    if str(unit) in ("pixel", "pixels", "px", "dimensionless", "") or not scale > 0:
        return None
    try:
        return scale * float((1 * unit).to("micrometer").magnitude)
    except Exception:  # pint has many errors for what is not a length
        return None


def pixel_size_um(layer: Layer) -> float | None:
    """Return the pixel size along y and x in um, or None when the layer does not say.

    Raises
    ------
    LinceiError
        When pixels are not square.
    """
    y, x = (axis_size_um(layer, axis) for axis in (layer.ndim - 2, layer.ndim - 1))
    if y is None or x is None:
        known = known_fields(layer).get("pixel_size_um")
        return float(known) if known else None
    if abs(y - x) > 0.01 * max(x, y):
        raise LinceiError(
            f"its pixels are not square: {x:g} um along x, {y:g} um along y",
            layer.name,
            "Resample it to square pixels, or correct the layer's scale.",
        )
    return x


def z_step_um(layer: Layer, axes: str) -> float | None:
    """Return the distance of z planes in um, or None when there are none or the layer does not say."""
    if "Z" not in axes:
        return None
    return axis_size_um(layer, axes.index("Z")) or known_fields(layer).get("z_step_um")


def image_of(layer: ImageLayer, axes: str | None = None, **fields: Any) -> Image:
    """Return a layer's pixels as an `Image`; nothing is copied or read.

    Parameters
    ----------
    layer : napari.layers.Image
        Gray, red-green-blue (an alpha channel is left out), or a pyramid, whose coarser levels go along.
    axes : str, optional
        Of the layer, such as ``"ZYX"``; the likeliest when left out.
    **fields
        Fields of `Image` that go before what the layer says, such as ``pixel_size_um``; None says nothing.

    Raises
    ------
    LinceiError
        When the layer is no image, or the axes do not fit it.
    """
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels

    if not isinstance(layer, ImageLayer) or isinstance(layer, Labels):
        kind = type(layer).__name__.lower()
        raise LinceiError(f"this is a {kind} layer, not an image", layer.name, "Choose an image layer.")
    axes = axes or axes_choices(layer)[0]
    arrays: list[Any] = list(layer.data) if layer.multiscale else [layer.data]
    if layer.rgb:
        axes += "S"
        arrays = [_without_alpha(array) for array in arrays]
    known: dict[str, Any] = {
        "name": safe_name(layer.name),
        "source": source_of(layer) or layer.name,
        "pixel_size_um": pixel_size_um(layer),
        "z_step_um": z_step_um(layer, axes),
        # The sizes are in the two above already, where the layer's scale goes first.
        **{
            name: value
            for name, value in known_fields(layer).items()
            if name in Image.__dataclass_fields__ and name not in ("pixel_size_um", "z_step_um")
        },
        **{name: value for name, value in fields.items() if value is not None},
    }
    known["levels"] = tuple(Image.from_array(array, axes, name=known["name"]) for array in arrays[1:])
    return Image.from_array(arrays[0], axes, **known)


def _without_alpha(array: Any) -> Any:
    if array.shape[-1] != 4:
        return array
    return array[..., :3] if isinstance(array, np.ndarray) else _WithoutAlpha(array)


class _WithoutAlpha:
    """The red, green and blue of an array that has alpha as well; its pixels are read when it is indexed."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = (*array.shape[:-1], 3)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        samples = parts[-1] if len(parts) == len(self.shape) else slice(None)
        colors = np.asarray(self._array[parts[: len(self.shape) - 1]])[..., :3]
        return colors[..., samples]


def safe_name(name: str) -> str:
    """Return a layer's name as part of a file name."""
    cleaned = "".join(letter if letter.isalnum() or letter in "-_. " else "-" for letter in name)
    return cleaned.strip(" .") or "image"


def source_of(layer: Layer) -> str | None:
    """Return the file that a layer was opened from, or None."""
    path = layer.source.path
    return str(Path(path)) if path else None


def shown_region(layer: ImageLayer, most_px: int | None = None) -> dict[str, slice]:
    """Return the part of a layer that is in view, in pixels of its finest level.

    Parameters
    ----------
    layer : napari.layers.Image
        The layer; its last two axes (red, green, blue not counted) are y and x.
    most_px : int, optional
        Longest side; a longer one is cut down to its middle.

    Returns
    -------
    dict of str to slice
        Y and X; the whole layer when it is out of sight or nothing has been drawn yet.
    """
    shape = finest(layer).shape[: layer.ndim]
    factors = np.ones(layer.ndim)
    if layer.multiscale:
        factors = np.asarray(layer.downsample_factors[layer.data_level][: layer.ndim])
    corners = np.asarray(layer.corner_pixels)[:, : layer.ndim] * factors
    region: dict[str, slice] = {}
    for axis, letter in ((layer.ndim - 2, "Y"), (layer.ndim - 1, "X")):
        low, high = int(corners[0, axis]), int(np.ceil(corners[1, axis])) + 1
        low, high = max(0, low), min(int(shape[axis]), high)
        if high - low < 2:
            low, high = 0, int(shape[axis])
        if most_px is not None and high - low > most_px:
            low += (high - low - most_px) // 2
            high = low + most_px
        region[letter] = slice(low, high)
    return region


def current_index(viewer: ViewerModel, layer: Layer, axis: int) -> int:
    """Return which plane along an axis of the layer is shown."""
    at = layer.world_to_data(viewer.dims.point)
    return int(np.clip(round(float(at[axis])), 0, finest(layer).shape[axis] - 1))


def placement(
    layer: Layer, kept: Sequence[int], *, offset_px: Sequence[float] = (), step_px: Sequence[float] = ()
) -> dict[str, Any]:
    """Return where a result lies: keywords for ``viewer.add_image`` and the like.

    It lies on the layer, turned, sheared and moved as that is.

    Parameters
    ----------
    layer : napari.layers.Layer
        What the result was made from.
    kept : sequence of int
        Axes of the layer that the result still has.
    offset_px : sequence of float, optional
        For each kept axis, at which of the layer's pixels the result begins.
    step_px : sequence of float, optional
        For each kept axis, how many of the layer's pixels one of the result's is; 1 when left out.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``units``, ``axis_labels``, and ``affine`` for a layer that is turned or
        sheared.
    """
    number = layer.ndim
    origin = np.asarray(layer.data_to_world(np.zeros(number)), float)[-number:]
    columns = [np.asarray(layer.data_to_world(row), float)[-number:] - origin for row in np.eye(number)]
    linear = np.stack(columns, axis=1)
    kept = list(kept)
    steps = np.asarray(step_px if len(step_px) else np.ones(len(kept)), float)
    offset = np.asarray(offset_px if len(offset_px) else np.zeros(len(kept)), float)
    matrix = linear[np.ix_(kept, kept)]
    # The middle of the result's first pixel is not that of the layer's first one where it is larger.
    start = origin[kept] + matrix @ (offset + 0.5 * (steps - 1))
    matrix = matrix * steps
    placed: dict[str, Any] = {
        "units": tuple(layer.units[axis] for axis in kept),
        "axis_labels": tuple(layer.axis_labels[axis] for axis in kept),
    }
    diagonal = np.diag(matrix)
    if np.allclose(matrix, np.diag(diagonal), atol=1e-9 * max(1e-12, np.abs(matrix).max())):
        return {"scale": tuple(diagonal), "translate": tuple(start), **placed}
    affine = np.eye(len(kept) + 1)
    affine[:-1, :-1], affine[:-1, -1] = matrix, start
    return {"affine": affine, **placed}
