"""Sharp light to patches of known defocus: the optics and the camera that a training simulates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusqc.levels import LEVELS, REFERENCE_PIXEL_SIZE_UM, STEP_UM
from focusqc.patches import PATCH_PX
from lincei.optics import (
    defocus_kernel,
    exposed,
    saturated,
    vignetted,
    with_offset,
    with_read_noise,
    with_shot_noise,
)

Array = NDArray[np.float32]

# Light from this far outside a patch blurs into it: half the highest level's kernel.
MARGIN_PX = 26
_SIDE_PX = PATCH_PX + 2 * MARGIN_PX
# Optics besides the reference with the same paraxial blur on the same pixels: a higher aperture with smaller
# pixels looks more geometric, a lower one has wider rings.
_APERTURES = (0.5, 0.35, 0.75)
# The share of patches seen through the reference optics themselves.
_REFERENCE_SHARE = 0.7


@dataclass(frozen=True)
class CameraRange:
    """From what a simulated camera is drawn; pairs are limits, drawn evenly on a logarithmic scale.

    Parameters
    ----------
    photoelectrons : (float, float)
        Of the bright end.
    background : (float, float)
        Light that is everywhere, as a share of the bright end.
    read_noise : (float, float)
        Standard deviation in photoelectrons.
    filled : (float, float)
        How much of the camera's range the bright end fills.
    overexposed_share : float
        Share of images whose bright end is beyond the camera's range.
    odd_share : float
        Share of vignetted images, and half of it of images stored as floating point.
    """

    photoelectrons: tuple[float, float] = (80, 10000)
    background: tuple[float, float] = (0.003, 0.5)
    read_noise: tuple[float, float] = (0.5, 8)
    filled: tuple[float, float] = (0.04, 0.9)
    overexposed_share: float = 0.08
    odd_share: float = 0.3


# What is trained on. A section is bright all over, and glass is part of the light itself.
FLUORESCENCE = CameraRange()
BRIGHT_FIELD = CameraRange((400, 20000), (0.0005, 0.01), (1, 20), (0.3, 0.95), 0.1)
# What is tuned and measured on: exposures as people take them who mean to publish them.
USUAL_FLUORESCENCE = CameraRange((300, 6000), (0.01, 0.2), (1, 5), (0.15, 0.9), 0.0, 0.1)
USUAL_BRIGHT_FIELD = CameraRange((2000, 20000), (0.0005, 0.01), (1, 10), (0.5, 0.95), 0.0, 0.1)


def defocused(light: NDArray[np.generic], level: float) -> Array:
    """Return a sharp image as it looks at a level of defocus, in the reference optics.

    Parameters
    ----------
    light : ndarray, shape (Y, X)
        Sharp image; beyond its borders it is taken as mirrored.
    level : float
        0 to 10; the kernel is that at z = 2 ``level`` um.

    Returns
    -------
    ndarray
        Shape (Y, X), float32, without noise.
    """
    from scipy.signal import fftconvolve

    kernel = defocus_kernel(STEP_UM * level, pixel_size_um=REFERENCE_PIXEL_SIZE_UM)
    reach = kernel.shape[0] // 2
    padded = np.pad(np.asarray(light, np.float32), reach, mode="symmetric")
    return fftconvolve(padded, kernel, mode="valid").astype(np.float32)


def photographed(
    light: Array, cameras: CameraRange, random: np.random.Generator, *, vary: bool = True
) -> Array:
    """Return light as one of many cameras records it, in gray values.

    Parameters
    ----------
    light : ndarray, shape (Y, X)
        Relative light; its bright end is about 1.
    cameras : CameraRange
        What is drawn from.
    random : numpy.random.Generator
        Chance.
    vary : bool
        False takes the middle of every range, 12 bits, and no vignetting.

    Returns
    -------
    ndarray
        Shape (Y, X), float32; whole numbers, unless the camera is one that stores floating point.
    """

    def drawn(limits: tuple[float, float]) -> float:
        share = random.random() if vary else 0.5
        return float(np.exp(np.log(limits[0]) + share * np.log(limits[1] / limits[0])))

    light = np.clip(light, 0, None) + np.float32(drawn(cameras.background))
    if vary and random.random() < cameras.odd_share:
        light = vignetted(
            light, random.uniform(0, 0.5), (random.uniform(-0.5, 1.5), random.uniform(-0.5, 1.5))
        )
    electrons = drawn(cameras.photoelectrons)
    counts = with_shot_noise(exposed(light, electrons), random)
    counts = with_read_noise(counts, drawn(cameras.read_noise), random)
    bits = int(random.choice((8, 12, 16))) if vary else 12
    filled = drawn(cameras.filled)
    if vary and random.random() < cameras.overexposed_share:
        filled = random.uniform(1, 2)
    offset = random.uniform(0, 0.05) * 2**bits if vary else 0.02 * 2**bits
    values = with_offset(counts, filled * 2**bits / electrons, offset)
    if vary and random.random() < cameras.odd_share / 2:
        return values
    return saturated(values, bits).astype(np.float32)


def patch_maker(
    make_scene: Callable[[np.random.Generator], Array],
    cameras: CameraRange,
    *,
    batch: int,
    new: int = 32,
    pool: int = 24,
    kept: int = 4096,
) -> Callable[[np.random.Generator], tuple[Array, NDArray[np.int32]]]:
    """Return a function that makes batches of patches with their levels.

    Parameters
    ----------
    make_scene : callable
        Makes a sharp scene, shape (Y, X); a few are kept and one is replaced for every batch.
    cameras : CameraRange
        What they are photographed with.
    batch : int
        Patches in a batch.
    new : int
        Patches that are made anew for each batch; the others are met again, turned and mirrored.
    pool : int
        Scenes kept.
    kept : int
        Patches kept to draw from.

    Returns
    -------
    callable
        Takes a random generator; returns patches, shape (batch, 84, 84, 1), float32 gray values, and their
        levels, shape (batch,), int32. All levels are equally frequent, also among patches with nothing in
        them: that, and no label, is why nothing can be told from these.
    """
    scenes: list[Array] = []
    patches = np.empty((kept, PATCH_PX, PATCH_PX), np.float32)
    levels = np.empty(kept, np.int32)
    filled = 0

    def make(random: np.random.Generator) -> tuple[Array, NDArray[np.int32]]:
        nonlocal filled
        while len(scenes) < pool:
            scenes.append(make_scene(random))
        scenes[int(random.integers(pool))] = make_scene(random)
        count = max(new, batch - filled)
        places = np.arange(filled, filled + count) % kept
        patches[places], levels[places] = made_patches(scenes, cameras, count, random)
        filled += count
        # What is new, then others from before.
        chosen = np.concatenate([places, random.integers(0, min(filled, kept), max(0, batch - count))])[
            :batch
        ]
        return _turned(patches[chosen], random)[..., None], levels[chosen]

    return make


def made_patches(
    scenes: Sequence[Array], cameras: CameraRange, count: int, random: np.random.Generator
) -> tuple[Array, NDArray[np.int32]]:
    """Return patches, shape (count, 84, 84), float32 gray values, cut from sharp scenes; and their levels."""
    drawn = random.integers(0, LEVELS, count).astype(np.int32)
    sharp = np.stack([_part(scenes[int(random.integers(len(scenes)))], random) for _ in range(count)])
    made = np.empty((count, PATCH_PX, PATCH_PX), np.float32)
    for i, light in enumerate(_blurred(sharp, drawn, random)):
        # Contrast differs within a scene too: cells that are dim beside bright ones.
        dimmed = light * np.float32(np.exp(random.uniform(np.log(0.3), 0)))
        made[i] = photographed(dimmed, cameras, random)
    return made, drawn


def _turned(patches: Array, random: np.random.Generator) -> Array:
    """Turn and mirror all patches of a batch in one of the eight ways."""
    turned = np.rot90(patches, int(random.integers(4)), axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if random.random() < 0.5 else turned)


def _part(scene: Array, random: np.random.Generator) -> Array:
    """Return a random part of a scene, as large as a patch and its margin; mirrored beyond the scene."""
    missing = [(0, max(0, _SIDE_PX - side)) for side in scene.shape]
    if any(after for _, after in missing):
        scene = np.pad(scene, missing, mode="symmetric")
    y, x = (int(random.integers(0, side - _SIDE_PX + 1)) for side in scene.shape)
    return scene[y : y + _SIDE_PX, x : x + _SIDE_PX]


def _blurred(sharp: Array, levels: NDArray[np.int32], random: np.random.Generator) -> Array:
    """Defocus parts of scenes, each at its level, and cut their margins off."""
    from scipy import fft

    transfers = _transfers()
    optics = np.where(
        random.random(len(levels)) < _REFERENCE_SHARE, 0, random.integers(0, len(_APERTURES) + 1, len(levels))
    )
    chosen = transfers[optics, levels]
    # Specimens are thick: part of them lies a little above or below the plane.
    thick = random.random(len(levels)) < 0.25
    nearer = np.clip(levels + random.choice((-1, 1), len(levels)), 0, LEVELS - 1)
    share = np.where(thick, random.uniform(0, 0.3, len(levels)), 0).astype(np.float32)[:, None, None]
    chosen = chosen * (1 - share) + transfers[optics, nearer] * share
    spectrum = fft.rfft2(sharp, axes=(1, 2)) * chosen
    result = fft.irfft2(spectrum, s=sharp.shape[1:], axes=(1, 2))
    inner = slice(MARGIN_PX, MARGIN_PX + PATCH_PX)
    return np.ascontiguousarray(result[:, inner, inner], dtype=np.float32)


@functools.cache
def _transfers() -> NDArray[np.float32]:
    """Return transfer functions of all optics and levels, shape (optics, levels, side, side // 2 + 1).

    The last optics are the reference without the in-focus blur that a sharp image has already: at level 0 it
    leaves images as they are.
    """
    from scipy import fft

    def transfer(kernel: Array) -> Array:
        field = np.zeros((_SIDE_PX, _SIDE_PX), np.float32)
        side = kernel.shape[0]
        field[:side, :side] = kernel
        # Centered at the origin, a symmetric kernel has a real transfer function.
        centered = np.roll(field, (-(side // 2), -(side // 2)), axis=(0, 1))
        return np.real(fft.rfft2(centered)).astype(np.float32)

    rows = []
    for na in _APERTURES:
        # The same paraxial blur 2 z NA on the same pixels; what differs is the diffraction.
        kernels = [
            defocus_kernel(STEP_UM * k * 0.5 / na, pixel_size_um=REFERENCE_PIXEL_SIZE_UM, na=na)
            for k in range(LEVELS)
        ]
        rows.append([transfer(_cut(kernel)) for kernel in kernels])
    reference = rows[0]
    rows.append([np.ones_like(reference[0]), *reference[1:]])
    return np.array(rows)


def _cut(kernel: Array) -> Array:
    """Cut faint rings off a kernel that is wider than a part's margin."""
    excess = kernel.shape[0] // 2 - MARGIN_PX
    if excess > 0:
        kernel = kernel[excess:-excess, excess:-excess]
        kernel = kernel / kernel.sum()
    return kernel
