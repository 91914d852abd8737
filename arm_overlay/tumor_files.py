"""Outlining still images in a batch: probabilities, pictures, outlines for QuPath and ImageJ, and a table."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.annotations import TUMOR, write_geojson, write_rois
from arm_overlay.options import TumorOptions
from arm_overlay.tumor_image import (
    TumorOutline,
    found_model,
    open_engine_for,
    refuse_other_images,
    tumor_image,
)
from arm_overlay.tumor_model import PROBABILITY_MAP, NetworkChoice, TumorModel
from lincei.batch import BatchSummary, is_disk_full, readable_error, run_batch
from lincei.errors import LinceiError, LinceiWarning
from lincei.image import Image, make_writable, remove, replacing, save_image
from lincei.pattern import InputGroup, find_inputs, refuse_equal_stems
from lincei.pixel_size import ResampledArray
from lincei.progress import CancelCheck, Progress, ProgressCallback

TABLE_FILE = "tumor.csv"
COLUMNS = (
    "file",
    "percent",
    "regions",
    "largest_diameter_um",
    "field_score",
    "points",
    "answer",
    "pixel_size_um",
    "scale_assumed",
    "model",
    "threshold",
    "note",
)
# Larger ones are written as OME-TIFF, compressed and in tiles; most of a slide is zero.
LARGEST_HYPERSTACK_BYTES = 2**28
# Longest side of the picture.
PICTURE_PX = 4096
_READ_AT_ONCE_PX = 2**22
# Steps of one input's progress, and how many of them are done when it is outlined.
_STEPS, _OUTLINED = 1000, 850


@dataclass(frozen=True)
class OutlinedFile:
    """What became of one input of a batch.

    Parameters
    ----------
    file : str
        As in the table.
    percent : float or None
        Share of the tissue that is tumor.
    regions : int
        How many there are.
    paths : tuple of Path
        What was written for it.
    """

    file: str
    percent: float | None
    regions: int
    paths: tuple[Path, ...]


def tumor_files(
    inputs: Sequence[str],
    out: str | Path,
    options: TumorOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> BatchSummary[OutlinedFile]:
    """Outline tumor in every input and write the results into a folder.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or patterns (see `lincei.pattern`).
    out : str or Path
        Folder of the results: ``<stem>.probability.tif`` (float32), ``<stem>.outline.png``,
        ``<stem>.geojson`` (QuPath), ``<stem>.roi.zip`` (ImageJ; where there is something to outline) and
        ``tumor.csv``, a row for each input. A model that answers for a field as a whole writes its answer
        into the table and onto the picture alone.
    options : TumorOptions
        The options.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    BatchSummary
        What was outlined, and what failed. Each file is complete or not there, also when the user stopped the
        batch; the table then holds what was outlined by then. When nothing was outlined and not several
        inputs failed, the table of an earlier run stays as it is.

    Raises
    ------
    LinceiError
        Before any work: no input, two inputs with one stem, an input that a result
        would replace, no such model, no engine that works, a folder that cannot be made or written.
    """
    groups = find_inputs(inputs)
    refuse_equal_stems(groups)
    folder = Path(out).expanduser()
    _refuse_clashes(groups, folder)
    model = found_model(options.model)
    open_engine_for(NetworkChoice(model, model.pixel_size_um, model.threshold), options)
    was_there = folder.exists()
    make_writable(folder)
    warned: set[str] = set()

    def warn(text: str) -> None:
        if text not in warned:  # what is true of all inputs is said once
            warned.add(text)
            warnings.warn(text, LinceiWarning, stacklevel=3)

    rows: list[dict[str, Any]] = []
    done: list[OutlinedFile] = []

    def job(
        group: InputGroup, /, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
    ) -> OutlinedFile:
        try:
            image = group.open(pixel_size_um=options.pixel_size_um)
            refuse_other_images(image)
            outline = tumor_image(
                image,
                model,
                options,
                progress=_part(progress, 0, _OUTLINED),
                cancelled=cancelled,
                warn=warn,
            )
            saving = _part(progress, _OUTLINED, _STEPS)
            paths = _write(outline, image, model, folder, group.stem, saving, cancelled)
        except Exception as error:
            readable = readable_error(error, _name(group))
            if readable is not None and not is_disk_full(error):
                rows.append({"file": _name(group), "note": str(readable)})
                if done or len(rows) > 1:
                    _write_table(folder, rows)
            raise
        rows.append(_row(_name(group), outline))
        _write_table(folder, rows)
        done.append(OutlinedFile(_name(group), outline.percent, len(outline.regions), paths))
        return done[-1]

    try:
        return run_batch(groups, job, describe=_name, progress=progress, cancelled=cancelled)
    finally:
        if not was_there:
            with contextlib.suppress(OSError):  # only an empty one can be removed
                folder.rmdir()


def files_of(out: str | Path, summary: BatchSummary[OutlinedFile]) -> list[Path]:
    """Return what a batch wrote into a folder: the table, and the files of each input.

    Parameters
    ----------
    out : str or Path
        The folder.
    summary : BatchSummary
        From `tumor_files`.
    """
    # That the disk is full is no fault of an input, and is not in the table.
    failed = len(summary.failures) - (summary.stopped_by == "full disk")
    table = [Path(out).expanduser() / TABLE_FILE] if summary.done or failed > 1 else []
    return [*table, *(path for item in summary.done for path in item.paths)]


def picture_of(image: Image) -> NDArray[np.uint8]:
    """Return a color image as it is shown: 8 bits, and no side longer than 4096 pixels.

    Parameters
    ----------
    image : Image
        Red, green and blue; of a pyramid the level is read that suffices.

    Returns
    -------
    ndarray
        Shape (Y, X, 3), uint8.
    """
    assert image.intensity_range is not None  # images without are refused before
    white = image.intensity_range[1]
    for level in image.levels:
        if max(level.shape[3:]) >= PICTURE_PX:
            image = level
    height, width = image.shape[3:]
    factor = min(1.0, PICTURE_PX / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    shown = ResampledArray(image.data, factor, size)
    picture = np.empty((*size, 3), np.uint8)
    rows = max(1, int(_READ_AT_ONCE_PX * factor / width))
    for first in range(0, size[0], rows):
        colors = shown[0, :, 0, first : first + rows]
        picture[first : first + rows] = np.moveaxis(np.clip(np.rint(colors * (255 / white)), 0, 255), 0, -1)
    return picture


def _name(group: InputGroup) -> str:
    """Return what an input is called in the table: stems differ, so that names do."""
    return Path(group.source or group.paths[0]).name


def _results(stem: str, folder: Path) -> dict[str, Path]:
    """Return the files of an input."""
    suffixes = {
        "probability": ".probability.tif",
        "picture": ".outline.png",
        "geojson": ".geojson",
        "rois": ".roi.zip",
    }
    return {kind: folder / f"{stem}{suffix}" for kind, suffix in suffixes.items()}


def _refuse_clashes(groups: Sequence[InputGroup], folder: Path) -> None:
    """Refuse results that would replace an input."""
    read = {str(path.resolve()).casefold(): path for group in groups for path in group.paths}
    for group in groups:
        for path in _results(group.stem, folder).values():
            clash = read.get(str(path.resolve()).casefold())
            if clash is not None:
                raise LinceiError(
                    f"it would be replaced by the result for {group.stem!r}",
                    str(clash),
                    "Choose another folder with --out, or give images without the results of an earlier run.",
                )


def _write(
    outline: TumorOutline,
    image: Image,
    model: TumorModel,
    folder: Path,
    stem: str,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> tuple[Path, ...]:
    """Write the files of one input."""
    paths = _results(stem, folder)
    written = []
    if outline.probability is not None:
        written.append(_save_probability(outline.probability, paths["probability"], progress, cancelled))
        name = TUMOR if outline.points is None else model.point_name
        written.append(
            write_geojson(
                paths["geojson"],
                outline.regions,
                points=outline.points,
                name=name,
                pixel_size_um=outline.pixel_size_um,
            )
        )
        if outline.regions or (outline.points is not None and len(outline.points)):
            written.append(write_rois(paths["rois"], outline.regions, points=outline.points, name=name))
        else:  # ImageJ opens no empty set, and an older one would be wrong
            remove(paths["rois"])
    written.append(_write_picture(outline, image, paths["picture"]))
    return tuple(written)


def _save_probability(
    probability: Image, path: Path, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> Path:
    """Write probabilities: as ImageJ opens them where they are small, compressed where they are large."""
    from lincei.formats import tiff

    size_bytes = probability.shape[3] * probability.shape[4] * probability.dtype.itemsize
    if size_bytes <= LARGEST_HYPERSTACK_BYTES:
        return save_image(probability, path, progress=progress, cancelled=cancelled)
    with replacing(path) as temporary:
        tiff.save_ome(probability, temporary, pyramid=None, progress=progress, cancelled=cancelled)
    return path


def _write_picture(outline: TumorOutline, image: Image, path: Path) -> Path:
    """Write the image with what was found drawn over it."""
    import imageio.v3

    from arm_overlay.rendering import Style, drawn_over

    drawn = drawn_over(picture_of(image), outline.overlay(), Style(research_note=True))
    encoded = imageio.v3.imwrite("<bytes>", drawn, extension=".png")
    with replacing(path) as temporary:
        temporary.write_bytes(encoded)
    return path


def _row(name: str, outline: TumorOutline) -> dict[str, Any]:
    """Return the row of an input; nothing stands where a model does not tell."""
    return {
        "file": name,
        "percent": outline.percent,
        "regions": len(outline.regions) if outline.kind == PROBABILITY_MAP else None,
        "largest_diameter_um": outline.largest_diameter_um,
        "field_score": outline.field_score,
        "points": None if outline.points is None else len(outline.points),
        "answer": "; ".join(outline.texts),
        "pixel_size_um": outline.pixel_size_um,
        "scale_assumed": "yes" if outline.scale_assumed else "no",
        "model": outline.model,
        "threshold": outline.threshold,
        "note": " ".join(outline.warnings),
    }


def _write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table anew, as a whole: a batch of slides takes hours, and what is done is to be seen."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    for row in rows:
        table.writerow({key: _cell(value) for key, value in row.items()})
    with replacing(folder / TABLE_FILE) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", errors="backslashreplace"))


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def _part(progress: ProgressCallback | None, first: int, last: int) -> ProgressCallback | None:
    """Place the progress of one part of the work within an input's."""
    if progress is None:
        return None
    heard: Callable[[Progress], None] = progress

    def callback(update: Progress) -> None:
        share = min(update.done / update.total, 1.0) if update.total > 0 else 0.0
        heard(dataclasses.replace(update, done=first + int(share * (last - first)), total=_STEPS))

    return callback
