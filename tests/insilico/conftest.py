"""Fixtures of in silico labeling's tests: tiny models made once, found by name."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import platformdirs
import pytest
from tiny_models import TinyModels, variant, write_tiny


@pytest.fixture(scope="session")
def tiny_models_once(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Make the models; the only fixture that imports TensorFlow."""
    pytest.importorskip("tensorflow", reason="needs the extra lincei[train]")
    folder = tmp_path_factory.mktemp("models")
    with warnings.catch_warnings():
        # Keras calls NumPy in a way that NumPy 2 deprecates.
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        three = write_tiny(folder / "tiny", planes=3)
        one = write_tiny(folder / "tiny-one", planes=1)
    return TinyModels(
        folder,
        three,
        one,
        variant(three, folder / "tiny-scaled", pixel_size_um=0.5, z_step_um=2.0),
        variant(three, folder / "tiny-bright", modality="bright field"),
    )


@pytest.fixture
def tiny(tiny_models_once: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyModels:
    """Give the models, and have them found by name; nothing of the user's own is seen."""
    monkeypatch.setenv("LINCEI_MODELS", str(tiny_models_once.folder))
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *a, **k: tmp_path / "user data")
    # A command run as a process of its own looks there.
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user data"))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return tiny_models_once
