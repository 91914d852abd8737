"""What levels, certainty, pooling, the cut and micrometers of defocus mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from focusqc.levels import (
    LEVELS,
    Optics,
    certainty,
    expected_level,
    in_focus,
    pooled,
)

UNIFORM = np.full(LEVELS, 1 / LEVELS)


def sure(level: int) -> NDArray[np.float64]:
    return np.eye(LEVELS)[level]


def between(**shares: float) -> NDArray[np.float64]:
    """Return a distribution of named levels: ``between(l0=0.5, l3=0.5)``."""
    p = np.zeros(LEVELS)
    for name, share in shares.items():
        p[int(name[1:])] = share
    return p


@st.composite
def distributions(draw: st.DrawFn, patches: bool = False) -> NDArray[np.float64]:
    rows = draw(st.integers(1, 6)) if patches else 1
    weights = draw(arrays(np.float64, (rows, LEVELS), elements=st.floats(0, 1)))
    weights += np.eye(LEVELS)[draw(st.integers(0, LEVELS - 1))] * 1e-3
    p = weights / weights.sum(axis=1, keepdims=True)
    return p if patches else p[0]


class TestCertainty:
    def test_it_is_one_where_one_level_is_sure_and_zero_where_all_are_alike(self):
        for level in range(LEVELS):
            assert float(certainty(sure(level))) == 1
        assert float(certainty(UNIFORM)) == pytest.approx(0, abs=1e-12)

    def test_it_is_one_less_the_entropy_in_units_of_ln_11(self):
        assert float(certainty(between(l0=0.5, l1=0.5))) == pytest.approx(0.710935, abs=1e-6)
        assert float(certainty(between(l2=0.25, l3=0.25, l4=0.25, l5=0.25))) == pytest.approx(
            0.421871, abs=1e-6
        )
        # H = 0.8 ln 1.25 + 0.2 ln 5 = 0.500402
        assert float(certainty(between(l0=0.8, l9=0.2))) == pytest.approx(1 - 0.500402 / 2.397895, abs=1e-6)

    def test_it_is_of_the_shape_of_the_distributions(self):
        assert certainty(np.broadcast_to(UNIFORM, (3, 4, LEVELS))).shape == (3, 4)

    @given(p=distributions(), seed=st.integers(0, 99))
    def test_it_lies_from_0_to_1_and_does_not_ask_which_level_it_is(self, p: NDArray, seed: int):
        found = float(certainty(p))
        assert 0 <= found <= 1
        assert float(certainty(np.random.default_rng(seed).permutation(p))) == pytest.approx(found, abs=1e-9)

    @given(p=distributions(), share=st.floats(0.05, 0.95))
    def test_mixing_with_the_uniform_distribution_never_adds_certainty(self, p: NDArray, share: float):
        assert float(certainty((1 - share) * p + share * UNIFORM)) <= float(certainty(p)) + 1e-9


class TestPooled:
    def test_patches_count_by_their_certainty(self):
        # Certainties 1 and 0.710935; level 4 has all of the first patch, level 0 half of the second.
        found = pooled([sure(4), between(l0=0.5, l1=0.5)])
        total = 1 + 0.710935
        np.testing.assert_allclose(
            found[[4, 0, 1]], [1 / total, 0.3554675 / total, 0.3554675 / total], rtol=1e-6
        )
        assert found.sum() == pytest.approx(1)

    def test_a_patch_that_says_nothing_does_not_count(self):
        np.testing.assert_allclose(pooled([sure(7), *[UNIFORM] * 50]), sure(7), atol=1e-12)

    def test_where_no_patch_says_anything_all_count_alike(self):
        np.testing.assert_allclose(pooled([UNIFORM] * 3), UNIFORM)

    @given(p=distributions(patches=True))
    def test_it_is_a_distribution_between_those_of_the_patches(self, p: NDArray):
        found = pooled(p)
        assert found.sum() == pytest.approx(1)
        assert (found >= p.min(axis=0) - 1e-12).all()
        assert (found <= p.max(axis=0) + 1e-12).all()

    @given(p=distributions(patches=True), seed=st.integers(0, 99))
    def test_the_order_of_patches_does_not_matter(self, p: NDArray, seed: int):
        shuffled = np.random.default_rng(seed).permutation(p, axis=0)
        np.testing.assert_allclose(pooled(shuffled), pooled(p), atol=1e-9)

    @given(p=distributions())
    def test_equal_patches_give_what_one_gives(self, p: NDArray):
        np.testing.assert_allclose(pooled([p] * 4), p, atol=1e-12)


class TestExpectedLevel:
    def test_it_is_the_mean_level(self):
        assert float(expected_level(sure(6))) == 6
        assert float(expected_level(UNIFORM)) == pytest.approx(5)
        assert float(expected_level(between(l1=0.75, l9=0.25))) == pytest.approx(3)
        assert expected_level(np.zeros((2, 3, LEVELS))).shape == (2, 3)


class TestInFocus:
    @pytest.mark.parametrize("level", range(LEVELS))
    def test_levels_up_to_2_are_in_focus(self, level: int):
        assert in_focus(sure(level)) == ("yes" if level <= 2 else "no")

    def test_it_asks_for_the_more_likely_side_not_the_most_likely_level(self):
        assert in_focus(between(l1=0.3, l2=0.3, l3=0.4)) == "yes"
        assert in_focus(between(l2=0.4, l3=0.3, l4=0.3)) == "no"
        assert in_focus(between(l0=0.5, l5=0.5)) == "yes"

    def test_what_says_little_is_uncertain_on_both_sides(self):
        assert in_focus(UNIFORM) == "uncertain"
        for level in (0, 10):
            # Certainties 0.193 and 0.205.
            below, above = (share * sure(level) + (1 - share) * UNIFORM for share in (0.405, 0.42))
            assert float(certainty(below)) < 0.2 < float(certainty(above))
            assert in_focus(below) == "uncertain"
            assert in_focus(above) == ("yes" if level == 0 else "no")

    def test_an_image_of_sure_patches_that_differ_is_not_uncertain(self):
        patches = np.array([sure(1), sure(3), sure(0), sure(2)])
        together = pooled(patches)
        assert in_focus(together, 0.9) == "yes"
        assert in_focus(together, 0.1) == "uncertain"

    def test_many_are_judged_at_once(self):
        many = np.array([[sure(0), sure(9)], [UNIFORM, sure(2)]])
        assert in_focus(many).tolist() == [["yes", "no"], ["uncertain", "yes"]]


class TestDefocusUm:
    LEVELS = np.linspace(0, 10, 41)

    def test_a_level_is_two_micrometers_of_the_reference_optics(self):
        found = Optics(0.65, 0.5).defocus_um(self.LEVELS)
        np.testing.assert_allclose(found, 2 * self.LEVELS, rtol=1e-6, atol=1e-6)

    @settings(max_examples=8, deadline=None)
    @given(
        pixel=st.floats(0.05, 1.5),
        index=st.sampled_from([1.0, 1.33, 1.515]),
        share=st.floats(0.1, 0.95),
        wavelength=st.floats(0.4, 0.8),
    )
    def test_a_higher_level_is_never_nearer_to_focus(
        self, pixel: float, index: float, share: float, wavelength: float
    ):
        found = Optics(pixel, share * index, wavelength, index).defocus_um(self.LEVELS)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (np.diff(found) >= 0).all()

    @pytest.mark.parametrize(
        "optics",
        [Optics(0.325, 0.75), Optics(1.3668, 0.75), Optics(0.325, 1.0, 0.6, 1.33), Optics(0.65, 0.3)],
    )
    def test_high_levels_follow_the_cone_of_light(self, optics: Optics):
        levels = np.arange(5, 11)
        cone = levels * 2 / 0.65 * optics.pixel_size_um * optics.refractive_index / (2 * optics.na)
        np.testing.assert_allclose(optics.defocus_um(levels), cone, rtol=0.05)

    def test_what_these_optics_blur_more_even_in_focus_is_no_defocus(self):
        """Dense sampling at a small aperture: a sharp point is as wide as one of level 2 or 3."""
        wide = Optics(0.1, 0.25)
        # 0.55 wavelength / NA: the radius of 80 % of the light in focus, here 11 pixels.
        found = wide.defocus_um([0, 1, 2, 5, 9, 10])
        assert (found[:4] == 0).all()
        assert found[-1] > found[-2] > 0

    def test_the_blur_that_a_level_stands_for_is_met(self):
        from focusqc.levels import _radius_of_light

        optics = Optics(0.4, 0.7, 0.6, 1.0)
        for level in (3, 6.5, 10):
            here = _radius_of_light(float(optics.defocus_um(level)), 0.8, 0.7, 0.6, 1.0) / 0.4
            reference = _radius_of_light(2 * level, 0.8, 0.5, 0.5, 1.0) / 0.65
            assert here == pytest.approx(reference, rel=0.02)

    def test_unknown_pixel_size_or_aperture_means_unknown_defocus(self):
        assert Optics.known(None, 0.5, None, None) is None
        assert Optics.known(0.65, None, 0.5, 1.0) is None
        assert Optics.known(0.65, 0.5, None, None) == Optics(0.65, 0.5)
        assert Optics.known(0.2, 1.2, 0.6, 1.33) == Optics(0.2, 1.2, 0.6, 1.33)
