"""Optics of the microscope, and the camera: how specimens look in transmitted light and in fluorescence.

**Transmitted light.** Each transfer function is an array over spatial frequency, for `numpy.fft.rfft2`. A
thin specimen that delays the light by a phase phi (radians) and absorbs the share mu of it looks like

    1 + F^-1[T_phase F[phi] + T_absorption F[mu]]

where even light without a specimen is 1. The approximation holds while phi and mu are well below 1.

**Fluorescence.** Every point glows for itself, so that intensities add up: the image out of focus is the
sharp one convolved with `defocus_kernel`. The same holds, nearly, for stained sections in bright field.

**Camera.** Light in photoelectrons becomes gray values by `exposed`, `vignetted`, `with_shot_noise`,
`with_read_noise`, `with_offset` and `saturated`, in this order; each can be left out.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

WeakObject = Literal["phase", "absorption"]


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
    frequency = np.hypot(*_frequencies(shape, pixel_size_um))
    low, high = (na - annulus_na) / wavelength_um, (na + annulus_na) / wavelength_um
    edge = np.clip((frequency - low) / (high - low), 0, 1)
    pupil = 0.5 * (1 + np.cos(np.pi * edge))
    through_focus = np.cos(np.pi * wavelength_um * defocus_um * frequency**2 / refractive_index)
    coherence = j0(2 * np.pi * defocus_um * frequency * annulus_na / refractive_index)
    halo = 1 - np.exp(-((frequency * halo_um) ** 2) / 2)
    return (-2 * pupil * through_focus * coherence * halo).astype(np.float32)


def bright_field_transfer(
    shape: tuple[int, int],
    *,
    pixel_size_um: float,
    defocus_um: float,
    of: WeakObject = "phase",
    na: float = 0.4,
    condenser_na: float = 0.2,
    wavelength_um: float = 0.55,
    refractive_index: float = 1.0,
) -> NDArray[np.float32]:
    """Return the transfer of a weak object in bright field, over spatial frequency.

    What only delays the light is invisible in focus; it is bright where the focal plane lies between it and
    the objective, and dark on the other side. What absorbs is dark in focus.

    Parameters
    ----------
    shape : tuple of int
        Y and X of the image.
    pixel_size_um : float
        Pixel size in um.
    defocus_um : float
        How far the focal plane lies from the object toward the objective, in um.
    of : {"phase", "absorption"}
        Transfer of the phase, or of the share of the light that is absorbed.
    na, condenser_na : float
        Numerical apertures of the objective and of the condenser's opened diaphragm.
    wavelength_um : float
        Wavelength in vacuum, in um.
    refractive_index : float
        Of the medium between specimen and objective.

    Returns
    -------
    ndarray
        Shape ``(Y, X // 2 + 1)``, float32, real, for `numpy.fft.rfft2`.

    Raises
    ------
    ValueError
        When the condenser's aperture is none or larger than the objective's.

    Notes
    -----
    Streibl, JOSA A 2:121 (1985), in the paraxial approximation. With the defocused pupil
    P(p) = exp(-i pi lambda z p^2 / n) inside NA / lambda and the mean over the plane waves s of the source,
    C(q) = <P*(s) P(s + q)>, the transfer of phase is -2 Im C and that of absorption -Re C. For coherent
    light (NA_c to 0) these are 2 sin(pi lambda z q^2 / n) and -cos(pi lambda z q^2 / n); for NA_c = NA and
    z = 0 the transfer of absorption is that of incoherent imaging. Nothing passes above
    (NA + NA_c) / lambda.
    """
    frequency = np.hypot(*_frequencies(shape, pixel_size_um))
    coherence = _coherence(frequency, defocus_um, na, condenser_na, wavelength_um, refractive_index)
    return (-2 * coherence.imag if of == "phase" else -coherence.real).astype(np.float32)


def dic_transfer(
    shape: tuple[int, int],
    *,
    pixel_size_um: float,
    defocus_um: float,
    of: WeakObject = "phase",
    shear_um: float = 0.5,
    shear_angle_deg: float = 45.0,
    bias_deg: float = 90.0,
    na: float = 0.4,
    condenser_na: float = 0.3,
    wavelength_um: float = 0.55,
    refractive_index: float = 1.0,
) -> NDArray[np.complex64]:
    """Return the transfer of a weak object in differential interference contrast, over spatial frequency.

    A slope along which the phase rises in the direction of the shear is bright, a falling one dark: the
    image looks like a relief with light from one side. Structures that do not change along the shear are
    invisible in focus.

    Parameters
    ----------
    shape : tuple of int
        Y and X of the image.
    pixel_size_um : float
        Pixel size in um.
    defocus_um : float
        How far the focal plane lies from the object toward the objective, in um.
    of : {"phase", "absorption"}
        Transfer of the phase, or of the share of the light that is absorbed.
    shear_um : float
        Distance between the two beams in the specimen, in um.
    shear_angle_deg : float
        Direction of the shear: 0 along x, 90 along y, which points down in an image.
    bias_deg : float
        Phase between the two beams, in degrees; 90 for a quarter wave, with the opposite sign for a relief
        lit from the other side. Contrast grows as it gets smaller, because the even light fades.
    na, condenser_na : float
        Numerical apertures of the objective and of the condenser's opened diaphragm.
    wavelength_um : float
        Wavelength in vacuum, in um.
    refractive_index : float
        Of the medium between specimen and objective.

    Returns
    -------
    ndarray
        Shape ``(Y, X // 2 + 1)``, complex64, for `numpy.fft.rfft2`.

    Raises
    ------
    ValueError
        When the condenser's aperture is none or larger than the objective's, or with a bias of a multiple
        of 360 degrees, where there is no even light.

    Notes
    -----
    The prism before the specimen makes the two beams of each plane wave coherent with one another, so that
    the sheared specimen, exp(i b / 2) t(x + d / 2) - exp(-i b / 2) t(x - d / 2), is seen as in bright field
    (two-prism model: Mehta and Sheppard, Opt. Express 16:19462, 2008). With C(q) of
    `bright_field_transfer`, a = pi q.d and k = cot(b / 2), the transfer of phase is
    -2 cos(a) Im C + 2 i k sin(a) Re C, and that of absorption -cos(a) Re C - i k sin(a) Im C. In focus and
    for wide structures the image of a phase is thus 1 + k d.grad(phi).
    """
    if np.isclose(np.sin(np.deg2rad(bias_deg) / 2), 0):
        raise ValueError(f"bias_deg must not be a multiple of 360, not {bias_deg:g}: the field would be dark")
    y, x = _frequencies(shape, pixel_size_um)
    coherence = _coherence(np.hypot(y, x), defocus_um, na, condenser_na, wavelength_um, refractive_index)
    angle = np.deg2rad(shear_angle_deg)
    half_shear = np.pi * shear_um * (y * np.sin(angle) + x * np.cos(angle))
    even, odd = np.cos(half_shear), np.sin(half_shear) / np.tan(np.deg2rad(bias_deg) / 2)
    if of == "phase":
        transfer = -2 * even * coherence.imag + 2j * odd * coherence.real
    else:
        transfer = -even * coherence.real - 1j * odd * coherence.imag
    return transfer.astype(np.complex64)


def _frequencies(shape: tuple[int, int], pixel_size_um: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the spatial frequencies of `numpy.fft.rfft2` along y, as a column, and x, as a row, in 1/um."""
    y = np.fft.fftfreq(shape[0], pixel_size_um)[:, None]
    x = np.fft.rfftfreq(shape[1], pixel_size_um)[None]
    return y, x


def _coherence(
    frequency: NDArray[Any],
    defocus_um: float,
    na: float,
    condenser_na: float,
    wavelength_um: float,
    refractive_index: float,
) -> NDArray[np.complex128]:
    """Return C(q) of `bright_field_transfer`; it depends on the frequency's magnitude alone."""
    if not 0 < condenser_na <= na:
        raise ValueError(f"condenser_na must be above 0 and at most na ({na:g}), not {condenser_na:g}")
    pupil, source = na / wavelength_um, condenser_na / wavelength_um
    curvature = np.pi * wavelength_um * defocus_um / refractive_index
    turns = abs(curvature) * (pupil + source) * source / np.pi
    q = np.linspace(0, pupil + source, 320 + int(96 * turns))[:, None]
    # Points s = (p, t) of the source whose diffracted light, at (p + q, t), passes the pupil. The phase does
    # not depend on t, so that only the length of their row counts.
    low, high = -source, np.minimum(source, pupil - q)
    nodes = 96 + int(16 * turns)
    # Nodes that crowd at the ends, where the rows' length changes most.
    angle = (np.arange(nodes) + 0.5) * np.pi / nodes
    p = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    weight = (high - low) / 2 * np.sin(angle) * np.pi / nodes
    row = 2 * np.sqrt(np.clip(np.minimum(source**2 - p**2, pupil**2 - (p + q) ** 2), 0, None))
    values = np.sum(weight * row * np.exp(-2j * curvature * q * p), axis=1) / (np.pi * source**2)
    radius = q[:, 0]
    # The fast oscillation is left out of what is interpolated.
    smooth = np.interp(frequency, radius, values.real, right=0) + 1j * np.interp(
        frequency, radius, values.imag, right=0
    )
    return smooth * np.exp(-1j * curvature * frequency**2)


def defocus_psf(
    radius_um: ArrayLike,
    defocus_um: float,
    *,
    na: float = 0.5,
    wavelength_um: float = 0.5,
    refractive_index: float = 1.0,
) -> NDArray[np.float64]:
    """Return the point spread function of a defocused circular aperture, in scalar diffraction theory.

    Parameters
    ----------
    radius_um : array_like
        Distances from the optical axis in um, of any shape.
    defocus_um : float
        Distance from focus in um; its sign does not matter.
    na : float
        Numerical aperture of the objective.
    wavelength_um : float
        Wavelength in vacuum, in um.
    refractive_index : float
        Of the medium between specimen and objective.

    Returns
    -------
    ndarray
        Intensities of the shape of ``radius_um``, not normalized: 0.25 in focus on the axis.

    Raises
    ------
    ValueError
        When the numerical aperture is none that an objective in this medium can have, or a length is not
        above 0.

    Notes
    -----
    Born and Wolf, Principles of Optics, section 8.8; as used by Yang et al., BMC Bioinformatics 19:77 (2018):
    | integral from 0 to 1 of J0(k (NA / n) r rho) exp(-i k rho^2 z (NA / n)^2 / 2) rho d rho |^2 with
    k = 2 pi n / lambda. The area under it, 2 pi times the integral over r dr, is pi (n / (k NA))^2 at any
    defocus: light is spread, not lost.

    Examples
    --------
    >>> defocus_psf([0.0, 1.0], 0.0).round(8).tolist()
    [0.25, 0.00114256]
    >>> round(float(defocus_psf(0.0, 1.0)), 5)
    0.20264
    """
    from scipy.special import j0, roots_legendre

    _check_objective(na, wavelength_um, refractive_index)
    radius = np.abs(np.asarray(radius_um, np.float64))
    wavenumber = 2 * np.pi * refractive_index / wavelength_um
    aperture = na / refractive_index
    phase = wavenumber * defocus_um * aperture**2 / 2
    # Enough nodes for the fastest oscillation across the pupil: Gauss-Legendre needs a little more than two
    # for each period.
    fastest = 2 * abs(phase) + wavenumber * aperture * float(radius.max(initial=0.0))
    nodes, weights = roots_legendre(32 + int(0.6 * fastest))
    rho, weights = (nodes + 1) / 2, weights / 2
    pupil = weights * rho * np.exp(-1j * phase * rho**2)
    field = j0(wavenumber * aperture * radius[..., None] * rho) @ pupil
    intensity: NDArray[np.float64] = np.abs(field) ** 2
    return intensity


def defocus_kernel(
    defocus_um: float,
    *,
    pixel_size_um: float = 0.65,
    na: float = 0.5,
    wavelength_um: float = 0.5,
    refractive_index: float = 1.0,
) -> NDArray[np.float32]:
    """Return `defocus_psf` as a camera sees it: on its pixels, as shares of the light that add up to 1.

    Parameters
    ----------
    defocus_um : float
        Distance from focus in um.
    pixel_size_um : float
        Pixel size in the specimen, in um.
    na, wavelength_um, refractive_index : float
        As for `defocus_psf`.

    Returns
    -------
    ndarray
        Shape (2 R + 1, 2 R + 1), float32, its center at [R, R]. R holds the paraxial blur disk and the first
        rings around it; the little light farther out (2 % in focus) is added in proportion.

    Raises
    ------
    ValueError
        As `defocus_psf` does.
    """
    _check_objective(na, wavelength_um, refractive_index)
    if pixel_size_um <= 0:
        raise ValueError(f"pixel_size_um must be above 0, not {pixel_size_um:g}")
    disk_um = blur_diameter_um(defocus_um, na=na, refractive_index=refractive_index) / 2
    rings_um = 5 * wavelength_um / na
    reach = int(np.ceil((disk_um + rings_um) / pixel_size_um))
    # Light falls onto the whole pixel: its mean over places within it, as many as the rings need.
    within = max(3, 1 + 2 * int(np.ceil(2 * pixel_size_um * na / wavelength_um)))
    steps = np.arange(-reach * within - within // 2, reach * within + within // 2 + 1) / within
    radius = np.linspace(0, np.hypot(steps[-1], steps[-1]) * pixel_size_um, 4096)
    profile = defocus_psf(
        radius, defocus_um, na=na, wavelength_um=wavelength_um, refractive_index=refractive_index
    )
    fine = np.interp(np.hypot(steps[:, None], steps[None]) * pixel_size_um, radius, profile)
    side = 2 * reach + 1
    kernel = fine.reshape(side, within, side, within).mean(axis=(1, 3))
    return (kernel / kernel.sum()).astype(np.float32)


def blur_diameter_um(defocus_um: float, *, na: float = 0.5, refractive_index: float = 1.0) -> float:
    """Return the diameter of the blur disk of a defocused point in paraxial geometry, in um: 2 z NA / n."""
    return 2 * abs(defocus_um) * na / refractive_index


def exposed(light: NDArray[Any], photoelectrons: float) -> NDArray[np.float32]:
    """Return an image whose mean is a number of photoelectrons per pixel: light times exposure time.

    Parameters
    ----------
    light : ndarray
        Relative light, at least 0.
    photoelectrons : float
        Mean number of photoelectrons per pixel, for light whose mean is 1.
    """
    return (np.asarray(light, np.float32) * np.float32(photoelectrons)).astype(np.float32)


def vignetted(
    light: NDArray[Any], strength: float, center: tuple[float, float] = (0.5, 0.5)
) -> NDArray[np.float32]:
    """Return an image that is darker toward its corners.

    Parameters
    ----------
    light : ndarray, shape (Y, X)
        The image.
    strength : float
        Share of the light that is missing half a diagonal away from the center; 0 to 1.
    center : (float, float)
        Brightest place, as shares of the height and of the width.

    Notes
    -----
    The light falls off with the square of the distance, the first term of any smooth fall-off.
    """
    height, width = light.shape[-2:]
    y = (np.arange(height, dtype=np.float32) + 0.5 - center[0] * height)[:, None]
    x = (np.arange(width, dtype=np.float32) + 0.5 - center[1] * width)[None]
    falloff = 1 - np.float32(4 * strength / (height**2 + width**2)) * (y**2 + x**2)
    return (np.asarray(light, np.float32) * np.clip(falloff, 0, None)).astype(np.float32)


def with_shot_noise(photoelectrons: NDArray[Any], random: np.random.Generator) -> NDArray[np.float32]:
    """Return counts of photoelectrons: each pixel drawn from the Poisson distribution of its mean."""
    return random.poisson(np.clip(photoelectrons, 0, None)).astype(np.float32)


def with_read_noise(
    photoelectrons: NDArray[Any], sd: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Return an image with normally distributed noise of the readout, of standard deviation ``sd``."""
    noise = random.standard_normal(np.shape(photoelectrons), np.float32)
    return (np.asarray(photoelectrons, np.float32) + np.float32(sd) * noise).astype(np.float32)


def with_offset(values: NDArray[Any], gain: float, offset: float) -> NDArray[np.float32]:
    """Return gray values, not rounded yet: ``gain`` per photoelectron above the camera's ``offset``."""
    return (np.asarray(values, np.float32) * np.float32(gain) + np.float32(offset)).astype(np.float32)


def saturated(values: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Return whole gray values of a camera of so many bits; what is above the brightest is cut off."""
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be 1 to 16, not {bits}")
    return np.clip(np.rint(values), 0, 2**bits - 1).astype(np.uint16)


def _check_objective(na: float, wavelength_um: float, refractive_index: float) -> None:
    """Refuse optics that cannot be."""
    if wavelength_um <= 0 or refractive_index <= 0:
        raise ValueError(
            f"wavelength_um and refractive_index must be above 0, "
            f"not {wavelength_um:g} and {refractive_index:g}"
        )
    if not 0 < na <= refractive_index:
        raise ValueError(
            f"na must be above 0 and at most the refractive index ({refractive_index:g}), not {na:g}"
        )
