"""Augmentation of training crops that fits the physics of transmitted light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from insilico.z_planes import interpolation_weights
from lincei.tiles import mirrored

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """How strongly crops are varied.

    Parameters
    ----------
    rotate : bool
        Any rotation and mirroring; False turns by 20 degrees at most and does not mirror, so that shadows
        keep their side.
    zoom : float
        Standard deviation of the logarithm of the magnification.
    stretch : float
        The same, of the ratio of height to width.
    gain, offset : float
        Standard deviations of the logarithm of contrast, and of brightness (in units of the image's own).
    noise : float
        Largest usual standard deviation of added camera noise.
    focus : float
        Standard deviation of the shift of the focus, in planes.
    fewer_planes : float
        Share of crops that are seen through fewer planes than were taken.
    blur : float
        Share of crops blurred by up to 1.5 pixels (a small defocus of the whole stack).
    spots : float
        Mean number of specks of dust and smears per crop.
    """

    rotate: bool = True
    zoom: float = 0.12
    stretch: float = 0.06
    gain: float = 0.2
    offset: float = 0.1
    noise: float = 0.1
    focus: float = 0.5
    fewer_planes: float = 0.25
    blur: float = 0.1
    spots: float = 0.8


def random_crop(
    stack: Array, truth: Array, size: int, augmentation: Augmentation, random: np.random.Generator
) -> tuple[Array, Array]:
    """Cut a randomly placed, turned and zoomed square out of a field, and vary how it was taken.

    Parameters
    ----------
    stack : ndarray
        Shape (Y, X, planes), float32, scaled.
    truth : ndarray
        Shape (Y, X, labels), float32, NaN where it is not known.
    size : int
        Side of the crop in pixels.
    augmentation : Augmentation
        How strongly to vary.
    random : numpy.random.Generator
        Source of all chance.

    Returns
    -------
    tuple of ndarray
        The crop's stack (size, size, planes) and truth (size, size, labels).
    """
    stack, truth = _placed(stack, truth, size, augmentation, random)
    if augmentation.rotate:
        turns = int(random.integers(4))
        stack, truth = np.rot90(stack, turns), np.rot90(truth, turns)
        if random.random() < 0.5:
            stack, truth = stack[:, ::-1], truth[:, ::-1]
    return _seen(np.ascontiguousarray(stack), augmentation, random), np.ascontiguousarray(truth)


def _placed(
    stack: Array, truth: Array, size: int, augmentation: Augmentation, random: np.random.Generator
) -> tuple[Array, Array]:
    """Rotate, zoom and stretch about a random place; outside the field it is mirrored."""
    height, width = stack.shape[:2]
    most = np.pi if augmentation.rotate else np.pi / 9
    angle = random.uniform(-most, most)
    zoom = np.exp(random.normal() * augmentation.zoom)
    stretch = np.exp(random.normal() * augmentation.stretch)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = zoom * turn @ np.diag([stretch, 1.0])
    center = np.array([random.uniform(0, height), random.uniform(0, width)])
    places = np.mgrid[:size, :size].reshape(2, -1) - (size - 1) / 2
    rows, columns = matrix @ places + center[:, None]
    sample = _bilinear(rows, columns, height, width)
    return sample(stack).reshape(size, size, -1), sample(truth).reshape(size, size, -1)


def _bilinear(
    rows: NDArray[np.floating], columns: NDArray[np.floating], height: int, width: int
) -> Callable[[Array], Array]:
    """Return a function that interpolates (Y, X, channels) at the places; the border is mirrored.

    All channels of a pixel are gathered at once, three times as fast as one channel after the other.
    """
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    down = (rows - top).astype(np.float32)[:, None]
    right = (columns - left).astype(np.float32)[:, None]
    upper, lower = (mirrored(index, height) * width for index in (top, top + 1))
    first, second = (mirrored(index, width) for index in (left, left + 1))

    def sample(planes: Array) -> Array:
        flat = planes.reshape(height * width, -1)
        above, below = (
            flat.take(row + first, axis=0) * (1 - right) + flat.take(row + second, axis=0) * right
            for row in (upper, lower)
        )
        return above * (1 - down) + below * down

    return sample


def _seen(stack: Array, augmentation: Augmentation, random: np.random.Generator) -> Array:
    """Vary focus, planes, blur, dirt, contrast, brightness and noise."""
    from scipy import ndimage

    planes = stack.shape[-1]
    if planes > 1:
        stack = stack @ _planes_seen(planes, augmentation, random).T
    if random.random() < augmentation.blur:
        sigma = random.uniform(0.3, 1.5)
        stack = ndimage.gaussian_filter(stack, (sigma, sigma, 0), mode="nearest")
    for _ in range(random.poisson(augmentation.spots)):
        stack = _spotted(stack, random)
    gain = np.exp(random.normal() * augmentation.gain)
    stack = stack * np.float32(gain) + np.float32(random.normal() * augmentation.offset)
    noise = abs(random.normal()) * augmentation.noise
    return stack + random.standard_normal(stack.shape, np.float32) * np.float32(noise)


def _planes_seen(planes: int, augmentation: Augmentation, random: np.random.Generator) -> Array:
    """Return weights that shift and stretch the focal positions, and sometimes thin the planes out."""
    middle = (planes - 1) / 2
    positions = middle + (np.arange(planes) - middle) * np.exp(random.normal() * 0.1)
    positions = positions + random.normal() * augmentation.focus
    weights = interpolation_weights(positions, planes)
    if random.random() < augmentation.fewer_planes:
        fewer = int(random.integers(1, planes))
        start, stop = (
            np.sort(random.uniform(0, planes - 1, 2)) if fewer > 1 else [middle + random.normal()] * 2
        )
        kept = interpolation_weights(
            np.linspace(start, stop, fewer) if fewer > 1 else np.array([start]), planes
        )
        spread = interpolation_weights(np.linspace(0, fewer - 1, planes), fewer)
        weights = spread @ kept
    return weights


def _spotted(stack: Array, random: np.random.Generator) -> Array:
    """Add dust, a smear, or something from elsewhere, with a soft and irregular edge.

    What lies behind it is dimmed or hidden, or seen in the wrong place: the truth stays, so that the network
    learns to doubt what it sees there.
    """
    from scipy import ndimage

    shadow = _irregular_spot(stack.shape[0], random)
    depth = np.float32(random.uniform(-6, 6))
    kind = random.choice(4, p=(0.25, 0.3, 0.3, 0.15))
    if kind == 0:  # thin: a shade over what is there
        spotted = stack + (shadow * depth)[..., None]
    elif kind == 1:  # opaque, and in half of the cases the sharper the nearer a plane is to it
        if stack.shape[-1] > 1 and random.random() < 0.5:
            away = np.abs(np.arange(stack.shape[-1]) - random.uniform(0, stack.shape[-1] - 1))
            cover = shadow[..., None] ** (1 + away / stack.shape[-1] * 2).astype(np.float32)
        else:
            cover = shadow[..., None]
        spotted = stack * (1 - cover) + cover * depth
    elif kind == 2:  # a film or a drop: blurred, moved and dimmed
        moved = np.roll(stack, random.integers(-12, 13, 2), axis=(0, 1))
        blurred = ndimage.uniform_filter(moved, (*random.integers(3, 10, 2), 1), mode="wrap")
        cover = shadow[..., None]
        dim = np.float32(random.uniform(0.2, 1))
        spotted = stack * (1 - cover) + cover * (dim * blurred + depth * np.float32(random.uniform(0, 0.5)))
    else:  # plausible, but not of this place
        cover = shadow[..., None]
        spotted = stack * (1 - cover) + cover * stack[::-1, ::-1] * np.float32(random.uniform(0.3, 1.5))
    return spotted.astype(np.float32)


def _irregular_spot(size: int, random: np.random.Generator) -> Array:
    """Return how much of each pixel is covered (0 to 1), shape (size, size)."""
    row, column = random.uniform(0, size, 2)
    y, x = np.ogrid[:size, :size]
    angle = random.uniform(0, np.pi)
    along = (y - row) * np.sin(angle) + (x - column) * np.cos(angle)
    across = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
    # Its middle may be farther from its edge than a cell is wide: what is hidden there cannot be inferred.
    length = np.exp(random.uniform(np.log(4), np.log(max(size / 3, 5))))
    width = max(2.0, length * random.uniform(0.1, 1))
    distance = np.sqrt((along / length) ** 2 + (across / width) ** 2)
    around = np.arctan2(across, along)
    for lobes in (2, 3, 5):
        distance *= 1 + 0.12 * random.normal() * np.cos(lobes * around + random.uniform(0, 2 * np.pi))
    edge = random.uniform(0.05, 0.6)
    return (1 / (1 + np.exp(np.clip((distance - 1) / edge, -30, 30)))).astype(np.float32)
