"""TIFF: plain, multi-page, ImageJ hyperstack and OME-TIFF, read page by page and written tile by tile."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import tempfile
import threading
import uuid
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError, LinceiWarning
from lincei.formats.lazy import DECODED, Box, LazyArray, file_key
from lincei.formats.scratch import ScratchArray
from lincei.formats.units import to_s, to_um
from lincei.image import Image, full_range, readable_errors, refuse_scene, stem
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

PROVENANCE_NAMESPACE = "lincei/provenance"
IMAGE_NAMESPACE = "lincei/image"
INFO_KEY = "lincei = "
CONTRAST_METHODS = {
    "Phase": "phase contrast",
    "Brightfield": "bright field",
    "DIC": "DIC",
    "Fluorescence": "fluorescence",
}
# A resolution coarser than this (about 1000 dots per inch) is a printer's or a screen's, not a microscope's.
COARSEST_PIXEL_UM = 25.0
PYRAMID_ABOVE = 4096
BIGTIFF_ABOVE = 3.5 * 2**30
IMAGEJ_LIMIT = 2**32 - 2**20
WRITTEN_AT_ONCE = 2**26  # bytes of tiles that are compressed at the same time
# What tifffile logs before it goes on without the planes, which would be missing or black.
# Of unreadable tags, those with three digits and ImageJ's matter; makers' own often are odd in good files.
DAMAGE = re.compile(
    r"missing|corrupted|circular|no pages|failed to (read|reshape)|invalid (next )?(page|offset to)"
    r"|TiffTag (\d{3}|5083[89]) .*invalid",
    re.IGNORECASE,
)


class _Page(NamedTuple):
    """Where the pixels of one page lie."""

    file: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    jpegtables: bytes | None


class TiffArray(LazyArray):
    """The pages of a TIFF series, read from the file when they are indexed; no file stays open.

    Parameters
    ----------
    files : sequence of Path
        The files of the series: several for a multi-file OME-TIFF.
    pages : sequence of _Page
        All pages, in the order of ``axes``.
    keyframe : tifffile.TiffPage
        Describes every page; decodes strips and tiles.
    axes : str
        Letters of T, C, Z in the order in which the pages follow each other.
    sizes : mapping of str to int
        Size along each of T, C, Z, Y, X.
    samples : int
        Samples of a pixel that are channels; 0 when C runs over pages.
    """

    def __init__(
        self,
        files: Sequence[Path],
        pages: Sequence[_Page],
        keyframe: Any,
        axes: str,
        sizes: Mapping[str, int],
        samples: int,
    ) -> None:
        dtype = np.uint8 if keyframe.dtype == bool else keyframe.dtype
        super().__init__([sizes[letter] for letter in "TCZYX"], dtype)
        self._files = list(files)
        self._keys = [file_key(path) for path in files]
        self._pages = pages
        self._keyframe = keyframe
        self._decode = keyframe.decode
        self._axes = axes
        self._lead_sizes = [sizes[letter] for letter in axes]
        self._samples = samples
        # Of one page: samples stored apart, depth, length, width, samples stored together.
        self._shaped: tuple[int, int, int, int, int] = keyframe.shaped
        self._contiguous = bool(keyframe.is_memmappable) and all(_is_contiguous(page) for page in pages)
        self._raw_dtype = np.dtype(keyframe.parent.byteorder + keyframe.dtype.char)

    def _read(self, box: Box) -> NDArray[Any]:
        out = np.empty([part.stop - part.start for part in box], self.dtype)
        parts = dict(zip("TCZYX", box, strict=True))
        lead = [range(parts[letter].start, parts[letter].stop) for letter in self._axes]
        depth = slice(0, 1) if "Z" in self._axes else parts["Z"]
        channels = parts["C"] if self._samples else slice(0, 1)
        with contextlib.ExitStack() as stack:
            open_files: dict[int, Any] = {}
            for position in np.ndindex(*[len(indices) for indices in lead]):
                index = 0
                for size, indices, i in zip(self._lead_sizes, lead, position, strict=True):
                    index = index * size + indices[i]
                target = {letter: slice(i, i + 1) for letter, i in zip(self._axes, position, strict=True)}
                page = self._pages[index]
                path = self._files[page.file]
                with readable_errors(path):
                    if page.file not in open_files:
                        self._refuse_changed(page.file)
                        open_files[page.file] = stack.enter_context(path.open("rb"))
                    file = open_files[page.file]
                    pixels = self._read_page(page, file, channels, depth, parts["Y"], parts["X"])
                where = tuple(target.get(letter, slice(None)) for letter in "TCZYX")
                out[where] = pixels[np.newaxis]
        return out

    def _refuse_changed(self, number: int) -> None:
        """Raise when a file is no longer the one whose pages were listed."""
        path = self._files[number]
        if file_key(path) != self._keys[number]:
            raise LinceiError("the file has changed since it was opened", str(path), "Open it again.")

    def _read_page(
        self, page: _Page, file: Any, channels: slice, depth: slice, rows: slice, columns: slice
    ) -> NDArray[Any]:
        """Return a part of one page with the axes C, Z, Y, X."""
        apart = self._shaped[0] > 1
        s, c = (channels, slice(0, 1)) if apart else (slice(0, 1), channels)
        if self._contiguous:
            whole: NDArray[Any] = np.memmap(file, self._raw_dtype, "r", page.offsets[0], self._shaped)
            pixels = np.array(whole[s, depth, rows, columns, c], self.dtype)
        else:
            pixels = self._decoded(page, file, s, depth, rows, columns, c)
        return np.moveaxis(pixels, 4, 1).reshape(channels.stop - channels.start, *pixels.shape[1:4])

    def _decoded(
        self, page: _Page, file: Any, s: slice, d: slice, y: slice, x: slice, c: slice
    ) -> NDArray[Any]:
        """Put together the strips or tiles that a part of a page needs, from the cache where it has them."""
        shape = [part.stop - part.start for part in (s, d, y, x, c)]
        out = np.zeros(shape, self.dtype)
        for number in self._segments(s, d, y, x):
            if number >= len(page.offsets) or page.counts[number] == 0:
                continue

            def decode(number: int = number) -> NDArray[Any]:
                file.seek(page.offsets[number])
                data = file.read(page.counts[number])
                tables = {} if page.jpegtables is None else {"jpegtables": page.jpegtables}
                if getattr(self._keyframe, "jpegheader", None):
                    tables["jpegheader"] = self._keyframe.jpegheader
                decoded: NDArray[Any] = self._decode(data, number, **tables)[0]
                return decoded

            key = (*self._keys[page.file], page.offsets[number])
            segment = DECODED.get(key, decode)
            at = self._decode(None, number)[1]
            if at[0] not in range(s.start, s.stop):
                continue
            from_, to = [], []
            for part, begin, size in zip((d, y, x), at[1:4], segment.shape[:3], strict=True):
                start, stop = max(part.start, begin), min(part.stop, begin + size)
                from_.append(slice(start - begin, max(start, stop) - begin))
                to.append(slice(start - part.start, max(start, stop) - part.start))
            out[(at[0] - s.start, *to)] = segment[(*from_, c)]
        return out

    def _segments(self, s: slice, d: slice, y: slice, x: slice) -> Iterator[int]:
        """Yield the numbers of the strips or tiles that a part of a page touches."""
        frame = self._keyframe
        _, imagedepth, length, width, _ = self._shaped
        if frame.is_tiled:
            deep, high, wide = frame.tiledepth, frame.tilelength, frame.tilewidth
        else:
            deep, high, wide = 1, frame.rowsperstrip, width
        along_d, along_y, along_x = (
            math.ceil(imagedepth / deep),
            math.ceil(length / high),
            math.ceil(width / wide),
        )
        for plane in range(s.start, s.stop):
            for i in range(d.start // deep, (d.stop - 1) // deep + 1):
                for j in range(y.start // high, (y.stop - 1) // high + 1):
                    for k in range(x.start // wide, (x.stop - 1) // wide + 1):
                        yield ((plane * along_d + i) * along_y + j) * along_x + k


@dataclass(frozen=True)
class _Metadata:
    """What a TIFF states about its image, whichever way it does so."""

    pixel_size_um: float | None = None
    z_step_um: float | None = None
    time_step_s: float | None = None
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str, ...] = ()
    modality: str | None = None
    rgb: bool = False
    intensity_range: tuple[float, float] | None = None
    provenance: Mapping[str, Any] | None = None


def open_tiff(path: Path, scene: int | None) -> Image:
    """Open a TIFF, whatever wrote it; see `lincei.image.open_image`."""
    import tifffile

    with _tifffile_log() as messages, tifffile.TiffFile(path) as tif:
        if len(tif.pages) == 0:
            raise _cut_short(path, "it ends before its first page is described")
        if tif.pages.first.photometric == 3:
            raise LinceiError(
                "its colors are a palette, whose numbers are not intensities",
                str(path),
                "Convert it to 8-bit gray or to RGB first.",
            )
        series = _chosen_series(tif, path, scene)
        damage = [message for message in messages if DAMAGE.search(message)]
        if damage:
            raise LinceiError(
                f"pages of it are missing or damaged ({_shortened(damage[0])})",
                str(path),
                "Copy it, with all files of its set, again from where it was made.",
            )
        arrays = [_series_array(level, path) for level in series.levels]
        data, rgb = arrays[0]
        metadata = _metadata(tif, series, data, rgb, path)
    first = Image(
        data,
        name=stem(path),
        source=str(path),
        pixel_size_um=metadata.pixel_size_um,
        z_step_um=metadata.z_step_um,
        time_step_s=metadata.time_step_s,
        channel_names=metadata.channel_names,
        channel_colors=metadata.channel_colors,
        modality=metadata.modality,
        rgb=rgb or metadata.rgb,
        intensity_range=metadata.intensity_range,
        provenance=metadata.provenance,
    )
    size = first.pixel_size_um
    levels = tuple(
        first.with_(
            data=level,
            pixel_size_um=None if size is None else size * first.shape[4] / level.shape[4],
            intensity_range=first.intensity_range,
        )
        for level, _ in arrays[1:]
        if level.shape[:3] == data.shape[:3]
    )
    return first.with_(levels=levels)


def ome_set(path: Path) -> set[str]:
    """Return the names of the files that a multi-file OME-TIFF consists of; empty for any other file."""
    import tifffile

    try:
        with _tifffile_log(), tifffile.TiffFile(path) as tif:
            description = tif.pages.first.description if len(tif.pages) else ""
    except Exception:  # a damaged file is no set; opening it says what is wrong with it
        return set()
    if "<OME" not in description[:2000]:
        return set()
    return {Path(name).name for name in re.findall(r'FileName="([^"]+)"', description)}


def save_ome(
    image: Image,
    path: Path,
    *,
    pyramid: bool | None,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> None:
    """Write an OME-TIFF: zlib, tiled, BigTIFF when needed; see `lincei.image.save_image`."""
    import tifffile

    from lincei.doctor import usable_cores

    dtype = _storable(image, {"float16": np.float32, "bool": np.uint8}, "OME-TIFF", "uint64 int64")
    t, c, z, height, width = image.shape
    if pyramid is None:
        pyramid = max(height, width) > PYRAMID_ABOVE
    sizes = _level_sizes(height, width) if pyramid else [(height, width)]
    tile = 512 if max(height, width) > 1024 else 256
    pages = t * z if image.rgb else t * c * z
    total = pages * sum(math.ceil(h / tile) for h, _ in sizes)
    counter = _Counter(total, progress, cancelled)
    nbytes = sum(t * c * z * h * w * dtype.itemsize for h, w in sizes)
    options: dict[str, Any] = {
        "tile": (tile, tile),
        "compression": "zlib",
        "predictor": 2 if dtype.kind in "ui" else None,
        "photometric": "rgb" if image.rgb else "minisblack",
        "dtype": dtype,
        "maxworkers": usable_cores(),
        "buffersize": WRITTEN_AT_ONCE,
    }
    if image.pixel_size_um is not None:
        options["resolutionunit"] = "CENTIMETER"

    def resolution(level_width: int) -> dict[str, Any]:
        if image.pixel_size_um is None:
            return {}
        per_cm = 1e4 / (image.pixel_size_um * width / level_width)
        return {"resolution": (per_cm, per_cm)}

    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(tifffile.TiffWriter(path, ome=True, bigtiff=nbytes > BIGTIFF_ABOVE))
        planes = _Planes(image, dtype)
        scratch: list[_Planes | _ScratchPlanes] = [planes]
        for level_size in sizes[1:]:
            kept = _ScratchPlanes(path.parent, pages, level_size, planes.samples, dtype)
            scratch.append(stack.enter_context(kept))
        for number, (level, (h, w)) in enumerate(zip(scratch, sizes, strict=True)):
            coarser = scratch[number + 1] if number + 1 < len(scratch) else None
            shape = (t, z, h, w, 3) if image.rgb else (t, c, z, h, w)
            writer.write(
                _tiles(level, pages, (h, w), tile, coarser, counter),
                shape=shape,
                subifds=len(sizes) - 1 if number == 0 else None,
                subfiletype=1 if number else None,
                metadata=_ome_metadata(image, dtype) if number == 0 else None,
                **resolution(w),
                **options,
            )


def save_imagej(
    image: Image, path: Path, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> None:
    """Write an ImageJ hyperstack; see `lincei.image.save_image`."""
    import tifffile

    dtype = _storable(
        image,
        {"bool": np.uint8, "float16": np.float32, "float64": np.float32},
        "an ImageJ hyperstack",
        "int8 int16 int32 int64 uint32 uint64",
    )
    t, c, z, height, width = image.shape
    if math.prod(image.shape) * dtype.itemsize > IMAGEJ_LIMIT:
        raise LinceiError(
            "an ImageJ hyperstack holds at most 4 GB", image.name, "Save it as .ome.tif or .ome.zarr."
        )
    samples_rgb = image.rgb and dtype == np.uint8
    names = _stated_names(image)
    info = {
        "provenance": None if image.provenance is None else dict(image.provenance),
        **_own_fields(image, dtype),
        "channel_names": list(image.channel_names) or None,
        "channel_colors": list(image.channel_colors) or None,
    }
    own = json.dumps({key: value for key, value in info.items() if value is not None})
    metadata: dict[str, Any] = {"axes": "TZYXS" if samples_rgb else "TZCYX", "Info": f"{INFO_KEY}{own}\n"}
    resolution: dict[str, Any] = {}
    if image.pixel_size_um is not None:
        metadata["unit"] = "um"
        resolution["resolution"] = (1 / image.pixel_size_um, 1 / image.pixel_size_um)
        if image.z_step_um is not None:
            metadata["spacing"] = image.z_step_um
    if image.time_step_s is not None:
        metadata["finterval"] = image.time_step_s
    if not samples_rgb:
        if names:
            metadata["Labels"] = [names[channel] for _ in range(t) for _ in range(z) for channel in range(c)]
        colors = ("#FF0000", "#00FF00", "#0000FF") if image.rgb else image.channel_colors
        if colors:
            metadata["LUTs"] = [_lut(color) for color in colors]
        if c > 1:
            metadata["mode"] = "composite"
        metadata["Ranges"] = tuple(limit for channel in range(c) for limit in _display_range(image, channel))
    planes = _Planes(image, dtype, order="TZC")
    counter = _Counter(t * z * (1 if samples_rgb else c), progress, cancelled)

    def pages() -> Iterator[NDArray[Any]]:
        for number in range(t * z if image.rgb else t * z * c):
            page = planes.rows(number, 0, height)
            if image.rgb and not samples_rgb:
                for channel in range(3):
                    counter.step()
                    yield np.ascontiguousarray(page[..., channel])
            else:
                counter.step()
                yield page

    with tifffile.TiffWriter(path, imagej=True) as writer:
        writer.write(
            pages(),
            shape=(t, z, height, width, 3) if samples_rgb else (t, z, c, height, width),
            dtype=dtype,
            photometric="rgb" if samples_rgb else "minisblack",
            metadata=metadata,
            **resolution,
        )


class _Planes:
    """The planes of an image, in the order in which a file holds them, read a few rows at a time."""

    def __init__(self, image: Image, dtype: np.dtype[Any], order: str = "TCZ") -> None:
        self._image = image
        self._dtype = dtype
        self._order = order.replace("C", "") if image.rgb else order
        self.samples = 3 if image.rgb else 1

    def rows(self, number: int, start: int, stop: int) -> NDArray[Any]:
        """Return rows of a plane, with the axes Y, X, or Y, X, S for RGB."""
        sizes = [self._image.sizes[letter] for letter in self._order]
        region = {
            letter: slice(int(i), int(i) + 1)
            for letter, i in zip(self._order, np.unravel_index(number, sizes), strict=True)
        }
        pixels = self._image.read({**region, "Y": slice(start, stop)}).astype(self._dtype, copy=False)
        if self._image.rgb:
            return np.ascontiguousarray(np.moveaxis(pixels[0, :, 0], 0, -1))
        return np.ascontiguousarray(pixels[0, 0, 0])


class _ScratchPlanes:
    """Planes of a coarser level, kept in a temporary file until it is their turn to be written."""

    def __init__(
        self, folder: Path, pages: int, size: tuple[int, int], samples: int, dtype: np.dtype[Any]
    ) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed in __exit__
        self._samples = samples
        self._array = ScratchArray(self._file, (1, 1, pages, size[0], size[1] * samples), dtype)

    def __enter__(self) -> _ScratchPlanes:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def rows(self, number: int, start: int, stop: int) -> NDArray[Any]:
        """Return rows of a plane, with the axes Y, X, or Y, X, S for RGB."""
        pixels = self._array[0, 0, number, start:stop]
        return pixels if self._samples == 1 else pixels.reshape(stop - start, -1, self._samples)

    def put_halved(self, number: int, start: int, rows: NDArray[Any]) -> None:
        """Average rows of the finer level, which begin at row ``start``, two by two into this one."""
        halved_rows = halved(rows)
        stop = start // 2 + halved_rows.shape[0]
        self._array[0, 0, number, start // 2 : stop] = halved_rows.reshape(halved_rows.shape[0], -1)


class _Counter:
    """Reports each piece written and stops when asked to."""

    def __init__(self, total: int, progress: ProgressCallback | None, cancelled: CancelCheck | None) -> None:
        self._done, self._total = 0, total
        self._progress, self._cancelled = progress, cancelled

    def step(self) -> None:
        stop_if_cancelled(self._cancelled)
        self._done += 1
        report(self._progress, Progress("saving", self._done, self._total))


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Average pixels two by two along the first two axes; an odd last row or column counts twice.

    Parameters
    ----------
    pixels : ndarray
        Shape (Y, X, ...).

    Returns
    -------
    ndarray
        Shape (ceil(Y / 2), ceil(X / 2), ...), of the same data type; integers are rounded.
    """
    odd = [(0, size % 2) for size in pixels.shape[:2]]
    if any(more for _, more in odd):
        pixels = np.pad(pixels, odd + [(0, 0)] * (pixels.ndim - 2), mode="edge")
    # The means of 8- and 16-bit values are exact enough in float32, wider ones need float64.
    wide = np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64
    height, width = pixels.shape[:2]
    blocks = pixels.reshape(height // 2, 2, width // 2, 2, *pixels.shape[2:])
    means: NDArray[Any] = blocks.mean(axis=(1, 3), dtype=wide)
    if pixels.dtype.kind in "ui":
        np.rint(means, out=means)
    return means.astype(pixels.dtype)


def _tiles(
    level: _Planes | _ScratchPlanes,
    pages: int,
    size: tuple[int, int],
    tile: int,
    coarser: _Planes | _ScratchPlanes | None,
    counter: _Counter,
) -> Iterator[NDArray[Any]]:
    """Yield a level's tiles as tifffile takes them, and fill the next coarser level on the way."""
    height, width = size
    for number in range(pages):
        for top in range(0, height, tile):
            rows = level.rows(number, top, min(top + tile, height))
            if isinstance(coarser, _ScratchPlanes):
                coarser.put_halved(number, top, rows)
            # Before the last tile is taken: tifffile does not come back after it.
            counter.step()
            for left in range(0, width, tile):
                yield np.ascontiguousarray(rows[:, left : left + tile])


def _level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of a pyramid's levels, halved until the longer side is 512 or less."""
    sizes = [(height, width)]
    while max(sizes[-1]) > 512:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def _chosen_series(tif: Any, path: Path, scene: int | None) -> Any:
    """Return the series that is the image; raise when pages differ in size and are not scenes."""
    series = list(tif.series)
    if not series:
        raise LinceiError("it holds no image", str(path))
    kind = series[0].kind
    if kind in ("ome", "shaped", "imagej", "mmstack", "scn", "avs"):
        return series[refuse_scene(scene, len(series), path)]
    if kind in ("generic", "uniform"):
        full = [s for s in series if not s.keyframe.is_reduced]
        shapes = {s.keyframe.shape for s in full}
        dtypes = {s.keyframe.dtype for s in full}
        if len(full) > 1:
            values = " and ".join(sorted(" x ".join(map(str, shape)) for shape in shapes))
            what = f"its pages differ in size: {values}" if len(shapes) > 1 else "its pages differ in kind"
            if len(shapes) == 1 and len(dtypes) > 1:
                what = f"its pages differ in data type: {' and '.join(sorted(map(str, dtypes)))}"
            raise LinceiError(what, str(path), "Save the pages as separate files, or with one size and type.")
        return full[0] if full else series[0]
    refuse_scene(scene or 0, 1, path)
    return series[0]


def _series_array(series: Any, path: Path) -> tuple[TiffArray, bool]:
    """Return the lazy array of a series or level, and whether it is RGB."""
    frame = series.keyframe
    if frame.dtype is None or frame.dtype.kind not in "buif":
        raise LinceiError(f"its pixels are {frame.dtype or 'of an unknown type'}, not intensities", str(path))
    samples, rgb = _channels_per_pixel(frame, path)
    inner = len(frame.shape)
    sizes = {"T": 1, "C": max(1, samples), "Z": frame.shaped[1], "Y": frame.shaped[2], "X": frame.shaped[3]}
    lead_axes, lead_shape = series.axes[:-inner], series.shape[:-inner]
    letters = _named_axes(lead_axes, lead_shape, path, taken="C" if samples > 1 else "")
    pages, files = _pages(series, math.prod(lead_shape), path)
    for letter, size in letters:
        if sizes[letter] > 1:
            raise LinceiError(
                "both its samples and its pages are channels", str(path), "Save it as OME-TIFF."
            )
        sizes[letter] = size
    axes = "".join(letter for letter, _ in letters)
    return TiffArray(files, pages, frame, axes, sizes, 0 if "C" in axes else max(1, samples)), rgb


def _channels_per_pixel(frame: Any, path: Path) -> tuple[int, bool]:
    """Return how many samples of a pixel are channels, and whether they are red, green, blue."""
    count = max(frame.shaped[0], frame.shaped[4])
    photometric = int(frame.photometric)
    extra = [int(kind) for kind in frame.extrasamples]
    if photometric in (2, 6):  # RGB, YCbCr
        if count not in (3, 4):
            raise LinceiError(f"its RGB pixels have {count} samples", str(path), "Save it as RGB.")
        if count == 4:
            _warn_alpha(frame, path)
        return 3, True
    if photometric not in (0, 1, 32803, 34892):  # gray, color filter array, linear raw
        raise LinceiError(
            f"its colors are {getattr(frame.photometric, 'name', photometric)}, which is not read",
            str(path),
            "Convert it to RGB or gray first.",
        )
    if count == 2 and extra and extra[0] in (1, 2):
        _warn_alpha(frame, path)
        return 1, False
    return count, False


def _warn_alpha(frame: Any, path: Path) -> None:
    """Warn that transparency is left out, unless the page shows that everything is opaque."""
    if math.prod(frame.shaped) <= 2**26:
        pixels = frame.asarray().reshape(frame.shaped)
        alpha = pixels[-1] if frame.shaped[0] > 1 else pixels[..., -1]
        limits = full_range(frame.dtype)
        if np.all(alpha == (limits[1] if limits else 1.0)):
            return
    warnings.warn(f"{path}: its transparency (alpha channel) is left out.", LinceiWarning, stacklevel=2)


def _named_axes(axes: str, shape: Sequence[int], path: Path, taken: str) -> list[tuple[str, int]]:
    """Return T, C or Z for each axis that runs over pages; pages that do not say so are planes of a stack."""
    named = [(letter, int(size)) for letter, size in zip(axes, shape, strict=True) if size > 1]
    unknown = [letter for letter, _ in named if letter not in "TCZ"]
    if not unknown:
        return named
    free = [letter for letter in "ZTC" if letter not in axes + taken]
    if len(unknown) > 1 or not free:
        sizes = " x ".join(str(size) for _, size in named)
        raise LinceiError(
            f"its pages are arranged {sizes}, and it does not say along which axes",
            str(path),
            "Save it as OME-TIFF or as an ImageJ hyperstack.",
        )
    return [(free[0] if letter in unknown else letter, size) for letter, size in named]


def _pages(series: Any, count: int, path: Path) -> tuple[list[_Page], list[Path]]:
    """Return where the pixels of each page lie, and the files; raise when pixels lie past a file's end."""
    frame = series.keyframe
    if series.dataoffset is not None and frame.is_memmappable:
        nbytes = math.prod(frame.shaped) * frame.dtype.itemsize
        pages = [_Page(0, (series.dataoffset + i * nbytes,), (nbytes,), None) for i in range(count)]
        files = [path]
    else:
        pages, files = [], []
        numbers: dict[Path, int] = {}
        for page in series:
            if page is None:
                raise LinceiError("planes of it are missing", str(path), "Copy all files of the set again.")
            file = Path(page.parent.filehandle.path)
            if file not in numbers:
                numbers[file] = len(files)
                files.append(file)
            jpegtables = page.jpegtables if frame.compression in (6, 7, 34892, 33007) else None
            offsets, counts = tuple(page.dataoffsets), tuple(page.databytecounts)
            pages.append(_Page(numbers[file], offsets, counts, jpegtables))
    if len(pages) != count:
        raise LinceiError(f"it states {count} planes and holds {len(pages)}", str(path), "Copy it again.")
    ends = [0] * len(files)
    for place in pages:
        ends[place.file] = max(
            ends[place.file], *(o + c for o, c in zip(place.offsets, place.counts, strict=False)), 0
        )
    for file, end in zip(files, ends, strict=True):
        if end > file.stat().st_size:
            raise _cut_short(file, f"its pixels end at byte {end}, the file at byte {file.stat().st_size}")
    return pages, files


def _is_contiguous(page: _Page) -> bool:
    """Tell whether the strips of a page follow one another."""
    return all(
        offset + count == after
        for offset, count, after in zip(page.offsets, page.counts, page.offsets[1:], strict=False)
    )


def _cut_short(path: Path, how: str) -> LinceiError:
    return LinceiError(f"the file is cut short: {how}", str(path), "Copy it again from where it was made.")


def _metadata(tif: Any, series: Any, data: TiffArray, rgb: bool, path: Path) -> _Metadata:
    """Return what the file states, by the first of OME-XML, ImageJ and LSM metadata or by its resolution."""
    if tif.is_ome and series.kind == "ome":
        return _ome(tif, series, data, rgb, path)
    if tif.is_imagej:
        return _imagej(tif, data, rgb)
    if tif.is_lsm:
        lsm = tif.lsm_metadata or {}
        return _Metadata(to_um(lsm.get("VoxelSizeX"), "m"), to_um(lsm.get("VoxelSizeZ"), "m"))
    frame = series.keyframe
    return _Metadata(_resolution_um(frame), intensity_range=_bits_range(data, _bits(frame)))


def _bits(frame: Any) -> int:
    bits = frame.bitspersample
    return int(max(bits)) if isinstance(bits, tuple) else int(bits)


def _bits_range(data: TiffArray, bits: int | None) -> tuple[float, float] | None:
    """Return (0, 4095) for 12 significant bits, and so on; None when the data type says as much."""
    if data.dtype.kind != "u" or not bits or bits >= 8 * data.dtype.itemsize:
        return None
    return (0.0, float(2**bits - 1))


def _resolution_um(frame: Any, unit: str | None = None) -> float | None:
    """Return the pixel size by the resolution tags, in um."""
    tag = frame.tags.get(282)
    if tag is None:
        return None
    numerator, denominator = tag.value if isinstance(tag.value, tuple) else (tag.value, 1)
    if not numerator or not denominator:
        return None
    if unit is not None:
        return to_um(denominator / numerator, unit)
    size = to_um(denominator / numerator, {2: "inch", 3: "cm"}.get(int(frame.resolutionunit)))
    return size if size is not None and size < COARSEST_PIXEL_UM else None


def _imagej(tif: Any, data: TiffArray, rgb: bool) -> _Metadata:
    """Return what ImageJ's metadata state, and what lincei added to them."""
    stated = tif.imagej_metadata or {}
    own = _own_info(stated.get("Info", ""))
    unit = str(stated.get("unit", ""))
    pixel_size = _resolution_um(tif.pages.first, unit) if unit else _resolution_um(tif.pages.first)
    spacing = stated.get("spacing")
    interval = stated.get("finterval")
    t, c, z = data.shape[:3]
    rgb = rgb or bool(own.get("rgb"))
    names = tuple(own.get("channel_names", ())) or _labels_of_channels(stated.get("Labels"), t, c, z)
    colors = tuple(own.get("channel_colors", ()))
    luts = stated.get("LUTs")
    if not colors and luts is not None and len(luts) == c and c > 1 and not rgb:
        colors = tuple("#" + "".join(f"{int(value):02X}" for value in lut[:, 255]) for lut in luts)
    limits = own.get("intensity_range")
    return _Metadata(
        pixel_size_um=pixel_size,
        z_step_um=to_um(float(spacing), unit) if isinstance(spacing, (int, float)) else None,
        time_step_s=to_s(float(interval), "s") if isinstance(interval, (int, float)) else None,
        channel_names=names if len(names) == c else (),
        channel_colors=colors if len(colors) == c else (),
        modality=own.get("modality"),
        rgb=rgb,
        intensity_range=None if limits is None else (limits[0], limits[1]),
        provenance=own.get("provenance"),
    )


def _own_info(info: Any) -> dict[str, Any]:
    """Return what `save_imagej` wrote into the Info property; empty when the file is not ours."""
    for line in str(info).splitlines():
        if line.startswith(INFO_KEY):
            with contextlib.suppress(json.JSONDecodeError):
                own = json.loads(line[len(INFO_KEY) :])
                return own if isinstance(own, dict) else {}
    return {}


def _labels_of_channels(labels: Any, t: int, c: int, z: int) -> tuple[str, ...]:
    """Return slice labels as channel names when each channel has one label of its own throughout."""
    if isinstance(labels, str):
        labels = [labels]
    if not labels or c == 1 or len(labels) != t * c * z:
        return ()
    names = tuple(str(label).split("\n")[0] for label in labels[:c])
    consistent = all(str(label).split("\n")[0] == names[i % c] for i, label in enumerate(labels))
    return names if consistent and len(set(names)) == c and all(names) else ()


def _ome(tif: Any, series: Any, data: TiffArray, rgb: bool, path: Path) -> _Metadata:
    """Return what the OME-XML states about the image of a series."""
    root = ET.fromstring(tif.ome_metadata)
    images = [node for node in root.iter() if _tag(node) == "Image"]
    index = next((i for i, s in enumerate(tif.series) if s is series), 0)
    if not index < len(images):
        return _Metadata()
    image = images[index]
    pixels = next(node for node in image if _tag(node) == "Pixels")
    channels = [node for node in pixels if _tag(node) == "Channel"]
    count = data.shape[1]
    size_x = _ome_length(pixels, "X")
    size_y = _ome_length(pixels, "Y")
    if size_x and size_y and abs(size_x / size_y - 1) > 0.01:
        warnings.warn(
            f"{path}: its pixels are {size_x:g} x {size_y:g} um, not square; {size_x:g} um is used.",
            LinceiWarning,
            stacklevel=2,
        )
    names: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    if not rgb and len(channels) == count:
        given = [node.get("Name") for node in channels]
        if any(given):
            names = tuple(name or f"channel {i}" for i, name in enumerate(given))
        numbers = [node.get("Color") for node in channels]
        if all(number is not None for number in numbers):
            colors = tuple(f"#{(int(number or 0) & 0xFFFFFFFF) >> 8:06X}" for number in numbers)
    methods = {CONTRAST_METHODS.get(node.get("ContrastMethod", "")) for node in channels}
    annotations = _own_annotations(root, image)
    own = annotations.get(IMAGE_NAMESPACE, {})
    bits = pixels.get("SignificantBits")
    limits = own.get("intensity_range") or _bits_range(data, int(bits) if bits else None)
    increment = pixels.get("TimeIncrement")
    return _Metadata(
        pixel_size_um=size_x or size_y,
        z_step_um=_ome_length(pixels, "Z"),
        time_step_s=to_s(float(increment), pixels.get("TimeIncrementUnit", "s")) if increment else None,
        channel_names=names,
        channel_colors=colors,
        modality=own.get("modality") or (methods.pop() if len(methods) == 1 else None),
        rgb=bool(own.get("rgb")),
        intensity_range=None if limits is None else (limits[0], limits[1]),
        provenance=annotations.get(PROVENANCE_NAMESPACE),
    )


def _tag(node: ET.Element) -> str:
    """Return an element's name without the schema's address, which changes with the schema's year."""
    return node.tag.rpartition("}")[2]


def _ome_length(pixels: ET.Element, axis: str) -> float | None:
    value = pixels.get(f"PhysicalSize{axis}")
    return to_um(float(value), pixels.get(f"PhysicalSize{axis}Unit", "um")) if value else None


def _own_annotations(root: ET.Element, image: ET.Element) -> dict[str, dict[str, Any]]:
    """Return the map annotations of an image that lincei wrote, by namespace."""
    wanted = {node.get("ID") for node in image if _tag(node) == "AnnotationRef"}
    found: dict[str, dict[str, Any]] = {}
    for node in root.iter():
        namespace = node.get("Namespace", "")
        if _tag(node) != "MapAnnotation" or namespace not in (PROVENANCE_NAMESPACE, IMAGE_NAMESPACE):
            continue
        if node.get("ID") in wanted:
            entries = [entry for entry in node.iter() if _tag(entry) == "M"]
            found[namespace] = {entry.get("K", ""): _from_text(entry.text or "") for entry in entries}
    return found


def _to_text(value: Any) -> str:
    """Return a provenance value as text: plain where it reads back the same, JSON otherwise."""
    if isinstance(value, str) and value and value.isprintable() and value == value.strip():
        with contextlib.suppress(json.JSONDecodeError):
            json.loads(value)
            return json.dumps(value)
        return value
    return json.dumps(value)


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _ome_metadata(image: Image, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the metadata that tifffile turns into OME-XML."""
    metadata: dict[str, Any] = {"axes": "TZYXS" if image.rgb else "TCZYX", "Name": image.name}
    for axis, size in (("X", image.pixel_size_um), ("Y", image.pixel_size_um), ("Z", image.z_step_um)):
        if size is not None:
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    if image.time_step_s is not None:
        metadata["TimeIncrement"] = image.time_step_s
        metadata["TimeIncrementUnit"] = "s"
    channel: dict[str, Any] = {}
    names = _stated_names(image)
    if names and not image.rgb:
        channel["Name"] = list(names)
    if image.channel_colors and not image.rgb:
        # OME states a color as a signed 32-bit RGBA number.
        numbers = [(int(color[1:], 16) << 8) | 0xFF for color in image.channel_colors]
        channel["Color"] = [number - 2**32 if number >= 2**31 else number for number in numbers]
    method = {modality: method for method, modality in CONTRAST_METHODS.items()}.get(image.modality or "")
    if method is not None:
        channel["ContrastMethod"] = [method] * (1 if image.rgb else image.shape[1])
    if channel:
        metadata["Channel"] = channel
    limits = image.intensity_range
    bits = math.log2(limits[1] + 1) if limits and dtype.kind == "u" and limits[0] == 0 else 0.0
    if bits and bits.is_integer():
        metadata["SignificantBits"] = int(bits)
    own = {key: value for key, value in _own_fields(image, dtype).items() if value is not None}
    maps = {
        IMAGE_NAMESPACE: own,
        PROVENANCE_NAMESPACE: dict(image.provenance or {}),
    }
    if image.provenance is not None:
        # Provenance says how an image came about: made again in the same way, it is the same file.
        told = json.dumps([image.name, image.shape, dtype.name, dict(image.provenance)], sort_keys=True)
        metadata["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PROVENANCE_NAMESPACE}:{told}"))
    metadata["MapAnnotation"] = [
        {"Namespace": namespace, "Value": {key: _to_text(value) for key, value in values.items()}}
        for namespace, values in maps.items()
        if values
    ]
    return metadata


def _own_fields(image: Image, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the fields of an image for which common file formats have no place."""
    limits = image.intensity_range
    return {
        "modality": image.modality,
        "rgb": True if image.rgb else None,
        "intensity_range": None if limits is None or limits == full_range(dtype) else list(limits),
    }


def _stated_names(image: Image) -> tuple[str, ...]:
    return image.channel_names if any(image.channel_names) else ()


def _storable(image: Image, converted: Mapping[str, Any], file_format: str, refused: str) -> np.dtype[Any]:
    """Return the data type to write, which holds the image's values unchanged or to float32 precision."""
    name = image.dtype.name
    if name in refused.split():
        raise LinceiError(
            f"{file_format} cannot hold pixels of type {name}",
            image.name,
            "Convert them to uint8, uint16 or float32, or save another format.",
        )
    dtype: np.dtype[Any] = np.dtype(converted.get(name, image.dtype))
    return dtype


def _display_range(image: Image, channel: int) -> tuple[float, float]:
    """Return the lowest and highest value of a channel's middle plane, for ImageJ to show it by."""
    z = image.shape[2] // 2
    plane = image.read({"T": slice(0, 1), "C": slice(channel, channel + 1), "Z": slice(z, z + 1)})
    finite = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high if high > low else low + 1.0)


def _lut(color: str) -> NDArray[np.uint8]:
    """Return ImageJ's lookup table from black to a color, shape (3, 256)."""
    bright = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return np.rint(np.outer(bright, np.arange(256)) / 255).astype(np.uint8)


def _shortened(message: str) -> str:
    """Return what tifffile said without the objects it names."""
    return " ".join(re.sub(r"<[^<>]*>", "", message).split())[:160]


@contextlib.contextmanager
def _tifffile_log() -> Iterator[list[str]]:
    """Collect what tifffile logs in this thread instead of letting it out."""
    messages: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield messages
    finally:
        logger.removeFilter(collect)
