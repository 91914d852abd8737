from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Importing the Python API must stay quick and must not load what a GUI process may not have.
HEAVY = {"tensorflow", "keras", "torch", "jax", "openvino", "onnxruntime", "bioio", "zarr", "skimage"}
API = (
    "lincei.image",
    "lincei.batch",
    "lincei.report",
    "lincei.engine",
    "lincei.model",
    "sample_data.registry",
)


def test_dependencies_point_from_the_tools_to_the_core() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", API)
def test_importing_the_api_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
