"""Simulated defocus and cameras: levels blur as they are defined, and nothing else tells the level."""

from __future__ import annotations

import numpy as np
import pytest

from focusqc.defocusing import (
    BRIGHT_FIELD,
    FLUORESCENCE,
    MARGIN_PX,
    USUAL_FLUORESCENCE,
    defocused,
    made_patches,
    patch_maker,
    photographed,
)
from focusqc.levels import LEVELS
from focusqc.scenes import drawn_scene
from lincei.optics import defocus_kernel


def point(size=101):
    scene = np.zeros((size, size), np.float32)
    scene[size // 2, size // 2] = 1
    return scene


@pytest.mark.parametrize("level", [0, 1, 4, 10])
def test_a_point_is_blurred_into_the_kernel_of_its_level(level):
    blurred = defocused(point(), level)
    kernel = defocus_kernel(2.0 * level)
    reach = kernel.shape[0] // 2
    middle = slice(50 - reach, 51 + reach)
    np.testing.assert_allclose(blurred[middle, middle], kernel, atol=2e-6)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)


def test_higher_levels_spread_a_point_farther():
    y, x = np.mgrid[-50:51, -50:51]
    radii = []
    for level in range(LEVELS):
        image = defocused(point(), level)
        radii.append(float((image * np.hypot(y, x)).sum()))
    assert (np.diff(radii) > 0).all()


def test_an_even_image_stays_even_to_its_borders():
    np.testing.assert_allclose(defocused(np.full((90, 120), 7.0), 10), 7, rtol=1e-4)


def test_a_patch_made_for_training_looks_as_the_same_scene_defocused_whole():
    """The blur by a whole-image convolution and that of the batches agree, but for rings that are cut off."""
    from focusqc.defocusing import _blurred

    scene = drawn_scene(np.random.default_rng(1), 136)
    random = np.random.default_rng(0)
    levels = np.full(60, 6, np.int32)
    made = _blurred(np.repeat(scene[None], 60, axis=0), levels, random)
    whole = defocused(scene, 6)[MARGIN_PX : MARGIN_PX + 84, MARGIN_PX : MARGIN_PX + 84]
    distance = np.abs(made - whole).max(axis=(1, 2)) / scene.max()
    # Half of them are seen through the reference optics, and most of these are thin.
    assert (distance < 0.02).sum() >= 15
    # Whatever the optics, a level is a level: nothing is blurred as another one would be.
    other = defocused(scene, 3)[MARGIN_PX : MARGIN_PX + 84, MARGIN_PX : MARGIN_PX + 84]
    assert (np.abs(made - whole).mean(axis=(1, 2)) < np.abs(made - other).mean(axis=(1, 2))).all()


@pytest.mark.parametrize("cameras", [FLUORESCENCE, BRIGHT_FIELD])
def test_cameras_give_whole_gray_values_within_their_bits_or_floating_point(cameras):
    random = np.random.default_rng(3)
    light = drawn_scene(random, 84)
    whole = 0
    for _ in range(40):
        image = photographed(light, cameras, random)
        assert np.isfinite(image).all()
        if (image == np.rint(image)).all():
            whole += 1
            assert image.min() >= 0
            assert image.max() <= 65535
    assert 20 < whole <= 40


def test_a_camera_of_middle_settings_is_the_same_each_time():
    light = drawn_scene(np.random.default_rng(0), 84)
    a, b = (photographed(light, USUAL_FLUORESCENCE, np.random.default_rng(5), vary=False) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_noise_without_light_is_the_same_at_every_level():
    """Nothing may tell the level of an empty patch.

    Neighboring pixels' noise is uncorrelated at all of them.
    """
    random = np.random.default_rng(2)
    scenes = [np.zeros((200, 200), np.float32)]
    patches, levels = made_patches(scenes, USUAL_FLUORESCENCE, 300, random)
    for low, high in ((0, 3), (4, 7), (8, 10)):
        chosen = patches[(levels >= low) & (levels <= high)]
        centered = chosen - chosen.mean(axis=(1, 2), keepdims=True)
        scale = (centered**2).mean(axis=(1, 2))
        neighbors = (centered[:, :, 1:] * centered[:, :, :-1]).mean(axis=(1, 2))[scale > 0] / scale[scale > 0]
        assert abs(np.median(neighbors)) < 0.02


def test_batches_have_all_levels_and_repeat_with_the_seed():
    def make():
        return patch_maker(
            lambda random: drawn_scene(random, 150), FLUORESCENCE, batch=32, new=16, pool=2, kept=64
        )

    first, second = make(), make()
    a = [first(np.random.default_rng(9)) for _ in range(1)]
    b = [second(np.random.default_rng(9)) for _ in range(1)]
    np.testing.assert_array_equal(a[0][0], b[0][0])
    np.testing.assert_array_equal(a[0][1], b[0][1])
    random = np.random.default_rng(1)
    levels = np.concatenate([first(random)[1] for _ in range(12)])
    assert a[0][0].shape == (32, 84, 84, 1)
    assert set(levels) == set(range(LEVELS))


def test_a_small_scene_is_mirrored_beyond_its_borders():
    patches, _ = made_patches([np.ones((90, 40), np.float32)], FLUORESCENCE, 3, np.random.default_rng(0))
    assert patches.shape == (3, 84, 84)
