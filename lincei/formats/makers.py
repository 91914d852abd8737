"""Makers' formats (nd2, czi, lif) through bioio, whose readers the extra ``formats`` installs."""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError
from lincei.formats.lazy import ReorderedArray
from lincei.image import Image, refuse_scene, stem

# Their readers need not bear several threads, and what they warn of is kept back for the whole process.
_READING = threading.Lock()
READERS = {".nd2": "bioio_nd2", ".czi": "bioio_czi", ".lif": "bioio_lif"}


def open_makers(path: Path, scene: int | None) -> Image:
    """Open an nd2, czi or lif file; see `lincei.image.open_image`."""
    module = READERS.get(path.suffix.lower(), "")
    if not module:
        raise LinceiError(
            f"it holds Nikon, Zeiss or Leica data but is named {path.suffix or 'without suffix'}",
            str(path),
            "Give it back its suffix: .nd2, .czi or .lif.",
        )
    try:
        reader_class = importlib.import_module(module).Reader
    except ImportError as error:
        raise LinceiError(
            f"{path.suffix} files need the package {module.replace('_', '-')}, which is not installed",
            str(path),
            "Install it with: pip install 'lincei[formats]'.",
        ) from error
    with _quiet():
        reader = reader_class(path)
        scenes = list(reader.scenes)
    number = refuse_scene(scene, len(scenes), path)
    with _quiet():
        reader.set_scene(scenes[number])
        return _image(reader, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the readers warn of: their own inner workings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _image(reader: Any, path: Path) -> Image:
    """Return the reader's current scene."""
    array = reader.dask_data
    axes = "".join(reader.dims.order)
    rgb = False
    sizes = dict(zip(axes, array.shape, strict=True))
    if "S" in sizes:
        if sizes["S"] != 3 or sizes.get("C", 1) != 1:
            raise LinceiError(f"its RGB pixels have unusual axes {sizes}", str(path), "Save it as OME-TIFF.")
        rgb = True
    drop = tuple(0 if letter not in "TCZYXS" or (rgb and letter == "C") else slice(None) for letter in axes)
    left = ", ".join(letter for letter in axes if letter not in "TCZYXS" and sizes[letter] > 1)
    if left:
        raise LinceiError(f"it has axes that are not read: {left}", str(path), "Save it as OME-TIFF.")
    array = array[drop]
    kept = "".join(
        letter for letter, part in zip(axes, drop, strict=True) if isinstance(part, slice)
    ).replace("S", "C")
    physical = reader.physical_pixel_sizes
    names = tuple(str(name) for name in reader.channel_names or ())
    interval: Any = getattr(reader, "time_interval", None)
    data = ReorderedArray(array, kept, _computed)
    return Image(
        data,
        name=stem(path),
        source=str(path),
        pixel_size_um=_positive(physical.X) or _positive(physical.Y),
        z_step_um=_positive(physical.Z),
        time_step_s=_positive(interval.total_seconds() if hasattr(interval, "total_seconds") else interval),
        channel_names=names if not rgb and len(names) == data.shape[1] else (),
        rgb=rgb,
    )


def _computed(array: Any) -> NDArray[Any]:
    """Read what a slice of the reader's array stands for, in this thread."""
    with _READING, _quiet():
        return np.asarray(array.compute(scheduler="synchronous"))


def _positive(value: float | None) -> float | None:
    """Return a size in the unit that bioio uses (um, s), and None where there is none."""
    return float(value) if value is not None and 0 < value < float("inf") else None
