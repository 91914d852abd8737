"""The z axis: how a stack of any number of planes meets a network of a fixed one, and drift within it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image
from lincei.normalize import IntensityScaling

# Scaled intensities are nearly kept up to about this many standard deviations and compressed beyond: in an
# image with few cells these lie at 10 and more, and dirt at 100.
SOFT_LIMIT = 4.0

DRIFT_WARNING_PX = 1.0
_DRIFT_WINDOW = 512
_DRIFT_BAND_PX = (1.0, 8.0)  # sigmas of the Gaussians whose difference is registered
# Least correlation, times the side of the window: that of mere noise falls with the side, and is well below.
_LEAST_CORRELATION = 45.0


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


def network_planes(
    pixels: NDArray[Any], scaling: IntensityScaling, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what the network takes: a stack's planes scaled, compressed, and brought to the network's.

    Parameters
    ----------
    pixels : ndarray
        Shape (planes, Y, X), gray values.
    scaling : IntensityScaling
        Of the whole image.
    weights : ndarray
        From `plane_weights`, shape (network planes, planes).

    Returns
    -------
    ndarray
        Shape (network planes, Y, X), float32.
    """
    scaled = scaling.apply(pixels)
    np.arcsinh(np.divide(scaled, SOFT_LIMIT, out=scaled), out=scaled)
    scaled *= SOFT_LIMIT
    if np.array_equal(weights, np.eye(*weights.shape, dtype=np.float32)):
        return scaled
    return np.tensordot(weights, scaled, axes=1).astype(np.float32)


def plane_shifts_px(image: Image, *, t: int = 0, channel: int = 0) -> NDArray[np.float64]:
    """Return where each plane of a stack lies sideways, against the middle one.

    Neighboring planes are registered by the peak of their cross-correlation, to about 0.1 pixel, in a window
    of at most 512x512 pixels at the center; the shifts are added up. Only structures between about 2 and 25
    pixels count: the camera's fixed pattern and uneven illumination stay in place and would hide a drift.
    Neighbors that have nothing in common are taken as not shifted.

    Parameters
    ----------
    image : Image
        The stack.
    t, channel : int
        Time point and channel.

    Returns
    -------
    ndarray
        Shape (planes, 2): y and x in pixels, how far the structures of a plane lie beyond where the middle
        plane has them.

    Notes
    -----
    Light that falls in at an angle moves the image with the focus, evenly from plane to plane; a stage that
    drifts evenly does the same, and no image tells the two apart.
    """
    from scipy import fft

    _, _, planes, y, x = image.shape
    shifts = np.zeros((planes, 2))
    if planes < 2:
        return shifts
    rows, columns = (
        slice((size - min(size, _DRIFT_WINDOW)) // 2, (size + min(size, _DRIFT_WINDOW)) // 2)
        for size in (y, x)
    )
    region = {"T": slice(t, t + 1), "C": slice(channel, channel + 1), "Y": rows, "X": columns}
    stack = image.read(region)[0, 0].astype(np.float32)
    height, width = stack.shape[1:]
    taper = (np.hanning(height)[:, None] * np.hanning(width)).astype(np.float32)
    frequency_squared = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(width) ** 2
    fine, coarse = (np.exp(-2 * (np.pi * sigma) ** 2 * frequency_squared) for sigma in _DRIFT_BAND_PX)
    band = (fine - coarse).astype(np.float32)
    with np.errstate(all="ignore"):  # what comes of pixels that are no numbers is left out below
        spectra = [fft.rfft2((plane - plane.mean()) * taper) * band for plane in stack]
    energies = [fft.irfft2(spectrum * spectrum.conj(), (height, width))[0, 0] for spectrum in spectra]
    least = _LEAST_CORRELATION / min(height, width)
    for plane in range(1, planes):
        cross = spectra[plane] * spectra[plane - 1].conj()
        correlation = fft.irfft2(cross, (height, width))
        # Contrast may turn over from plane to plane: then the correlation is strong and negative.
        peak = np.unravel_index(int(np.argmax(np.abs(correlation))), correlation.shape)
        # Not met by planes that are constant, or have pixels that are no numbers.
        if np.abs(correlation[peak]) > least * np.sqrt(energies[plane] * energies[plane - 1]):
            shifts[plane] = _refined(cross, (height, width), (int(peak[0]), int(peak[1])))
    positions = np.cumsum(shifts, axis=0)
    result: NDArray[np.float64] = positions - positions[planes // 2]
    return result


def _refined(
    cross: NDArray[np.complexfloating], shape: tuple[int, int], peak: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the place of a peak of a correlation, between pixels, by Newton's method on its spectrum."""
    height, width = shape
    frequencies = (2j * np.pi * np.fft.fftfreq(height), 2j * np.pi * np.fft.rfftfreq(width))
    start = np.array(
        [at - size if at > size / 2 else at for at, size in zip(peak, shape, strict=True)], float
    )
    place = start
    # The half spectrum of a real image: each column but the first and the last stands for two.
    halved = np.where((np.arange(cross.shape[1]) * 2) % width == 0, 1, 2)
    powers = np.arange(3)[:, None]
    for _ in range(4):
        rows, columns = (w**powers * np.exp(w * at) for w, at in zip(frequencies, place, strict=True))
        # Entry (i, j) is the correlation, i times differentiated along y and j times along x.
        value = (rows @ cross @ (columns * halved).T).real
        slope = np.array([value[1, 0], value[0, 1]])
        bend = np.array([[value[2, 0], value[1, 1]], [value[1, 1], value[0, 2]]])
        if not np.linalg.det(bend) > 0:
            return start
        place = place - np.linalg.solve(bend, slope)
        if np.abs(place - start).max() > 1:
            return start
    return place


def drift_px(image: Image, *, t: int = 0, channel: int = 0) -> float:
    """Return how far the planes of a stack are shifted against each other, sideways.

    Parameters
    ----------
    image : Image
        The stack.
    t, channel : int
        Time point and channel.

    Returns
    -------
    float
        Largest distance between any plane and the middle one, in pixels, by `plane_shifts_px`; 0 for a
        single plane.
    """
    shifts = plane_shifts_px(image, t=t, channel=channel)
    return float(np.hypot(shifts[:, 0], shifts[:, 1]).max())
