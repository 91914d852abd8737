"""Checking a model: its files, its card, and the test input on each engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lincei.engine import engine_status, open_engine
from lincei.errors import LinceiError
from lincei.model import Model
from lincei.model_card import CARD_FILE, read_rdf, spec_problems

ABSOLUTE_TOLERANCE = 1e-3
RELATIVE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CheckReport:
    """How far a model's answer to its test input is from the one that it brings.

    Parameters
    ----------
    engine : str
        Name and version of the engine that ran; empty when none did.
    max_abs_deviation : mapping of str to float
        Largest absolute deviation of each output; infinite where shapes differ or a value is not finite.
    within : mapping of str to bool
        Whether each output lies within ``ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * |expected|``.
    problems : tuple of str
        What else is wrong: with the card by the BioImage.IO specification, or with the engine.
    """

    engine: str
    max_abs_deviation: Mapping[str, float]
    within: Mapping[str, bool]
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether something was compared, all of it lies within the tolerance, and nothing is wrong."""
        return bool(self.within) and all(self.within.values()) and not self.problems

    def describe(self) -> str:
        """Return the report in one line."""
        parts = [
            f"{name} off by {deviation:.2g}{'' if self.within[name] else ' (too much)'}"
            for name, deviation in self.max_abs_deviation.items()
        ]
        return "; ".join([*parts, *self.problems]) or "nothing was compared"


def check_model(model: Model, engine: str | None = None) -> CheckReport:
    """Check a model: every file's SHA-256, the card, and the test input.

    Parameters
    ----------
    model : Model
        The model.
    engine : str, optional
        The engine; by default the first that works.

    Returns
    -------
    CheckReport
        What was found; a damaged file or an engine that fails is a problem in it, not an exception.
    """
    problems: list[str] = []
    try:
        for name in model.card.files:
            model.file(name)
        problems += [f"BioImage.IO: {p}" for p in spec_problems(read_rdf(model.folder / CARD_FILE))]
        report = compare(model, engine)
    except LinceiError as error:
        return CheckReport("", {}, {}, (*problems, str(error)))
    return CheckReport(report.engine, report.max_abs_deviation, report.within, (*problems, *report.problems))


def check_on_all_engines(model: Model) -> dict[str, CheckReport]:
    """Check a model on each engine that works here.

    Returns
    -------
    dict of str to CheckReport
        By the engine's name. A model without Keras weights has none for TensorFlow.
    """
    reports = {}
    for status in engine_status():
        if status.works and (status.name != "tensorflow" or model.has_keras()):
            reports[status.name] = check_model(model, status.name)
    return reports


def compare(model: Model, engine: str | None = None) -> CheckReport:
    """Run the test input and compare the outputs with those that the model brings.

    Raises
    ------
    LinceiError
        When the model brings no test, is damaged, or no engine works.
    """
    stack = model.test_input()
    expected = model.test_outputs()
    with open_engine(model, engine=engine, outputs=list(expected)) as opened:
        found = opened.run(stack)
        ran = f"{opened.name} {opened.version}".strip()
    deviations: dict[str, float] = {}
    within: dict[str, bool] = {}
    for name, truth in expected.items():
        answer = found[name]
        if answer.shape != truth.shape or not np.isfinite(answer).all():
            deviations[name], within[name] = float("inf"), False
            continue
        difference = np.abs(answer.astype(np.float64) - truth)
        deviations[name] = float(difference.max(initial=0.0))
        limit = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(truth.astype(np.float64))
        within[name] = bool((difference <= limit).all())
    return CheckReport(ran, deviations, within)
