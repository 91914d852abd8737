from __future__ import annotations

import functools
import hashlib
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest
import tifffile

from lincei.errors import CancelledError, LinceiError, LinceiWarning, UsageError
from lincei.progress import Progress
from sample_data import registry
from sample_data.registry import Dataset, SampleFile, dataset, dataset_names, fetch, locate, pixels_sha256

SMALL = "small set"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data anywhere: neither a data folder, nor a cache, nor an address."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(registry, "cache_folder", lambda: folder)
    monkeypatch.delenv("LINCEI_DATA", raising=False)
    monkeypatch.delenv("LINCEI_DATA_URL", raising=False)
    return folder


@pytest.fixture
def published_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of three files with a folder inside, registered as `SMALL`; its folder."""
    folder = tmp_path / "published" / SMALL
    for number, name in enumerate(("a b.tif", "images/c.tif", "images/d.tif")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, np.full((8, 8), number, np.uint16))
    files = tuple(
        SampleFile(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*.tif"))
    )
    record = Dataset(SMALL, "", "", "", "", "lab/small", "c" * 40, "", files)
    monkeypatch.setattr(registry, "_registry", lambda: {SMALL: record})
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server on this machine: the folder it serves, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{web.server_address[1]}"
        finally:
            web.shutdown()
            thread.join()


@pytest.mark.parametrize("name", dataset_names())
def test_every_set_says_whose_it_is_and_pins_its_files(name: str) -> None:
    record = dataset(name)
    assert record.title
    assert record.license
    assert record.made_by
    assert record.citation
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", record.repository)
    assert re.fullmatch(r"[0-9a-f]{40}", record.commit)
    assert record.files
    for file in record.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert ".." not in Path(file.name).parts
        assert not Path(file.name).is_absolute()
        assert bool(file.original) == bool(file.pixels_sha256)


@pytest.mark.parametrize("name", dataset_names())
def test_the_real_data_are_as_registered(
    name: str, real_data: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINCEI_DATA", str(real_data))
    assert locate(name) == real_data / name
    present = {path.relative_to(real_data / name).as_posix() for path in (real_data / name).rglob("*.*")}
    assert present == {file.name for file in dataset(name).files}


def test_the_pixels_of_the_originals_are_pinned_too(real_data: Path) -> None:
    for file in dataset("isl_motor_neurons").files:
        assert (
            pixels_sha256(tifffile.imread(real_data / "isl_motor_neurons" / file.name)) == file.pixels_sha256
        )


def test_an_unknown_set_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="isl_motor_neurons"):
        dataset("kangaroos")


def test_a_set_that_is_nowhere_is_none(empty_cache: Path) -> None:
    assert locate("bbbc006_focus") is None
    assert locate("isl_motor_neurons", download=False) is None
    assert not empty_cache.exists()
    with pytest.raises(LinceiError, match="LINCEI_DATA_URL"):
        fetch("bbbc006_focus")


def test_a_damaged_copy_is_named_and_not_used(
    published_set: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINCEI_DATA", str(published_set.parent))
    assert locate(SMALL) == published_set
    damaged = published_set / dataset(SMALL).files[1].name
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.warns(LinceiWarning, match=re.escape(str(damaged))):
        assert locate(SMALL) is None


def test_a_set_is_downloaded_from_a_copy_checked_and_kept(
    published_set: Path, empty_cache: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = server
    shutil.copytree(published_set, served / SMALL)
    monkeypatch.setenv("LINCEI_DATA_URL", f"{address}/")
    heard: list[Progress] = []
    folder = locate(SMALL, progress=heard.append)
    assert folder == empty_cache / SMALL
    assert not dataset(SMALL).first_problem(folder)
    assert [update.done for update in heard] == list(range(len(dataset(SMALL).files) + 1))
    assert [path.name for path in empty_cache.iterdir()] == [SMALL]
    monkeypatch.delenv("LINCEI_DATA_URL")
    assert locate(SMALL) == folder


def test_a_file_that_is_not_the_published_one_is_refused(
    published_set: Path, empty_cache: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = server
    shutil.copytree(published_set, served / SMALL)
    bad = served / SMALL / dataset(SMALL).files[1].name
    bad.write_bytes(b"something else")
    monkeypatch.setenv("LINCEI_DATA_URL", address)
    with pytest.raises(LinceiError, match="not the file that was published"):
        fetch(SMALL)
    kept = [path for path in (empty_cache / SMALL).rglob("*") if path.is_file()]
    assert [path.name for path in kept] == [dataset(SMALL).files[0].name]
    shutil.copy(published_set / dataset(SMALL).files[1].name, bad)
    assert fetch(SMALL) == empty_cache / SMALL, "a download goes on where it stopped"


def test_without_an_answer_one_warning_says_why_and_the_set_is_none(
    published_set: Path, empty_cache: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINCEI_DATA_URL", server[1])
    with pytest.warns(LinceiWarning, match="the server answered 404"):
        assert locate(SMALL) is None
    monkeypatch.setenv("LINCEI_DATA_URL", "http://127.0.0.1:9")
    with pytest.warns(LinceiWarning, match="no connection"):
        assert locate(SMALL) is None


def test_a_download_can_be_stopped(
    published_set: Path, empty_cache: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINCEI_DATA_URL", server[1])
    with pytest.raises(CancelledError):
        locate(SMALL, cancelled=lambda: True)


def published(folder: Path, image: np.ndarray[Any, Any]) -> Dataset:
    """Publish an image as PNG the way the originals are, and return a set that was made from it."""
    path = folder / "lab" / "cells" / ("c" * 40) / "raw data" / "z_depth-0,channel-PHASE.png"
    path.parent.mkdir(parents=True)
    imageio.v3.imwrite(path, image)
    file = SampleFile("phase_z00.tif", "0" * 64, path.name, pixels_sha256(image[:, :20]))
    return Dataset("cells", "", "", "", "", "lab/cells", "c" * 40, "raw data", (file,), columns=20)


def test_an_original_is_cut_and_converted_and_its_pixels_are_checked(
    empty_cache: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.arange(30 * 32, dtype=np.uint16).reshape(30, 32) * 61
    record = published(server[0], image)
    monkeypatch.setattr(registry, "ORIGINALS_ADDRESS", server[1])
    monkeypatch.setattr(registry, "_registry", lambda: {"cells": record})
    folder = locate("cells")
    assert folder is not None
    np.testing.assert_array_equal(tifffile.imread(folder / "phase_z00.tif"), image[:, :20])
    monkeypatch.setattr(registry, "ORIGINALS_ADDRESS", "http://127.0.0.1:9")
    assert locate("cells") == folder, "found in the cache, by its pixels"


def test_an_original_with_other_pixels_is_refused(
    empty_cache: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = published(server[0], np.ones((30, 32), np.uint16))
    imageio.v3.imwrite(next(server[0].rglob("*.png")), np.full((30, 32), 2, np.uint16))
    monkeypatch.setattr(registry, "ORIGINALS_ADDRESS", server[1])
    monkeypatch.setattr(registry, "_registry", lambda: {"cells": record})
    with pytest.warns(LinceiWarning, match="its pixels differ"):
        assert locate("cells") is None
    assert not list(empty_cache.rglob("*.tif"))
