"""What patches are cut from while training: sharp images at many magnifications, and drawn scenes.

A sharp image carries the noise of its own camera. Blurred with the image, it would tell the level even where
there is nothing to see, so it is removed first (`without_noise`); the simulated camera adds fresh noise
afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Side of a drawn scene, and the longest side of what is cut from a larger image.
SCENE_PX = 512
# Shares of the images that are neither enlarged nor softened, and of the others that are softened. The more
# are changed, the less is a crisp image's first level told from sharp; the fewer, the more blurred soft ones
# seem.
_AS_THEY_ARE, _SOFT = 0.65, 0.25
# Share of scenes of bare glass among those of stained sections.
_GLASS = 0.08
# A mask that answers to noise and hardly to structures, and its response to white noise of variance 1.
_SECOND_DIFFERENCES = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_RESPONSE = 36


@dataclass(frozen=True)
class SharpImage:
    """A sharp image as scenes are made of it.

    Parameters
    ----------
    name : str
        Its name.
    light : ndarray
        Shape (Y, X), float32: 0 is the background (glass is 1 in bright field), 1 the bright end.
    """

    name: str
    light: Array


def normalized_light(plane: NDArray[np.generic], *, bright_field: bool) -> Array:
    """Return a sharp plane as relative light without its background and its noise.

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
        Gray values.
    bright_field : bool
        True for stained sections in transmitted light, whose brightest places are bare glass.

    Returns
    -------
    ndarray
        Shape (Y, X), float32. Fluorescence: 0 for the 1st, 1 for the 99.9th percentile. Bright field: 1 for
        the 99.5th percentile, and 0 for no light.
    """
    values = np.asarray(plane, np.float32)
    if bright_field:
        return np.clip(values / max(float(np.percentile(values, 99.5)), 1e-6), 0, None).astype(np.float32)
    values = without_noise(values)
    low, high = np.percentile(values, (1, 99.9))
    return np.clip((values - low) / max(float(high - low), 1e-6), 0, None).astype(np.float32)


def without_noise(plane: Array) -> Array:
    """Return a plane whose even regions are smooth while its structures stay.

    The local Wiener filter (Lee, IEEE TPAMI 2:165, 1980): each pixel moves toward its neighborhood's mean,
    all the way where the neighborhood varies no more than noise does. The noise is measured on second
    differences of the quieter half of the neighborhoods, and grows with brightness as shot noise does.
    """
    from scipy import ndimage

    window = 7
    mean = ndimage.uniform_filter(plane, window, mode="reflect")
    variance = np.maximum(ndimage.uniform_filter(plane**2, window, mode="reflect") - mean**2, 0)
    noise = ndimage.uniform_filter(
        ndimage.convolve(plane, _SECOND_DIFFERENCES, mode="reflect") ** 2 / _RESPONSE, window
    )
    quiet = variance <= np.median(variance)
    level = float(np.median(noise[quiet]))
    # Brighter places hold more shot noise; fine structures must not pass for noise, hence the limit.
    ground = float(np.median(mean[quiet]))
    brighter = np.clip(mean / ground, 1, 8) if ground > 0 else 1.0
    expected = 1.5 * level * brighter
    keep = np.clip((variance - expected) / np.maximum(variance, 1e-12), 0, 1)
    return (mean + keep * (plane - mean)).astype(np.float32)


def noise_sd(plane: NDArray[np.generic]) -> float:
    """Return the standard deviation of the noise of a plane's quieter half (Immerkaer, CVIU 64:300, 1996)."""
    from scipy import ndimage

    values = np.asarray(plane, np.float32)
    squares = ndimage.convolve(values, _SECOND_DIFFERENCES, mode="reflect") ** 2 / _RESPONSE
    return float(np.sqrt(np.median(ndimage.uniform_filter(squares, 7))))


def has_structure(plane: NDArray[np.generic]) -> bool:
    """Tell whether anything stands out from the noise of fluorescence: empty fields have nothing to teach."""
    from scipy import ndimage

    values = np.asarray(plane, np.float32)
    smooth = ndimage.gaussian_filter(values, 1.5)
    # Slow changes are uneven light. Of pure noise, a hundredth as many pixels reach four standard deviations.
    detail = smooth - ndimage.gaussian_filter(values, 20)
    noise = noise_sd(values) / np.sqrt(4 * np.pi * 1.5**2)
    return float(np.percentile(np.abs(detail), 99)) > 4 * noise


def magnified(image: Array, factor: float, random: np.random.Generator) -> Array:
    """Return a random part of an image, enlarged by a factor (reduced below 1), turned and mirrored.

    At most `SCENE_PX` on a side. Reduced images are averaged first, so that they stay free of aliases.
    """
    from lincei.pixel_size import resampled

    side = int(np.ceil(SCENE_PX / factor))
    height, width = image.shape
    y = int(random.integers(0, max(1, height - side + 1)))
    x = int(random.integers(0, max(1, width - side + 1)))
    part = image[y : y + side, x : x + side]
    if factor != 1:
        part = resampled(part, factor)
    part = np.rot90(part, int(random.integers(4)))
    return np.ascontiguousarray(part[:, ::-1] if random.random() < 0.5 else part)


def drawn_scene(random: np.random.Generator, size_px: int = SCENE_PX) -> Array:
    """Return a scene of points, threads, disks or cells, sharp to the pixel.

    Parameters
    ----------
    random : numpy.random.Generator
        Chance.
    size_px : int
        Height and width.

    Returns
    -------
    ndarray
        Shape (size_px, size_px), float32, from 0 to about 1.
    """
    kinds = (_points, _threads, _disks, _cells)
    scene = np.zeros((size_px, size_px), np.float32)
    for kind in random.choice(len(kinds), size=int(random.integers(1, 3)), replace=False):
        scene += kinds[kind](random, size_px) * np.float32(random.uniform(0.3, 1))
    return scene / max(float(np.percentile(scene, 99.9)), 1e-3)


def _points(random: np.random.Generator, size: int) -> Array:
    """Small beads or vesicles, some much brighter than others."""
    from scipy import ndimage

    count = int(np.exp(random.uniform(np.log(size / 4), np.log(size * 6))))
    scene = np.zeros((size, size), np.float32)
    places = random.integers(0, size, (count, 2))
    scene[places[:, 0], places[:, 1]] = np.exp(random.normal(0, 0.7, count))
    scene = ndimage.gaussian_filter(scene, random.uniform(0.5, 1.3))
    return scene / max(float(scene.max()), 1e-6)


def _threads(random: np.random.Generator, size: int) -> Array:
    """Winding threads: neurites, filaments."""
    from scipy import ndimage

    scene = np.zeros((size, size), np.float32)
    stiffness = random.uniform(0.02, 0.15)
    for _ in range(int(np.exp(random.uniform(np.log(5), np.log(120))))):
        length = int(random.integers(60, 2 * size))
        angle = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, stiffness, length))
        y = random.uniform(0, size) + np.cumsum(np.sin(angle)) * 0.7
        x = random.uniform(0, size) + np.cumsum(np.cos(angle)) * 0.7
        inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
        scene[y[inside].astype(int), x[inside].astype(int)] += np.float32(np.exp(random.normal(0, 0.5)))
    scene = ndimage.gaussian_filter(scene, random.uniform(0.5, 1.6))
    return scene / max(float(np.percentile(scene, 99.9)), 1e-6)


def _disks(random: np.random.Generator, size: int) -> Array:
    """Overlapping even ellipses that hide one another (dead leaves): edges of all sizes."""
    scene = np.zeros((size, size), np.float32)
    smallest = random.uniform(2, 12)
    for _ in range(int(np.exp(random.uniform(np.log(30), np.log(400))))):
        # Sizes by a power law, as in natural scenes.
        radius = min(smallest / random.uniform(0.02, 1) ** 0.5, size / 5)
        coverage, box = _ellipse(random, size, radius)
        value = np.float32(random.random())
        scene[box] = scene[box] * (1 - coverage) + value * coverage
    return scene


def _cells(random: np.random.Generator, size: int) -> Array:
    """Bright ellipses with texture inside on a dark ground: nuclei."""
    from scipy import ndimage

    scene = np.zeros((size, size), np.float32)
    texture = np.zeros((size, size), np.float32)
    for scale in (0.7, 1.5, 3, 8):
        layer = ndimage.gaussian_filter(random.standard_normal((size, size), np.float32), scale)
        texture += layer / layer.std() * np.float32(random.uniform(0, 1))
    texture = 1 + texture * np.float32(random.uniform(0.02, 0.25))
    radius = np.exp(random.uniform(np.log(6), np.log(60)))
    for _ in range(int(max(3, random.uniform(0.05, 0.5) * size**2 / (np.pi * radius**2)))):
        coverage, box = _ellipse(random, size, radius * np.exp(random.normal(0, 0.2)))
        value = np.float32(np.exp(random.normal(0, 0.4)))
        scene[box] = np.maximum(scene[box], value * coverage * np.clip(texture[box], 0, None))
    return scene / max(float(scene.max()), 1e-6)


def _ellipse(random: np.random.Generator, size: int, radius: float) -> tuple[Array, tuple[slice, slice]]:
    """Return how much of each pixel an ellipse covers, and the part of the scene it lies in."""
    cy, cx = random.uniform(0, size, 2)
    reach = int(np.ceil(1.6 * radius)) + 2
    top, left = max(0, int(cy) - reach), max(0, int(cx) - reach)
    box = (slice(top, min(size, int(cy) + reach)), slice(left, min(size, int(cx) + reach)))
    y = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - np.float32(cy)
    x = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] - np.float32(cx)
    angle, aspect = random.uniform(0, np.pi), random.uniform(1, 1.5)
    along = (x * np.cos(angle) + y * np.sin(angle)) / aspect
    across = (-x * np.sin(angle) + y * np.cos(angle)) * aspect
    # One pixel of soft edge: the share of a pixel that an edge across it covers.
    return np.clip(radius - np.hypot(along, across) + 0.5, 0, 1).astype(np.float32), box


def bare_glass(random: np.random.Generator) -> Array:
    """Return a scene of evenly lit glass beside a section, shape (SCENE_PX, SCENE_PX).

    Its patches come at all levels like any others, and nothing in them tells which; images of sections alone
    hold too few of them to learn that from.
    """
    return np.full((SCENE_PX, SCENE_PX), random.uniform(0.8, 1.0), np.float32)


def softened(scene: Array, random: np.random.Generator) -> Array:
    """Return a scene as thick or soft specimens look in focus: a little smooth, in a haze of their own light.

    What is in focus is not always crisp: pixels may be finer than the optics, and light from far above and
    below veils it. Without such scenes a network would take every soft specimen for a blurred one.
    """
    from scipy import ndimage

    if random.random() < _SOFT:
        scene = ndimage.gaussian_filter(scene, random.uniform(0.4, 2.5), mode="reflect")
    if random.random() < _SOFT:
        haze = ndimage.gaussian_filter(scene, random.uniform(5, 25), mode="reflect")
        scene = scene + haze * np.float32(random.uniform(0.1, 1.5))
    return scene


def scene_from(
    sets: Sequence[Sequence[SharpImage]],
    random: np.random.Generator,
    *,
    synthetic_share: float,
    magnification: float,
    bright_field: bool,
) -> Array:
    """Return one scene to cut patches from: a sharp image at a random magnification, or a drawn one.

    Parameters
    ----------
    sets : sequence of sequences of SharpImage
        At least one set of at least one; sets count alike, whatever their sizes.
    random : numpy.random.Generator
        Chance.
    synthetic_share : float
        Share of drawn scenes (of fluorescence; sections are not drawn).
    magnification : float
        Largest factor of enlarging, and the square of that of reducing.
    bright_field : bool
        Whether the images are stained sections.

    Returns
    -------
    ndarray
        Shape (Y, X), float32, relative light.
    """
    if bright_field and random.random() < _GLASS:
        return bare_glass(random)
    if not bright_field and random.random() < synthetic_share:
        return softened(drawn_scene(random), random)
    images = sets[int(random.integers(len(sets)))]
    image = images[int(random.integers(len(images)))]
    # Most of them as they are: that is how images of the kind that was trained on will come.
    if random.random() < _AS_THEY_ARE:
        return magnified(image.light, 1.0, random)
    factor = float(np.exp(random.uniform(-0.5, 1) * np.log(magnification)))
    scene = magnified(image.light, factor, random)
    # Stained sections are thin, and lie between glasses.
    return scene if bright_field else softened(scene, random)
