"""The commands of focus quality: ``lincei focus`` and ``lincei train-focus``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "focus": "Rate how well images are focused, patch by patch, and name what to leave out.",
    "train-focus": "Learn to rate the focus of images like yours, from sharp ones.",
}
DEMO = "focusqc.demo:run"


def command(name: str) -> typer.Typer:
    """Return the application of one of `COMMANDS`."""
    from focusqc import commands

    return {"focus": commands.focus_app, "train-focus": commands.train_focus_app}[name]()
