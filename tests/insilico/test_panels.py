"""Pictures of errors: the frames and colors that the page, the cards and the demonstration share."""

from __future__ import annotations

import numpy as np

from insilico.panels import (
    ERROR_LIMIT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    PREDICTION_FRAME,
    TRUTH_FRAME,
    error_panel,
    framed,
    held_out_picture,
    prediction_panel,
    truth_panel,
)


def color(text: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(text.removeprefix("#")))


def test_truth_has_a_teal_frame_and_prediction_a_purple_one():
    plane = np.ones((40, 60))
    for panel, frame in (
        (truth_panel(plane, "#00FF00"), TRUTH_FRAME),
        (prediction_panel(plane, "#00FF00"), PREDICTION_FRAME),
    ):
        assert tuple(panel[0, 0]) == tuple(panel[-1, -1]) == tuple(panel[20, 0]) == color(frame)
        assert tuple(panel[20, 30]) == (0, 255, 0)
    red, green, blue = color(TRUTH_FRAME)
    assert min(green, blue) > 2 * red
    red, green, blue = color(PREDICTION_FRAME)
    assert min(red, blue) > 1.5 * green


def test_a_frame_lies_around_the_picture_and_hides_nothing_of_it():
    picture = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    result = framed(picture, "#000000")
    width = (result.shape[0] - 30) // 2
    assert result.shape == (30 + 2 * width, 50 + 2 * width, 3)
    assert np.array_equal(result[width:-width, width:-width], picture)


def test_errors_are_black_orange_and_blue():
    truth = np.array([[0.5, 0.0, 1.0]])
    prediction = truth + np.array([[0.0, ERROR_LIMIT, -ERROR_LIMIT]])
    black, orange, blue = error_panel(prediction, truth)[0]
    assert tuple(black) == (0, 0, 0)
    assert tuple(orange) == tuple(FALSE_POSITIVE)
    assert tuple(blue) == tuple(FALSE_NEGATIVE)


def test_the_held_out_picture_has_both_frames_and_no_error_where_the_truth_is_unknown():
    truth = np.zeros((120, 100, 1))
    truth[:60] = np.nan
    mean = np.full_like(truth, 0.4)
    picture = held_out_picture(np.zeros((120, 100, 3)), truth, mean, mean, ["DAPI"], ["#0000FF"])
    for frame in (TRUTH_FRAME, PREDICTION_FRAME):
        assert (picture == color(frame)).all(axis=2).any()
    wrong = np.round(0.4 / ERROR_LIMIT * FALSE_POSITIVE).astype(np.uint8)
    rows = np.flatnonzero((picture == wrong).all(axis=2).any(axis=1))
    assert np.ptp(rows) == 59
