"""Real microscopy data for demonstrations and tests: where each set is, whose it is, and its hashes.

A set is looked for in the folder named by ``LINCEI_DATA``, then in the cache, then fetched:

- from ``LINCEI_DATA_URL``, the address of a copy of the data folder, when that is set: every file is checked
  by the SHA-256 of its bytes;
- else, for the sets that list their original files, from the pinned commit of the repository they were
  published in. The originals are stored in another format, so that what is checked is the SHA-256 of the
  pixels they hold.

The other sets are only found in ``LINCEI_DATA`` or through ``LINCEI_DATA_URL``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import urllib.parse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

ORIGINALS_ADDRESS = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class SampleFile:
    """A file of a set.

    Parameters
    ----------
    name : str
        Its path in the set's folder.
    sha256 : str
        Of its bytes.
    original : str
        Name of the published file that it was made from; empty where the registry does not pin it.
    pixels_sha256 : str
        Of its pixels (see `pixels_sha256`), where ``original`` is pinned.
    """

    name: str
    sha256: str
    original: str = ""
    pixels_sha256: str = ""

    def is_good(self, path: Path) -> bool:
        """Tell whether ``path`` is this file: the same bytes, or the same pixels where those are pinned."""
        if not path.is_file():
            return False
        if hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256:
            return True
        return bool(self.pixels_sha256) and _pixels_of(path) == self.pixels_sha256


@dataclass(frozen=True)
class Dataset:
    """A set of real images.

    Parameters
    ----------
    name, title : str
        Its folder's name, and what it is in one line.
    license, made_by, citation : str
        Whose it is, what one may do with it and what to cite.
    repository, commit, path : str
        Where it was published (the path is empty where it is spread over several folders).
    files : tuple of SampleFile
        Its files.
    columns : int or None
        Columns kept of each original (from the left); None keeps all.
    """

    name: str
    title: str
    license: str
    made_by: str
    citation: str
    repository: str
    commit: str
    path: str
    files: tuple[SampleFile, ...]
    columns: int | None = None

    @property
    def origin(self) -> str:
        """Where the data come from, for people."""
        return f"{self.repository} @{self.commit[:12]}{', ' if self.path else ''}{self.path}"

    def first_problem(self, folder: Path) -> str:
        """Return the first file that is missing or different in ``folder``; empty when all are good."""
        return next((file.name for file in self.files if not file.is_good(folder / file.name)), "")


def dataset_names() -> tuple[str, ...]:
    """Return the names of all sets."""
    return tuple(_registry())


def dataset(name: str) -> Dataset:
    """Return what is known about a set.

    Raises
    ------
    UsageError
        When there is no such set.
    """
    try:
        return _registry()[name]
    except KeyError:
        raise UsageError(
            f"there is no data set {name!r}", "", f"There are: {', '.join(dataset_names())}."
        ) from None


def locate(
    name: str,
    *,
    download: bool = True,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Path | None:
    """Return the folder of a set, checked, or None where it cannot be had.

    Parameters
    ----------
    name : str
        One of `dataset_names`.
    download : bool
        False looks only on this computer.
    progress, cancelled : callable, optional
        As in every job.

    Warns
    -----
    LinceiWarning
        When the set is in ``LINCEI_DATA`` but damaged, or could not be downloaded: once, and why.
    """
    wanted = dataset(name)
    named = os.environ.get("LINCEI_DATA", "")
    if named and (folder := Path(named) / name).is_dir():
        problem = wanted.first_problem(folder)
        if not problem:
            return folder
        message = f"{folder / problem}: missing or not as published; this copy of the data is not used"
        warnings.warn(message, LinceiWarning, stacklevel=2)
    folder = cache_folder() / name
    if folder.is_dir() and not wanted.first_problem(folder):
        return folder
    if not download or not _can_fetch(wanted):
        return None
    try:
        return fetch(name, progress=progress, cancelled=cancelled)
    except LinceiError as error:
        warnings.warn(str(error), LinceiWarning, stacklevel=2)
        return None


def fetch(
    name: str, *, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
) -> Path:
    """Download a set into the cache and return its folder there; what is there already is kept.

    Raises
    ------
    LinceiError
        When a file cannot be downloaded, or is not what was published.
    """
    wanted = dataset(name)
    if not _can_fetch(wanted):
        raise LinceiError(
            f"the data set {name!r} has no address of its own",
            "",
            "Set LINCEI_DATA to a folder that has it, or LINCEI_DATA_URL to the address of a copy of it.",
        )
    mirror = os.environ.get("LINCEI_DATA_URL", "").rstrip("/")
    get = functools.partial(_from_mirror, mirror) if mirror else _from_originals
    folder = cache_folder() / name
    for index, file in enumerate(wanted.files):
        stop_if_cancelled(cancelled)
        report(progress, Progress(f"downloading {name}", index, len(wanted.files)))
        target = folder / file.name
        if not file.is_good(target):
            _put(get, wanted, file, target)
    report(progress, Progress(f"downloading {name}", len(wanted.files), len(wanted.files)))
    return folder


def cache_folder() -> Path:
    """Return the folder that downloaded sets go to."""
    import platformdirs

    return platformdirs.user_cache_path("lincei", appauthor=False) / "data"


def pixels_sha256(image: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of a gray image's pixels, whatever format it was stored in.

    Over the text ``"<rows>x<columns> <dtype> "`` and the pixels, row by row, least significant byte first.
    """
    ordered = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
    head = f"{'x'.join(map(str, image.shape))} {image.dtype.name} "
    return hashlib.sha256(head.encode() + ordered.tobytes()).hexdigest()


@functools.cache
def _registry() -> dict[str, Dataset]:
    """Read the registry."""
    text = resources.files(__package__).joinpath("registry.json").read_text(encoding="utf-8")
    sets: dict[str, Dataset] = {}
    for name, record in json.loads(text).items():
        files = tuple(
            SampleFile(file, **(entry if isinstance(entry, dict) else {"sha256": entry}))
            for file, entry in record.pop("files").items()
        )
        sets[name] = Dataset(name, files=files, **record)
    return sets


def _can_fetch(wanted: Dataset) -> bool:
    """Tell whether there is an address to download a set from."""
    return bool(os.environ.get("LINCEI_DATA_URL")) or all(file.original for file in wanted.files)


def _put(
    get: Callable[[Dataset, SampleFile, Path], Path], wanted: Dataset, file: SampleFile, target: Path
) -> None:
    """Download one file and put it in place once it is checked."""
    # A folder of this process only: two programs may fetch the same set at once.
    work = cache_folder() / f".download-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    try:
        good = get(wanted, file, work)
        target.parent.mkdir(parents=True, exist_ok=True)
        good.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _from_mirror(mirror: str, wanted: Dataset, file: SampleFile, work: Path) -> Path:
    """Download a file from a copy of the data folder, checked by the SHA-256 of its bytes."""
    return _download(f"{mirror}/{wanted.name}/{urllib.parse.quote(file.name)}", work, f"sha256:{file.sha256}")


def _from_originals(wanted: Dataset, file: SampleFile, work: Path) -> Path:
    """Download the published original and store its pixels as here, checked by their SHA-256."""
    import imageio.v3
    import tifffile

    path = urllib.parse.quote(f"{wanted.path}/{file.original}")
    address = f"{ORIGINALS_ADDRESS}/{wanted.repository}/{wanted.commit}/{path}"
    image = np.asarray(imageio.v3.imread(_download(address, work, None)))
    image = image[..., : wanted.columns] if image.ndim == 2 else image
    if pixels_sha256(image) != file.pixels_sha256:
        raise LinceiError("this is not the image that was published (its pixels differ)", address)
    converted = work / "converted.tif"
    tifffile.imwrite(converted, image, compression="zlib")
    return converted


def _download(address: str, work: Path, known_hash: str | None) -> Path:
    """Download one address into ``work``."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(address, known_hash=known_hash, path=work, fname="downloaded"))
    except requests.RequestException as error:
        raise LinceiError(
            f"it could not be downloaded ({_cause(error)})",
            address,
            "Connect to the internet and try again, or set LINCEI_DATA to a folder that has the data.",
        ) from error
    except ValueError as error:  # how pooch says that the hash differs, or that the address is none
        raise LinceiError(
            "it is not the file that was published, or this is no web address",
            address,
            "Correct LINCEI_DATA_URL, or try again later.",
        ) from error


def _cause(error: Exception) -> str:
    """Return why a download failed, in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    return "no answer in time" if isinstance(error, requests.Timeout) else "no connection"


def _pixels_of(path: Path) -> str:
    """Return `pixels_sha256` of a TIFF, or nothing when it cannot be read."""
    import tifffile

    try:
        return pixels_sha256(tifffile.imread(path))
    except Exception:  # a damaged file raises anything; it is not the good one then
        return ""
