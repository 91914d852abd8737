"""What `insilico.augmentation` promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from insilico.augmentation import Augmentation, random_crop

STILL = Augmentation(
    zoom=0, stretch=0, gain=0, offset=0, noise=0, focus=0, fewer_planes=0, blur=0, spots=0, rotate=False
)


def field(height: int = 120, width: int = 160, planes: int = 5, labels: int = 2) -> tuple[NDArray, NDArray]:
    random = np.random.default_rng(0)
    stack = ndimage.gaussian_filter(random.normal(size=(height, width, planes)), (2, 2, 0)) * 5
    truth = ndimage.gaussian_filter(random.normal(size=(height, width, labels)), (2, 2, 0))
    return stack.astype(np.float32), truth.astype(np.float32)


def crop(seed: int, augmentation: Augmentation, size: int = 64, **shape: Any) -> tuple[NDArray, NDArray]:
    return random_crop(*field(**shape), size, augmentation, np.random.default_rng(seed))


class TestRandomCrop:
    def test_equal_seeds_give_equal_crops_and_others_do_not(self):
        first, second, third = (crop(seed, Augmentation()) for seed in (1, 1, 2))
        for a, b, c in zip(first, second, third, strict=True):
            np.testing.assert_array_equal(a, b)
            assert not np.array_equal(a, c)

    @pytest.mark.parametrize("rotate", [True, False])
    @pytest.mark.parametrize(("planes", "labels", "size"), [(5, 2, 64), (1, 1, 32), (13, 3, 200), (2, 1, 33)])
    def test_shapes_and_types_are_the_networks(self, planes: int, labels: int, size: int, rotate: bool):
        for seed in range(4):
            augmentation = Augmentation(rotate=rotate, spots=2, blur=1, fewer_planes=1)
            stack, truth = crop(seed, augmentation, size, planes=planes, labels=labels)
            assert stack.shape == (size, size, planes)
            assert truth.shape == (size, size, labels)
            for part in (stack, truth):
                assert part.dtype == np.float32
                assert part.flags.c_contiguous
                assert np.isfinite(part).all()

    def test_the_field_is_left_as_it_is(self):
        stack, truth = field()
        before = stack.copy(), truth.copy()
        for seed in range(5):
            random_crop(stack, truth, 64, Augmentation(spots=3), np.random.default_rng(seed))
        np.testing.assert_array_equal(stack, before[0])
        np.testing.assert_array_equal(truth, before[1])

    @pytest.mark.parametrize("rotate", [True, False])
    def test_truth_stays_pixel_on_pixel_with_the_stack(self, rotate: bool):
        stack, _ = field(planes=1)
        still = dataclasses.replace(STILL, rotate=rotate, zoom=0.2, stretch=0.1)
        for seed in range(8):
            seen, truth = random_crop(stack, 3 * stack, 64, still, np.random.default_rng(seed))
            np.testing.assert_allclose(truth, 3 * seen, atol=1e-5)

    def test_truth_keeps_its_values_however_the_picture_is_varied(self):
        loud = Augmentation(gain=1, offset=2, noise=1, blur=1, spots=5)
        quiet = dataclasses.replace(loud, gain=0, offset=0, noise=0, blur=0, spots=0)
        for seed in range(5):
            seen, truth = crop(seed, loud)
            unseen, same = crop(seed, quiet)
            np.testing.assert_array_equal(truth, same)
            assert np.abs(seen - unseen).max() > 0.1

    def test_a_field_smaller_than_a_crop_is_mirrored(self):
        stack, truth = crop(3, Augmentation(), 128, height=20, width=31)
        assert stack.shape == (128, 128, 5)
        assert np.isfinite(truth).all()

    def test_places_come_from_all_over_the_field(self):
        rows = np.repeat(np.arange(300, dtype=np.float32)[:, None], 200, axis=1)[..., None]
        middles = [
            random_crop(rows, rows, 16, Augmentation(), np.random.default_rng(seed))[1].mean()
            for seed in range(100)
        ]
        counts, _ = np.histogram(middles, 5, (0, 300))
        assert counts.min() >= 8


class TestTruthThatIsNotKnown:
    @pytest.mark.parametrize("rotate", [True, False])
    def test_it_stays_unknown_and_takes_no_more_than_a_pixel_around_it(self, rotate: bool):
        rows, columns = np.mgrid[:200, :200].astype(np.float32)
        places = np.stack([rows, columns], axis=-1)
        unknown = ndimage.distance_transform_edt(np.hypot(rows - 100, columns - 100) > 40)
        unknown -= ndimage.distance_transform_edt(unknown == 0)
        truth = np.concatenate([places, np.where(unknown <= 0, np.nan, 1)[..., None]], axis=-1).astype(
            np.float32
        )
        met = 0
        for seed in range(12):
            augmentation = Augmentation(rotate=rotate)
            _, seen = random_crop(truth[..., 2:], truth, 96, augmentation, np.random.default_rng(seed))
            depth = ndimage.map_coordinates(
                unknown, np.moveaxis(seen[..., :2], -1, 0), order=1, mode="nearest"
            )
            lost = np.isnan(seen[..., 2])
            assert lost[depth < -1].all()
            assert not lost[depth > 2.5].any()
            met += int(lost.any() and not lost.all())
        assert met >= 4

    def test_a_label_that_is_not_known_at_all_leaves_the_others_alone(self):
        stack, truth = field()
        truth[..., 0] = np.nan
        _, seen = random_crop(stack, truth, 64, Augmentation(), np.random.default_rng(0))
        assert np.isnan(seen[..., 0]).all()
        assert np.isfinite(seen[..., 1]).all()


class TestShadows:
    """DIC and oblique light cast shadows; models of them are trained without turning."""

    def gradient(self, rotate: bool, seed: int) -> NDArray:
        """Return the mean slope of a crop of a field that rises along x, except where it is mirrored."""
        slope = np.broadcast_to(np.linspace(0, 40, 400, dtype=np.float32), (400, 400))[..., None]
        still = dataclasses.replace(STILL, rotate=rotate)
        seen, _ = random_crop(slope, slope, 32, still, np.random.default_rng(seed))
        y, x = np.gradient(seen[..., 0])
        return np.array([np.median(y), np.median(x)])

    def test_without_turning_they_stay_on_their_side_within_45_degrees(self):
        # Near the field's border the crop is partly a mirror image of the field; there the slope turns over.
        slopes = [self.gradient(False, seed) for seed in range(60)]
        kept = [slope for slope in slopes if slope[1] > 0 and slope[1] >= abs(slope[0]) * 0.999]
        assert len(kept) > 50
        assert len({round(float(slope[0]), 3) for slope in kept}) > 30, "turned a little nonetheless"

    def test_with_turning_they_fall_on_every_side(self):
        angles = [np.arctan2(*self.gradient(True, seed)) for seed in range(60)]
        counts, _ = np.histogram(angles, 4, (-np.pi, np.pi))
        assert counts.min() >= 5


class TestWhatTheMicroscopeDoes:
    def test_a_still_microscope_changes_nothing_but_place_and_angle(self):
        stack, _ = field(planes=3)
        seen, truth = random_crop(stack, stack, 64, STILL, np.random.default_rng(0))
        # Focal positions are stretched a little always; the middle plane stays.
        np.testing.assert_allclose(seen[..., 1], truth[..., 1], atol=1e-5)

    def test_gain_and_offset_are_those_of_the_camera(self):
        varied = dataclasses.replace(STILL, gain=0.5, offset=0.5)
        for seed in range(5):
            seen, _ = crop(seed, varied, planes=1)
            still, _ = crop(seed, STILL, planes=1)
            gain, offset = np.polyfit(still.ravel(), seen.ravel(), 1)
            assert gain > 0
            np.testing.assert_allclose(seen, gain * still + offset, atol=1e-4)

    def test_noise_and_blur_are_as_strong_as_asked(self):
        still, noisy, blurred = (
            crop(7, dataclasses.replace(STILL, **change), planes=1)[0]
            for change in ({}, {"noise": 0.5}, {"blur": 1.0})
        )
        assert 0 < (noisy - still).std() < 2
        assert np.abs(np.diff(blurred, axis=0)).mean() < np.abs(np.diff(still, axis=0)).mean()

    def test_focus_moves_all_planes_and_invents_none(self):
        heights = np.broadcast_to(np.arange(9, dtype=np.float32), (80, 80, 9))
        for seed in range(20):
            augmentation = dataclasses.replace(STILL, focus=1.0, fewer_planes=0.5)
            seen, _ = random_crop(heights, heights, 32, augmentation, np.random.default_rng(seed))
            positions = seen[0, 0]
            assert positions.min() >= 0
            assert positions.max() <= 8 + 1e-5
            assert (np.diff(positions) >= -1e-5).all()
