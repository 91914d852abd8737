"""What `insilico.distribution` promises, against other programs, integration and drawing at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from insilico import distribution
from insilico.distribution import LogisticMixture
from insilico.options import STATISTICS


def mixtures(pixels: int, *, components: int = 3, seed: int = 0, dtype: Any = np.float64) -> LogisticMixture:
    """Draw mixtures as various as a network's: scales from a gray level to beyond the label's range."""
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.full(components, 0.7), pixels).T
    locations = random.normal(0, 1, (components, pixels))
    scales = np.exp(random.uniform(-4.5, 1, (components, pixels)))
    return LogisticMixture(*(np.asarray(part, dtype) for part in (weights, locations, scales)))


def one(*components: tuple[float, float, float]) -> LogisticMixture:
    """Make the mixture of one pixel from (weight, location, scale) of each component."""
    return LogisticMixture(*np.array(components, float).T[:, :, None])


def pixel(mixture: LogisticMixture, index: int) -> LogisticMixture:
    part = slice(index, index + 1)
    return LogisticMixture(mixture.weights[:, part], mixture.locations[:, part], mixture.scales[:, part])


def drawn(mixture: LogisticMixture, draws: int, seed: int = 0) -> np.ndarray:
    """Draw values of a mixture of one pixel."""
    random = np.random.default_rng(seed)
    which = random.choice(len(mixture.weights), draws, p=mixture.weights[:, 0])
    return random.logistic(mixture.locations[which, 0], mixture.scales[which, 0])


def integral(mixture: LogisticMixture, integrand: Callable[[float], float], *breaks: float) -> float:
    """Integrate over the values of a mixture of one pixel, piece by piece around its components."""
    steps = np.array([-36, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 36])
    places = [m + s * steps for m, s in zip(mixture.locations[:, 0], mixture.scales[:, 0], strict=True)]
    edges = np.unique(np.concatenate([*places, breaks]))
    parts = itertools.pairwise(edges)
    return float(sum(integrate.quad(integrand, a, b, epsabs=1e-12, epsrel=1e-10)[0] for a, b in parts))


class TestMeanAndSd:
    def test_they_are_the_moments_of_the_density(self):
        many = mixtures(6, seed=1)
        for index in range(6):
            mixture = pixel(many, index)

            def moment(power: int, about: float, of: LogisticMixture = mixture) -> float:
                return integral(of, lambda x: (x - about) ** power * float(of.pdf(x)[0]))

            assert moment(0, 0.0) == pytest.approx(1, abs=1e-9)
            assert many.mean[index] == pytest.approx(moment(1, 0.0), abs=1e-8)
            assert many.sd[index] == pytest.approx(moment(2, many.mean[index]) ** 0.5, rel=1e-8)

    def test_sd_of_float32_is_right_far_from_zero(self):
        far = one((0.5, 1000.0, 0.01), (0.5, 1000.1, 0.01))
        exact = far.sd
        narrow = LogisticMixture(*(a.astype(np.float32) for a in (far.weights, far.locations, far.scales)))
        np.testing.assert_allclose(narrow.sd, exact, rtol=1e-2)


class TestCumulativeDistributionAndDensity:
    def test_they_are_scipys_for_one_component(self):
        mixture = one((1.0, 0.3, 0.07))
        values = np.linspace(-3, 3, 50)
        expected = stats.logistic(0.3, 0.07)
        np.testing.assert_allclose([mixture.cdf(v)[0] for v in values], expected.cdf(values), rtol=1e-12)
        np.testing.assert_allclose([mixture.pdf(v)[0] for v in values], expected.pdf(values), rtol=1e-12)

    def test_values_far_out_overflow_nowhere(self):
        mixture = LogisticMixture(*(np.full((1, 1), v, np.float32) for v in (1.0, 0.0, 0.011)))
        for value in (-1e6, 1e6):
            assert mixture.pdf(value)[0] == 0
            assert mixture.cdf(value)[0] == (value > 0)
        assert mixture.crps(np.array([1e6]))[0] == pytest.approx(1e6)


class TestQuantiles:
    @pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.95, 0.999])
    def test_they_are_scipys_for_one_component(self, probability: float):
        mixture = one((1.0, 0.3, 0.07))
        expected = stats.logistic(0.3, 0.07).ppf(probability)
        assert mixture.quantile(probability)[0] == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("probability", [0.05, 0.5, 0.95])
    def test_they_are_scipys_roots_of_the_cdf_for_mixtures(self, probability: float):
        many = mixtures(40, seed=2)
        found = many.quantile(probability)
        for index in range(40):
            mixture = pixel(many, index)

            def excess(x: float, of: LogisticMixture = mixture) -> float:
                return float(of.cdf(x)[0]) - probability

            # Bisected from a few units: narrow components make the quantile no less exact.
            assert found[index] == pytest.approx(optimize.brentq(excess, -100, 100, xtol=1e-12), abs=1e-6)

    @settings(max_examples=20, deadline=None)
    @given(
        low=st.floats(0.001, 0.998),
        apart=st.floats(0.001, 0.5),
        shift=st.floats(-5, 5),
        seed=st.integers(0, 99),
    )
    def test_they_rise_with_the_probability_and_move_with_the_distribution(
        self, low: float, apart: float, shift: float, seed: int
    ):
        mixture = mixtures(20, seed=seed)
        high = min(low + apart, 0.999)
        assert (mixture.quantile(low) <= mixture.quantile(high) + 1e-6).all()
        moved = LogisticMixture(mixture.weights, mixture.locations + shift, mixture.scales)
        np.testing.assert_allclose(moved.quantile(low), mixture.quantile(low) + shift, atol=2e-6)

    @pytest.mark.parametrize("probability", [0, 1, -0.1, 1.5])
    def test_a_probability_out_of_range_is_refused(self, probability: float):
        with pytest.raises(ValueError, match="between 0 and 1"):
            one((1.0, 0.0, 1.0)).quantile(probability)

    def test_q05_and_q95_hold_nine_values_in_ten(self):
        mixture = one((0.6, 0.1, 0.02), (0.4, 0.7, 0.1))
        values = drawn(mixture, 200_000)
        low, high = mixture.statistic("q05")[0], mixture.statistic("q95")[0]
        assert np.mean((values >= low) & (values <= high)) == pytest.approx(0.9, abs=0.003)


class TestMode:
    def test_it_is_where_the_density_is_highest(self):
        many = mixtures(60, seed=3)
        reached = many.pdf(many.mode)
        for index in range(60):
            mixture = pixel(many, index)
            places = mixture.locations[:, 0, None] + mixture.scales[:, 0, None] * np.linspace(-5, 5, 2001)
            highest = max(float(mixture.pdf(place)[0]) for place in places.ravel()[::7])
            assert reached[index] > highest * (1 - 1e-4)

    @pytest.mark.parametrize("location", [-2.27, 0.111, 0.2503, 0.5, 0.877])
    def test_a_narrow_component_between_wide_ones_is_found(self, location: float):
        mixture = one((0.45, -3.0, 0.2), (0.1, location, 0.0112), (0.45, 3.0, 0.2))
        assert mixture.mode[0] == pytest.approx(location, abs=0.005)

    def test_close_components_share_a_mode_between_them(self):
        assert one((0.5, 0.0, 0.1), (0.5, 0.1, 0.1)).mode[0] == pytest.approx(0.05, abs=1e-4)

    def test_one_component_has_its_mode_at_its_location(self):
        assert one((1.0, 0.37, 0.1)).mode[0] == 0.37


class TestEntropy:
    def test_it_is_that_of_one_logistic(self):
        mixture = one((1.0, 0.3, 0.07))
        assert mixture.entropy[0] == pytest.approx(float(stats.logistic(0.3, 0.07).entropy()), abs=0.002)

    def test_it_is_the_integral_of_the_density_for_mixtures(self):
        many = mixtures(30, seed=4)
        errors = []
        for index in range(30):
            mixture = pixel(many, index)

            def surprise(x: float, of: LogisticMixture = mixture) -> float:
                density = float(of.pdf(x)[0])
                return -density * np.log(density) if density > 0 else 0.0

            errors.append(abs(many.entropy[index] - integral(mixture, surprise)))
        assert np.mean(errors) < 0.01
        assert max(errors) < 0.1

    def test_a_component_of_no_weight_adds_nothing(self):
        with_it = LogisticMixture(
            *(np.array(v, np.float32)[:, None] for v in ([1.0, 0.0], [0.0, 50.0], [0.05, 0.011]))
        )
        assert with_it.entropy[0] == pytest.approx(np.log(0.05) + 2, abs=0.01)

    def test_wider_by_a_factor_is_more_by_its_logarithm(self):
        mixture = mixtures(50, seed=5)
        np.testing.assert_allclose(mixture.with_spread(3).entropy, mixture.entropy + np.log(3), atol=1e-9)


class TestCrps:
    def test_it_is_that_of_another_program_for_one_component(self):
        random = np.random.default_rng(6)
        location, scale, truth = (
            random.normal(size=200),
            np.exp(random.uniform(-4.5, 2, 200)),
            random.normal(size=200),
        )
        mixture = LogisticMixture(np.ones((1, 200)), location[None], scale[None])
        np.testing.assert_allclose(
            mixture.crps(truth), scoringrules.crps_logistic(truth, location, scale), rtol=1e-9
        )

    def test_equal_components_are_one(self):
        random = np.random.default_rng(7)
        location, scale, truth = (
            random.normal(size=50),
            np.exp(random.uniform(-4, 1, 50)),
            random.normal(size=50),
        )
        weights = random.dirichlet(np.ones(3), 50).T
        mixture = LogisticMixture(weights, np.tile(location, (3, 1)), np.tile(scale, (3, 1)))
        expected = scoringrules.crps_logistic(truth, location, scale)
        np.testing.assert_allclose(mixture.crps(truth), expected, rtol=1e-5)

    def test_it_is_that_of_draws_from_the_mixture(self):
        many, truth = mixtures(5, seed=8), np.random.default_rng(9).normal(size=5)
        found = many.crps(truth)
        for index in range(5):
            values = np.sort(drawn(pixel(many, index), 200_001, seed=index))
            ranks = 2 * np.arange(1, values.size + 1) - values.size - 1
            between = 2 * (ranks @ values) / values.size**2
            expected = np.abs(values - truth[index]).mean() - between / 2
            assert found[index] == pytest.approx(expected, rel=0.01, abs=2e-3)

    def test_it_is_the_integral_of_the_squared_difference_of_distributions(self):
        many, truth = mixtures(20, seed=10), np.random.default_rng(11).normal(size=20)
        found = many.crps(truth)
        for index in range(20):
            mixture, y = pixel(many, index), truth[index]

            def squared(x: float, of: LogisticMixture = mixture, at: float = y) -> float:
                return (float(of.cdf(x)[0]) - (x >= at)) ** 2

            assert found[index] == pytest.approx(integral(mixture, squared, y), rel=2e-5, abs=1e-6)

    def test_narrow_components_far_apart_under_a_wide_one_are_no_harder(self):
        mixture = one((0.49, 0.0, 0.0112), (0.49, 1.0, 0.0112), (0.02, 0.5, 7.0))
        expected = integral(mixture, lambda x: (float(mixture.cdf(x)[0]) - (x >= 0.5)) ** 2, 0.5)
        assert mixture.crps(np.array([0.5]))[0] == pytest.approx(expected, rel=1e-5)

    def test_it_is_lowest_on_average_for_the_distribution_that_truth_comes_from(self):
        mixture = one((0.7, 0.1, 0.03), (0.3, 0.6, 0.1))
        truth = drawn(mixture, 20_000)
        same = LogisticMixture(
            *(np.repeat(a, truth.size, 1) for a in (mixture.weights, mixture.locations, mixture.scales))
        )
        right, wide, narrow = (same.with_spread(f).crps(truth).mean() for f in (1.0, 1.3, 0.7))
        assert right < wide
        assert right < narrow

    def test_truth_that_is_not_known_is_not_scored_and_harms_no_other_pixel(self):
        mixture, truth = mixtures(4, seed=12), np.array([0.1, np.nan, 0.3, 0.4])
        found = mixture.crps(truth)
        assert np.isnan(found).tolist() == [False, True, False, False]
        np.testing.assert_array_equal(found[2:], mixture.crps(np.array([0.1, 0.2, 0.3, 0.4]))[2:])


class TestWithSpread:
    @settings(max_examples=20, deadline=None)
    @given(factor=st.floats(0.1, 8), seed=st.integers(0, 99))
    def test_it_keeps_the_mean_and_multiplies_the_sd(self, factor: float, seed: int):
        mixture = mixtures(30, seed=seed)
        wider = mixture.with_spread(factor)
        np.testing.assert_allclose(wider.mean, mixture.mean, atol=1e-12 * (1 + factor))
        np.testing.assert_allclose(wider.sd, factor * mixture.sd, rtol=1e-9)
        median = mixture.mean + factor * (mixture.quantile(0.5) - mixture.mean)
        np.testing.assert_allclose(wider.quantile(0.5), median, atol=1e-5 * (1 + factor))

    def test_it_keeps_single_precision(self):
        assert mixtures(5, dtype=np.float32).with_spread(np.float64(1.5)).scales.dtype == np.float32


class TestManyPixels:
    @pytest.mark.parametrize("name", STATISTICS)
    def test_single_precision_says_the_same_as_double(self, name: str):
        double = mixtures(500, seed=13)
        single = LogisticMixture(
            *(a.astype(np.float32) for a in (double.weights, double.locations, double.scales))
        )
        values = single.statistic(name)
        assert values.dtype == np.float32
        if name == "mode":  # two equally high modes may change places
            values, expected = double.pdf(values.astype(float)), double.pdf(double.mode)
            np.testing.assert_allclose(values, expected, rtol=1e-3)
        else:
            np.testing.assert_allclose(values, double.statistic(name), rtol=1e-4, atol=2e-5)

    def test_crps_of_single_precision_says_the_same_as_double(self):
        double, truth = mixtures(500, seed=14), np.random.default_rng(15).normal(size=500)
        single = LogisticMixture(
            *(a.astype(np.float32) for a in (double.weights, double.locations, double.scales))
        )
        found = single.crps(truth.astype(np.float32))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, double.crps(truth), rtol=1e-4, atol=2e-5)

    @pytest.mark.parametrize("name", STATISTICS)
    def test_chunks_say_the_same_as_one_piece(self, name: str, monkeypatch: pytest.MonkeyPatch):
        mixture = mixtures(7 * 13, seed=16)
        whole = mixture.statistic(name)
        monkeypatch.setattr(distribution, "_CHUNK", 10)
        np.testing.assert_array_equal(mixture.statistic(name), whole)

    def test_chunks_of_crps_meet_their_own_truth(self, monkeypatch: pytest.MonkeyPatch):
        mixture, truth = mixtures(91, seed=17), np.random.default_rng(18).normal(size=91)
        whole = mixture.crps(truth)
        monkeypatch.setattr(distribution, "_CHUNK", 10)
        np.testing.assert_array_equal(mixture.crps(truth), whole)

    def test_any_shape_of_pixels_is_kept(self):
        flat = mixtures(24, seed=19)
        parts = (flat.weights, flat.locations, flat.scales)
        for shape in ((2, 3, 4), (24,), (4, 6)):
            shaped = LogisticMixture(*(part.reshape(3, *shape) for part in parts))
            for name in STATISTICS:
                assert shaped.statistic(name).shape == shape
                np.testing.assert_array_equal(shaped.statistic(name).ravel(), flat.statistic(name))
        single = LogisticMixture(*(part[:, 0] for part in parts))
        assert single.statistic("median") == flat.statistic("median")[0]

    def test_parts_of_an_array_that_are_not_contiguous_are_read_right(self):
        flat = mixtures(24, seed=20)
        parts = [part.reshape(3, 4, 6) for part in (flat.weights, flat.locations, flat.scales)]
        thinned = LogisticMixture(*(part[:, ::2, ::3] for part in parts))
        expected = flat.quantile(0.5).reshape(4, 6)[::2, ::3]
        np.testing.assert_array_equal(thinned.quantile(0.5), expected)


class TestNames:
    def test_every_statistic_that_is_offered_is_known(self):
        mixture = mixtures(3)
        for name in STATISTICS:
            assert np.isfinite(mixture.statistic(name)).all()
        np.testing.assert_array_equal(mixture.statistic("median"), mixture.quantile(0.5))

    @pytest.mark.parametrize("name", ["variance", "quantile", "crps", "weights", ""])
    def test_others_are_refused_by_name(self, name: str):
        with pytest.raises(ValueError, match=repr(name)):
            mixtures(3).statistic(name)

    def test_a_networks_output_is_read_label_by_label(self):
        parameters = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.float32).reshape(24, 5, 6)
        first, second = LogisticMixture.from_parameters(parameters, 2)
        np.testing.assert_array_equal(first.weights, parameters[:4])
        np.testing.assert_array_equal(first.locations, parameters[4:8])
        np.testing.assert_array_equal(first.scales, parameters[8:12])
        np.testing.assert_array_equal(second.weights, parameters[12:16])
