"""Every example in a docstring does what it shows."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import arm_overlay
import focusqc
import insilico
import lincei
import sample_data

MODULES = sorted(
    found.name
    for package in (arm_overlay, focusqc, insilico, lincei, sample_data)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
# Import the networks' library, which belongs to the extra lincei[train].
NEED_KERAS = {"insilico.network"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name: str) -> None:
    if name in NEED_KERAS:
        pytest.importorskip("keras", reason="needs the extra lincei[train]")
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_examples_are_found() -> None:
    """Hold the test above to its task: some modules are known to have examples."""
    finder = doctest.DocTestFinder()
    for name in ("lincei.tiles", "lincei.pixel_size", "insilico.z_planes", "focusqc.levels"):
        assert any(test.examples for test in finder.find(importlib.import_module(name)))
