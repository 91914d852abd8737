"""Image: pixels with axes, pixel size, z step, channel names and modality; open, read a region, save."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import math
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.formats.lazy import ArrayLike5D, JoinedArray, LazyArray, ReorderedArray
from lincei.progress import CancelCheck, ProgressCallback

AXES = "TCZYX"
MODALITIES = ("phase contrast", "bright field", "DIC", "fluorescence", "H&E")
Region = Mapping[str, slice]

TIFF_SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.btf", ".ome.tf8", ".ome.tf2", ".tif", ".tiff", ".btf", ".tf8")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
ZARR_SUFFIXES = (".ome.zarr", ".zarr", ".ome.zarr.zip", ".zarr.zip", ".ozx")
MAKERS_SUFFIXES = (".nd2", ".czi", ".lif")
MAKERS_MAGIC = (b"\xda\xce\xbe\x0a", b"ZISRAWFILE", b"\x70\0\0\0")
SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms")
SUFFIXES = (*TIFF_SUFFIXES, *PICTURE_SUFFIXES, *ZARR_SUFFIXES, ".npy", *MAKERS_SUFFIXES, *SLIDE_SUFFIXES)
READABLE = (
    "TIFF, ImageJ hyperstack, OME-TIFF, PNG, JPEG, OME-Zarr, NumPy .npy, Nikon nd2, Zeiss czi, Leica lif, "
    "and whole slides (svs, ndpi, mrxs, scn, bif, vms)"
)


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels and what is known about them.

    Parameters
    ----------
    data : array-like
        Shape (T, C, Z, Y, X): anything with ``shape``, ``dtype`` and NumPy basic slicing. Lazy is welcome;
        only `read` looks into it.
    name : str
        Stem that outputs are named after.
    source : str
        Where the image came from, for messages and provenance.
    pixel_size_um : float, optional
        Size of a pixel along y and x, in um.
    z_step_um : float, optional
        Distance between z planes, in um.
    time_step_s : float, optional
        Time between time points, in s.
    channel_names : tuple of str
        One for each channel, or empty when they are not known.
    channel_colors : tuple of str
        ``"#RRGGBB"`` for each channel, or empty.
    modality : str, optional
        One of `MODALITIES`.
    rgb : bool
        True when the three channels are red, green and blue.
    intensity_range : tuple of float, optional
        Lowest and highest value that the detector or the format can hold. Found from the data type when
        it is not given: (0, 255) for uint8; ``None`` for floating point, where the type tells nothing.
    levels : tuple of Image
        Coarser levels of a pyramid, the finest first, this image excluded.
    provenance : mapping, optional
        What lincei wrote about how it made the image; JSON-able.

    Raises
    ------
    LinceiError
        When the fields contradict one another or the data.
    """

    data: ArrayLike5D
    name: str = "image"
    source: str = ""
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    time_step_s: float | None = None
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str, ...] = ()
    modality: str | None = None
    rgb: bool = False
    intensity_range: tuple[float, float] | None = None
    levels: tuple[Image, ...] = ()
    provenance: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        where = self.source or self.name
        object.__setattr__(self, "channel_names", tuple(self.channel_names))
        object.__setattr__(self, "channel_colors", tuple(self.channel_colors))
        shape = tuple(self.data.shape)
        if len(shape) != 5:
            raise LinceiError(
                f"the data have {len(shape)} axes, not the five of an image (T, C, Z, Y, X)",
                where,
                "Use Image.from_array and name the axes.",
            )
        if not all(shape):
            sizes = " x ".join(map(str, shape))
            raise LinceiError(f"the image is empty: its size along T, C, Z, Y, X is {sizes}", where)
        if np.dtype(self.data.dtype).kind not in "buif":
            raise LinceiError(f"pixels of type {self.data.dtype} are not intensities", where)
        channels = shape[1]
        if self.channel_names and len(self.channel_names) != channels:
            raise LinceiError(
                f"there are {len(self.channel_names)} channel names for {channels} channel(s)", where
            )
        if self.channel_colors and len(self.channel_colors) != channels:
            raise LinceiError(
                f"there are {len(self.channel_colors)} channel colors for {channels} channel(s)", where
            )
        for color in self.channel_colors:
            if not re.fullmatch(r"#[0-9A-Fa-f]{6}", color):
                raise LinceiError(f"the color {color!r} is not of the form #RRGGBB", where)
        if self.rgb and channels != 3:
            raise LinceiError(f"an RGB image has 3 channels, not {channels}", where)
        for field in ("pixel_size_um", "z_step_um", "time_step_s"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise LinceiError(f"{field} is {value:g} and must be above 0", where)
        if self.modality is not None and self.modality not in MODALITIES:
            raise LinceiError(
                f"the modality {self.modality!r} is not known", where, f"There are: {', '.join(MODALITIES)}."
            )
        if self.intensity_range is None:
            object.__setattr__(self, "intensity_range", full_range(self.data.dtype))
        elif not self.intensity_range[0] < self.intensity_range[1]:
            raise LinceiError(f"the intensity range {self.intensity_range} is empty", where)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Sizes along T, C, Z, Y, X."""
        t, c, z, y, x = self.data.shape
        return (t, c, z, y, x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels, in native byte order."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype).newbyteorder("=")
        return dtype

    @property
    def sizes(self) -> dict[str, int]:
        """Size along each axis, by its letter."""
        return dict(zip(AXES, self.shape, strict=True))

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """Read pixels.

        Parameters
        ----------
        region : mapping of str to slice, optional
            Axis letter to the slice wanted (step 1); axes left out are read whole.

        Returns
        -------
        ndarray
            Five axes T, C, Z, Y, X, the image's data type in native byte order. May share memory with
            ``data`` when that is an ndarray: copy before writing to it.

        Raises
        ------
        LinceiError
            When the file turns out to be damaged, gone or changed.
        UsageError
            When the region names an unknown axis or has a step.
        """
        region = region or {}
        for axis, part in region.items():
            if axis not in AXES or len(axis) != 1:
                raise UsageError(f"an image has no axis {axis!r}", self.name, "There are: T, C, Z, Y, X.")
            if not isinstance(part, slice) or part.step not in (None, 1):
                raise UsageError(f"the region along {axis} is not a slice of step 1", self.name)
        key = tuple(region.get(axis, slice(None)) for axis in AXES)
        array = np.asarray(self.data[key])
        return array if array.dtype.isnative else array.astype(self.dtype)

    def with_(self, **changes: Any) -> Image:
        """Return a copy with some fields changed.

        New ``data`` drop the levels of the old, and the intensity range too when the type differs, unless
        these are given as well.
        """
        if "data" in changes:
            changes.setdefault("levels", ())
            if np.dtype(changes["data"].dtype) != self.dtype:
                changes.setdefault("intensity_range", None)
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_array(cls, array: ArrayLike5D, axes: str | None = None, **fields: Any) -> Self:
        """Make an image from an array.

        Parameters
        ----------
        array : array-like
            An ndarray, or anything with shape, dtype and NumPy basic slicing.
        axes : str, optional
            One letter for each axis of ``array``, of T, C, Z, Y, X, and S for the samples of an RGB
            image (``"YXS"``). Needed unless there are two axes (YX) or five (TCZYX).
        **fields
            The other fields of `Image`.

        Raises
        ------
        LinceiError
            When the axes are not stated, or do not fit the array.
        """
        where = str(fields.get("source") or fields.get("name", ""))
        shape = tuple(array.shape)
        if axes is None:
            axes = {2: "YX", 5: AXES}.get(len(shape))
            if axes is None:
                raise LinceiError(
                    f"an array with {len(shape)} axes does not say which they are",
                    where,
                    'Name them, as in axes="ZYX".' if len(shape) > 1 else "An image has at least y and x.",
                )
        axes = axes.upper()
        if len(axes) != len(shape) or len(set(axes)) != len(axes) or not set(axes) <= set("TCZYXS"):
            raise LinceiError(
                f"the axes {axes!r} do not fit an array with {len(shape)} axes",
                where,
                "Name each axis once, by a letter of TCZYX, or S for red, green, blue.",
            )
        if not {"Y", "X"} <= set(axes):
            raise LinceiError(f"the axes {axes!r} lack Y or X", where)
        if "S" in axes:
            sizes = dict(zip(axes, shape, strict=True))
            if sizes["S"] != 3 or "C" in axes:
                raise LinceiError(
                    f"an RGB image has 3 samples and no other channels, not {sizes}",
                    where,
                    "Use axis C for channels that are not red, green, blue.",
                )
            fields.setdefault("rgb", True)
            axes = axes.replace("S", "C")
        if axes != AXES:
            in_memory = isinstance(array, np.ndarray)
            array = _in_order(np.asarray(array), axes) if in_memory else ReorderedArray(array, axes)
        return cls(array, **fields)


def full_range(dtype: Any) -> tuple[float, float] | None:
    """Return the lowest and highest value of an integer type, and None for floating point."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return (0.0, 1.0)
    if dtype.kind not in "ui":
        return None
    info = np.iinfo(dtype)
    return (float(info.min), float(info.max))


def open_image(
    source: str | Path,
    *,
    level: int = 0,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    modality: str | None = None,
    scene: int | None = None,
) -> Image:
    """Open an image; its pixels are read when they are asked for.

    The format is known by the file's first bytes where that is cheap, by its suffix otherwise.

    Parameters
    ----------
    source : str or Path
        A file, or the folder of an OME-Zarr.
    level : int
        Level of a pyramid, 0 being the finest.
    pixel_size_um, z_step_um : float, optional
        In um; go before what the file states (for the finest level).
    modality : str, optional
        One of `MODALITIES`; goes before what the file states.
    scene : int, optional
        Which image of a file that holds several; the first, with a warning, when it is not given.

    Returns
    -------
    Image

    Raises
    ------
    LinceiError
        When there is no such file, it is empty, cut short or damaged, or of a format that is not read.
    """
    path = Path(source).expanduser()
    with readable_errors(path):
        image = _opener(path)(path, scene)
    changes = {"pixel_size_um": pixel_size_um, "z_step_um": z_step_um, "modality": modality}
    changes = {key: value for key, value in changes.items() if value is not None}
    if changes:
        image = _with_stated(image, changes)
    if level:
        if not 0 < level <= len(image.levels):
            raise LinceiError(
                f"there is no level {level}: the image has {len(image.levels) + 1} level(s)",
                str(path),
                "Level 0 is the finest.",
            )
        chosen = image.levels[level - 1]
        image = chosen.with_(levels=image.levels[level:])
    return image


def open_stack(paths: Sequence[str | Path], axis: str = "Z", name: str | None = None) -> Image:
    """Join files into one image along an axis; the pixels are read when they are asked for.

    Parameters
    ----------
    paths : sequence of str or Path
        The files in their order; each may hold several planes.
    axis : str
        The axis along which they are joined: T, C, Z, Y or X.
    name : str, optional
        Name of the image; the stem of the first file when not given.

    Returns
    -------
    Image
        With the metadata of the first file.

    Raises
    ------
    LinceiError
        When a file cannot be opened, or its size or data type differs from the first one's; it is named.
    """
    if axis not in AXES or len(axis) != 1:
        raise UsageError(f"files cannot be joined along {axis!r}", "", "Choose from: T, C, Z, Y, X.")
    if not paths:
        raise UsageError("there are no files to join")
    return join_images([open_image(path) for path in paths], axis, name)


def join_images(images: Sequence[Image], axis: str, name: str | None = None) -> Image:
    """Join images along an axis, as `open_stack` does with files.

    Parameters
    ----------
    images : sequence of Image
        At least one, in their order.
    axis : str
        T, C, Z, Y or X.
    name : str, optional
        Name of the joined image; the first one's when not given.

    Raises
    ------
    LinceiError
        When sizes, data types or kinds differ; it names the image.
    """
    first, position = images[0], AXES.index(axis)
    for image in images[1:]:
        for letter, size, expected in zip(AXES, image.shape, first.shape, strict=True):
            if letter != axis and size != expected:
                raise LinceiError(
                    f"its size along {letter} is {size}, and {expected} in {Path(first.source).name}",
                    image.source or image.name,
                    "Files of one image have one size.",
                )
        if image.dtype != first.dtype or image.rgb != first.rgb:
            kinds = [f"{i.dtype}{' RGB' if i.rgb else ''}" for i in (image, first)]
            raise LinceiError(
                f"its pixels are {kinds[0]}, and {kinds[1]} in {Path(first.source).name}",
                image.source or image.name,
                "Files of one image have one data type.",
            )
    if axis == "C" and first.rgb:
        raise LinceiError(
            "an RGB file cannot be one channel of an image",
            first.source or first.name,
            "Save the channel as a gray image.",
        )
    names, colors = first.channel_names, first.channel_colors
    if axis == "C" and len(images) > 1:
        all_named = all(image.channel_names for image in images)
        all_colored = all(image.channel_colors for image in images)
        names = tuple(name for image in images for name in image.channel_names) if all_named else ()
        colors = tuple(color for image in images for color in image.channel_colors) if all_colored else ()
    data = first.data if len(images) == 1 else JoinedArray([image.data for image in images], position)
    return first.with_(
        data=data,
        name=first.name if name is None else name,
        channel_names=names,
        channel_colors=colors,
        intensity_range=first.intensity_range,
    )


def save_image(
    image: Image,
    path: str | Path,
    *,
    pyramid: bool | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Path:
    """Save an image with its metadata and provenance, piece by piece, so that it may exceed memory.

    It is written under a temporary name in the same folder and put in place when it is complete; an
    older file of that name is replaced.

    Parameters
    ----------
    image : Image
        What to save.
    path : str or Path
        The suffix chooses the format: ``.ome.tif`` or ``.ome.tiff`` (OME-TIFF, tiled, zlib), ``.tif`` or
        ``.tiff`` (ImageJ hyperstack), ``.ome.zarr`` (OME-Zarr 0.5 with a pyramid).
    pyramid : bool, optional
        Whether an OME-TIFF gets coarser levels; by default when it is wider or higher than 4096 pixels.
    progress, cancelled : callable, optional
        Hear of each piece written, and may stop the work.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    LinceiError
        When the folder cannot be written, the disk is full, the format cannot hold the image, or the
        image would replace the file that it is read from.
    CancelledError
        When ``cancelled`` said so.
    """
    path = Path(path).expanduser()
    lower = path.name.lower()
    refuse_own_source(image, path)
    if lower.endswith(ZARR_SUFFIXES[:2]):
        from lincei.formats import ome_zarr

        return ome_zarr.save(image, path, progress=progress, cancelled=cancelled)
    if not lower.endswith((".tif", ".tiff")):
        raise UsageError(
            f"images are not saved as {path.suffix or 'a file without suffix'}",
            str(path),
            "Use .ome.tif (OME-TIFF), .tif (ImageJ hyperstack) or .ome.zarr (OME-Zarr).",
        )
    from lincei.formats import tiff

    with replacing(path) as temporary:
        if lower.endswith((".ome.tif", ".ome.tiff")):
            tiff.save_ome(image, temporary, pyramid=pyramid, progress=progress, cancelled=cancelled)
        else:
            tiff.save_imagej(image, temporary, progress=progress, cancelled=cancelled)
    return path


def stem(path: str | Path) -> str:
    """Return a file's name without its image extensions, keeping dots that are not extensions.

    Examples
    --------
    >>> stem("a.ome.tif"), stem("plate.1_a1.tif"), stem("slide.ome.zarr")
    ('a', 'plate.1_a1', 'slide')
    """
    name = Path(path).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and put it in place when the block ends well.

    Parameters
    ----------
    path : Path
        Final name of a file or folder; what is there is replaced.

    Yields
    ------
    Path
        Where to write. It is removed when the block raises.

    Raises
    ------
    LinceiError
        When the folder cannot be written or the disk is full.
    """
    with writable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not is_zarr(path) and any(path.iterdir()):
            raise LinceiError("is a folder that holds something else", str(path), "Choose another name.")
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            yield temporary
            put_in_place(temporary, path)
        except BaseException:
            remove(temporary)
            raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Give the finished file or folder ``temporary`` its final name, replacing what is there."""
    if not path.is_dir():
        temporary.replace(path)
        return
    # A folder cannot be replaced in one step: the old one steps aside and is removed last.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    path.replace(aside)
    try:
        temporary.replace(path)
    except OSError:
        aside.replace(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writable_errors(path: Path) -> Iterator[None]:
    """Turn what the system says when ``path`` cannot be written into a sentence."""
    try:
        yield
    except OSError as error:
        raise _write_error(error, path) from error


def make_writable(folder: Path) -> None:
    """Make a folder for results and write into it once, so that a job fails at its start and not at its end.

    Raises
    ------
    LinceiError
        When it cannot be made or written.
    """
    with writable_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn what a reader raises about a bad file into a sentence; let our own errors pass."""
    try:
        yield
    except (LinceiError, MemoryError):
        raise
    except PermissionError as error:
        raise LinceiError("there is no permission to read it", str(path), "Ask who owns it.") from error
    except FileNotFoundError as error:
        raise LinceiError("the file is gone", str(path), "Check that its disk is connected.") from error
    except ImportError as error:
        raise LinceiError(
            f"a Python package that reads this format is missing ({error})",
            str(path),
            "Install it with: pip install 'lincei[formats]'.",
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LinceiError(
            f"it cannot be read, it is damaged or of an unknown variety ({reason})",
            str(path),
            "Copy it again from where it was made, or save it as OME-TIFF.",
        ) from error


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group, by the files that each Zarr group holds."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def _with_stated(image: Image, changes: dict[str, Any]) -> Image:
    """Apply what the user stated about the finest level to all levels."""
    levels = []
    for coarser in image.levels:
        stated = dict(changes)
        if "pixel_size_um" in stated:
            stated["pixel_size_um"] *= image.shape[4] / coarser.shape[4]
        levels.append(coarser.with_(**stated))
    return image.with_(levels=tuple(levels), **changes)


def _opener(path: Path) -> Callable[[Path, int | None], Image]:
    """Return the function that opens ``path``; raise a sentence when there is none."""
    lower = path.name.lower()
    if not path.exists():
        raise _missing(path)
    if path.is_dir():
        if is_zarr(path):
            from lincei.formats import ome_zarr

            return ome_zarr.open_ome_zarr
        if lower.endswith(".zarr"):
            raise LinceiError("the folder is no OME-Zarr: its metadata are missing", str(path))
        raise LinceiError(
            "is a folder, and one image was asked for",
            str(path),
            "Name a file, or a pattern for a stack.",
        )
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise LinceiError("the file is empty (0 bytes)", str(path), "Copy it again from where it was made.")
    if lower.endswith(SLIDE_SUFFIXES):
        from lincei.formats import slides

        return slides.open_slide
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from lincei.formats import tiff

        return tiff.open_tiff
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        from lincei.formats import pictures

        return pictures.open_picture
    if head.startswith(b"\x93NUMPY"):
        return _open_npy
    if lower.endswith(MAKERS_SUFFIXES) or head.startswith(MAKERS_MAGIC):
        from lincei.formats import makers

        return makers.open_makers
    if head.startswith(b"PK\x03\x04") and lower.endswith((".zip", ".ozx")):
        from lincei.formats import ome_zarr

        return ome_zarr.open_ome_zarr
    if lower.endswith(SUFFIXES):
        kind = "text" if _is_text(head) else "something else"
        raise LinceiError(
            f"the file is named {path.suffix} but holds {kind}",
            str(path),
            "Copy it again from where it was made, or save it as TIFF.",
        )
    raise LinceiError("this file's format is not read", str(path), f"These are: {READABLE}.")


def _open_npy(path: Path, scene: int | None) -> Image:
    """Open a NumPy file of two axes (YX) or five (TCZYX), memory-mapped at each read."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    shape, dtype = array.shape, array.dtype
    del array
    if len(shape) not in (2, 5):
        raise LinceiError(
            f"its array has {len(shape)} axes and does not say which they are",
            str(path),
            "An .npy file needs two axes (YX) or five (TCZYX); in Python, Image.from_array takes any.",
        )
    refuse_scene(scene, 1, path)
    return Image(_NpyArray(path, shape, dtype), name=stem(path), source=str(path))


class _NpyArray(LazyArray):
    """The array of an .npy file, which is not kept open."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__((1,) * (5 - len(shape)) + shape, dtype)
        self._path = path

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        with readable_errors(self._path):
            array = np.load(self._path, mmap_mode="r", allow_pickle=False)
            return np.array(array.reshape(self.shape)[box], self.dtype)


def refuse_scene(scene: int | None, count: int, path: Path) -> int:
    """Return the scene to open among ``count``; warn when none was chosen and there are several."""
    if scene is None:
        if count > 1:
            warnings.warn(
                f"{path} holds {count} images; the first is opened, ask for others with scene=1 and so on.",
                LinceiWarning,
                stacklevel=4,
            )
        return 0
    if not 0 <= scene < count:
        raise LinceiError(f"there is no scene {scene}: the file holds {count} image(s)", str(path))
    return scene


def _in_order(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return a view of ``array`` with the axes TCZYX."""
    present = [letter for letter in AXES if letter in axes]
    array = array.transpose([axes.index(letter) for letter in present])
    sizes = dict(zip(present, array.shape, strict=True))
    return array.reshape([sizes.get(letter, 1) for letter in AXES])


def _missing(path: Path) -> LinceiError:
    """Return the error for a file that is not there, with the nearest name that is."""
    if any(sign in path.name for sign in "*?{"):
        return LinceiError("is a pattern, and one image was asked for", str(path), "Name a file.")
    if not path.parent.is_dir():
        return LinceiError("there is no such folder", str(path.parent), "Check the path.")
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return LinceiError(
        "there is no such file", str(path), f"Did you mean {near[0]}?" if near else "Check the path."
    )


def refuse_own_source(image: Image, path: Path) -> None:
    """Raise when saving would destroy what a lazy image is still read from."""
    if image.source and path.exists() and Path(image.source).exists() and path.samefile(image.source):
        raise LinceiError(
            "would be replaced by what is made from it", str(path), "Choose another output folder or name."
        )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return text.isprintable() or all(sign.isprintable() or sign.isspace() for sign in text)


def _write_error(error: OSError, path: Path) -> LinceiError:
    """Return the sentence for an OSError met while writing ``path``."""
    where, elsewhere = str(path), "Choose another output folder."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LinceiError("no space is left on the disk", where, f"Free some. {elsewhere}")
    if error.errno == errno.EFBIG:
        return LinceiError("the disk cannot hold a file this large", where, elsewhere)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LinceiError("there is no permission to write there", where, elsewhere)
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return LinceiError("a file or folder is in the way", where, elsewhere)
    return LinceiError(f"it cannot be written ({error.strerror or error})", where, "Check the disk.")
