"""The objective that is set, the size of a pixel with it, and jumps of scale that disagree."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from arm_overlay.frames import Frame
from arm_overlay.objectives import WHICH_OBJECTIVE, Objectives, on_turret, scale_certainty
from arm_overlay.stabilizer import MotionTracker, motion_picture
from lincei.errors import LinceiError

VIEW = (480, 300)


@functools.cache
def slide(seed: int = 0) -> NDArray[np.uint8]:
    """Return a slide with structure of all sizes, (1500, 2400, 3), as one at 10x sees five views of it."""
    random = np.random.default_rng(seed)
    gray = np.zeros((1500, 2400))
    for width in (1, 2, 4, 8, 16, 32):
        layer = ndimage.gaussian_filter(random.normal(size=gray.shape), width)
        gray += layer / layer.std()
    return np.clip(150 + 18 * gray, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def view(power: float, x: float = 1200, y: float = 750, seed: int = 0) -> NDArray[np.uint8]:
    """Return what is seen around a place with a magnification; at 10x at the scale of the slide."""
    zoom = power / 10
    width, height = round(VIEW[0] / zoom), round(VIEW[1] / zoom)
    left, top = int(x - width / 2), int(y - height / 2)
    part = slide()[top : top + height, left : left + width]
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    seen = cv2.resize(part, VIEW, interpolation=how).astype(np.float32)
    seen += np.random.default_rng(seed).normal(0, 3, seen.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)


class Microscope:
    """A tracker and the objectives, shown one view after the other."""

    def __init__(self, objective: str = "10x") -> None:
        self.objectives = Objectives(objective)
        self.tracker = MotionTracker()
        self.frames = 0

    def look(self, *views: NDArray[np.uint8]) -> str:
        """Show views, and return the last question."""
        question = ""
        for colors in views:
            picture, pixels = motion_picture(colors)
            motion = self.tracker.track(picture, pixels, self.frames / 30)
            question = self.objectives.look(colors, motion)
            self.frames += 1
        return question

    def rest(self, power: float, x: float = 1200, y: float = 750) -> str:
        """Show a place for some frames, with noise."""
        return self.look(*(view(power, x, y, seed=self.frames + i) for i in range(5)))


def frame(pixel_size_um: float | None = None, objective: str = "") -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), 0.0, 0, pixel_size_um=pixel_size_um, objective=objective)


def test_a_pixel_size_that_the_user_states_follows_the_magnification() -> None:
    objectives = Objectives("20x", 0.4)
    assert objectives.pixel_size_um(frame(0.7)) == pytest.approx(0.4)
    objectives.set("40x")
    assert objectives.pixel_size_um(frame(0.7)) == pytest.approx(0.2)
    objectives.set("4x")
    assert objectives.pixel_size_um(frame()) == pytest.approx(2.0)


def test_a_camera_that_knows_no_objectives_states_the_size_for_the_first_one() -> None:
    objectives = Objectives("10x")
    assert objectives.pixel_size_um(frame(0.8)) == pytest.approx(0.8)
    objectives.set("20x")
    assert objectives.pixel_size_um(frame(0.8)) == pytest.approx(0.4)
    # Another size means that the camera was told of the objective.
    assert objectives.pixel_size_um(frame(0.41)) == pytest.approx(0.41)


def test_a_microscope_that_reports_its_objective_states_the_size_for_it() -> None:
    objectives = Objectives()
    assert objectives.pixel_size_um(frame(0.5)) is None
    assert objectives.hear(frame(0.5, "20x"))
    assert objectives.pixel_size_um(frame(0.5, "20x")) == pytest.approx(0.5)
    assert not objectives.hear(frame(0.5, "20x"))
    assert objectives.hear(frame(0.25, "40x"))
    assert objectives.objective == "40x"
    assert objectives.pixel_size_um(frame(0.25, "40x")) == pytest.approx(0.25)
    assert objectives.hear(frame(0.25, "no lens"))
    assert objectives.objective == ""
    assert objectives.pixel_size_um(frame(0.25, "no lens")) is None


def test_an_objective_is_written_alike_whoever_names_it() -> None:
    objectives = Objectives("20X")
    assert objectives.objective == "20x"
    assert not objectives.hear(frame(0.5, "20 X"))
    assert objectives.hear(frame(0.25, "40.0X"))
    assert objectives.objective == "40x"
    objectives.set("2.50x")
    assert objectives.objective == "2.5x"


def test_the_objectives_of_a_turret_come_by_magnification_and_once() -> None:
    assert on_turret(["40x", "4x", "5X", "", "63x", "5x"]) == ("4x", "5x", "40x", "63x")
    with pytest.raises(LinceiError, match="no objective"):
        on_turret(["4x", "big one"])


def test_without_any_pixel_size_there_is_none() -> None:
    assert Objectives("20x").pixel_size_um(frame()) is None


def test_what_is_no_objective_is_refused() -> None:
    with pytest.raises(LinceiError, match="no objective"):
        Objectives("big one")
    with pytest.raises(LinceiError, match="no objective"):
        Objectives("20x").set("0x")


@pytest.mark.parametrize(("before", "after"), [(10, 20), (20, 10), (10, 40), (40, 10), (4, 10), (10, 10)])
def test_the_scale_between_two_views_of_one_place_is_certain(before: float, after: float) -> None:
    earlier, later = view(before), view(after, 1210, 745, seed=1)
    ratios = {power / before: scale_certainty(earlier, later, power / before) for power in (4, 10, 20, 40)}
    best = max(ratios, key=lambda ratio: ratios[ratio])
    assert best == pytest.approx(after / before)
    assert ratios[best] > 0.4
    assert all(certainty < 0.25 for ratio, certainty in ratios.items() if ratio != best)


def test_an_objective_that_is_turned_without_being_set_is_asked_for() -> None:
    microscope = Microscope()
    assert microscope.rest(10) == ""
    assert microscope.rest(20, 1206, 744) == WHICH_OBJECTIVE
    assert microscope.rest(20, 1206, 744) == WHICH_OBJECTIVE
    microscope.objectives.set("20x")
    assert microscope.rest(20, 1206, 744) == ""
    assert microscope.rest(10) == WHICH_OBJECTIVE
    # Turned back to what is set.
    assert microscope.rest(20) == ""


def test_an_objective_that_is_set_before_it_is_turned_is_not_asked_for() -> None:
    microscope = Microscope()
    microscope.rest(10)
    microscope.objectives.set("40x")
    assert microscope.rest(10) == ""
    assert microscope.rest(40) == ""


def test_a_dark_light_path_between_two_objectives_hides_no_jump() -> None:
    microscope = Microscope()
    microscope.rest(10)
    dark = np.full((*VIEW[::-1], 3), 4, np.uint8)
    assert microscope.look(dark, dark, dark) == ""
    assert microscope.rest(20) == WHICH_OBJECTIVE


def test_the_answer_may_be_that_the_objective_is_the_same() -> None:
    microscope = Microscope()
    microscope.rest(10)
    assert microscope.rest(20) == WHICH_OBJECTIVE
    microscope.objectives.set("10x")
    assert microscope.rest(20) == ""


def test_another_place_or_a_blink_is_no_change_of_objective() -> None:
    microscope = Microscope()
    microscope.rest(10)
    assert microscope.rest(10, 500, 400) == ""
    dark = np.full((*VIEW[::-1], 3), 4, np.uint8)
    microscope.look(dark)
    assert microscope.rest(10, 505, 402) == ""


def test_a_late_report_of_the_microscope_answers_the_question() -> None:
    microscope = Microscope("")
    microscope.objectives.hear(frame(objective="10x"))
    microscope.rest(10)
    assert microscope.rest(20) == WHICH_OBJECTIVE
    microscope.objectives.hear(frame(objective="20x"))
    assert microscope.rest(20) == ""
