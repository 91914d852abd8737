"""Optics of the microscope: how a thin, weakly refracting specimen looks through it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def phase_contrast_transfer(
    shape: tuple[int, int],
    *,
    pixel_size_um: float,
    defocus_um: float,
    na: float = 0.4,
    annulus_na: float = 0.25,
    wavelength_um: float = 0.55,
    refractive_index: float = 1.0,
    halo_um: float = 12.0,
) -> NDArray[np.float32]:
    """Return the transfer of a weak phase object in positive phase contrast, over spatial frequency.

    The image of a phase phi (radians) is 1 + F^-1[T F[phi]]: structures that delay the light are dark in
    focus, change their contrast through focus, and have a bright halo.

    Parameters
    ----------
    shape : tuple of int
        Y and X of the image.
    pixel_size_um : float
        Pixel size in um.
    defocus_um : float
        Distance of the object from the focal plane in um.
    na, annulus_na : float
        Numerical apertures of the objective and of the condenser's annulus.
    wavelength_um : float
        Wavelength in vacuum, in um.
    refractive_index : float
        Of the medium between specimen and objective.
    halo_um : float
        Structures wider than this lose their contrast, because the phase ring also catches some of the
        light that they diffract.

    Returns
    -------
    ndarray
        Shape ``(Y, X // 2 + 1)``, float32, real, for `numpy.fft.rfft2`.

    Raises
    ------
    ValueError
        When the annulus lies outside the objective's aperture, or is none.

    Notes
    -----
    For a plane wave with transverse frequency s the two side bands of a weak object interfere with the
    direct light, which the ring has shifted by a quarter wave, as -2 cos(pi lambda z (q^2 + 2 q.s) / n)
    (the weak-object approximation; Streibl, JOSA A 2:121, 1985). Averaging s over an annulus of radius
    NA_c / lambda gives -2 cos(pi lambda z q^2 / n) J0(2 pi z q NA_c / n) below the cut-off, here
    (NA - NA_c) / lambda with a smooth edge up to (NA + NA_c) / lambda. The halo is a Gaussian high-pass.
    """
    from scipy.special import j0

    if not 0 < annulus_na <= na:
        raise ValueError(f"annulus_na must be above 0 and at most na ({na:g}), not {annulus_na:g}")
    y = np.fft.fftfreq(shape[0], pixel_size_um)[:, None]
    x = np.fft.rfftfreq(shape[1], pixel_size_um)[None]
    frequency: NDArray[Any] = np.hypot(y, x)
    low, high = (na - annulus_na) / wavelength_um, (na + annulus_na) / wavelength_um
    edge = np.clip((frequency - low) / (high - low), 0, 1)
    pupil = 0.5 * (1 + np.cos(np.pi * edge))
    through_focus = np.cos(np.pi * wavelength_um * defocus_um * frequency**2 / refractive_index)
    coherence = j0(2 * np.pi * defocus_um * frequency * annulus_na / refractive_index)
    halo = 1 - np.exp(-((frequency * halo_um) ** 2) / 2)
    return (-2 * pupil * through_focus * coherence * halo).astype(np.float32)
