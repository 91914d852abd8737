"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real microscopy data, which tests only read.

    Named by the environment variable LINCEI_DATA, or else ``../shared/data`` beside the repository.
    """
    named = os.environ.get("LINCEI_DATA")
    folder = Path(named).expanduser() if named else BESIDE
    if not folder.is_dir():
        asked = f"LINCEI_DATA is {named}" if named else f"LINCEI_DATA is not set and there is no {BESIDE}"
        pytest.skip(f"NO REAL DATA: {asked}. This test needs the data that README.md tells how to get.")
    return folder
