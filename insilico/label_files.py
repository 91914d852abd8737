"""Labeling files in a batch: one OME-TIFF (or OME-Zarr) of means per input, other statistics beside it."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insilico.labeling import label_image, models_for, open_engines
from insilico.options import LabelOptions
from lincei.batch import BatchSummary, run_batch
from lincei.errors import LinceiError, LinceiWarning
from lincei.image import ZARR_SUFFIXES, Image, is_zarr, save_image, writable_errors
from lincei.model import Model
from lincei.pattern import InputGroup, find_inputs, refuse_equal_stems
from lincei.progress import CancelCheck, Progress, ProgressCallback

if TYPE_CHECKING:
    from lincei.formats.ome_zarr import OmeZarrWriter

# Steps of one input's progress, and how many of them are done when its pixels are computed.
_STEPS, _LABELED = 1000, 900


def label_files(
    inputs: Sequence[str],
    out: str | Path,
    options: LabelOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> BatchSummary[list[Path]]:
    """Label every input and write the results into a folder.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or patterns (see `lincei.pattern`).
    out : str or Path
        Folder of the results. ``<stem>.ome.tif`` holds the mean, one channel per label;
        ``<stem>.<statistic>.ome.tif`` the other statistics. An OME-Zarr in gives OME-Zarrs out.
    options : LabelOptions
        The options.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    BatchSummary
        The files written for each input, and what failed.

    Raises
    ------
    LinceiError
        Before any work: no input, two inputs with one stem, an input that a result would replace, no such
        model, no engine that works, a folder that cannot be made or written.
    UsageError
        Before any work: no such label.
    """
    groups = find_inputs(inputs)
    refuse_equal_stems(groups)
    folder = Path(out).expanduser()
    _refuse_clashes(groups, folder, options.statistics)
    models = models_for(options, options.model)
    open_engines(models, options)
    with writable_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    warned: set[str] = set()

    def warn(text: str) -> None:
        if text not in warned:  # what is true of all inputs is said once
            warned.add(text)
            warnings.warn(text, LinceiWarning, stacklevel=3)

    def job(
        group: InputGroup, /, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
    ) -> list[Path]:
        paths = _results(group, folder, options.statistics)
        return _label_one(group, paths, models, options, warn, progress, cancelled)

    return run_batch(groups, job, describe=lambda group: group.stem, progress=progress, cancelled=cancelled)


def _results(group: InputGroup, folder: Path, statistics: Sequence[str]) -> dict[str, Path]:
    """Return the file of each statistic of an input."""
    suffix = ".ome.zarr" if _is_ome_zarr(group) else ".ome.tif"
    return {
        name: folder / f"{group.stem}{'' if name == 'mean' else f'.{name}'}{suffix}" for name in statistics
    }


def _is_ome_zarr(group: InputGroup) -> bool:
    first = group.paths[0]
    return is_zarr(first) or first.name.lower().endswith(ZARR_SUFFIXES)


def _refuse_clashes(groups: Sequence[InputGroup], folder: Path, statistics: Sequence[str]) -> None:
    """Refuse results that would replace an input, or one another (``a`` with its sd, and ``a.sd``)."""
    read = {str(path.resolve()).casefold(): path for group in groups for path in group.paths}
    written: dict[str, InputGroup] = {}
    for group in groups:
        for path in _results(group, folder, statistics).values():
            key = str(path.resolve()).casefold()
            if key in read:
                raise LinceiError(
                    f"it would be replaced by the result for {group.stem!r}",
                    str(read[key]),
                    "Choose another folder with --out.",
                )
            other = written.setdefault(key, group)
            if other is not group:
                raise LinceiError(
                    f"one of its results would be written under the same name, {path.name}, as one of "
                    f"{other.source}",
                    group.source,
                    "Rename one, or run them one by one into different folders.",
                )


def _label_one(
    group: InputGroup,
    paths: dict[str, Path],
    models: Sequence[Model],
    options: LabelOptions,
    warn: Callable[[str], None],
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> list[Path]:
    """Label one input; no file is there under its final name before it is complete."""
    image = group.open()
    labeling = _part(progress, 0, _LABELED)
    bounds = [_LABELED + (_STEPS - _LABELED) * i // len(paths) for i in range(len(paths) + 1)]
    saving = [_part(progress, first, last) for first, last in itertools.pairwise(bounds)]
    if not _is_ome_zarr(group):
        results = label_image(image, models, options, progress=labeling, cancelled=cancelled, warn=warn)
        for (name, result), heard in zip(results.items(), saving, strict=True):
            save_image(result, paths[name], progress=heard, cancelled=cancelled)
        return list(paths.values())

    from lincei.formats.ome_zarr import create_ome_zarr

    # Each tile is written when it is computed, so that the image may exceed memory.
    writers: list[OmeZarrWriter] = []

    def store(statistic: str, template: Image) -> Any:
        writers.append(create_ome_zarr(paths[statistic], template))
        return writers[-1].array

    try:
        label_image(image, models, options, store=store, progress=labeling, cancelled=cancelled, warn=warn)
        for writer, heard in zip(writers, saving, strict=True):
            writer.finish(heard, cancelled)
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    return list(paths.values())


def _part(progress: ProgressCallback | None, first: int, last: int) -> ProgressCallback | None:
    """Place the progress of one part of the work within an input's."""
    if progress is None:
        return None

    def callback(update: Progress) -> None:
        share = min(update.done / update.total, 1.0) if update.total > 0 else 0.0
        done = first + int(share * (last - first))
        progress(dataclasses.replace(update, done=done, total=_STEPS))

    return callback
