"""Rating files in a batch: tables, pictures and a page, several files at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusqc.focus_image import (
    FLUORESCENCE_MODEL,
    HE_MODEL,
    focus_image,
    found_model,
    model_for,
    open_engine_for,
)
from focusqc.levels import InFocus
from focusqc.options import AUTOMATIC, FocusOptions
from focusqc.rating import FocusRating, PlaneRating
from focusqc.tables import EXCLUDE_FILE, IMAGES_FILE, PATCHES_FILE, FocusTables, deciding_planes
from lincei.batch import BatchSummary, is_disk_full, readable_error, run_batch
from lincei.doctor import usable_cores
from lincei.errors import LinceiError, LinceiWarning
from lincei.formats.lazy import Box, LazyArray
from lincei.image import Image, make_writable, remove, save_image
from lincei.model import Model
from lincei.pattern import InputGroup, find_inputs, refuse_equal_stems
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

OVERLAYS_FOLDER, PROBABILITIES_FOLDER, PAGE_FILE = "overlays", "probabilities", "report.html"
# Larger images are not read as a whole but band by band, and only one of them at a time.
IN_MEMORY_BYTES = 32 * 2**20
LARGEST_HYPERSTACK_BYTES = 2**31
_BAND_PX = 2**23
_MOST_THREADS = 8
_LOOK_EVERY_S = 0.2
# Longest side of what is handed to the page, which shows pictures small.
_PAGE_PX = 1024

_SUFFIX = re.compile(r"(?P<stem>.+?)(?:\.t\d+)?(?:\.c\d+)?")


@dataclass(frozen=True)
class RatedFile:
    """What became of one input of a batch.

    Parameters
    ----------
    file : str
        As in the tables.
    in_focus : tuple of {"yes", "no", "uncertain"}
        For each time point and channel; of a z-stack, of its sharpest plane.
    sharpest : mapping of (int, str) to int
        Of a z-stack: the best z of each time point and channel that has one.
    pictures : tuple of Path
        Overlays and probabilities.
    """

    file: str
    in_focus: tuple[InFocus, ...]
    sharpest: dict[tuple[int, str], int]
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class _Prepared:
    """An image that is rated and drawn, but not yet in the tables."""

    rating: FocusRating
    overlays: dict[tuple[int, int, int], NDArray[np.uint8]]
    overlay_paths: dict[tuple[int, int, int], Path]
    pictures: tuple[Path, ...]
    cautions: tuple[str, ...]


def focus_files(
    inputs: Sequence[str],
    out: str | Path,
    options: FocusOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> BatchSummary[RatedFile]:
    """Rate every input and write tables, overlays and a page into a folder.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or patterns (see `lincei.pattern`).
    out : str or Path
        Folder of the results: ``images.csv``, ``patches.csv``, ``exclude.csv``, ``report.html``,
        ``overlays/<stem>.png`` and, where they are asked for, ``probabilities/<stem>.tif`` (``.ome.tif``
        above 2 GB).
    options : FocusOptions
        The options.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    BatchSummary
        What was rated, and what failed. Also when the user stopped it, or the disk is full: what was rated
        by then is in the tables. When nothing was rated and not several inputs failed, tables and page of an
        earlier run stay as they are.

    Warns
    -----
    LinceiWarning
        When the folder holds pictures of an earlier run, besides what the user should know about a rating.

    Raises
    ------
    LinceiError
        Before any work: no input, two inputs with one stem (unless no pictures are written), an input that
        lies where pictures are written or is one of an earlier run, no such model, no engine that works, a
        folder that cannot be made or written.
    """
    from focusqc.page import PageCollector

    groups = find_inputs(inputs)
    folder = Path(out).expanduser()
    _refuse_clashes(groups, folder, options)
    find = functools.cache(found_model)
    _open_first(options, find)
    make_writable(folder)
    names = file_names(groups)
    said: set[str] = set()
    latest: dict[int, Progress] = {}
    one_large_at_a_time = threading.Lock()

    def prepare(number: int) -> _Prepared:
        stop_if_cancelled(cancelled)
        image = groups[number].open(modality=options.modality)
        large = math.prod(image.shape) * image.dtype.itemsize > IN_MEMORY_BYTES
        with one_large_at_a_time if large else contextlib.nullcontext():
            if not large:  # read once, for rating and for drawing
                image = image.with_(data=image.read(), intensity_range=image.intensity_range)
            cautions: list[str] = []
            rating = focus_image(
                image,
                model_for(image, options, find),
                options,
                progress=lambda update: latest.update({number: update}),
                cancelled=cancelled,
                warn=cautions.append,
            )
            rating = dataclasses.replace(rating, file=names[number])
            return _drawn(rating, groups[number].stem, folder, options, tuple(cautions))

    page = PageCollector(_title(inputs))
    with FocusTables(folder) as tables, _ahead(len(groups), prepare) as coming:

        def job(
            number: int, /, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
        ) -> RatedFile:
            del cancelled  # heard where the work is done
            try:
                future = next(coming)
                while not wait([future], timeout=_LOOK_EVERY_S).done:
                    report(progress, latest.get(number, Progress("reading", 0, 0)))
                prepared = future.result()
                for text in prepared.cautions:
                    if text not in said:
                        said.add(text)
                        warnings.warn(text, LinceiWarning, stacklevel=2)
                tables.add(prepared.rating)
                page.add(prepared.rating, prepared.overlays or None, prepared.overlay_paths or None)
                report(progress, Progress("rating", 1, 1))
                return _summed_up(prepared)
            except Exception as error:
                readable = readable_error(error, names[number])
                if readable is not None and not is_disk_full(error):
                    tables.add_failure(names[number], readable)
                    page.add_failure(names[number], str(readable))
                raise
            finally:
                latest.pop(number, None)

        summary = run_batch(
            range(len(groups)),
            job,
            describe=lambda number: names[number],
            progress=progress,
            cancelled=cancelled,
        )
        if tables.worth_keeping and summary.stopped_by != "full disk":
            page.write(folder / PAGE_FILE, tables.excluded)
    if _is_worth_keeping(summary):
        _warn_of_older_pictures(folder, summary.done)
    return dataclasses.replace(summary, notes=_notes(summary.done))


def files_of(out: str | Path, summary: BatchSummary[RatedFile]) -> list[Path]:
    """Return what a batch wrote into a folder: its tables, its page and its folders of pictures.

    Parameters
    ----------
    out : str or Path
        The folder.
    summary : BatchSummary
        From `focus_files`.

    Returns
    -------
    list of Path
        Nothing of an earlier run; empty when nothing was rated and not several inputs failed.
    """
    if not _is_worth_keeping(summary):
        return []
    names = [IMAGES_FILE, PATCHES_FILE, EXCLUDE_FILE]
    names += [PAGE_FILE] if summary.stopped_by != "full disk" else []
    written = {path.parent.name for item in summary.done for path in item.pictures}
    names += [name for name in (OVERLAYS_FOLDER, PROBABILITIES_FOLDER) if name in written]
    return [Path(out).expanduser() / name for name in names]


def file_names(groups: Sequence[InputGroup]) -> list[str]:
    """Return what inputs are called in tables: their paths within the folder that holds all of them.

    Parameters
    ----------
    groups : sequence of InputGroup
        From `find_inputs`.

    Returns
    -------
    list of str
        With "/" on every system; of a stack in several files, its pattern.
    """
    paths = [Path(os.path.abspath(group.source or group.paths[0])) for group in groups]  # noqa: PTH100
    try:
        common = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # on several drives
        return [path.as_posix() for path in paths]
    return [path.relative_to(common).as_posix() for path in paths]


def _is_worth_keeping(summary: BatchSummary[RatedFile]) -> bool:
    """Tell whether a batch left tables, as `FocusTables.worth_keeping` does."""
    # That the disk is full is no fault of an input, and is not in the tables.
    failed = len(summary.failures) - (summary.stopped_by == "full disk")
    return bool(summary.done) or failed > 1


def _warn_of_older_pictures(folder: Path, rated: Sequence[RatedFile]) -> None:
    """Warn of pictures beside those of this batch, which the tables say nothing about."""
    # Upper and lower case are one on many disks, where a picture keeps the name it had first.
    own = {(path.parent.name, path.name.casefold()) for item in rated for path in item.pictures}
    for name, suffix in ((OVERLAYS_FOLDER, ".png"), (PROBABILITIES_FOLDER, ".tif")):
        pictures = folder / name
        found = pictures.iterdir() if pictures.is_dir() else ()
        older = sum(
            path.suffix == suffix and (name, path.name.casefold()) not in own and path.name[0] != "."
            for path in found
        )
        if older:
            count = "1 picture" if older == 1 else f"{older} pictures"
            warnings.warn(
                f"{pictures}: holds {count} of an earlier run, which the tables say nothing about. "
                "Delete what is not needed, or give each run a folder of its own with --out.",
                LinceiWarning,
                stacklevel=3,
            )


def _drawn(
    rating: FocusRating, stem: str, folder: Path, options: FocusOptions, cautions: tuple[str, ...]
) -> _Prepared:
    """Write the pictures of one image, and let go of the image."""
    from focusqc.overlay import overlay_rgb, write_overlay
    from lincei.report import shrunk

    deciding = deciding_planes(rating)
    paths: dict[tuple[int, int, int], Path] = {}
    overlays: dict[tuple[int, int, int], NDArray[np.uint8]] = {}
    if options.overlays and rating.image is not None:
        several_times = len({plane.time for plane in deciding}) > 1
        several_channels = len({plane.channel for plane in deciding}) > 1
        for plane in deciding:
            key = (plane.time, plane.channel, plane.z)
            suffix = f".t{plane.time}" if several_times else ""
            suffix += f".c{plane.channel}" if several_channels else ""
            paths[key] = folder / OVERLAYS_FOLDER / f"{stem}{suffix}.png"
            overlay = overlay_rgb(*_reduced(rating.image, plane))
            write_overlay(paths[key], overlay)
            overlays[key] = shrunk(overlay, _PAGE_PX)
    pictures = list(paths.values())
    if options.probabilities:
        probabilities = rating.probability_image()
        # An ImageJ hyperstack has its limit; an OME-TIFF is written, and opened, piece by piece.
        size_bytes = math.prod(probabilities.shape) * probabilities.dtype.itemsize
        suffix = ".tif" if size_bytes <= LARGEST_HYPERSTACK_BYTES else ".ome.tif"
        pictures.append(save_image(probabilities, folder / PROBABILITIES_FOLDER / f"{stem}{suffix}"))
    return _Prepared(dataclasses.replace(rating, image=None), overlays, paths, tuple(pictures), cautions)


def _reduced(image: Image, plane: PlaneRating) -> tuple[NDArray[Any], PlaneRating]:
    """Return a plane and its rating for drawing; both reduced by a whole factor where the plane is large."""
    from focusqc.overlay import LONGEST_SIDE_PX, plane_pixels

    height, width = image.shape[3:]
    factor = max(height, width) // LONGEST_SIDE_PX
    if factor < 2 or min(height, width) < factor:
        return plane_pixels(image, plane), plane
    bands = []
    step = max(1, _BAND_PX // (width * factor)) * factor
    for start in range(0, height - factor + 1, step):
        rows = slice(start, min(start + step, height // factor * factor))
        part = image.with_(data=_Rows(image, rows), intensity_range=image.intensity_range)
        pixels = plane_pixels(part, plane)
        blocks = pixels[:, : width // factor * factor].reshape(
            pixels.shape[0] // factor, factor, width // factor, factor, *pixels.shape[2:]
        )
        means = blocks.mean(axis=(1, 3), dtype=np.float32)
        bands.append(means.astype(np.uint8) if pixels.ndim == 3 else means)
    smaller = dataclasses.replace(
        plane,
        y=tuple(y // factor for y in plane.y),
        x=tuple(x // factor for x in plane.x),
        patch_px=(max(1, plane.patch_px[0] // factor), max(1, plane.patch_px[1] // factor)),
    )
    return np.concatenate(bands), smaller


class _Rows(LazyArray):
    """Some rows of an image."""

    def __init__(self, image: Image, rows: slice) -> None:
        super().__init__((*image.shape[:3], rows.stop - rows.start, image.shape[4]), image.dtype)
        self._image, self._first = image, rows.start

    def _read(self, box: Box) -> NDArray[Any]:
        t, c, z, y, x = box
        rows = slice(y.start + self._first, y.stop + self._first)
        return self._image.read({"T": t, "C": c, "Z": z, "Y": rows, "X": x})


def _summed_up(prepared: _Prepared) -> RatedFile:
    """Return the little that is kept of an image."""
    rating = prepared.rating
    deciding = deciding_planes(rating)
    names = {(plane.time, plane.channel): plane.channel_name for plane in deciding}
    is_stack = len(rating.planes) > len(deciding)
    return RatedFile(
        rating.file,
        tuple(plane.in_focus for plane in deciding),
        {(key[0], names[key]): z for key, z in rating.sharpest.items()} if is_stack else {},
        prepared.pictures,
    )


@contextlib.contextmanager
def _ahead(count: int, prepare: Callable[[int], _Prepared]) -> Iterator[Iterator[Future[_Prepared]]]:
    """Prepare images in threads of their own, a few ahead of the one that is asked for."""
    threads = min(_MOST_THREADS, max(2, usable_cores()))
    pending: deque[Future[_Prepared]] = deque()

    def in_order(pool: ThreadPoolExecutor) -> Iterator[Future[_Prepared]]:
        for number in range(count + threads):
            if number < count:
                pending.append(pool.submit(prepare, number))
            if number >= threads and pending:
                yield pending.popleft()

    with ThreadPoolExecutor(threads) as pool:
        try:
            yield in_order(pool)
        finally:
            pool.shutdown(cancel_futures=True)
            for future in pending:
                # Ready when the batch was stopped: pictures without a row in the tables are of no use.
                if not future.cancelled() and future.exception() is None:
                    for path in future.result().pictures:
                        remove(path)


def _open_first(options: FocusOptions, find: Callable[[str], Model]) -> None:
    """Find out before any work that there are a model and an engine."""
    if options.model != AUTOMATIC:
        open_engine_for(find(options.model), options)
        return
    # Which model is needed the images tell; without any, none could be rated.
    try:
        model = find(FLUORESCENCE_MODEL)
    except LinceiError as error:
        try:
            model = find(HE_MODEL)
        except LinceiError:
            raise error from None
    open_engine_for(model, options)


def _refuse_clashes(groups: Sequence[InputGroup], folder: Path, options: FocusOptions) -> None:
    """Refuse inputs that are pictures of a run, or whose pictures would replace one another, or an input."""
    picture_folders = (OVERLAYS_FOLDER, PROBABILITIES_FOLDER)
    taken = {(folder / name).resolve() for name in picture_folders}
    # Many inputs lie in few folders.
    has_tables = functools.cache(lambda parent: (parent.parent / IMAGES_FILE).exists())
    for group in groups:
        for path in group.paths:
            parent = path.resolve().parent
            if parent in taken:
                raise LinceiError(
                    "it lies in a folder that pictures are written to",
                    str(path),
                    "Choose another folder with --out, or inputs that leave this one out.",
                )
            if parent.name in picture_folders and has_tables(parent):
                raise LinceiError(
                    "it lies among the pictures of an earlier run of lincei focus",
                    str(path),
                    "Give a pattern that leaves these out, such as one folder less deep.",
                )
    if not (options.overlays or options.probabilities):
        return
    try:
        refuse_equal_stems(groups)
    except LinceiError as error:
        hint = (
            "" if options.probabilities else " With --no-overlays no pictures are written, only the tables."
        )
        raise LinceiError(error.what, error.where, error.what_to_do + hint) from None
    stems = {group.stem.casefold(): group for group in groups}
    for group in groups:
        fit = _SUFFIX.fullmatch(group.stem.casefold())
        other = stems.get(fit["stem"]) if fit else None
        if other is not None and other is not group:
            raise LinceiError(
                f"an overlay of {other.source} may have the same name, {group.stem!r}",
                group.source,
                "Rename one, or run them one by one into different folders.",
            )


def _notes(rated: Sequence[RatedFile]) -> tuple[str, ...]:
    """Say how many are in focus, and which plane of a single stack is the sharpest."""
    if not rated:
        return ()
    verdicts = [verdict for item in rated for verdict in item.in_focus]
    counts = [verdicts.count(verdict) for verdict in ("yes", "no", "uncertain")]
    text = "In focus: {}, out of focus: {}, uncertain: {}".format(*counts)
    if len(verdicts) > len(rated):
        text += " (time points and channels counted one by one)"
    notes = [f"{text}."]
    if len(rated) == 1 and rated[0].sharpest:
        sharpest = rated[0].sharpest
        times, channels = ({key[i] for key in sharpest} for i in (0, 1))
        parts = []
        for (time, channel), z in sharpest.items():
            where = [f"time {time}"] if len(times) > 1 else []
            where += [f"channel {channel}"] if len(channels) > 1 else []
            parts.append(f"{z} ({', '.join(where)})" if where else str(z))
        notes.append(f"The sharpest plane, counted from 0, is z = {', '.join(parts)}.")
    return tuple(notes)


def _title(inputs: Sequence[str]) -> str:
    """Return a title for the page."""
    first = Path(inputs[0]).name or str(inputs[0])
    return f"Focus of {first}" if len(inputs) == 1 else f"Focus of {first} and {len(inputs) - 1} more"
