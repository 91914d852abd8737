"""Labeling files in a batch: one OME-TIFF (or OME-Zarr) of means per input, other statistics beside it.

Results that are large are written piece by piece into a hidden folder beside their final place, which a run
that was stopped leaves for the next one to go on with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from insilico.label_journal import LabelJournal, fingerprint_hash, fingerprint_of
from insilico.labeling import label_image, models_for, open_engines
from insilico.options import LabelOptions
from lincei.batch import BatchSummary, run_batch
from lincei.errors import LinceiError, LinceiWarning
from lincei.image import (
    ZARR_SUFFIXES,
    Image,
    is_zarr,
    make_writable,
    open_image,
    readable_errors,
    remove,
    save_image,
)
from lincei.model import Model
from lincei.pattern import InputGroup, find_inputs, refuse_equal_stems
from lincei.progress import CancelCheck, Progress, ProgressCallback

if TYPE_CHECKING:
    from lincei.formats.ome_zarr import OmeZarrWriter

# Steps of one input's progress, and how many of them are done when its pixels are computed.
_STEPS, _LABELED = 1000, 900
# All results of an input together; larger ones that become TIFFs are kept on the disk until they are saved.
IN_MEMORY_BYTES = 256 * 2**20


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
        The options. With ``resume``, an input whose results are there already, of the same input, model,
        options and versions, is left out, and one that a stopped run began is gone on with: the result is
        that of a run that was not stopped, byte for byte.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    BatchSummary
        The files of each input, and what failed.

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
    engines = open_engines(models, options)
    make_writable(folder)
    warned: set[str] = set()

    def warn(text: str) -> None:
        if text not in warned:  # what is true of all inputs is said once
            warned.add(text)
            warnings.warn(text, LinceiWarning, stacklevel=3)

    left_out: list[str] = []
    begun: list[InputGroup] = []

    def job(
        group: InputGroup, /, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
    ) -> list[Path]:
        paths = _results(group, folder, options.statistics)
        if not all(path.exists() for path in group.paths):
            group.open()  # says which file is missing
        with readable_errors(group.paths[0]):
            fingerprint = fingerprint_of(group.source, group.paths, models, engines, options)
        if options.resume and _are_there(paths, fingerprint):
            left_out.append(group.stem)
            remove(_unfinished(group, folder))
            return list(paths.values())
        begun.append(group)
        _label_one(group, paths, models, options, fingerprint, warn, progress, cancelled)
        begun.remove(group)
        return list(paths.values())

    summary = run_batch(
        groups, job, describe=lambda group: group.stem, progress=progress, cancelled=cancelled
    )
    unfinished = [group.stem for group in begun if _unfinished(group, folder).exists()]
    return dataclasses.replace(summary, notes=_notes(left_out, unfinished))


def _notes(left_out: Sequence[str], unfinished: Sequence[str]) -> tuple[str, ...]:
    """Say what was not done anew, and what can be gone on with."""
    notes = []
    if left_out:
        count = "1 of them was" if len(left_out) == 1 else f"{len(left_out)} of them were"
        notes.append(f"{count} there already, from the same input, model and options.")
    if unfinished:
        names = ", ".join(unfinished)
        notes.append(f"What is computed of {names} is kept: the same command with --resume goes on.")
    return tuple(notes)


def _unfinished(group: InputGroup, folder: Path) -> Path:
    """Return where the results of an input are while they are not complete."""
    return folder / f".{group.stem}.part"


def _are_there(paths: Mapping[str, Path], fingerprint: Mapping[str, str]) -> bool:
    """Tell whether all results of an input are there and are what would be computed."""
    wanted = fingerprint_hash(fingerprint)
    for statistic, path in paths.items():
        if not path.exists():
            return False
        try:
            told = open_image(path).provenance or {}
        except LinceiError:
            return False
        if (told.get("fingerprint"), told.get("statistic")) != (wanted, statistic):
            return False
    return True


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
    paths: Mapping[str, Path],
    models: Sequence[Model],
    options: LabelOptions,
    fingerprint: Mapping[str, str],
    warn: Callable[[str], None],
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> None:
    """Label one input; no file is there under its final name before it is complete."""
    image = group.open()
    noted = {"fingerprint": fingerprint_hash(fingerprint)}
    labeling = _part(progress, 0, _LABELED)
    bounds = [_LABELED + (_STEPS - _LABELED) * i // len(paths) for i in range(len(paths) + 1)]
    saving = {
        name: _part(progress, *ends) for name, ends in zip(paths, itertools.pairwise(bounds), strict=True)
    }
    folder = _unfinished(group, next(iter(paths.values())).parent)
    if not _is_ome_zarr(group) and _result_bytes(image, models, options) <= IN_MEMORY_BYTES:
        remove(folder)
        results = label_image(
            image, models, options, noted=noted, progress=labeling, cancelled=cancelled, warn=warn
        )
        for name, result in results.items():
            save_image(result, paths[name], progress=saving[name], cancelled=cancelled)
        return

    from lincei.formats.ome_zarr import create_ome_zarr
    from lincei.formats.scratch import ScratchArray

    made = {name: folder / path.name for name, path in paths.items()}
    places = {made[name]: path for name, path in paths.items()}
    writers: dict[str, OmeZarrWriter] = {}
    with (
        LabelJournal(folder, fingerprint, places, resume=options.resume) as journal,
        contextlib.ExitStack() as files,
    ):
        if journal.changed:
            warn(
                f"{group.stem}: the {' and the '.join(journal.changed)} changed since the run that was "
                "stopped, so it is labeled anew."
            )

        def store(statistic: str, template: Image) -> Any:
            if _is_ome_zarr(group):
                writer = create_ome_zarr(paths[statistic], template, folder=made[statistic])
                writers[statistic] = writer
                return writer.array
            path = folder / f"{statistic}.pixels"
            path.touch()
            return ScratchArray(files.enter_context(path.open("r+b")), template.shape, template.dtype)

        if not journal.complete:
            results = label_image(
                image,
                models,
                options,
                store=store,
                record=journal,
                noted=noted,
                progress=labeling,
                cancelled=cancelled,
                warn=warn,
            )
            for name, result in results.items():
                if name in writers:
                    writers[name].complete(saving[name], cancelled)
                else:
                    save_image(result, made[name], progress=saving[name], cancelled=cancelled)
        files.close()  # what is open cannot be removed everywhere
        journal.finish()


def _result_bytes(image: Image, models: Sequence[Model], options: LabelOptions) -> int:
    """Return the size of all results of an image, as if all labels of its models were wanted."""
    t, _, _, height, width = image.shape
    labels = sum(len(model.card.labels) for model in models)
    return math.prod((t, labels, height, width, len(options.statistics))) * np.dtype(np.float32).itemsize


def _part(progress: ProgressCallback | None, first: int, last: int) -> ProgressCallback | None:
    """Place the progress of one part of the work within an input's."""
    if progress is None:
        return None

    def callback(update: Progress) -> None:
        share = min(update.done / update.total, 1.0) if update.total > 0 else 0.0
        done = first + int(share * (last - first))
        progress(dataclasses.replace(update, done=done, total=_STEPS))

    return callback
