"""Fixtures of the core's tests: a place for models, an installed tool, a small Keras network."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from toy_models import TOY_NETWORK, TOY_TOOL, KerasFiles, card, noise

import lincei.model
from lincei.model import Model, write_model


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder for installed models; those of the user or of this distribution are not seen."""
    folder = tmp_path / "models"
    monkeypatch.setenv("LINCEI_MODELS", str(folder))
    shipped = lincei.model._shipped_folders
    monkeypatch.setattr(
        lincei.model,
        "_shipped_folders",
        lambda: [f for f in shipped() if f.parent.name not in ("insilico", "focusqc", "arm_overlay")],
    )
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *a, **k: tmp_path / "user data")
    return folder


@pytest.fixture(scope="session")
def _toy_tool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an installed tool to disk, with the metadata that pip would write."""
    root = tmp_path_factory.mktemp("site")
    package = root / TOY_TOOL
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "network.py").write_text(TOY_NETWORK, encoding="utf-8")
    (package / "other.py").write_text(
        "raise AssertionError('this must never be imported')\n", encoding="utf-8"
    )
    metadata = root / f"{TOY_TOOL}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {TOY_TOOL}\nVersion: 1.0\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text(f"[lincei.tools]\ntoy = {TOY_TOOL}.cli\n", encoding="utf-8")
    return root


@pytest.fixture
def toy_tool(_toy_tool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a tool for one test; returns its package's folder."""
    monkeypatch.syspath_prepend(_toy_tool_folder)
    yield _toy_tool_folder / TOY_TOOL
    for name in [name for name in sys.modules if name.partition(".")[0] == TOY_TOOL]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> KerasFiles:
    """Build the Keras network once and export it."""
    pytest.importorskip("tensorflow", reason="needs the extra lincei[train]")
    from lincei.keras_network import export_onnx

    folder = tmp_path_factory.mktemp("keras")
    namespace: dict[str, Any] = {}
    exec(TOY_NETWORK, namespace)
    config = {"planes": 3, "width": 8}
    with warnings.catch_warnings():
        # Keras calls NumPy in a way that NumPy 2 deprecates.
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        import keras

        keras.utils.set_random_seed(0)
        network = namespace["build_network"](config)
        network.save_weights(folder / "toy.weights.h5")
        network.save(folder / "toy.keras")
        stack = noise()
        answers = network(stack.transpose(0, 2, 3, 1), training=False)
        outputs = {name: np.asarray(a).transpose(0, 3, 1, 2) for name, a in answers.items()}
    exported = export_onnx(
        network, folder / "toy.onnx", channels=3, output_names=["mean", "sd", "parameters"]
    )
    return KerasFiles(
        exported.read_bytes(),
        folder / "toy.weights.h5",
        folder / "toy.keras",
        {"builder": f"{TOY_TOOL}.network:build_network", "config": config},
        stack,
        outputs,
    )


@pytest.fixture
def keras_model(models: Path, toy_tool: Path, keras_files: KerasFiles) -> Model:
    """Give an installed model that has everything: exported network, Keras weights, configuration, test."""
    return write_model(
        models / "toy-cells",
        card(),
        onnx=keras_files.onnx,
        keras_weights=keras_files.weights,
        network=keras_files.network,
        test_input=keras_files.stack,
        test_outputs=keras_files.outputs,
    )
