"""The z axis: how a stack of any number of planes meets a network of a fixed one, and drift within it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image

DRIFT_WARNING_PX = 1.0
_DRIFT_WINDOW = 512


def plane_weights(
    planes: int,
    network_planes: int,
    *,
    z_step_um: float | None = None,
    network_z_step_um: float | None = None,
) -> NDArray[np.float32]:
    """Return how much each plane of a stack contributes to each plane that the network takes.

    Planes are interpolated linearly. Where both z steps are known, the two stacks are centered on each other
    and compared in micrometers, and beyond the ends the outermost plane is used. Where one is unknown, the
    stack is taken to span what the network's planes span. A single plane stands for all.

    Parameters
    ----------
    planes : int
        Planes of the stack.
    network_planes : int
        Planes that the network takes.
    z_step_um, network_z_step_um : float, optional
        Their distances, in um.

    Returns
    -------
    ndarray
        Shape (network_planes, planes), float32; each row adds up to 1.

    Examples
    --------
    >>> plane_weights(2, 3)
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]], dtype=float32)
    """
    if z_step_um is not None and network_z_step_um is not None:
        offsets = (np.arange(network_planes) - (network_planes - 1) / 2) * (network_z_step_um / z_step_um)
        positions = (planes - 1) / 2 + offsets
    else:
        half = (planes - 1) / 2 if network_planes > 1 else 0.0
        positions = (planes - 1) / 2 + np.linspace(-half, half, network_planes)
    return interpolation_weights(positions, planes)


def interpolation_weights(positions: NDArray[np.floating], planes: int) -> NDArray[np.float32]:
    """Return the weights of linear interpolation at ``positions`` (in planes), clamped to the stack.

    Returns
    -------
    ndarray
        Shape (len(positions), planes), float32.
    """
    positions = np.clip(positions, 0, planes - 1)
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(planes))).astype(np.float32)


def drift_px(image: Image, *, t: int = 0, channel: int = 0) -> float:
    """Return how far the planes of a stack are shifted against each other, sideways.

    Neighboring planes are registered (phase cross-correlation to a tenth of a pixel, Guizar-Sicairos et al.,
    Optics Letters 33:156, 2008) in a window of at most 512x512 pixels at the center; the shifts are added
    up.

    Parameters
    ----------
    image : Image
        The stack.
    t, channel : int
        Time point and channel.

    Returns
    -------
    float
        Largest distance between any plane and the middle one, in pixels; 0 for a single plane.
    """
    from skimage.registration import phase_cross_correlation

    _, _, z, y, x = image.shape
    if z < 2 or min(y, x) < 16:
        return 0.0
    rows, columns = (
        slice((size - min(size, _DRIFT_WINDOW)) // 2, (size + min(size, _DRIFT_WINDOW)) // 2)
        for size in (y, x)
    )
    region = {"T": slice(t, t + 1), "C": slice(channel, channel + 1), "Y": rows, "X": columns}
    stack = image.read(region)[0, 0].astype(np.float32)
    taper = np.hanning(stack.shape[1])[:, None] * np.hanning(stack.shape[2])
    stack = (stack - stack.mean(axis=(1, 2), keepdims=True)) * taper.astype(np.float32)
    if not all(plane.any() for plane in stack):
        return 0.0
    position, positions = np.zeros(2), [np.zeros(2)]
    for before, after in itertools.pairwise(stack):
        # Normalization weighs noise as much as structure, and planes differ in contrast anyway.
        shift, _, _ = phase_cross_correlation(before, after, upsample_factor=10, normalization=None)
        position = position + shift
        positions.append(position)
    relative = np.array(positions) - positions[z // 2]
    return float(np.hypot(*relative.T).max())
