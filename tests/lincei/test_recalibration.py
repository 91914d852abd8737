"""What `lincei.recalibration` promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lincei.recalibration import best_factor


class TestBestFactor:
    @settings(max_examples=30, deadline=None)
    @given(st.floats(0.3, 3.5))
    def test_the_lowest_score_is_found_to_about_a_percent(self, lowest: float):
        found = best_factor(lambda factor: np.log(factor / lowest) ** 2)
        assert found == pytest.approx(lowest, rel=0.015)

    @pytest.mark.parametrize(("lowest", "limit"), [(0.01, 0.25), (100.0, 4.0)])
    def test_beyond_the_range_its_limit_is_taken(self, lowest: float, limit: float):
        assert best_factor(lambda factor: np.log(factor / lowest) ** 2) == pytest.approx(limit, rel=0.02)

    def test_spreads_that_are_too_small_are_widened_by_as_much(self):
        from insilico.distribution import LogisticMixture

        truth = stats.logistic(0.2, 0.1).rvs(4000, random_state=np.random.default_rng(0))
        ones = np.ones((1, truth.size))
        said = LogisticMixture(ones, 0.2 * ones, 0.05 * ones)
        assert best_factor(lambda f: float(said.with_spread(f).crps(truth).mean())) == pytest.approx(
            2, rel=0.1
        )

    @pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), float("inf")])
    def test_where_nothing_is_better_nothing_is_changed(self, value: float):
        assert best_factor(lambda _: value) == 1

    def test_it_never_scores_higher_than_without_a_factor(self):
        def bumpy(factor: float) -> float:
            return float(np.sin(8 * np.log(factor)) + (factor == 1) * -2)

        assert bumpy(best_factor(bumpy)) <= bumpy(1.0)

    def test_few_scores_are_asked_for(self):
        asked: list[float] = []

        def score(factor: float) -> float:
            asked.append(factor)
            return (factor - 1.7) ** 2

        best_factor(score)
        assert len(asked) <= 20
        assert min(asked) >= 0.25
        assert max(asked) <= 4
