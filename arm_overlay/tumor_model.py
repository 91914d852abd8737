"""What a tumor model's card says: its kind of output, its threshold, and how it is used at each objective.

Every front end reads a tumor model through this module, so that a card that cannot be used is refused in one
place, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lincei.errors import LinceiError
from lincei.model import Model, find_model

if TYPE_CHECKING:
    from lincei.engine import Engine
    from lincei.model_card import Card, Tensor

# The kinds of output that are shown, and the name of each one's tensor.
PROBABILITY_MAP = "probability map"
POINTS = "points"
CLASS_PROBABILITIES = "class probabilities"
NUMBER = "number"
OUTPUT_NAMES: Mapping[str, str] = {
    PROBABILITY_MAP: "probability",
    POINTS: "points",
    CLASS_PROBABILITIES: "classes",
    NUMBER: "number",
}
# Those that say something of each place in the field.
_MAPS = (PROBABILITY_MAP, POINTS)
INPUT_CHANNELS = ("red", "green", "blue")

_OBJECTIVE = re.compile(r"(\d+(?:\.\d+)?)\s*[xX]")
_OBJECTIVE_KEYS = ("network", "pixel_size_um", "threshold")


@dataclass(frozen=True)
class NetworkChoice:
    """The network for an objective, and how it is run there.

    Parameters
    ----------
    model : TumorModel
        The model whose network is run.
    pixel_size_um : float
        Pixel size to which frames are resampled, in um.
    threshold : float
        Probability from which on something is tumor (or a point).
    """

    model: TumorModel
    pixel_size_um: float
    threshold: float


@dataclass(frozen=True)
class TumorModel:
    """A tumor model whose card has been checked.

    Parameters
    ----------
    model : Model
        Its folder and card.

    Raises
    ------
    LinceiError
        When the card does not say how the network is used; it names the entry and what is allowed.
    """

    model: Model

    def __post_init__(self) -> None:
        _check(self.model)

    @classmethod
    def open(cls, name_or_folder: str | Path) -> TumorModel:
        """Find a tumor model by its name or folder, and check its card; the network is not opened.

        Raises
        ------
        LinceiError
            When there is none, it has another task, or its kind of output cannot be shown.
        """
        return cls(find_model(name_or_folder, task="tumor"))

    @property
    def name(self) -> str:
        """What ``--model`` takes."""
        return self.model.name

    @property
    def card(self) -> Card:
        """The model's card."""
        return self.model.card

    @property
    def kind(self) -> str:
        """Its kind of output, a key of `OUTPUT_NAMES`."""
        return str(self.card.settings["output_kind"])

    @property
    def output(self) -> Tensor:
        """The output that is shown."""
        return self.card.output(OUTPUT_NAMES[self.kind])

    @property
    def downsampling(self) -> int:
        """Input pixels along one side of an output pixel; 1 where the output is of the field as a whole."""
        return self.output.downsampling or 1

    @property
    def pixel_size_um(self) -> float:
        """Pixel size that the network was made for, in um."""
        assert self.card.pixel_size_um is not None  # checked when it was opened
        return self.card.pixel_size_um

    @property
    def threshold(self) -> float:
        """Probability from which on something is tumor, where no objective is known."""
        return float(self.card.settings.get("threshold", 0.5))

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives of the card's table, such as ``("4x", "10x")``; empty where it has none."""
        return tuple(self.card.settings.get("objectives", {}))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, for class probabilities."""
        return self.output.channels

    @property
    def point_name(self) -> str:
        """What the points are, such as "mitosis"."""
        return str(self.card.settings.get("point_name", "point"))

    @property
    def number_name(self) -> str:
        """What the number is."""
        return str(self.card.settings.get("number_name", "number"))

    @property
    def number_unit(self) -> str:
        """Unit of the number; may be empty."""
        return str(self.card.settings.get("number_unit", ""))

    def for_objective(self, objective: str) -> NetworkChoice | None:
        """Return how frames of an objective are looked at, or None: no model for this objective.

        A card without a table of objectives is used at its own pixel size at every objective.

        Parameters
        ----------
        objective : str
            Its magnification, such as ``"20x"``.

        Raises
        ------
        LinceiError
            When this is no objective, or the table names another network that cannot be used.
        """
        wanted = magnification(objective)
        table = self.card.settings.get("objectives", {})
        if not table:
            return NetworkChoice(self, self.pixel_size_um, self.threshold)
        for name, entry in table.items():
            if magnification(name) == wanted:
                network = self._network(str(entry.get("network", "")))
                return NetworkChoice(
                    network,
                    float(entry.get("pixel_size_um", network.pixel_size_um)),
                    float(entry.get("threshold", network.threshold)),
                )
        return None

    def _network(self, name: str) -> TumorModel:
        """Return this model, or the one of that name: beside this one, or wherever models are found."""
        if name in ("", self.name):
            return self
        beside = self.model.folder.parent / name
        try:
            found = TumorModel.open(beside if beside.is_dir() else name)
        except LinceiError as error:
            raise LinceiError(
                f"the network {name!r} that its table of objectives names cannot be used: {error.what}",
                f"model {self.name}",
                error.what_to_do,
            ) from error
        if found.kind != self.kind:
            raise LinceiError(
                f"the network {name!r} that its table of objectives names gives a {found.kind}, "
                f"and this model a {self.kind}",
                f"model {self.name}",
                "Name a network with the same kind of output.",
            )
        return found

    def open_engine(
        self, *, precision: str = "float32", threads: int | None = None, engine: str | None = None
    ) -> Engine:
        """Open the network for the output that is shown; see `lincei.engine.open_engine`."""
        from lincei.engine import open_engine

        return open_engine(
            self.model, engine=engine, threads=threads, precision=precision, outputs=[self.output.name]
        )


def magnification(objective: str) -> float:
    """Return the magnification of an objective by its name.

    Raises
    ------
    LinceiError
        When it does not begin with a number and an "x".

    Examples
    --------
    >>> magnification("20x"), magnification("2.5X")
    (20.0, 2.5)
    """
    match = _OBJECTIVE.fullmatch(objective.strip())
    if not match or float(match[1]) == 0:
        raise LinceiError(
            f"{objective!r} is no objective",
            "",
            "Write its magnification and an x, such as 4x, 10x, 20x, 40x.",
        )
    return float(match[1])


def objective_of(magnification: float) -> str:
    """Return the one way in which the objective of a magnification is written.

    Examples
    --------
    >>> objective_of(20.0), objective_of(magnification("2.50 X"))
    ('20x', '2.5x')
    """
    return f"{magnification:g}x"


def _check(model: Model) -> None:
    """Refuse a card that cannot be used."""
    card, where = model.card, f"model {model.name}"
    if card.task != "tumor":
        raise LinceiError(f"this is a model for {card.task}, not for tumor", where)
    kind = card.settings.get("output_kind")
    kinds = ", ".join(OUTPUT_NAMES)
    if kind is None:
        raise LinceiError(
            "its card does not say what kind of output it gives",
            where,
            f"Write one as settings: output_kind: {kinds}.",
        )
    if not isinstance(kind, str) or kind not in OUTPUT_NAMES:
        raise LinceiError(
            f"its kind of output is {kind!r}, which cannot be shown", where, f"These can: {kinds}."
        )
    if card.input.channels != INPUT_CHANNELS:
        raise LinceiError(
            f"its input has the channels {', '.join(card.input.channels)}, not {', '.join(INPUT_CHANNELS)}",
            where,
            "A camera's frames are red, green and blue, 0 to 255.",
        )
    output = card.output(OUTPUT_NAMES[kind])
    if (kind in _MAPS) != (output.downsampling is not None):
        raise LinceiError(
            f"its output {output.name!r} is {'no map' if kind in _MAPS else 'a map'}, "
            f"and its kind of output is {kind!r}",
            where,
            "Correct the card.",
        )
    if kind != CLASS_PROBABILITIES and len(output.channels) != 1:
        raise LinceiError(f"its output {output.name!r} has {len(output.channels)} channels, not one", where)
    if card.pixel_size_um is None:
        raise LinceiError(
            "its card does not say at what pixel size it is run", where, "Write it as pixel_size_um."
        )
    _check_threshold(card.settings.get("threshold", 0.5), where)
    _check_objectives(card.settings.get("objectives", {}), where)


def _check_threshold(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise LinceiError(f"its threshold is {value!r}", where, "It must lie between 0 and 1.")


def _check_objectives(table: Any, where: str) -> None:
    """Refuse a table of objectives with an unknown objective, entry or value."""
    if not isinstance(table, Mapping):
        raise LinceiError(f"its table of objectives is {table!r}", where, 'Begin it with "20x" or the like.')
    seen: set[float] = set()
    for name, entry in table.items():
        number = magnification(str(name))
        if number in seen:
            raise LinceiError(f"its table of objectives has {name} twice", where, "Leave one out.")
        seen.add(number)
        if not isinstance(entry, Mapping) or set(entry) - set(_OBJECTIVE_KEYS):
            raise LinceiError(
                f"its table of objectives has {entry!r} for {name}",
                where,
                f"Each objective has: {', '.join(_OBJECTIVE_KEYS)}.",
            )
        if "threshold" in entry:
            _check_threshold(entry["threshold"], f"{where}, objective {name}")
        size = entry.get("pixel_size_um", 1.0)
        if (
            isinstance(size, bool)
            or not isinstance(size, (int, float))
            or not (math.isfinite(size) and size > 0)
        ):
            raise LinceiError(
                f"its pixel size is {size!r}",
                f"{where}, objective {name}",
                "It must be a length above 0 in um.",
            )
