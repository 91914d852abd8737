"""The commands of in silico labeling: ``lincei label``, ``lincei train`` and ``lincei evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "label": "Predict fluorescence images from transmitted-light images.",
    "train": "Learn a new label from pairs of transmitted-light and stained images.",
    "evaluate": "Compare predictions with stained images: figures, and a page that shows the errors.",
}
DEMO = "insilico.demo:run"
JOBS = {"train": "insilico.jobs:train", "label": "insilico.jobs:label"}


def command(name: str) -> typer.Typer:
    """Return the application of one of `COMMANDS`."""
    from insilico import commands

    return {
        "label": commands.label_app,
        "train": commands.train_app,
        "evaluate": commands.evaluate_app,
    }[name]()
