"""Which objective is in the light path, how large a pixel is with it, and whether the image agrees.

The microscope says which objective is set, or the observer does with a key. When what is seen jumps, the view
before is compared with the view after at the scales of other objectives: an objective that was turned without
being set shows the same place, larger or smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.frames import Frame
from arm_overlay.imaging import opencv
from arm_overlay.stabilizer import Motion, correlated, transformable
from arm_overlay.tumor_model import magnification, objective_of
from lincei.errors import LinceiError

WHICH_OBJECTIVE = "which objective?"
UNKNOWN_OBJECTIVE = "objective unknown"

# Those of a usual turret, where neither model nor user says others.
OBJECTIVES = ("4x", "10x", "20x", "40x")
# Magnifications that objectives commonly have.
COMMON_MAGNIFICATIONS = (1.25, 2.0, 2.5, 4.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0)
# Views are compared up to this wide.
_VIEW_PX = 480
# The peak of the phase correlation holds so much when one view is the other enlarged so many times; at wrong
# scales it is 0.25 or less (held by tests/arm_overlay/test_objectives.py).
_CERTAIN = 0.4
# Chance makes higher peaks the fewer pixels are compared, as one over the root of their number; below this
# many that counts.
_ENOUGH_PX = 18_000
# Views whose scales differ less than this show one objective.
_SAME = 1.12
# So many frames after a jump are compared before it is taken for a move to another place.
_TRIES = 3


@dataclass(frozen=True)
class _View:
    """A developed frame, and the magnification that it was seen with."""

    colors: NDArray[np.uint8]
    magnification: float


class Objectives:
    """The objective that is set, the size of a pixel with it, and the scale that the image shows.

    Parameters
    ----------
    objective : str
        The objective at the start; empty where the microscope reports it or nobody has said it yet.
    pixel_size_um : float, optional
        Size of a camera pixel at the specimen with that objective, where the user states it; goes before what
        the camera says.
    """

    def __init__(self, objective: str = "", pixel_size_um: float | None = None) -> None:
        self.objective = ""
        self.question = ""
        self._others: set[float] = set()
        self._reported = False
        self._stated: tuple[float, float] | None = None
        self._stated_by_user = pixel_size_um
        # What the image shows, as far as it could be followed; None where it is taken from what is set.
        self._seen: float | None = None
        self._settled: _View | None = None
        self._before: _View | None = None
        self._tries = 0
        if objective:
            self.set(objective)

    def expect(self, objectives: Sequence[str]) -> None:
        """Say which objectives may be on the turret, beside the common ones."""
        self._others = {magnification(name) for name in objectives}

    def set(self, objective: str) -> None:
        """Say which objective is in the light path; this answers the question, and is believed.

        Raises
        ------
        LinceiError
            When this is no objective.
        """
        set_to = magnification(objective)
        objective = objective_of(set_to)
        if self._seen is None or self.question or objective == self.objective:
            self._seen = set_to
        # Else it is set before it is turned: the jump that follows is to agree.
        self.objective, self.question = objective, ""

    def hear(self, frame: Frame) -> bool:
        """Take in what a frame says of the objective, before `pixel_size_um`; tell whether it changed."""
        self._reported = bool(frame.objective)
        if not self._reported:
            return False
        try:
            reported = objective_of(magnification(frame.objective))
        except LinceiError:  # an empty place of the turret, or one named otherwise
            changed = bool(self.objective)
            self.objective, self.question = "", ""
            return changed
        if reported == self.objective:
            return False
        self.set(reported)
        return True

    def pixel_size_um(self, frame: Frame) -> float | None:
        """Return the size of a frame's pixel at the specimen, or None where nobody has said it.

        A size that was stated for one objective is scaled to others by their magnifications.
        """
        if not self.objective:
            return None
        here = magnification(self.objective)
        if self._stated_by_user is not None:
            if self._stated is None:
                self._stated = (self._stated_by_user, here)
        elif frame.pixel_size_um is None:
            return None
        elif self._reported:
            return frame.pixel_size_um
        elif self._stated is None or self._stated[0] != frame.pixel_size_um:
            # The camera knows nothing of objectives: its size is that of the one it was first seen with.
            self._stated = (frame.pixel_size_um, here)
        return self._stated[0] * self._stated[1] / here

    def look(self, colors: NDArray[np.uint8], motion: Motion) -> str:
        """Compare what a frame shows with the objective that is set.

        Parameters
        ----------
        colors : ndarray
            The developed frame, the whole view, at any scale; kept until the next.
        motion : Motion
            Of this frame.

        Returns
        -------
        str
            A question to the observer, or nothing.
        """
        if not self.objective:
            return ""
        if motion.lost and self._before is None:
            self._before, self._tries = self._settled, 0
        if motion.lost or not motion.has_structure:
            return self.question
        if self._before is not None:
            ratio = self._ratio(self._before.colors, colors, self._before.magnification)
            self._tries += 1
            if ratio is None and self._tries < _TRIES:
                return self.question
            self._judge(ratio, self._before.magnification)
            self._before = None
        seen = magnification(self.objective) if self._seen is None else self._seen
        self._settled = _View(colors, seen)
        return self.question

    def forget_view(self) -> None:
        """Compare nothing with the views until now: the frames changed otherwise."""
        self._settled = self._before = None

    def _judge(self, ratio: float | None, before: float) -> None:
        """Ask when the view became larger or smaller, and not as it does with the objective that is set."""
        set_to = magnification(self.objective)
        if ratio is None:
            # A place that is not found again is another one: then what is set is believed.
            self._seen = set_to
        elif not _alike(ratio, 1.0):
            self._seen = before * ratio
            self.question = "" if _alike(self._seen, set_to) else WHICH_OBJECTIVE

    def _ratio(self, earlier: NDArray[np.uint8], later: NDArray[np.uint8], before: float) -> float | None:
        """Return how much larger the later view shows the same place; None when that is uncertain."""
        known = {*COMMON_MAGNIFICATIONS, *self._others, before, magnification(self.objective)}
        best, best_certainty = None, 0.0
        for ratio in sorted({number / before for number in known}):
            if not 0.09 < ratio < 11:
                continue
            certainty = scale_certainty(earlier, later, ratio)
            if certainty >= _CERTAIN and certainty > best_certainty:
                best, best_certainty = ratio, certainty
        return best


def on_turret(objectives: Sequence[str]) -> tuple[str, ...]:
    """Return objectives in the order of their magnifications, each once and written alike; ``""`` is none.

    Raises
    ------
    LinceiError
        When one is no objective.
    """
    return tuple(map(objective_of, sorted({magnification(name) for name in objectives if name})))


def _alike(one: float, other: float) -> bool:
    return 1 / _SAME < one / other < _SAME


def scale_certainty(earlier: NDArray[Any], later: NDArray[Any], ratio: float) -> float:
    """Return how certain it is that a view shows the place of an earlier one, so many times larger.

    Parameters
    ----------
    earlier, later : ndarray
        Shape (Y, X, 3), uint8: views by one camera, at any scales.
    ratio : float
        How many times larger the later one shows things; below 1 it shows them smaller.

    Returns
    -------
    float
        The peak of the phase correlation of what both show, about 0 to 1; less where that is little.
    """
    if ratio < 1:
        earlier, later, ratio = later, earlier, 1 / ratio
    height, width = earlier.shape[:2]
    top, left = (height - height / ratio) / 2, (width - width / ratio) / 2
    middle = earlier[round(top) : round(height - top), round(left) : round(width - left), 1]
    wide = transformable(min(_VIEW_PX, middle.shape[1], later.shape[1]))
    size = (wide, transformable(round(wide * middle.shape[0] / middle.shape[1])))
    cv2 = opencv()
    pair = [
        cv2.resize(np.ascontiguousarray(view), size, interpolation=cv2.INTER_AREA).astype(np.float32)
        for view in (middle, later[..., 1])
    ]
    certainty = correlated(pair[0], pair[1])[1] * min(1.0, math.sqrt(size[0] * size[1] / _ENOUGH_PX))
    return certainty if math.isfinite(certainty) else 0.0
