"""What differs between slides, microscopes and cameras: stain, glass, sharpness, color and noise.

A crop is changed as if another laboratory had stained it and another camera had taken it, so that the network
learns tissue and not the color of its slides.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Optical densities of hematoxylin, eosin and what is left, in red, green, blue (Ruifrok & Johnston,
# Anal. Quant. Cytol. Histol. 23:291, 2001; the third is at right angles to both).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_WHITE = 255.0
# Display values below this are as dark as it gets: the logarithm of 0 has no end.
_DARKEST = 3.0
# Optical density of each display value.
_DENSITY = np.log(_WHITE / np.maximum(np.arange(256, dtype=np.float32), _DARKEST)).astype(np.float32)
_NOISE_SIZE = 2**21


@dataclass(frozen=True)
class AugmentationRange:
    """How much is varied; standard deviations unless it says otherwise.

    Parameters
    ----------
    stain_gain : float
        Of the logarithm of each stain's strength.
    stain_shift : float
        Of the optical density added to each color.
    white_balance : float
        Of the logarithm of each color's gain.
    gamma : float
        Of the logarithm of the exponent of the display curve.
    mixing : float
        Of what a camera's color matrix mixes from one color into another.
    blur_um : float
        Largest standard deviation of the blur, in um.
    noise : float
        Largest standard deviation of the noise, in display values.
    vignetting : float
        Largest loss of light in the corners, as a share.
    glass_share : float
        Share of the crops of which a part is bare glass.
    """

    stain_gain: float = 0.28
    stain_shift: float = 0.05
    white_balance: float = 0.08
    gamma: float = 0.2
    mixing: float = 0.06
    blur_um: float = 2.0
    noise: float = 6.0
    vignetting: float = 0.25
    glass_share: float = 0.12

    def with_colors(self, share: float) -> AugmentationRange:
        """Return a copy in which stain and color are varied so many times as much."""
        names = ("stain_gain", "stain_shift", "white_balance", "gamma", "mixing")
        return dataclasses.replace(self, **{name: share * getattr(self, name) for name in names})


USUAL = AugmentationRange()


def restained(
    colors: NDArray[np.uint8], random: np.random.Generator, limits: AugmentationRange = USUAL
) -> Array:
    """Return a section as if it had been stained with other strengths of hematoxylin and eosin.

    Parameters
    ----------
    colors : ndarray
        Shape (Y, X, 3), uint8 display values, glass near 255.
    random : numpy.random.Generator
        Source of chance.
    limits : AugmentationRange
        How much is varied.

    Returns
    -------
    ndarray
        float32, of the same shape, 0 to 255. Glass stays as bright, but for a slight tint.
    """
    import cv2

    density = cv2.LUT(colors, _DENSITY)
    gains = np.exp(random.normal(0, limits.stain_gain, 3) * (1, 1, 0.5))
    # Into stains, each made stronger or weaker, and back into colors: one matrix.
    matrix = np.linalg.inv(STAINS) @ np.diag(gains) @ STAINS
    tint = np.abs(random.normal(0, limits.stain_shift, 3))
    changed = cv2.transform(density, -np.column_stack([matrix.T, tint]))
    result: Array = cv2.exp(np.minimum(changed, 0, out=changed))
    result *= np.float32(_WHITE)
    return result


def with_glass(
    colors: Array, truth: Array, random: np.random.Generator, limits: AugmentationRange = USUAL
) -> tuple[Array, Array]:
    """Replace a part of some crops by bare glass, where nothing is tumor.

    Parameters
    ----------
    colors : ndarray
        Shape (Y, X, 3), display values.
    truth : ndarray
        Shape (Y, X, 2): share of tumor and whether it is known, 0 to 1.
    random : numpy.random.Generator
        Source of chance.
    limits : AugmentationRange
        How often.

    Returns
    -------
    tuple of ndarray
        Colors and truth.
    """
    import cv2

    if random.random() >= limits.glass_share:
        return colors, truth
    height, width = colors.shape[:2]
    if random.random() < 0.3:
        glass = np.ones((height, width), np.float32)
    else:
        # An edge with bays: noise without detail on top of a slope.
        rough = random.normal(0, 1, (5, 5)).astype(np.float32)
        rough = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
        angle = random.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        slope = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) * 6
        glass = cv2.GaussianBlur((rough + slope > random.uniform(-1.5, 2)).astype(np.float32), (0, 0), 1.5)
    bright = random.uniform(232, 255) + random.normal(0, 1.5, 3).astype(np.float32)
    part = glass[..., None]
    colors = (1 - part) * colors + part * bright.astype(np.float32)
    bare = glass > 0.5
    truth = truth.copy()
    truth[bare] = (0, 1)
    return colors, truth


def photographed(
    colors: Array, pixel_size_um: float, random: np.random.Generator, limits: AugmentationRange = USUAL
) -> Array:
    """Return a field as another camera would have taken it.

    Blur and vignetting come before the camera's colors, its curve and its noise.

    Parameters
    ----------
    colors : ndarray
        Shape (Y, X, 3), display values, glass near 255.
    pixel_size_um : float
        Pixel size, in um.
    random : numpy.random.Generator
        Source of chance.
    limits : AugmentationRange
        How much is varied.

    Returns
    -------
    ndarray
        float32, display values 0 to 255.
    """
    import cv2

    light = np.asarray(colors, np.float32) / _WHITE
    if random.random() < 0.6:
        sigma = random.uniform(0, limits.blur_um) / pixel_size_um
        if sigma > 0.25:
            light = cv2.GaussianBlur(light, (0, 0), sigma)
    height, width = light.shape[:2]
    loss = random.uniform(0, limits.vignetting) * (random.random() < 0.4)
    if loss > 0.01:
        # The crop lies anywhere in a field of view about four times as wide.
        center_y, center_x = (float(value) for value in random.uniform(-1.5, 2.5, 2))
        y = (np.arange(height, dtype=np.float32) / height - center_y)[:, None]
        x = (np.arange(width, dtype=np.float32) / width - center_x)[None]
        light = light * (1 - float(loss) * np.minimum(1, (x * x + y * y) / 8))[..., None]
    mixing = random.normal(0, limits.mixing, (3, 3))
    np.fill_diagonal(mixing, 0)
    matrix = np.eye(3) + mixing - np.diag(mixing.sum(axis=1))  # white stays white
    gains = np.exp(random.normal(0, limits.white_balance, 3) + random.normal(0, limits.white_balance))
    light = cv2.transform(light, matrix * np.minimum(gains, 1.15)[:, None])
    light = cv2.pow(np.clip(light, 0, 1, out=light), float(np.exp(random.normal(0, limits.gamma))))
    result = light * np.float32(_WHITE)
    noise = random.uniform(0, limits.noise) * (random.random() < 0.6)
    if noise > 0.3:
        # Drawn once and read from any place: drawing it anew would take half of the time of a crop.
        size = result.size
        start = int(random.integers(max(1, _NOISE_SIZE - size)))
        drawn = np.resize(_noise()[start : start + size], size)
        result += drawn.reshape(result.shape) * np.float32(noise)
    clipped: Array = np.clip(result, 0, _WHITE, out=result)
    return clipped


@functools.cache
def _noise() -> Array:
    """Return normally distributed numbers."""
    return np.random.default_rng(0).standard_normal(_NOISE_SIZE, np.float32)
