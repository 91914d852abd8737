"""Scenes that patches are cut from: noise taken away, sizes changed, points, threads and disks drawn."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from focusqc.scenes import (
    SharpImage,
    drawn_scene,
    has_structure,
    magnified,
    normalized_light,
    scene_from,
    without_noise,
)


def noisy_cells(seed=0, noise=10.0):
    random = np.random.default_rng(seed)
    light = drawn_scene(random, 256) * 400
    return light, (light + 100 + random.normal(0, noise, light.shape)).astype(np.float32)


def test_noise_is_taken_from_even_regions_and_edges_stay():
    random = np.random.default_rng(4)
    square = np.zeros((200, 200), np.float32)
    square[60:140, 60:140] = 300
    noisy = square + 100 + random.normal(0, 8, square.shape).astype(np.float32)
    clean = without_noise(noisy)
    assert clean[5:50, 5:50].std() < 0.4 * noisy[5:50, 5:50].std()
    # The edge is as steep as before: half of the step between two neighbors.
    assert np.diff(clean[80:120].mean(axis=0)).max() > 0.7 * 300


def test_real_nuclei_keep_their_edges_and_lose_their_noise(real_data):
    plane = tifffile.imread(real_data / "bbbc039_nuclei" / "IXMtest_A06_s6.tif").astype(np.float32)
    clean = without_noise(plane)
    light = ndimage.uniform_filter(plane, 31)
    dark = light < np.percentile(light, 5)

    def noise(image):
        return (image - ndimage.uniform_filter(image, 15))[dark].std()

    assert noise(clean) < 0.25 * noise(plane)
    steep = np.abs(np.diff(plane, axis=1))
    edges = steep > np.percentile(steep, 99.5)
    assert np.abs(np.diff(clean, axis=1))[edges].mean() > 0.95 * steep[edges].mean()


def test_empty_fields_are_told_from_those_with_cells(real_data):
    folder = real_data / "bbbc039_nuclei"
    # Two of the 109 fields show nothing but the camera's noise.
    for name in ("IXMtest_L01_s2", "IXMtest_L10_s6"):
        assert not has_structure(tifffile.imread(folder / f"{name}.tif"))
    for name in ("IXMtest_A06_s6", "IXMtest_A09_s1"):
        assert has_structure(tifffile.imread(folder / f"{name}.tif"))
    assert not has_structure(np.random.default_rng(0).poisson(100, (300, 400)))


def test_light_of_fluorescence_is_zero_on_the_background_and_one_at_the_bright_end():
    _, plane = noisy_cells()
    light = normalized_light(plane.astype(np.uint16), bright_field=False)
    assert light.dtype == np.float32
    assert light.min() == 0
    assert np.percentile(light, 99.9) == pytest.approx(1, abs=0.02)


def test_light_of_a_section_is_one_where_the_glass_is_bare():
    plane = np.full((100, 100), 240, np.uint8)
    plane[30:60, 30:60] = 120
    light = normalized_light(plane, bright_field=True)
    assert light[0, 0] == pytest.approx(1)
    assert light[40, 40] == pytest.approx(0.5)


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.5])
def test_magnified_images_have_things_of_another_size(factor):
    y, x = np.mgrid[:600, :600]
    disks = (np.hypot(y % 40 - 20, x % 40 - 20) < 10).astype(np.float32)
    scene = magnified(disks, factor, np.random.default_rng(0))
    assert max(scene.shape) <= 513
    labels, count = ndimage.label(np.pad(scene[2:-2, 2:-2], 1) > 0.5)
    areas = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
    # Those that the border cuts are smaller.
    assert areas.max() == pytest.approx(np.pi * (10 * factor) ** 2, rel=0.12)


def test_drawn_scenes_differ_and_hold_sharp_things():
    random = np.random.default_rng(7)
    scenes = [drawn_scene(random, 128) for _ in range(24)]
    assert len({scene.tobytes() for scene in scenes}) == 24
    for scene in scenes:
        assert scene.shape == (128, 128)
        assert scene.dtype == np.float32
        assert np.isfinite(scene).all()
        assert scene.min() >= 0
        # Its steepest slope spans a few pixels: nothing is blurred yet.
        assert np.abs(np.diff(scene, axis=0)).max() > 0.1 * np.percentile(scene, 99.9)


def test_sets_count_alike_whatever_their_sizes():
    small = [SharpImage("bright", np.full((100, 100), 9, np.float32))]
    large = [SharpImage(f"dark {i}", np.full((100, 100), 1, np.float32)) for i in range(50)]
    random = np.random.default_rng(0)
    drawn = [
        scene_from([small, large], random, synthetic_share=0, magnification=1, bright_field=False).max()
        for _ in range(200)
    ]
    assert 70 < sum(value > 5 for value in drawn) < 130


def test_sections_are_never_drawn():
    sets = [[SharpImage("tissue", np.full((100, 100), 0.5, np.float32))]]
    random = np.random.default_rng(0)
    levels = []
    for _ in range(60):
        scene = scene_from(sets, random, synthetic_share=1, magnification=2, bright_field=True)
        np.testing.assert_allclose(scene, scene[0, 0], rtol=1e-5)
        levels.append(float(scene[0, 0]))
    # A few are bare glass, which is brighter than this tissue.
    assert 0 < sum(level > 0.75 for level in levels) < 20
