"""OME-Zarr: versions 0.4 and 0.5 are read, 0.5 is written chunk by chunk, with a pyramid."""

from __future__ import annotations

import contextlib
import json
import math
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lincei.errors import LinceiError
from lincei.formats.lazy import Box, LazyArray, ReorderedArray
from lincei.formats.tiff import halved
from lincei.formats.units import to_s, to_um
from lincei.image import (
    Image,
    full_range,
    is_zarr,
    put_in_place,
    readable_errors,
    refuse_own_source,
    refuse_scene,
    remove,
    stem,
    writable_errors,
)
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

CHUNK = 512
PROVENANCE_KEY = "lincei"
IMAGE_KEY = "lincei_image"
_Block = tuple[tuple[slice, slice, slice], slice, slice]
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


class ArraySpec:
    """The shape and data type of an image whose pixels are still to come.

    Stands in for the data of the template that `create_ome_zarr` takes.

    Parameters
    ----------
    shape : tuple of int
        Sizes of T, C, Z, Y, X.
    dtype : dtype-like
        Data type of the pixels.
    pieces : tuple of int, optional
        Height and width of the pieces in which they will come, from the upper left corner on. No two
        pieces will share a chunk.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        dtype: DTypeLike,
        pieces: tuple[int, int] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.pieces = pieces or shape[3:]

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        raise TypeError("the pixels of this image are still to be written")


class OmeZarrWriter:
    """An OME-Zarr in the making: fill ``array``, then `finish`; made by `create_ome_zarr`.

    As a context manager it finishes when the block ends well and aborts when it raises.

    Attributes
    ----------
    array : zarr.Array
        Shape (T, C, Z, Y, X), in chunks of one plane by 512 x 512 pixels at most; write it by NumPy
        slicing. Several threads may write as long as no two write into one chunk at once.
    path : Path
        Where the finished folder goes.
    """

    def __init__(
        self, path: Path, template: Image, provenance: Mapping[str, Any] | None, folder: Path | None
    ) -> None:
        import zarr

        self.path = path
        self._template = template
        self._provenance = provenance
        self._kept = folder is not None
        self._folder = folder or path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        spec = template.data
        pieces = spec.pieces if isinstance(spec, ArraySpec) else template.shape[3:]
        self._chunk = tuple(map(_chunk_side, template.shape[3:], pieces))
        refuse_own_source(template, path)
        with self._errors():
            if path.exists() and not (path.is_dir() and (is_zarr(path) or not any(path.iterdir()))):
                raise LinceiError("something else is in the way", str(path), "Choose another name.")
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            if self._folder.exists():
                self._group = zarr.open_group(self._folder, mode="r+")
                self.array = self._group["0"]
                return
            self._group = zarr.create_group(self._folder, zarr_format=3)
            dtype = np.dtype(np.uint8) if template.dtype == bool else template.dtype
            self.array = self._create(0, template.shape, dtype)

    def complete(
        self, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
    ) -> None:
        """Build the pyramid and write the metadata; the folder stays where it is made.

        Parameters
        ----------
        progress, cancelled : callable, optional
            As for `finish`.

        Raises
        ------
        LinceiError
            When the disk is full or the folder cannot be written.
        """
        with self._errors():
            self._remove_leftovers()
            levels = [self.array]
            while max(levels[-1].shape[3:]) > CHUNK:
                levels.append(self._halved(levels[-1], len(levels), progress, cancelled))
            self._group.attrs.update(_attributes(self._template, levels, self._provenance))

    def finish(self, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None) -> Path:
        """Build the pyramid, write the metadata and put the folder in place of what is there.

        Parameters
        ----------
        progress, cancelled : callable, optional
            Hear of each block of the pyramid, and may stop the work.

        Returns
        -------
        Path
            The finished folder.

        Raises
        ------
        LinceiError
            When the disk is full or the folder cannot be written; nothing is left then.
        """
        self.complete(progress, cancelled)
        with self._errors():
            put_in_place(self._folder, self.path)
        return self.path

    def abort(self) -> None:
        """Remove what was written, but for a folder that was given; what bears the final name stays."""
        if not self._kept:
            remove(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        self.abort()
        if isinstance(error, OSError):
            with writable_errors(self.path):
                raise error

    def _create(self, level: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        chunks = (1, 1, 1, *map(min, self._chunk, shape[3:]))
        return self._group.create_array(
            str(level), shape=shape, chunks=chunks, dtype=dtype, fill_value=0, dimension_names=list("tczyx")
        )

    def _remove_leftovers(self) -> None:
        """Remove what a run that was killed may have left: chunks half written, an unfinished pyramid."""
        if self._kept:
            for level in self._folder.iterdir():
                if level.is_dir() and level.name != "0":
                    remove(level)
            for chunk in (self._folder / "0").rglob("*.partial"):
                remove(chunk)

    def _halved(
        self, finer: Any, level: int, progress: ProgressCallback | None, cancelled: CancelCheck | None
    ) -> Any:
        """Add a level of half the size, from two by two chunks of the finer one at a time."""
        from lincei.doctor import usable_cores

        t, c, z, height, width = finer.shape
        coarser = self._create(level, (t, c, z, math.ceil(height / 2), math.ceil(width / 2)), finer.dtype)
        blocks = list(_blocks(coarser.shape, self._chunk))

        def halve(block: _Block) -> None:
            plane, rows, columns = block
            doubled = (slice(part.start * 2, part.stop * 2) for part in (rows, columns))
            # The first three axes have size 1 here; they move last because halved works on the first two.
            pixels = np.asarray(finer[(*plane, *doubled)])[0, 0, 0]
            coarser[(*plane, rows, columns)] = halved(pixels)[np.newaxis, np.newaxis, np.newaxis]

        with ThreadPoolExecutor(usable_cores()) as pool:
            try:
                for done, _ in enumerate(pool.map(halve, blocks), start=1):
                    stop_if_cancelled(cancelled)
                    report(progress, Progress("building the pyramid", done, len(blocks)))
            finally:
                pool.shutdown(cancel_futures=True)
        return coarser

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Remove what was written when anything fails, and say what the system said in a sentence."""
        try:
            with writable_errors(self.path):
                yield
        except BaseException:
            self.abort()
            raise


def create_ome_zarr(
    path: str | Path,
    template: Image,
    provenance: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
) -> OmeZarrWriter:
    """Begin an OME-Zarr 0.5 that is filled piece by piece.

    Parameters
    ----------
    path : str or Path
        Name of the finished folder; it appears, or is replaced, when the writer finishes.
    template : Image
        Gives the shape, data type, names, colors and sizes; its ``data`` may be an `ArraySpec`.
    provenance : mapping, optional
        Goes before the template's.
    folder : Path, optional
        Where it is made, on the same disk. What is in it already, of the same template, is kept and
        added to, and it stays when anything fails. By default a new folder beside ``path``, which does
        not.

    Returns
    -------
    OmeZarrWriter
        Its ``array`` takes the pixels.

    Raises
    ------
    LinceiError
        When the folder cannot be written, or is the template's own source.

    Examples
    --------
    >>> template = Image(ArraySpec((1, 1, 1, 2048, 2048), "float32"), channel_names=("DAPI",))
    >>> with create_ome_zarr("out.ome.zarr", template) as writer:  # doctest: +SKIP
    ...     writer.array[0, 0, 0, :512, :512] = tile
    """
    provenance = template.provenance if provenance is None else provenance
    return OmeZarrWriter(Path(path).expanduser(), template, provenance, folder)


def save(
    image: Image, path: Path, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> Path:
    """Write an image as OME-Zarr 0.5; see `lincei.image.save_image`."""
    writer = create_ome_zarr(path, image)
    blocks = list(_blocks(image.shape, (CHUNK, CHUNK)))
    try:
        with writable_errors(path):
            for done, (plane, rows, columns) in enumerate(blocks, start=1):
                stop_if_cancelled(cancelled)
                region = dict(zip("TCZYX", (*plane, rows, columns), strict=True))
                writer.array[(*plane, rows, columns)] = image.read(region)
                report(progress, Progress("saving", done, len(blocks)))
    except BaseException:
        writer.abort()
        raise
    return writer.finish(progress, cancelled)


def open_ome_zarr(path: Path, scene: int | None) -> Image:
    """Open an OME-Zarr folder, or one in a zip file; see `lincei.image.open_image`."""
    import yaozarrs
    import zarr

    with contextlib.ExitStack() as stack:
        store: Any = path
        if path.is_file():
            if not zipfile.is_zipfile(path):
                raise LinceiError("the zip file is damaged or cut short", str(path), "Copy it again.")
            store = stack.enter_context(contextlib.closing(zarr.storage.ZipStore(path, mode="r")))
        group = zarr.open_group(store, mode="r")
        attributes = dict(group.attrs)
        document = _validated(attributes, path)
        for version in (yaozarrs.v04, yaozarrs.v05):
            if isinstance(document, (version.Plate, version.Well)):
                raise LinceiError(
                    "is a plate of many fields, and one image was asked for",
                    str(path),
                    "Name a field, such as plate.ome.zarr/A/1/0.",
                )
        if _is_collection(document):
            names = sorted((name for name, _ in group.groups() if name.isdigit()), key=int)
            if not names:
                raise LinceiError("it holds no image", str(path))
            group = group[names[refuse_scene(scene, len(names), path)]]
            attributes = dict(group.attrs)
            document = _validated(attributes, path)
            scene = None
        if not hasattr(document, "multiscales"):
            raise LinceiError("it holds no image", str(path), "Name the folder of an OME-Zarr image.")
        multiscale = document.multiscales[refuse_scene(scene, len(document.multiscales), path)]
        return _image(path, group, attributes, document, multiscale)


def _image(path: Path, group: Any, attributes: Mapping[str, Any], document: Any, multiscale: Any) -> Image:
    """Return the image that a validated multiscale document describes."""
    axes = "".join(_letter(axis.name, path) for axis in multiscale.axes)
    units = {letter: getattr(axis, "unit", None) for letter, axis in zip(axes, multiscale.axes, strict=True)}
    own = attributes.get(IMAGE_KEY, {})
    omero = getattr(document, "omero", None)
    images: list[Image] = []
    for dataset in multiscale.datasets:
        data = _ZarrArray(path, f"{group.path}/{dataset.path}".strip("/"), axes)
        scale = _scale(axes, dataset, multiscale)
        limits = own.get("intensity_range")
        names, colors = _channels(omero, data.shape[1])
        size_x, size_y = to_um(scale["X"], units["X"]), to_um(scale["Y"], units["Y"])
        images.append(
            Image(
                data,
                name=stem(path),
                source=str(path),
                pixel_size_um=size_x or size_y,
                z_step_um=to_um(scale.get("Z"), units.get("Z")),
                time_step_s=to_s(scale.get("T"), units.get("T")),
                channel_names=() if own.get("rgb") else names,
                channel_colors=() if own.get("rgb") else colors,
                modality=own.get("modality"),
                rgb=bool(own.get("rgb")),
                intensity_range=None if limits is None else (limits[0], limits[1]),
                provenance=attributes.get(PROVENANCE_KEY),
            )
        )
    return images[0].with_(levels=tuple(images[1:]))


class _ZarrArray(LazyArray):
    """An array of an OME-Zarr in the order TCZYX; a zip file is not kept open."""

    def __init__(self, path: Path, inner: str, axes: str) -> None:
        self._path, self._inner, self._axes = path, inner, axes
        self._array: Any = None
        with self._open() as array:
            view = ReorderedArray(array, axes)
            super().__init__(view.shape, view.dtype)
            if path.is_dir():
                self._array = array

    def _read(self, box: Box) -> NDArray[Any]:
        with readable_errors(self._path), self._open() as array:
            pixels: NDArray[Any] = ReorderedArray(array, self._axes)[box]
            return pixels

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        import zarr

        if self._array is not None:
            yield self._array
        elif self._path.is_dir():
            yield zarr.open_array(self._path / self._inner, mode="r")
        else:
            with contextlib.closing(zarr.storage.ZipStore(self._path, mode="r")) as store:
                yield zarr.open_array(store, path=self._inner, mode="r")


def _validated(attributes: Mapping[str, Any], path: Path) -> Any:
    """Return the typed metadata of a group; raise a sentence when they are no OME-Zarr 0.4 or 0.5."""
    import pydantic
    import yaozarrs

    relevant = {key: value for key, value in attributes.items() if key not in (PROVENANCE_KEY, IMAGE_KEY)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # yaozarrs warns of what the standard only recommends
            try:
                document = yaozarrs.validate_ome_object(relevant)
            except pydantic.ValidationError:
                # Rendering hints are transitional in the standard and often incomplete; pixels need none.
                document = yaozarrs.validate_ome_object(_without_omero(relevant))
    except pydantic.ValidationError as error:
        reason = " ".join(str(error.errors()[0]["msg"]).split())[:160]
        raise LinceiError(
            f"its metadata are not those of OME-Zarr 0.4 or 0.5 ({reason})",
            str(path),
            "Write it again with a program that follows the standard.",
        ) from error
    return getattr(document, "ome", document)


def _without_omero(attributes: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {key: value for key, value in attributes.items() if key != "omero"}
    if isinstance(cleaned.get("ome"), dict):
        cleaned["ome"] = {key: value for key, value in cleaned["ome"].items() if key != "omero"}
    return cleaned


def _is_collection(document: Any) -> bool:
    """Tell whether a group holds images by number, as converters from makers' formats write them."""
    import yaozarrs

    kinds = (yaozarrs.v04.Bf2Raw, yaozarrs.v05.Bf2Raw, yaozarrs.v04.Series, yaozarrs.v05.Series)
    return isinstance(document, kinds) and not getattr(document, "multiscales", None)


def _letter(name: str, path: Path) -> str:
    if name.upper() not in tuple("TCZYX"):
        raise LinceiError(f"its axis {name!r} is not one of t, c, z, y, x", str(path))
    return name.upper()


def _scale(axes: str, dataset: Any, multiscale: Any) -> dict[str, float]:
    """Return the size of a pixel along each axis: the dataset's scale times the one of all levels."""
    factors = dict.fromkeys(axes, 1.0)
    for transform in (*dataset.coordinateTransformations, *(multiscale.coordinateTransformations or ())):
        if getattr(transform, "type", "") == "scale":
            for letter, factor in zip(axes, transform.scale, strict=True):
                factors[letter] *= factor
    return factors


def _channels(omero: Any, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and colors of the channels, where the rendering hints give them."""
    channels = list(omero.channels) if omero is not None else []
    if len(channels) != count:
        return (), ()
    labels = [channel.label for channel in channels]
    names = tuple(label or f"channel {i}" for i, label in enumerate(labels)) if any(labels) else ()
    colors = [str(channel.color or "").lstrip("#").upper() for channel in channels]
    # White throughout is what writers put where no color was chosen: the standard asks for one.
    chosen = all(len(color) == 6 for color in colors) and set(colors) != {"FFFFFF"}
    return names, tuple(f"#{color}" for color in colors) if chosen else ()


def _chunk_side(size: int, piece: int) -> int:
    """Return the side of chunks, `CHUNK` at most, of which no two pieces along an axis share one."""
    if piece >= size:
        return min(CHUNK, size)
    return next(piece // n for n in range(math.ceil(piece / CHUNK), piece + 1) if piece % n == 0)


def _blocks(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[_Block]:
    """Yield the chunks of an array: the slices of T, C, Z, then of Y and X."""
    for index in np.ndindex(*shape[:3]):
        t, c, z = (slice(int(i), int(i) + 1) for i in index)
        for top in range(0, shape[3], chunk[0]):
            for left in range(0, shape[4], chunk[1]):
                yield (
                    (t, c, z),
                    slice(top, min(top + chunk[0], shape[3])),
                    slice(left, min(left + chunk[1], shape[4])),
                )


def _attributes(image: Image, levels: list[Any], provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the group's attributes: the standard's, provenance, and what the standard has no place for."""
    base = {
        "t": image.time_step_s,
        "c": None,
        "z": image.z_step_um,
        "y": image.pixel_size_um,
        "x": image.pixel_size_um,
    }
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    # An axis of unknown size gets no unit, so that no reader takes the scale of 1 for a length.
    axes = [
        {"name": name, "type": kind, **({"unit": UNITS[name]} if base[name] is not None else {})}
        for name, kind in kinds.items()
    ]
    datasets = []
    for number, _ in enumerate(levels):
        factor = 2.0**number
        steps = {name: value or 1.0 for name, value in base.items()}
        scale = [step * (factor if name in "yx" else 1.0) for name, step in steps.items()]
        # The mean of 2 x 2 pixels lies between them, half a pixel from the first.
        offset = [step * (factor - 1) / 2 if name in "yx" else 0.0 for name, step in steps.items()]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if number:
            transforms.append({"type": "translation", "translation": offset})
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    multiscale: dict[str, Any] = {
        "name": image.name,
        "axes": axes,
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": "mean of 2 x 2 pixels in y and x, level by level"},
    }
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": _omero(image, levels[-1])}
    limits = image.intensity_range
    own = {
        "modality": image.modality,
        "rgb": True if image.rgb else None,
        "intensity_range": None if limits is None or limits == full_range(image.dtype) else list(limits),
    }
    attributes: dict[str, Any] = {"ome": ome}
    own = {key: value for key, value in own.items() if value is not None}
    if own:
        attributes[IMAGE_KEY] = own
    if provenance is not None:
        attributes[PROVENANCE_KEY] = json.loads(json.dumps(dict(provenance)))
    return attributes


def _omero(image: Image, coarsest: Any) -> dict[str, Any]:
    """Return rendering hints, with display windows from the coarsest level's middle plane."""
    count = image.shape[1]
    names: tuple[str | None, ...] = image.channel_names or (None,) * count
    colors = image.channel_colors or ("#FFFFFF",) * count
    if image.rgb:
        names, colors = ("red", "green", "blue"), ("#FF0000", "#00FF00", "#0000FF")
    channels = []
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        if image.rgb and image.intensity_range is not None:
            start, end = image.intensity_range
        else:
            plane = np.asarray(coarsest[0, i, coarsest.shape[2] // 2], np.float64)
            finite = plane[np.isfinite(plane)]
            start, end = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
            end = end if end > start else start + 1.0
        low, high = image.intensity_range or (start, end)
        window = {"start": start, "end": end, "min": low, "max": high}
        label = {} if name is None else {"label": name}
        channels.append({**label, "color": color[1:].upper(), "active": True, "window": window})
    return {"channels": channels, "rdefs": {"model": "color" if count > 1 else "greyscale"}}
