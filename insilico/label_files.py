"""Labeling files in a batch: one OME-TIFF (or OME-Zarr) of means per input, other statistics beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from insilico.labeling import label
from insilico.options import LabelOptions
from lincei.batch import BatchSummary, run_batch
from lincei.errors import LinceiError
from lincei.image import Image, is_zarr, save_image
from lincei.model import find_model
from lincei.pattern import InputGroup, find_inputs, refuse_equal_stems
from lincei.progress import CancelCheck, ProgressCallback


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
        Before any work: no input, two inputs with one stem, no such model, a folder that cannot be made.
    """
    groups = find_inputs(inputs)
    refuse_equal_stems(groups)
    for name in options.model:
        find_model(name, task="label")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LinceiError(
            f"the folder for the results cannot be made ({error.strerror})",
            str(folder),
            "Choose another with --out.",
        ) from error

    def job(
        group: InputGroup, /, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
    ) -> list[Path]:
        return label_one(group, folder, options, progress=progress, cancelled=cancelled)

    return run_batch(groups, job, describe=lambda group: group.stem, progress=progress, cancelled=cancelled)


def label_one(
    group: InputGroup,
    folder: Path,
    options: LabelOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> list[Path]:
    """Label one input; no file is there under its final name before it is complete."""
    image = group.open()
    as_zarr = is_zarr(group.paths[0])
    suffix = ".ome.zarr" if as_zarr else ".ome.tif"
    paths = {
        name: folder / f"{group.stem}{'' if name == 'mean' else f'.{name}'}{suffix}"
        for name in options.statistics
    }
    if as_zarr:
        _label_into_zarr(image, paths, options, progress, cancelled)
    else:
        results = label(image, options=options, progress=progress, cancelled=cancelled)
        for name, result in results.items():
            save_image(result, paths[name], cancelled=cancelled)
    return list(paths.values())


def _label_into_zarr(
    image: Image,
    paths: dict[str, Path],
    options: LabelOptions,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> None:
    """Write each statistic tile by tile, so that the image may exceed memory."""
    from lincei.formats.ome_zarr import create_ome_zarr

    with contextlib.ExitStack() as stack:

        def store(statistic: str, template: Image) -> Any:
            writer = create_ome_zarr(paths[statistic], template)
            return stack.enter_context(writer).array

        label(image, options=options, store=store, progress=progress, cancelled=cancelled)
