"""Fixtures of the tests of focus quality: models that rate by a known rule, found by name."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from stand_in_models import write_stand_in

import lincei.model
from lincei.engine import clear_engines


@pytest.fixture(scope="session")
def stand_ins_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the stand-ins, named as the shipped models."""
    folder = tmp_path_factory.mktemp("models")
    write_stand_in(folder / "focus-fluorescence")
    write_stand_in(folder / "focus-he", modality="H&E", pixel_size_um=0.5)
    return folder


@pytest.fixture
def stand_ins(stand_ins_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the stand-ins found in place of the shipped models; nothing of the user's own is seen."""
    monkeypatch.setenv("LINCEI_MODELS", str(stand_ins_once))
    monkeypatch.setattr(lincei.model, "_shipped_folders", lambda: [])
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *a, **k: tmp_path / "user data")
    # A command run as a process of its own looks there.
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user data"))
    return stand_ins_once


@pytest.fixture(scope="session", autouse=True)
def _engines_let_go() -> None:
    """Start without engines of other tests."""
    clear_engines()
