"""Models as zip archives: unpacked without trusting them, packed for others."""

from __future__ import annotations

import contextlib
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from lincei.errors import LinceiError
from lincei.keras_network import refuse_linked_hdf5
from lincei.model_card import CARD_FILE, checked_reference
from lincei.onnx_check import refuse_external_data

if TYPE_CHECKING:
    from lincei.model import Model

ENTRIES_MAX = 200
BYTES_MAX = 4 * 2**30
# Weights hardly compress; test arrays of a dark background may, so small archives are spared.
RATIO_MAX = 100
RATIO_FREE_BYTES = 64 * 2**20

_SUFFIXES = frozenset(
    {
        *(".yaml", ".yml", ".json", ".md", ".txt", ".csv", ".onnx", ".h5", ".npy"),
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".tif", ".tiff"),
    }
)
_RUNS_CODE = frozenset(
    {
        *(".pkl", ".pickle", ".p", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".mar"),
        *(".keras", ".pb", ".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1"),
        *(".jar", ".class", ".js"),
    }
)
_NAMES_WITHOUT_SUFFIX = frozenset({"license", "licence", "notice", "citation", "readme"})
# The second is what newer BioImage.IO packages call it.
_CARD_NAMES = (CARD_FILE, "bioimageio.yaml")
_DO_NOT_USE = "Do not use this archive; ask who made it."


def unpack_model(archive: str | Path, destination: Path) -> Path:
    """Unpack an archive of unknown origin into an empty folder.

    Parameters
    ----------
    archive : str or Path
        A zip file that holds a model, at its top or in one folder.
    destination : Path
        An empty folder.

    Returns
    -------
    Path
        The folder in ``destination`` that holds ``rdf.yaml``.

    Raises
    ------
    LinceiError
        Before anything is written, when the archive has entries that would leave the folder, links,
        files that can run code, files that no model has, two entries of one name, encryption, too many
        entries or too many bytes. While unpacking, when an entry is damaged or larger than announced.
    """
    where = str(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check_entries(opened.infolist(), where)
            top, card_name = _top_folder(entries, where)
            for entry in entries:
                _unpack_entry(opened, entry, destination, where)
            if card_name != CARD_FILE:
                (destination / top / card_name).replace(destination / top / CARD_FILE)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise LinceiError(
            f"this is not a zip archive, or it is damaged ({error})", where, "Get the file again."
        ) from error
    except UnicodeDecodeError as error:
        raise LinceiError("a file name in the archive is not text", where, _DO_NOT_USE) from error
    except RuntimeError as error:
        raise LinceiError(f"the archive cannot be unpacked ({error})", where, _DO_NOT_USE) from error
    except OSError as error:
        raise LinceiError(
            f"the archive cannot be unpacked ({error.strerror or error})",
            where,
            "Check the file and the space left.",
        ) from error
    return destination / top


def check_files(model: Model) -> None:
    """Check every file of a model that came from elsewhere, by its content.

    Parameters
    ----------
    model : Model
        A model that is not installed yet.

    Raises
    ------
    LinceiError
        When a file is missing, is a link, is not what the card says, has a name that no model's file
        has, or holds what could run code or read other files.
    """
    where = str(model.folder)
    for name in model.card.files:
        _check_kind(name, where)
        if any(part.is_symlink() for part in _parents_within(model.folder, name)):
            raise LinceiError(f"the file {name} is a link", where, "Do not use this model; ask who made it.")
        path = model.file(name)
        if path.suffix == ".npy":
            _refuse_pickled_array(path)
        elif path.suffix == ".onnx":
            refuse_external_data(path.read_bytes(), str(path))
        elif path.suffix == ".h5":
            refuse_linked_hdf5(path)


def pack_model(model: Model, archive: str | Path) -> Path:
    """Write a model as a zip archive that `lincei.model.install_model` and other programs read.

    Parameters
    ----------
    model : Model
        A finished model; each file is checked against the card.
    archive : str or Path
        The file to write; it is there as a whole or not at all.

    Returns
    -------
    Path
        ``archive``.

    Raises
    ------
    LinceiError
        When the model is damaged or the file cannot be written.
    """
    archive = Path(archive)
    paths = {CARD_FILE: model.folder / CARD_FILE, **{name: model.file(name) for name in model.card.files}}
    partial = archive.with_name(f".{archive.name}.partial")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, path in paths.items():
                opened.write(path, name)
        partial.replace(archive)
    except OSError as error:
        raise LinceiError(
            f"the archive cannot be written ({error.strerror or error})",
            str(archive),
            "Choose another place.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return archive


def _check_entries(entries: list[zipfile.ZipInfo], where: str) -> None:
    """Refuse by the directory of the archive what must not be unpacked."""
    if len(entries) > ENTRIES_MAX:
        raise LinceiError(
            f"the archive has {len(entries)} entries, a model has at most {ENTRIES_MAX}", where, _DO_NOT_USE
        )
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if total > BYTES_MAX or (total > RATIO_FREE_BYTES and total > RATIO_MAX * packed):
        raise LinceiError(
            f"the archive would grow to {total / 2**20:.0f} MiB, {total / max(packed, 1):.0f} times its size",
            where,
            _DO_NOT_USE,
        )
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename[:-1] if entry.is_dir() else entry.filename
        # ZipInfo cuts a name at a null byte; the original still tells.
        checked_reference(name if entry.orig_filename == entry.filename else entry.orig_filename, where)
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise LinceiError(f"the archive holds {name!r} twice", where, _DO_NOT_USE)
        seen.add(key)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
            raise LinceiError(f"the entry {name!r} is a link or a device, not a file", where, _DO_NOT_USE)
        if entry.flag_bits & 0x1:
            raise LinceiError(
                f"the entry {name!r} is encrypted", where, "Ask for an archive without a password."
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise LinceiError(
                f"the entry {name!r} is compressed in an unusual way", where, "Zip the model anew."
            )
        if not entry.is_dir():
            _check_kind(name, where)


def _check_kind(name: str, where: str) -> None:
    """Refuse files that can run code, and those that no model has."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in _RUNS_CODE:
        raise LinceiError(f"the file {name!r} can run code when it is loaded", where, _DO_NOT_USE)
    if suffix == ".data":
        raise LinceiError(
            f"the file {name!r} holds weights apart from the network",
            where,
            "Ask for an ONNX file with its weights inside.",
        )
    if suffix not in _SUFFIXES and path.name.lower() not in _NAMES_WITHOUT_SUFFIX:
        raise LinceiError(f"the file {name!r} is of a kind that no model has", where, _DO_NOT_USE)


def _top_folder(entries: list[zipfile.ZipInfo], where: str) -> tuple[str, str]:
    """Return where in the archive the card is (its top, or the only folder there) and its name."""
    names = [entry.filename for entry in entries]
    tops = {name.split("/")[0] for name in names}
    folders = ["", *tops] if len(tops) == 1 else [""]
    for folder in folders:
        for card_name in _CARD_NAMES:
            if (f"{folder}/{card_name}" if folder else card_name) in names:
                return folder, card_name
    raise LinceiError(f"the archive holds no {CARD_FILE}", where, "Check that it is a model.")


def _unpack_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, destination: Path, where: str) -> None:
    """Write one entry, never more bytes than the directory announced."""
    target = destination / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with opened.open(entry) as source, target.open("xb") as sink:
        while chunk := source.read(2**20):
            left -= len(chunk)
            if left < 0:
                raise LinceiError(f"the entry {entry.filename!r} is larger than it says", where, _DO_NOT_USE)
            sink.write(chunk)


def _parents_within(folder: Path, name: str) -> list[Path]:
    """Return the path of a file in a folder and of the folders between."""
    parts = PurePosixPath(name).parts
    return [folder.joinpath(*parts[: count + 1]) for count in range(len(parts))]


def _refuse_pickled_array(path: Path) -> None:
    """Map an array: that refuses objects, which run code when they are loaded, and false sizes."""
    try:
        np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise LinceiError(
            f"the array holds pickled objects or is damaged ({error})", str(path), _DO_NOT_USE
        ) from error
