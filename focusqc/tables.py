"""The tables of a batch as CSV files, written row by row: images.csv, patches.csv and exclude.csv."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from focusqc.rating import IMAGE_COLUMNS, PATCH_COLUMNS, FocusRating, PlaneRating
from lincei.errors import LinceiError
from lincei.image import put_in_place, remove, writable_errors

EXCLUDE_COLUMNS = ("file", "time", "channel", "z", "reason")
IMAGES_FILE, PATCHES_FILE, EXCLUDE_FILE = "images.csv", "patches.csv", "exclude.csv"

# Rows of patches are put together up to this many at a time: a whole slide has a hundred thousand.
_ROWS_AT_A_TIME = 2000


def deciding_planes(rating: FocusRating) -> list[PlaneRating]:
    """Return the planes that say whether an image is in focus: of a z-stack its sharpest.

    Parameters
    ----------
    rating : FocusRating
        Of one image.

    Returns
    -------
    list of PlaneRating
        One for each time point and channel. The middle one of a stack none of whose planes says anything.
    """
    stacks: dict[tuple[int, int], list[PlaneRating]] = {}
    for plane in rating.planes:
        stacks.setdefault((plane.time, plane.channel), []).append(plane)
    sharpest = rating.sharpest
    chosen = []
    for key, planes in stacks.items():
        best = sharpest.get(key)
        middle = planes[len(planes) // 2]
        chosen.append(next((plane for plane in planes if plane.z == best), middle))
    return chosen


def exclude_rows(rating: FocusRating) -> list[dict[str, str]]:
    """Return what is to be left out of an image, and why: columns `EXCLUDE_COLUMNS`.

    Parameters
    ----------
    rating : FocusRating
        Of one image.

    Returns
    -------
    list of dict
        A row for each time point and channel that is not in focus, or of which that is uncertain.
    """
    several: dict[tuple[int, int], int] = {}
    for plane in rating.planes:
        several[plane.time, plane.channel] = several.get((plane.time, plane.channel), 0) + 1
    return [
        {
            "file": rating.file,
            "time": str(plane.time),
            "channel": plane.channel_name,
            "z": str(plane.z),
            "reason": _reason(rating, plane, is_stack=several[plane.time, plane.channel] > 1),
        }
        for plane in deciding_planes(rating)
        if plane.in_focus != "yes"
    ]


class FocusTables:
    """The three tables while a batch runs; use it in a ``with`` statement.

    Rows are in the files when `add` returns. The files have temporary names until the block ends, in
    whatever way: what was rated by then is kept, and no row is there in part. When nothing was rated and not
    several images failed, older tables stay: a name was mistyped, or the batch was stopped at once.

    Parameters
    ----------
    folder : Path
        Where they are written; it exists.

    Attributes
    ----------
    excluded : list of dict
        The rows of exclude.csv so far.

    Raises
    ------
    LinceiError
        When the folder cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.excluded: list[dict[str, str]] = []
        self._rated = self._failed = 0
        self._tables: list[_Table] = []
        for name, columns in (
            (IMAGES_FILE, IMAGE_COLUMNS),
            (PATCHES_FILE, PATCH_COLUMNS),
            (EXCLUDE_FILE, EXCLUDE_COLUMNS),
        ):
            try:
                self._tables.append(_Table(folder / name, columns))
            except BaseException:
                for table in self._tables:
                    table.discard()
                raise

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files: images, patches, exclude."""
        return tuple(table.path for table in self._tables)

    @property
    def worth_keeping(self) -> bool:
        """Whether they hold enough to replace older tables."""
        return self._rated > 0 or self._failed > 1

    def add(self, rating: FocusRating) -> None:
        """Write the rows of one image; when that fails, none of them is there."""
        images, patches, exclude = self._tables
        rows = exclude_rows(rating)
        marks = [table.size for table in self._tables]
        try:
            patches.write(rating.iter_patch_rows())
            exclude.write(rows)
            images.write(rating.image_rows())
        except BaseException:
            for table, size in zip(self._tables, marks, strict=True):
                table.cut_back(size)
            raise
        self.excluded += rows
        self._rated += 1

    def add_failure(self, file: str, error: LinceiError) -> None:
        """Write that an image could not be rated."""
        reason = LinceiError(error.what, "" if error.where == file else error.where, error.what_to_do)
        row = {"file": file, "time": "", "channel": "", "z": "", "reason": str(reason)}
        self._tables[2].write([row])
        self.excluded.append(row)
        self._failed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as completing:  # the others are put in place when one cannot be
            for table in self._tables:
                completing.callback(table.complete if self.worth_keeping else table.discard)


class _Table:
    """One CSV file under a temporary name."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.size = path, 0
        self._columns = columns
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        with writable_errors(path):
            if path.exists():
                # An older table that is open in another program is found out before work, not after it.
                path.open("r+b").close()
            # Not buffered: what a full disk did not take must not be written a second time on closing.
            self._file = self._temporary.open("wb", buffering=0)
        try:
            self._append(",".join(columns) + "\n")
        except BaseException:
            self.discard()
            raise

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows; all of them are in the file when this returns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for number, row in enumerate(rows, start=1):
            writer.writerow([_text(row[name]) for name in self._columns])
            if number % _ROWS_AT_A_TIME == 0:
                self._append(text.getvalue())
                text.seek(0)
                text.truncate()
        self._append(text.getvalue())

    def cut_back(self, size: int) -> None:
        """Remove what lies behind the first ``size`` bytes."""
        self._file.truncate(size)
        self._file.seek(size)
        self.size = size

    def complete(self) -> None:
        """Give the file its name."""
        self._file.close()
        with writable_errors(self.path):
            put_in_place(self._temporary, self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        remove(self._temporary)

    def _append(self, text: str) -> None:
        content = memoryview(text.encode("utf-8", errors="backslashreplace"))
        with writable_errors(self.path):
            try:
                while content:  # a nearly full disk takes a part, and refuses only the rest
                    content = content[self._file.write(content) :]
            except OSError:
                self.cut_back(self.size)
                raise
        self.size = self._file.tell()


def _text(value: Any) -> Any:
    """Return a value as it stands in a table: nothing for what is not known, six digits at most."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def _reason(rating: FocusRating, plane: PlaneRating, *, is_stack: bool) -> str:
    """Say why a plane is to be left out."""
    if plane.in_focus == "no":
        # Not the most likely level, which may be 0 where most of a field is blurred by various amounts.
        text = f"out of focus: expected level {plane.expected_level:.1f}"
        defocus_um = rating.defocus_um(plane.expected_level)
        if defocus_um is not None:
            text += f", about {defocus_um:.2g} um from focus"
        return f"{text}; the sharpest of its stack" if is_stack else text
    because = "; ".join(plane.notes) or "it shows too little to tell"
    return f"uncertain: no plane of its stack tells; {because}" if is_stack else f"uncertain: {because}"
