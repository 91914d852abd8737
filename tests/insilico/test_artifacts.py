"""Artifacts painted on stacks, and what is measured on them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import stack

from insilico.artifacts import KINDS, LIGHT, artifacts_in_words, measure_artifacts, paint_artifacts
from insilico.distribution import LogisticMixture
from insilico.z_planes import SOFT_LIMIT

Array = NDArray[np.float32]


def field(planes: int = 5, height: int = 200, width: int = 240, seed: int = 0) -> Array:
    """Return a stack (Y, X, planes) as a network sees it."""
    return np.moveaxis(stack(planes, height, width, seed), 0, -1).astype(np.float32)


def linear(stack: Array) -> Array:
    return SOFT_LIMIT * np.sinh(stack / SOFT_LIMIT)


@pytest.mark.parametrize("kind", KINDS)
class TestPainting:
    def test_equal_seeds_give_equal_artifacts_and_others_do_not(self, kind: str):
        clean = field()
        before = clean.copy()
        first, again, other = (paint_artifacts(clean, kind, seed=seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first.stack, again.stack)
        np.testing.assert_array_equal(first.hidden, again.hidden)
        assert (first.hidden != other.hidden).any()
        np.testing.assert_array_equal(clean, before)

    def test_they_cover_the_share_asked_for_and_leave_the_rest_as_it_was(self, kind: str):
        clean = field()
        spoiled = paint_artifacts(clean, kind, share=0.15)
        assert spoiled.stack.shape == clean.shape
        assert spoiled.stack.dtype == spoiled.hidden.dtype == np.float32
        assert np.isfinite(spoiled.stack).all()
        assert spoiled.hidden.min() >= 0
        assert spoiled.hidden.max() <= 1
        assert 0.15 <= spoiled.inside.mean() < 0.45
        assert not (spoiled.inside & spoiled.outside).any()
        changed = abs(spoiled.stack - clean).mean(axis=-1)
        assert changed[spoiled.outside].mean() < 0.05
        assert changed[spoiled.inside].mean() > 0.3

    def test_what_is_behind_is_hidden_or_distorted(self, kind: str):
        clean = field()
        spoiled = paint_artifacts(clean, kind)
        r = np.corrcoef(clean[spoiled.inside].ravel(), spoiled.stack[spoiled.inside].ravel())[0, 1]
        assert r < 0.6
        r = np.corrcoef(clean[spoiled.outside].ravel(), spoiled.stack[spoiled.outside].ravel())[0, 1]
        assert r > 0.99

    def test_a_strip_smaller_than_an_artifact_and_a_single_plane_are_painted_too(self, kind: str):
        spoiled = paint_artifacts(field(1, 24, 300), kind)
        assert spoiled.stack.shape == (24, 300, 1)
        assert spoiled.inside.mean() >= 0.12


def test_dust_is_as_dark_as_no_light_and_never_darker():
    flat = np.zeros((200, 240, 5), np.float32)
    spoiled = linear(paint_artifacts(flat, "dust").stack)
    assert spoiled.min() >= -LIGHT - 1e-3
    assert (spoiled < -0.8 * LIGHT).mean() > 0.01


def test_dust_is_sharper_in_some_planes_than_in_others():
    flat = np.zeros((200, 240, 7), np.float32)
    spoiled = paint_artifacts(flat, "dust", seed=1).stack
    steepness = np.hypot(*np.gradient(spoiled, axis=(0, 1))).max(axis=(0, 1))
    assert steepness.max() > 1.2 * steepness.min()


def test_a_bubble_has_a_dark_rim_and_bright_rings():
    flat = np.zeros((120, 120, 1), np.float32)
    spoiled = paint_artifacts(flat, "bubble", share=0.02).stack
    assert spoiled.min() < -3
    assert spoiled.max() > 1


def test_a_smear_leaves_less_detail():
    random = np.random.default_rng(0)
    noise = random.standard_normal((200, 240, 1)).astype(np.float32)
    spoiled = paint_artifacts(noise, "smear")
    rough = abs(np.diff(spoiled.stack[..., 0], axis=0))
    inside = spoiled.inside[1:] & spoiled.inside[:-1]
    assert rough[inside].mean() < 0.6 * abs(np.diff(noise[..., 0], axis=0)).mean()


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="'hair'"):
        paint_artifacts(field(), "hair")


def predictor(doubts: bool) -> tuple[list[Array], list[Array], object]:
    """Return fields, their truth, and what predicts it from the middle plane, in doubt beyond 2.5."""
    stacks = [field(3, 160, 200, seed) for seed in (1, 2)]
    truths = [np.stack([s[..., 1], np.full_like(s[..., 1], np.nan)], axis=-1) for s in stacks]

    def predict(seen: Array) -> list[LogisticMixture]:
        middle = seen[..., 1]
        scale = np.where(doubts & (abs(middle) > 2.5), 1.0, 0.2).astype(np.float32)
        mixture = LogisticMixture(np.ones((1, *middle.shape), np.float32), middle[None], scale[None])
        return [mixture, mixture]

    return stacks, truths, predict


def test_figures_inside_and_outside_are_of_the_same_pixels_with_and_without():
    stacks, truths, predict = predictor(doubts=True)
    measured = measure_artifacts(predict, stacks, truths, ["a", "b"])
    assert set(measured) == set(KINDS)
    for found in measured.values():
        assert set(found["labels"]) == {"a"}, "nothing is known of b"
        inside, outside = found["labels"]["a"]["inside"], found["labels"]["a"]["outside"]
        assert found["share"] >= 0.12
        assert inside["clean_pearson_r"] == outside["clean_pearson_r"] == 1
        assert inside["pearson_r"] < 0.7
        assert outside["pearson_r"] > 0.99
        assert inside["nrmse"] > 3 * outside["nrmse"]
        assert inside["coverage_90"] < outside["coverage_90"]
        assert outside["sd"] == pytest.approx(outside["clean_sd"], rel=0.05)
    dust = measured["dust"]["labels"]["a"]["inside"]
    assert dust["sd"] > 1.5 * dust["clean_sd"]


def test_a_network_that_never_doubts_is_found_out():
    stacks, truths, predict = predictor(doubts=False)
    inside = measure_artifacts(predict, stacks[:1], truths[:1], ["a", "b"])["dust"]["labels"]["a"]["inside"]
    assert inside["sd"] == inside["clean_sd"]
    assert inside["coverage_90"] < 0.6 < inside["clean_coverage_90"]


def test_the_readme_has_a_row_for_each_artifact_and_label():
    stacks, truths, predict = predictor(doubts=True)
    lines = artifacts_in_words(measure_artifacts(predict, stacks, truths, ["a", "b"]))
    rows = [line for line in lines if line.startswith(("| dust | a |", "| smear | a |", "| bubble | a |"))]
    assert len(rows) == len(KINDS)
    assert artifacts_in_words({}) == []
