"""The commands: ``lincei arm``, ``lincei tumor``, ``lincei train-tumor``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "arm": "Show tumor outlines live in the microscope: camera in, microdisplay out.",
    "tumor": "Outline tumor in still images, whole slides included.",
    "train-tumor": "Learn to find tumor (or another region) from your own outlined images.",
}
DEMO = "arm_overlay.demo:run"

_HOMES = {
    "arm": ("arm_overlay.arm_commands", "arm_app"),
    "tumor": ("arm_overlay.tumor_commands", "tumor_app"),
    "train-tumor": ("arm_overlay.train_commands", "train_tumor_app"),
}


def command(name: str) -> typer.Typer:
    """Return the application of one of `COMMANDS`."""
    module, function = _HOMES[name]
    application: typer.Typer = getattr(importlib.import_module(module), function)()
    return application
