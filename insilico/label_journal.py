"""What is written of a large result: the journal from which a stopped run goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lincei
from insilico.labeling import PieceKey
from insilico.options import LabelOptions
from lincei.engine import Engine
from lincei.errors import CancelledError, LinceiError
from lincei.image import put_in_place, remove, writable_errors
from lincei.model import Model

JOURNAL, LOCK = "journal.jsonl", "lock"


def fingerprint_of(
    source: str,
    paths: Sequence[Path],
    models: Sequence[Model],
    engines: Sequence[Engine],
    options: LabelOptions,
) -> dict[str, str]:
    """Return what a result depends on, in parts: equal fingerprints mean the same result, byte for byte.

    Parameters
    ----------
    source : str
        The input as the result's provenance names it.
    paths : sequence of Path
        The input's files, or the folders of OME-Zarr images. Each file counts with its size and its time
        of change.
    models, engines : sequence
        From `insilico.labeling.models_for` and `open_engines`.
    options : LabelOptions
        The options.

    Returns
    -------
    dict of str to str
        A SHA-256 for each of "input", "model", "options" and "program".
    """
    files: list[tuple[str, int, int]] = []
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            status = file.stat()
            if not file.is_dir():
                files.append((file.as_posix(), status.st_size, status.st_mtime_ns))
    stated = {name: value for name, value in options.to_json().items() if name not in ("model", "resume")}
    parts = {
        "input": [source, files],
        "model": [(model.name, model.hash) for model in models],
        "options": stated,
        "program": [lincei.__version__, [(e.name, e.version, e.precision) for e in engines]],
    }
    return {name: _sha256(part) for name, part in parts.items()}


def fingerprint_hash(fingerprint: Mapping[str, str]) -> str:
    """Return one SHA-256 of all parts of a fingerprint."""
    return _sha256(dict(fingerprint))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class LabelJournal:
    """The folder of one input's unfinished results; use it in a ``with`` statement.

    The journal in it has one line for the fingerprint and one for each piece that is written, with its
    checksum. When the block raises, the folder stays if there is a piece in it; otherwise it goes.

    Parameters
    ----------
    folder : Path
        Made when missing; only one program at a time can have it.
    fingerprint : mapping of str to str
        From `fingerprint_of`.
    places : mapping of Path to Path
        From each finished file or folder in this folder to its final place.
    resume : bool
        Go on with what is there, when it has this fingerprint; anew otherwise.

    Attributes
    ----------
    changed : tuple of str
        What differs from what was to be gone on with: "input", "model", "options", "program".
    complete : bool
        Whether all files of the results are finished, and only their place is not their last.

    Raises
    ------
    LinceiError
        When another program is at work on it, or the folder cannot be written.
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, str], places: Mapping[Path, Path], *, resume: bool
    ) -> None:
        self.folder = folder
        self._places = places
        self.changed: tuple[str, ...] = ()
        self.complete = False
        self._written: dict[PieceKey, int] = {}
        with writable_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileIO(folder / LOCK, "a")
            try:
                _lock(self._lock, folder)
                kept = self._read(fingerprint) if resume else 0
                if not kept:
                    self._clear()
                self._file = FileIO(folder / JOURNAL, "r+" if kept else "w")
                # What a kill or a full disk left of a last line is written over.
                self._file.truncate(kept)
                self._file.seek(kept)
                if not kept:
                    self._append({"fingerprint": dict(fingerprint)})
            except BaseException:
                self._lock.close()
                raise

    def holds(self, piece: PieceKey, checksum: Callable[[], int]) -> bool:
        """Tell whether a piece is written and reads back as it was; see `insilico.labeling.Record`."""
        if piece not in self._written:
            return False
        # A power failure can take away or spoil what the journal, a smaller file, still knows of.
        try:
            return self._written[piece] == checksum()
        except CancelledError:
            raise
        except Exception:  # each way of reading back has its own for pixels that are damaged
            return False

    def add(self, piece: PieceKey, checksum: int) -> None:
        """Take note of a piece that is written; see `insilico.labeling.Record`."""
        self._append([*piece, checksum])
        self._written[piece] = checksum

    def finish(self) -> None:
        """Give the finished files their final names and remove the folder."""
        if not self.complete:
            self._append("complete")
            self.complete = True
        with writable_errors(self.folder):
            for made, place in self._places.items():
                if made.exists():  # otherwise it was put in place before
                    put_in_place(made, place)
        self.close()
        remove(self.folder)

    def close(self) -> None:
        """Let others have the folder."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is not None and not self._written:
            remove(self.folder)

    def _read(self, fingerprint: Mapping[str, str]) -> int:
        """Read the journal; return how many of its bytes hold, 0 when there is nothing to go on with."""
        path = self.folder / JOURNAL
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = 0
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            if number == 0:
                before = entry["fingerprint"]
                self.changed = tuple(name for name in fingerprint if before.get(name) != fingerprint[name])
                if self.changed:
                    return 0
            elif entry == "complete":
                self.complete = True
            else:
                model, t, row, column, checksum = entry
                self._written[model, t, row, column] = checksum
            kept += len(line)
        if self.complete and not all(made.exists() or place.exists() for made, place in self._places.items()):
            # What was put in place is gone again, and with it the pixels.
            self.complete = False
            self._written.clear()
        return kept if self._written else 0

    def _append(self, entry: Any) -> None:
        line = json.dumps(entry).encode() + b"\n"
        with writable_errors(self.folder):
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry.name != LOCK:
                remove(entry)


def _lock(file: FileIO, folder: Path) -> None:
    """Keep other programs from a folder until the file is closed, however this program ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise LinceiError(
            "another run is writing this result at this moment",
            str(folder),
            "Wait until it has ended, or choose another folder with --out.",
        ) from error
    except OSError:
        return  # some network disks know no locks
