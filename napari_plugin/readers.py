"""What napari opens with lincei: published in silico labeling data, and results of ``lincei focus``.

`image_layers` turns any `lincei.image.Image` into layers that the widgets understand.
"""

from __future__ import annotations

import contextlib
import csv
import os
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lincei.errors import LinceiError, LinceiWarning

if TYPE_CHECKING:
    from lincei.image import Image

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[Any], list[LayerData]]

# Pixels up to this size are read at once; larger images are read plane by plane as they are shown.
IN_MEMORY_BYTES = 512 * 2**20
# More images of one folder would bury the list of layers.
MOST_IMAGES = 24
# A Shapes layer of more rectangles is slow; they are shown as an image with a pixel for each patch then.
MOST_SHAPES = 4000
_PUBLISHED = "lab-*,condition-*.png"
# Of a folder so many entries are looked at before it is left to other readers.
_MOST_ENTRIES = 5000
_BORDER_SHARE = 1 / 28


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return what opens a path, or None when it is nothing that lincei knows better than other readers.

    Parameters
    ----------
    path : str or sequence of str
        A folder of published in silico labeling images or one of them; a folder of results of
        ``lincei focus``, or a table in it. Of several paths the first decides.

    Returns
    -------
    callable or None
        Takes the path and returns layers.
    """
    first = Path(path if isinstance(path, str) else next(iter(path), ""))
    folder = first if first.is_dir() else first.parent
    if _is_focus_folder(folder) and (first.is_dir() or first.name in ("images.csv", "patches.csv")):
        return read_focus_results
    if first.is_dir():
        return read_published if _holds_published(first) else None
    return read_published if first.match(_PUBLISHED) else None


def _holds_published(folder: Path) -> bool:
    """Tell whether a folder looks like published data, from its first entries, the topmost first.

    napari asks this of any folder that is opened: a home folder must be answered at once, too.
    """
    waiting, left = deque([str(folder)]), _MOST_ENTRIES
    while waiting and left > 0:
        with contextlib.suppress(OSError), os.scandir(waiting.popleft()) as entries:  # may not be readable
            for entry in entries:
                left -= 1
                if fnmatch(entry.name, _PUBLISHED):
                    return True
                if left <= 0:
                    break
                # The chunks of a Zarr are many, and no images.
                hidden = entry.name.startswith(".") or entry.name.endswith(".zarr")
                if not hidden and entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return False


def read_published(path: str | Sequence[str]) -> list[LayerData]:
    """Read fields of the published in silico labeling data: stacks and their stains.

    Parameters
    ----------
    path : str or sequence of str
        A folder, searched to any depth. Of a single image, all of its field is read.

    Returns
    -------
    list of layer data
        For each field the transmitted-light stack, and each stain in its color.

    Raises
    ------
    LinceiError
        When the folder holds no such field, or a plane is missing.

    Warns
    -----
    LinceiWarning
        When there are more than `MOST_IMAGES` fields; the first are shown.
    """
    from insilico.training import label_color
    from lincei.pattern import find_isl

    one = Path(path if isinstance(path, str) else next(iter(path)))
    fields = find_isl(one if one.is_dir() else one.parent)
    if not one.is_dir():
        parts = [(field.input, *field.labels.values(), *field.masks.values()) for field in fields]
        own = [
            field
            for field, groups in zip(fields, parts, strict=True)
            if any(file.name == one.name for group in groups for file in group.files)
        ]
        fields = own or fields
    layers: list[LayerData] = []
    for field in _not_too_many(fields, str(one), "fields"):
        stack = field.input.open()
        layers += image_layers(stack, f"{stack.name} {stack.modality or ''}".strip())
        for index, (label, group) in enumerate(field.labels.items()):
            look = {"colormap": label_color(label, index), "blending": "additive", "visible": False}
            stain = group.open().with_(modality="fluorescence")
            layers += image_layers(stain, f"{stack.name} {label}", **look)
    return layers


def read_focus_results(path: str | Sequence[str]) -> list[LayerData]:
    """Read the folder that ``lincei focus`` wrote: the images, and the borders of their patches.

    The hue of a border is the level and its lightness the certainty, as in the overlays; the columns of
    ``patches.csv`` are the features of the layer.

    Parameters
    ----------
    path : str or sequence of str
        The folder, or a table in it.

    Returns
    -------
    list of layer data
        An image that is no longer to be found is replaced by its overlay.

    Raises
    ------
    LinceiError
        When a table is damaged.

    Warns
    -----
    LinceiWarning
        When images are not found, or there are more than `MOST_IMAGES`; the first are shown.
    """
    from focusqc.tables import IMAGES_FILE, PATCHES_FILE

    one = Path(path if isinstance(path, str) else next(iter(path)))
    folder = one if one.is_dir() else one.parent
    patches: dict[str, list[dict[str, str]]] = {}
    for row in _rows(folder / PATCHES_FILE, ("file", "x", "y", "width", "height", "certainty")):
        patches.setdefault(row["file"], []).append(row)
    files = list(dict.fromkeys(row["file"] for row in _rows(folder / IMAGES_FILE, ("file",))))
    layers: list[LayerData] = []
    missing = []
    for file in _not_too_many(files, str(folder), "images"):
        image = _rated_image(file, folder)
        name = _stem(file)
        scale, units = 1.0, "pixel"
        if image is not None:
            layers += image_layers(image, name)
            if image.pixel_size_um is not None:
                scale, units = image.pixel_size_um, "micrometer"
        else:
            missing.append(file)
            layers += _overlay_layers(folder, name, patches.get(file, []))
        layers += _patch_layers(name, patches.get(file, []), image, scale, units)
    if missing:
        warnings.warn(
            f"{folder}: {_counted(missing)} not found, and the overlay is shown instead. Copy the images "
            "into this folder to see them.",
            LinceiWarning,
            stacklevel=2,
        )
    return layers


def image_layers(image: Image, name: str = "", **look: Any) -> list[LayerData]:
    """Return an image as layers, one for each channel, with its scale in um.

    Parameters
    ----------
    image : Image
        Of any kind.
    name : str
        The layer's name; the image's when empty. Channels are named behind it.
    **look
        Keywords for ``viewer.add_image``, such as ``colormap``.

    Returns
    -------
    list of layer data
        Axes of size 1 are left out. A pyramid stays one. What the layer cannot say (the modality) is in its
        metadata, where the widgets look for it.
    """
    kept = [axis for axis in "TZ" if image.sizes[axis] > 1]
    pixel, step = image.pixel_size_um, image.z_step_um
    scale = [1.0 if axis == "T" else (step or 1.0) for axis in kept] + [pixel or 1.0] * 2
    units = ["micrometer" if axis == "Z" and step else "pixel" for axis in kept]
    units += ["micrometer" if pixel else "pixel"] * 2
    known = {"modality": image.modality, "pixel_size_um": pixel, "z_step_um": step}
    shared: dict[str, Any] = {
        "scale": scale,
        "units": units,
        "axis_labels": [{"T": "time", "Z": "z"}[axis] for axis in kept] + ["y", "x"],
        "metadata": {"lincei": {key: value for key, value in known.items() if value is not None}},
        **look,
    }
    pixels = [_pixels(level) for level in (image, *image.levels)]
    if image.rgb:
        colors = [_squeezed(level.transpose(0, 2, 3, 4, 1), kept) for level in pixels]
        return [(_one_or_pyramid(colors), {"name": name or image.name, "rgb": True, **shared}, "image")]
    layers: list[LayerData] = []
    channels = image.shape[1]
    for channel in range(channels):
        own = dict(shared)
        named = image.channel_names[channel] if image.channel_names else f"channel {channel}"
        own["name"] = f"{name or image.name} {named}" if channels > 1 else name or image.name
        if channels > 1:
            own.setdefault("blending", "additive")
            if image.channel_colors:
                own.setdefault("colormap", image.channel_colors[channel])
        planes = [_squeezed(level[:, channel], kept) for level in pixels]
        layers.append((_one_or_pyramid(planes), own, "image"))
    return layers


def _one_or_pyramid(levels: list[Any]) -> Any:
    return levels if len(levels) > 1 else levels[0]


def _pixels(image: Image) -> Any:
    """Return the pixels: in memory when they are few, else an array that reads what is shown."""
    import math

    import numpy as np

    if isinstance(image.data, np.ndarray):
        return image.data
    if math.prod(image.shape) * image.dtype.itemsize <= IN_MEMORY_BYTES:
        return image.read()
    import dask.array

    from lincei.formats.lazy import ReorderedArray
    from lincei.image import AXES

    sides = [min(size, 2048) for size in image.shape[3:]]
    chunks = (1, image.shape[1] if image.rgb else 1, 1, *sides)
    from_array: Any = dask.array.from_array  # it has no types
    return from_array(ReorderedArray(image.data, AXES), chunks=chunks)


def _squeezed(array: Any, kept: Sequence[str]) -> Any:
    """Drop time and z, the first two axes, where they are not kept."""
    return array[tuple(slice(None) if axis in kept else 0 for axis in "TZ")]


def _is_focus_folder(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("images.csv", "patches.csv"))


def _rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LinceiError(
            f"the table cannot be read ({error})", str(path), "Run `lincei focus` again."
        ) from error
    if lacking := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise LinceiError(
            f"the table has no column {lacking[0]!r}",
            str(path),
            "Open a folder that `lincei focus` wrote.",
        )
    return rows


def _stem(file: str) -> str:
    from lincei.image import stem

    return stem(file)


def _rated_image(file: str, folder: Path) -> Image | None:
    """Return the image that a table names, or None where it is not to be found.

    Tables name images by their path within the folder that holds all of them; results often lie beside it.
    """
    from lincei.pattern import find_inputs

    for start in (folder, *folder.resolve().parents[:2]):
        try:
            (group,) = find_inputs([str(start / file)])
            return group.open()
        except (LinceiError, ValueError):
            continue
    return None


def _overlay_layers(folder: Path, name: str, patches: Sequence[Mapping[str, str]]) -> list[LayerData]:
    """Return the picture that was written of an image, on the image's own pixel grid."""
    import numpy as np

    from lincei.image import open_image

    path = folder / "overlays" / f"{name}.png"
    if not path.is_file() or not patches:
        return []
    ((pixels, keywords, kind),) = image_layers(open_image(path), f"{name} overlay")
    # Pictures of large images are reduced by a whole factor.
    width = max(_number(row, "x") + _number(row, "width") for row in patches)
    factor = max(1, int(np.floor(width / pixels.shape[1] + 0.25)))
    middle = (factor - 1) / 2
    keywords |= {"scale": [float(factor)] * 2, "translate": [middle] * 2, "units": ["pixel"] * 2}
    return [(pixels, {**keywords, "metadata": {}}, kind)]


def _patch_layers(
    name: str, patches: Sequence[dict[str, str]], image: Image | None, scale: float, units: str
) -> list[LayerData]:
    """Return the borders of an image's patches, one layer for each channel."""
    channels = list(dict.fromkeys(row.get("channel", "") for row in patches))
    layers: list[LayerData] = []
    for channel in channels:
        own = [row for row in patches if row.get("channel", "") == channel]
        label = f"{name} {channel} focus" if len(channels) > 1 else f"{name} focus"
        leading = [
            (axis, size)
            for axis, size in (("time", _sizes(image, "T", own)), ("z", _sizes(image, "Z", own)))
            if size > 1
        ]
        step = (image.z_step_um if image is not None else None) or 1.0
        shared = {
            "name": label,
            "scale": [step if axis == "z" else 1.0 for axis, _ in leading] + [scale] * 2,
            "units": ["micrometer" if axis == "z" and step != 1.0 else "pixel" for axis, _ in leading]
            + [units] * 2,
            "axis_labels": [axis for axis, _ in leading] + ["y", "x"],
        }
        layers.append((_as_shapes if len(own) <= MOST_SHAPES else _as_image)(own, leading, shared))
    return layers


def _as_shapes(
    patches: Sequence[dict[str, str]], leading: Sequence[tuple[str, int]], shared: dict[str, Any]
) -> LayerData:
    import numpy as np

    from focusqc.overlay import level_colors

    corners = []
    border = max(1.0, _number(patches[0], "height") * _BORDER_SHARE)
    for row in patches:
        # Inset, so that no border lies on its neighbor's. Pixels are centered on whole numbers.
        top, left = _number(row, "y") - 0.5 + border / 2, _number(row, "x") - 0.5 + border / 2
        bottom, right = top + _number(row, "height") - border, left + _number(row, "width") - border
        at = [_number(row, axis) for axis, _ in leading]
        corners.append([[*at, y, x] for y, x in ((top, left), (top, right), (bottom, right), (bottom, left))])
    colors = level_colors(_column(patches, "predicted_level"), _column(patches, "certainty"))
    return (
        np.asarray(corners, float),
        {
            **shared,
            "shape_type": "rectangle",
            "edge_color": np.c_[colors / 255, np.ones(len(colors))],
            "face_color": "transparent",
            "edge_width": border,
            "features": {name: _values(patches, name) for name in patches[0]},
        },
        "shapes",
    )


def _as_image(
    patches: Sequence[dict[str, str]], leading: Sequence[tuple[str, int]], shared: dict[str, Any]
) -> LayerData:
    """Return a picture with a pixel for each patch."""
    import numpy as np

    from focusqc.overlay import level_colors

    rows, columns = (_column(patches, name).astype(int) for name in ("row", "column"))
    at = [_column(patches, axis).astype(int) for axis, _ in leading]
    sizes = [size for _, size in leading]
    picture = np.zeros((*sizes, rows.max() + 1, columns.max() + 1, 4), np.uint8)
    colors = level_colors(_column(patches, "predicted_level"), _column(patches, "certainty"))
    picture[(*at, rows, columns)] = np.c_[colors, np.full(len(colors), 255)]
    side = np.array([_number(patches[0], "height"), _number(patches[0], "width")])
    scale = np.asarray(shared["scale"], float)
    translate = np.zeros(len(scale))
    translate[-2:] = (side - 1) / 2 * scale[-2:]
    scale[-2:] *= side
    keywords = {**shared, "rgb": True, "scale": scale, "translate": translate, "opacity": 0.5}
    return picture, keywords, "image"


def _sizes(image: Image | None, axis: str, patches: Sequence[Mapping[str, str]]) -> int:
    """Return how many planes there are along an axis; without the image, as many as were rated."""
    if image is not None:
        return image.sizes[axis]
    return 1 + int(max(_number(row, {"T": "time", "Z": "z"}[axis]) for row in patches))


def _number(row: Mapping[str, str], name: str) -> float:
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        raise LinceiError(
            f"the table of patches has {row.get(name)!r} as {name}",
            str(row.get("file", "")),
            "Run `lincei focus` again.",
        ) from None


def _column(patches: Sequence[Mapping[str, str]], name: str) -> Any:
    import numpy as np

    return np.array([_number(row, name) for row in patches])


def _values(patches: Sequence[Mapping[str, str]], name: str) -> list[Any]:
    """Return a column as numbers where all of it is, else as text."""
    texts = [row[name] for row in patches]
    try:
        return [float(text) for text in texts]
    except (TypeError, ValueError):
        return texts


def _not_too_many(found: Sequence[Any], where: str, what: str) -> Sequence[Any]:
    if len(found) > MOST_IMAGES:
        warnings.warn(
            f"{where}: of {len(found)} {what} the first {MOST_IMAGES} are shown. Open parts of the folder to "
            "see the others.",
            LinceiWarning,
            stacklevel=3,
        )
    return found[:MOST_IMAGES]


def _counted(files: Sequence[str]) -> str:
    return f"{files[0]} was" if len(files) == 1 else f"{files[0]} and {len(files) - 1} more were"
