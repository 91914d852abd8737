"""Nuclei are found where they are, split where they touch, and matched as documented."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from insilico.nuclei import count_error, find_nuclei, match_nuclei, object_f1
from lincei.image import open_image
from lincei.normalize import percentile_scaling

D = 20  # px: diameter of the disks


def disks(*centers: tuple[float, float], radius: float = D / 2, noise: float = 0.02) -> NDArray[np.float32]:
    """Return a plane on a label's scale with bright disks on a dark background."""
    y, x = np.ogrid[:120, :160]
    plane = np.zeros((120, 160))
    for row, column in centers:
        plane[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = 0.8
    return (plane + np.random.default_rng(0).normal(0, noise, plane.shape)).astype(np.float32)


FOUR = ((30, 30), (30, 110), (85, 50), (90, 120))


def agreement(true: NDArray[np.float32], predicted: NDArray[np.float32]) -> tuple[int, int, int]:
    match = match_nuclei(*(find_nuclei(plane, diameter_px=D) for plane in (true, predicted)))
    return match.true, match.predicted, len(match.pairs)


class TestFinding:
    def test_every_disk_is_found_once_where_it_is(self):
        found = find_nuclei(disks(*FOUR), diameter_px=D)
        assert found.dtype == np.int32
        assert sorted(set(found.ravel().tolist())) == [0, 1, 2, 3, 4]
        assert len({int(found[row, column]) for row, column in FOUR} - {0}) == 4
        areas = np.bincount(found.ravel())[1:]
        assert areas == pytest.approx(math.pi * (D / 2) ** 2, rel=0.1)

    @pytest.mark.parametrize("distance", [18, 20, 22])
    def test_disks_that_touch_are_split_at_the_neck(self, distance: int):
        found = find_nuclei(disks((60, 70), (60, 70 + distance)), diameter_px=D)
        assert found.max() == 2
        assert found[60, 66] != found[60, 74 + distance]

    def test_an_elongated_nucleus_is_one(self):
        y, x = np.ogrid[:120, :160]
        plane = np.where(((y - 60) / 9) ** 2 + ((x - 80) / 24) ** 2 <= 1, 0.8, 0).astype(np.float32)
        assert find_nuclei(plane, diameter_px=D).max() == 1

    def test_a_hole_belongs_to_its_nucleus(self):
        plane = disks((60, 80)) - disks((60, 80), radius=4, noise=0)
        found = find_nuclei(plane, diameter_px=D)
        assert found.max() == 1
        assert found[60, 80] == 1

    def test_specks_are_no_nuclei_and_hide_none_however_bright(self):
        plane = disks(*FOUR)
        plane[60, 80] = plane[10, 80] = 50.0
        assert find_nuclei(plane, diameter_px=D).max() == 4

    @pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
    def test_noise_and_constants_hold_none(self, level: float):
        noise = np.random.default_rng(1).normal(level, 0.18, (200, 200)).astype(np.float32)
        assert find_nuclei(noise, diameter_px=D).max() == 0
        assert find_nuclei(np.full((50, 60), level, np.float32)).max() == 0

    def test_one_nucleus_in_a_large_dark_field_is_found(self):
        plane = np.random.default_rng(2).normal(0.02, 0.02, (1000, 1000)).astype(np.float32)
        plane[400:520, 300:460] += disks((60, 80), noise=0)
        assert find_nuclei(plane, diameter_px=D).max() == 1

    def test_a_gain_that_keeps_the_contrast_changes_nothing(self):
        assert np.array_equal(
            find_nuclei(disks(*FOUR), diameter_px=D) > 0, find_nuclei(disks(*FOUR) * 0.6, diameter_px=D) > 0
        )

    def test_nuclei_of_a_real_field_have_the_size_of_nuclei(self, real_data):
        field = open_image(sorted((real_data / "bbbc039_nuclei").glob("*.tif"))[0])
        plane = percentile_scaling(field, background=1, bright=99.9).apply(field.read()[0, 0, 0])
        found = find_nuclei(plane, diameter_px=15 / 0.656)
        areas = np.bincount(found.ravel())[1:]
        diameters_um = 0.656 * np.sqrt(4 * areas / np.pi)
        assert 30 <= len(areas) <= 300
        assert 10 < np.median(diameters_um) < 25


class TestMatching:
    def test_the_same_nuclei_match_whatever_their_numbers(self):
        found = find_nuclei(disks(*FOUR), diameter_px=D)
        other = np.array([0, 3, 1, 4, 2], np.int32)[found]
        match = match_nuclei(found, other)
        assert match.pairs == ((1, 3), (2, 1), (3, 4), (4, 2))

    @pytest.mark.parametrize(("shift", "matched"), [(2, 4), (5, 4), (9, 0), (15, 0)])
    def test_shifted_nuclei_match_up_to_an_overlap_of_one_half(self, shift: int, matched: int):
        # Disks of diameter d that are s apart have an intersection over union of one half at s = 0.265 d.
        moved = tuple((row, column + shift) for row, column in FOUR)
        assert agreement(disks(*FOUR), disks(*moved)) == (4, 4, matched)

    def test_two_that_are_merged_into_one_are_missed_and_the_one_is_not_there(self):
        apart = disks((60, 60), (60, 84), (30, 130))
        merged = apart.copy()
        merged[50:71, 60:84] = 0.8
        assert agreement(apart, merged) == (3, 2, 1)
        assert agreement(merged, apart) == (2, 3, 1)

    def test_of_two_exact_halves_one_matches(self):
        whole = np.zeros((20, 20), np.int32)
        whole[4:16, 4:16] = 1
        halves = whole.copy()
        halves[4:16, 10:16] = 2
        assert match_nuclei(whole, halves).pairs == ((1, 1),)
        assert match_nuclei(halves, whole).pairs == ((1, 1),)

    def test_where_there_are_none_nothing_matches(self):
        none, some = np.zeros((120, 160), np.float32), disks(*FOUR)
        assert agreement(none, none) == (0, 0, 0)
        assert agreement(some, none) == (4, 0, 0)
        assert agreement(none, some) == (0, 4, 0)


class TestFigures:
    @pytest.mark.parametrize(
        ("true", "predicted", "matched", "f1", "error"),
        [
            (10, 10, 10, 1.0, 0.0),
            (10, 8, 6, 2 / 3, 0.2),
            (8, 10, 6, 2 / 3, 0.25),
            (5, 0, 0, 0.0, 1.0),
            (0, 3, 0, 0.0, 3.0),
        ],
    )
    def test_f1_and_count_error_are_as_documented(
        self, true: int, predicted: int, matched: int, f1: float, error: float
    ):
        assert object_f1(true, predicted, matched) == pytest.approx(f1)
        assert count_error(true, predicted) == pytest.approx(error)

    def test_without_any_nuclei_f1_is_not_defined_and_the_count_is_right(self):
        assert math.isnan(object_f1(0, 0, 0))
        assert count_error(0, 0) == 0
