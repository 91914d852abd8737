"""The built wheel and source distribution: what is in them, and that the wheel works on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"lincei", "insilico", "focusqc", "arm_overlay", "napari_plugin", "sample_data"}

# What the light install must not bring: window toolkits, training frameworks, Java.
UNWANTED = ("pyqt", "pyside", "tensorflow", "keras", "torch", "jax", "jpype", "scyjava", "pyimagej", "napari")

# How pip says that there is no network; any other failure to install is the wheel's.
NO_NETWORK = ("NewConnectionError", "Temporary failure in name resolution", "Network is unreachable")


def run(*words: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Run a program and return its output; a failing one fails the test with what it said."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode and any(words_ in said for words_ in NO_NETWORK):
        pytest.skip("no network: the wheel cannot be built and installed into an empty environment")
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{said}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution (the wheel is made from the latter)."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, cwd=ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [path] = built.glob("lincei-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it requires, nothing else; its folder of programs."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return programs


@pytest.fixture
def lincei_alone(environment: Path, tmp_path: Path) -> Lincei:
    return Lincei(environment, tmp_path)


class Lincei:
    """The installed ``lincei``, run far from the source and without the settings of who runs the tests."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder = programs, folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LINCEI_", "PYTHON", "XDG_"))}
        self._environment = kept | {"HOME": str(folder), "USERPROFILE": str(folder)}

    def __call__(self, *words: str | Path) -> str:
        return run(self._programs / "lincei", *words, cwd=self.folder, environment=self._environment)

    def python(self, code: str) -> str:
        return run(self._programs / "python", "-c", code, cwd=self.folder, environment=self._environment)


def package_files() -> set[str]:
    """Return every file of the packages, as the wheel should have them."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    information = {name for name in names if PurePosixPath(name).parts[0].endswith(".dist-info")}
    assert names - information == package_files()
    assert any(name.endswith("licenses/LICENSE") for name in information)
    assert "lincei/templates/page.html" in names
    assert "sample_data/registry.json" in names


def test_the_source_distribution_holds_what_is_needed_to_build_and_test(built: Path) -> None:
    [path] = built.glob("lincei-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {"/".join(PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    assert package_files() <= names
    for name in ("pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "Makefile"):
        assert name in names
    assert any(name.startswith("tests/lincei/") for name in names)


def test_the_light_install_brings_no_windows_no_training_and_no_java(environment: Path) -> None:
    listed = run(environment / "python", "-m", "pip", "list", "--format", "json", cwd=environment)
    installed = {package["name"].lower() for package in json.loads(listed)}
    assert "lincei" in installed
    assert [name for name in sorted(installed) if name.startswith(UNWANTED)] == []


def test_the_installed_program_answers(lincei_alone: Lincei) -> None:
    assert "Usage: lincei COMMAND" in lincei_alone("--help")
    assert "Everything that is installed works." in lincei_alone("doctor")
    lincei_alone("models", "list")


def test_the_installed_names_are_importable_and_lincei_s(lincei_alone: Lincei) -> None:
    code = f"import importlib; [print(importlib.import_module(n).__file__) for n in {sorted(PACKAGES)!r}]"
    for line in lincei_alone.python(code).splitlines():
        assert "site-packages" in line


def test_the_installed_program_labels_an_image_with_a_shipped_model(lincei_alone: Lincei) -> None:
    if not any((ROOT / "insilico" / "weights").glob("*/rdf.yaml")):
        pytest.skip("no model is shipped yet, so that there is nothing to label with")
    planes = np.random.default_rng(0).integers(20_000, 40_000, (5, 96, 112), dtype=np.uint16)
    tifffile.imwrite(lincei_alone.folder / "cells.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    words = ("--model", "motor-neurons", "--modality", "phase contrast", "--out", "out")
    lincei_alone("label", "cells.tif", *words)
    predicted = tifffile.imread(lincei_alone.folder / "out" / "cells.ome.tif")
    assert predicted.dtype == np.float32
    assert predicted.shape[-2:] == (96, 112)
    assert np.isfinite(predicted).all()
