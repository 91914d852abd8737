"""What `lincei.metrics` promises, against other programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage import metrics

from lincei.metrics import coverage, nrmse, pearson_r, psnr, ssim


def planes(seed: int = 0, noise: float = 0.3) -> tuple[NDArray, NDArray]:
    random = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(random.normal(size=(64, 80)), 3) * 5
    return truth + random.normal(0, noise, truth.shape), truth


class TestPearson:
    def test_it_is_scipys(self):
        prediction, truth = planes()
        expected = stats.pearsonr(prediction.ravel(), truth.ravel()).statistic
        assert pearson_r(prediction, truth) == pytest.approx(expected, abs=1e-12)

    @settings(max_examples=25, deadline=None)
    @given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
    def test_gain_and_offset_change_nothing(self, gain: float, offset: float):
        prediction, truth = planes()
        assert pearson_r(gain * prediction + offset, truth) == pytest.approx(
            pearson_r(prediction, truth), abs=1e-6
        )

    def test_the_opposite_is_minus_one(self):
        _, truth = planes()
        assert pearson_r(-truth, truth) == pytest.approx(-1)

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
    def test_a_constant_has_none(self, value: float):
        _, truth = planes()
        constant = np.full(truth.shape, value)
        assert np.isnan(pearson_r(constant, truth))
        assert np.isnan(pearson_r(truth, constant))

    def test_single_precision_far_from_zero_is_no_worse(self):
        prediction, truth = (1000 + part.astype(np.float32) for part in planes())
        expected = stats.pearsonr(prediction.ravel().astype(float), truth.ravel().astype(float)).statistic
        assert pearson_r(prediction, truth) == pytest.approx(expected, abs=1e-9)


class TestNrmse:
    def test_it_is_the_noise_that_was_added(self):
        prediction, truth = planes(noise=0.3)
        assert nrmse(prediction, truth) == pytest.approx(0.3, rel=0.05)
        assert nrmse(prediction, truth, data_range=3) == pytest.approx(0.1, rel=0.05)

    def test_integers_do_not_wrap_around(self):
        assert nrmse(np.array([0], np.uint8), np.array([255], np.uint8), data_range=255) == 1  # type: ignore[arg-type]


class TestSsim:
    def test_equal_planes_have_one_and_noise_costs(self):
        prediction, truth = planes()
        assert ssim(truth, truth) == pytest.approx(1)
        worse, _ = planes(noise=1.0)
        assert ssim(worse, truth) < ssim(prediction, truth) < 1

    def test_it_is_the_formula_of_its_source(self):
        prediction, truth = planes()
        mean_a, mean_b = (ndimage.uniform_filter(part, 7) for part in (prediction, truth))
        share = 49 / 48  # sample variances
        var_a = share * (ndimage.uniform_filter(prediction**2, 7) - mean_a**2)
        var_b = share * (ndimage.uniform_filter(truth**2, 7) - mean_b**2)
        cov = share * (ndimage.uniform_filter(prediction * truth, 7) - mean_a * mean_b)
        c1, c2 = 0.01**2, 0.03**2
        index = (
            (2 * mean_a * mean_b + c1)
            * (2 * cov + c2)
            / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        )
        assert ssim(prediction, truth) == pytest.approx(index[3:-3, 3:-3].mean(), abs=1e-9)

    def test_a_plane_smaller_than_a_window_has_none(self):
        assert np.isnan(ssim(np.zeros((6, 50)), np.zeros((6, 50))))


class TestCoverage:
    def test_it_is_the_share_between_both_included(self):
        low, high, truth = np.zeros(4), np.ones(4), np.array([0.0, 1.0, 0.5, 1.01])
        assert coverage(low, high, truth) == 0.75

    def test_nine_in_ten_of_normal_values_lie_within_their_quantiles(self):
        truth = np.random.default_rng(0).normal(size=100_000)
        bound = np.full(truth.shape, stats.norm.ppf(0.95))
        assert coverage(-bound, bound, truth) == pytest.approx(0.9, abs=0.005)


class TestPsnr:
    def test_it_is_scikit_images(self):
        prediction, truth = planes()
        for data_range in (1.0, 3.0):
            expected = metrics.peak_signal_noise_ratio(truth, prediction, data_range=data_range)
            assert psnr(prediction, truth, data_range) == pytest.approx(expected, abs=1e-9)

    def test_without_error_it_is_infinite(self):
        _, truth = planes()
        assert psnr(truth, truth) == np.inf


class TestAgainstScikitImage:
    def test_a_tall_plane_has_the_same_ssim_though_it_is_computed_in_bands(self):
        random = np.random.default_rng(0)
        truth = ndimage.gaussian_filter(random.normal(size=(1300, 40)), 2)
        prediction = truth + random.normal(0, np.linspace(0.01, 0.3, 1300)[:, None], truth.shape)
        expected = metrics.structural_similarity(prediction, truth, data_range=1.0)
        assert ssim(prediction, truth) == pytest.approx(expected, abs=1e-12)

    def test_nrmse_of_the_range_of_the_truth_is_the_min_max_one(self):
        prediction, truth = planes()
        expected = metrics.normalized_root_mse(truth, prediction, normalization="min-max")
        assert nrmse(prediction, truth, float(np.ptp(truth))) == pytest.approx(expected, abs=1e-12)
