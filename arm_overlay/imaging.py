"""What a microscope with a camera makes of a stained section: from a known image to a camera's gray values.

A section's picture (display values, sRGB) is turned into the light it lets through, blurred by the objective,
resampled to the camera's pixels, moved, lit, and recorded:

    section -> `transmitted` -> `projected` -> `moved` -> `lit` -> `recorded` -> gray values

`seen` does all of it. Light is relative: 1 is empty glass in an even field. The section's own scanner has
blurred it already; that is left in.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.frames import BAYER_PATTERNS
from arm_overlay.tumor_model import magnification
from lincei.errors import LinceiError, UsageError
from lincei.optics import blur_diameter_um, defocus_kernel, vignetted

Triple = tuple[float, float, float]
Light = NDArray[np.float32]
Pixels = NDArray[np.unsignedinteger[Any]]

# Plan achromats as they are usual on pathologists' microscopes, dry.
NUMERICAL_APERTURES: Mapping[str, float] = {"4x": 0.13, "10x": 0.3, "20x": 0.5, "40x": 0.75}
WAVELENGTH_UM = 0.55
# Shares of red, green and blue light that the red, the green and the blue pixels take; each row adds up to 1.
SENSOR_COLORS = ((0.90, 0.08, 0.02), (0.05, 0.90, 0.05), (0.02, 0.08, 0.90))
_NEUTRAL: Triple = (1.0, 1.0, 1.0)
# A blur is computed on coarser pixels as soon as its disk has this many of them across.
_ENOUGH_PX = 6.0
# Steps of the table that stands for the gamma curve.
_STEPS = 65535


@dataclass(frozen=True)
class View:
    """How the section is looked at while one frame is exposed.

    Parameters
    ----------
    objective : str
        One of `NUMERICAL_APERTURES`.
    defocus_um : float
        Distance of the section from the focal plane.
    motion_um : tuple of float
        How far the section moves during the exposure, x and y.
    light : float
        Brightness of the lamp beside what the camera was set for.
    light_color : tuple of float
        Its red, green and blue.
    vignetting : float
        Share of the light missing half a diagonal away from the brightest place.
    vignetting_center : tuple of float
        Brightest place, as shares of the height and of the width.
    """

    objective: str = "20x"
    defocus_um: float = 0.0
    motion_um: tuple[float, float] = (0.0, 0.0)
    light: float = 1.0
    light_color: Triple = _NEUTRAL
    vignetting: float = 0.1
    vignetting_center: tuple[float, float] = (0.5, 0.5)

    @property
    def na(self) -> float:
        """Numerical aperture of the objective."""
        return numerical_aperture(self.objective)


@dataclass(frozen=True)
class CameraModel:
    """A camera on a microscope.

    The defaults are a common 2.3-megapixel sensor (1920x1200 pixels of 5.86 um) behind an adapter of 0.5x, as
    it gives colors out: balanced, with a gamma curve.

    Parameters
    ----------
    size_px : tuple of int
        Width and height of the sensor.
    sensor_pixel_um : float
        Size of a pixel on the sensor.
    adapter : float
        Magnification of the camera's adapter.
    bayer : str
        One of `arm_overlay.frames.BAYER_PATTERNS`; empty gives red, green, blue.
    bits : int
        8, 10, 12, 14 or 16.
    sensor_colors : tuple of tuple of float
        Row by row: how much red, green and blue light the red, the green and the blue pixels take.
    sensitivity : tuple of float
        Photoelectrons of the red, green and blue pixels in white light, relative.
    white_balance : tuple of float
        Factors by which the camera multiplies red, green and blue.
    gamma : float
        Gray values are light to the power of 1 / gamma; 1 is linear.
    glass_level : float
        Share of the camera's range of light that empty glass fills in the brightest color.
    full_well_e, read_noise_e : float
        Photoelectrons of a full pixel, and standard deviation of the readout's noise.
    black_level : float
        Gray value without light, as a share of the brightest.

    Raises
    ------
    ValueError
        When a value is none that a camera can have.
    """

    size_px: tuple[int, int] = (1920, 1200)
    sensor_pixel_um: float = 5.86
    adapter: float = 0.5
    bayer: str = ""
    bits: int = 8
    sensor_colors: tuple[Triple, Triple, Triple] = SENSOR_COLORS
    sensitivity: Triple = _NEUTRAL
    white_balance: Triple = _NEUTRAL
    gamma: float = 2.2
    glass_level: float = 0.9
    full_well_e: float = 30_000.0
    read_noise_e: float = 7.0
    black_level: float = 0.0

    def __post_init__(self) -> None:
        if self.bayer and self.bayer not in BAYER_PATTERNS:
            raise ValueError(f"bayer must be one of {', '.join(BAYER_PATTERNS)}, not {self.bayer!r}")
        if self.bits not in (8, 10, 12, 14, 16):
            raise ValueError(f"bits must be 8, 10, 12, 14 or 16, not {self.bits}")
        for name in ("sensor_pixel_um", "adapter", "gamma", "glass_level", "full_well_e"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name):g}")
        if min(self.size_px) < 2 or not 0 <= self.black_level < 1 or self.read_noise_e < 0:
            raise ValueError(f"size_px, black_level or read_noise_e is out of range: {self}")

    def pixel_size_um(self, objective: str) -> float:
        """Return the size of a pixel at the specimen, in um."""
        numerical_aperture(objective)  # refuses one that cannot be simulated
        return self.sensor_pixel_um / (magnification(objective) * self.adapter)


def raw_camera(bayer: str = "RGGB", bits: int = 12, **changed: Any) -> CameraModel:
    """Return a camera that hands over what its sensor saw: a Bayer mosaic, linear, not balanced.

    Parameters
    ----------
    bayer, bits
        See `CameraModel`.
    **changed
        Other fields of `CameraModel`.
    """
    settings: dict[str, Any] = {
        "sensitivity": (0.72, 1.0, 0.64),
        "gamma": 1.0,
        **changed,
    }
    return CameraModel(bayer=bayer, bits=bits, **settings)


def random_camera(random: np.random.Generator, **kept: Any) -> CameraModel:
    """Return one of many cameras: other colors, white balance, gamma, exposure and noise each time.

    Parameters
    ----------
    random : numpy.random.Generator
        Chance.
    **kept
        Fields of `CameraModel` that are not left to chance, such as ``bits=8``.
    """
    crosstalk = np.array(SENSOR_COLORS) + random.normal(0, 0.03, (3, 3))
    crosstalk /= crosstalk.sum(axis=1, keepdims=True)
    settings: dict[str, Any] = {
        "sensor_colors": tuple(tuple(row) for row in crosstalk.tolist()),
        "white_balance": tuple(np.exp(random.normal(0, (0.06, 0.02, 0.08))).tolist()),
        "gamma": float(random.uniform(1.8, 2.6)),
        "glass_level": float(random.uniform(0.7, 1.02)),
        "full_well_e": float(np.exp(random.uniform(np.log(2500), np.log(30_000)))),
        "read_noise_e": float(random.uniform(2, 12)),
        "black_level": float(random.uniform(0, 0.02)),
        **kept,
    }
    return CameraModel(**settings)


def random_view(random: np.random.Generator, objective: str, **kept: Any) -> View:
    """Return one of many ways to look at a section: focus, motion, lamp and vignetting of everyday work.

    Parameters
    ----------
    random : numpy.random.Generator
        Chance.
    objective : str
        One of `NUMERICAL_APERTURES`.
    **kept
        Fields of `View` that are not left to chance, such as ``defocus_um=0.0``.

    Notes
    -----
    Defocus and motion go with the objective's depth of field, wavelength / NA^2, and its resolution,
    wavelength / (2 NA).
    """
    na = numerical_aperture(objective)
    depth_um, resolved_um = WAVELENGTH_UM / na**2, WAVELENGTH_UM / (2 * na)
    angle = random.uniform(0, 2 * np.pi)
    path_um = random.exponential(2 * resolved_um) * (random.uniform() < 0.5)
    settings: dict[str, Any] = {
        "defocus_um": float(random.normal(0, depth_um)),
        "motion_um": (float(path_um * np.cos(angle)), float(path_um * np.sin(angle))),
        "light": float(np.exp(random.normal(0, 0.08))),
        "light_color": tuple(np.exp(random.normal(0, (0.03, 0.01, 0.05))).tolist()),
        "vignetting": float(random.uniform(0, 0.3)),
        "vignetting_center": tuple(random.normal(0.5, 0.08, 2).tolist()),
        **kept,
    }
    return View(objective=objective, **settings)


def seen(
    section: NDArray[np.uint8],
    pixel_size_um: float,
    view: View,
    camera: CameraModel,
    random: np.random.Generator,
    *,
    to_pixel_size_um: float | None = None,
) -> Pixels:
    """Return a section as the camera records it.

    Parameters
    ----------
    section : ndarray
        Shape (Y, X, 3), uint8: red, green, blue, display values (sRGB) where empty glass is near 255.
    pixel_size_um : float
        Its pixel size.
    view, camera
        How it is looked at, and by what.
    random : numpy.random.Generator
        Chance, for the noise.
    to_pixel_size_um : float, optional
        Pixel size of the result; the camera's with the view's objective when left out. The whole section is
        returned, whatever the camera's ``size_px``.

    Returns
    -------
    ndarray
        uint8 (8 bits) or uint16; shape (Y', X', 3), or (Y', X') behind a Bayer mosaic.

    Raises
    ------
    LinceiError
        When OpenCV is not installed, or the objective is unknown.
    """
    size_um = camera.pixel_size_um(view.objective) if to_pixel_size_um is None else to_pixel_size_um
    light = projected(transmitted(section), pixel_size_um, size_um, na=view.na, defocus_um=view.defocus_um)
    light = moved(light, (view.motion_um[0] / size_um, view.motion_um[1] / size_um))
    return recorded(lit(light, view), camera, random)


def numerical_aperture(objective: str) -> float:
    """Return the numerical aperture of an objective.

    Raises
    ------
    UsageError
        When it is none of `NUMERICAL_APERTURES`.
    """
    try:
        return NUMERICAL_APERTURES[objective]
    except KeyError:
        raise UsageError(
            f"there is no objective {objective!r} to simulate",
            "",
            f"Choose from: {', '.join(NUMERICAL_APERTURES)}.",
        ) from None


def transmitted(section: NDArray[np.uint8]) -> Light:
    """Return the light that a section lets through, from its display values: the sRGB curve undone.

    Parameters
    ----------
    section : ndarray of uint8
        Display values.

    Returns
    -------
    ndarray
        float32 of the same shape; 255 becomes 1.
    """
    return opencv().LUT(section, _srgb_to_light())


def displayed(light: Light) -> NDArray[np.uint8]:
    """Return light as display values: the inverse of `transmitted`, what is above 1 cut off."""
    steps = np.rint(np.clip(light, 0, 1) * _STEPS).astype(np.uint16)
    return np.take(_light_to_srgb(), steps)


def projected(
    light: Light, pixel_size_um: float, to_pixel_size_um: float, *, na: float, defocus_um: float = 0.0
) -> Light:
    """Return light as the objective draws it on pixels of another size: blurred, then resampled.

    Parameters
    ----------
    light : ndarray
        Shape (Y, X) or (Y, X, 3), float32.
    pixel_size_um, to_pixel_size_um : float
        Pixel size before and after.
    na : float
        Numerical aperture.
    defocus_um : float
        Distance from focus; see `lincei.optics.defocus_kernel`.

    Returns
    -------
    ndarray
        float32, its sides times ``pixel_size_um / to_pixel_size_um``, rounded.
    """
    cv2 = opencv()
    height, width = light.shape[:2]
    ratio = pixel_size_um / to_pixel_size_um
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    # The finest structure that passes the objective is lambda / (2 NA) wide: pixels of half of that hold it.
    # Nothing is gained by a blur on finer ones.
    needed_um = min(WAVELENGTH_UM / (4 * na), to_pixel_size_um)
    shrink = int(needed_um / pixel_size_um)
    if shrink > 1:
        light = cv2.resize(light, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        pixel_size_um *= shrink
    light = blurred(light, pixel_size_um, na=na, defocus_um=defocus_um)
    if light.shape[:2] == size[::-1]:
        return light
    if to_pixel_size_um >= pixel_size_um:
        return cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    return np.clip(cv2.resize(light, size, interpolation=cv2.INTER_CUBIC), 0, None)


def blurred(light: NDArray[Any], pixel_size_um: float, *, na: float, defocus_um: float = 0.0) -> NDArray[Any]:
    """Return light as an objective blurs it, by diffraction and defocus.

    A blur much wider than a pixel is computed on coarser pixels, which saves most of the time.

    Parameters
    ----------
    light : ndarray
        Shape (Y, X) or (Y, X, 3), float32 or uint8; beyond its borders it is taken as mirrored.
    pixel_size_um, na, defocus_um : float
        See `lincei.optics.defocus_kernel`.

    Returns
    -------
    ndarray
        Of the shape and type of ``light``.
    """
    cv2 = opencv()
    height, width = light.shape[:2]
    across_px = blur_diameter_um(defocus_um, na=na) / pixel_size_um
    shrink = 1
    while across_px / shrink >= 2 * _ENOUGH_PX and min(height, width) >= 64 * shrink:
        shrink *= 2
    if shrink > 1:
        light = cv2.resize(light, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    # The middle of a rounded length, so that changing defocus does not compute kernels without end.
    kernel = _kernel(round(abs(defocus_um), 1), round(pixel_size_um * shrink, 4), na)
    light = cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT)
    if shrink > 1:
        light = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
    return light


def moved(light: NDArray[Any], motion_px: tuple[float, float]) -> NDArray[Any]:
    """Return light smeared along a straight way, x and y in pixels, during the exposure.

    Parameters
    ----------
    light : ndarray
        Shape (Y, X) or (Y, X, 3), float32 or uint8.
    motion_px : tuple of float
        The way; less than a quarter of a pixel changes nothing.
    """
    if np.hypot(*motion_px) < 0.25:
        return light
    cv2 = opencv()
    kernel = _motion_kernel(round(motion_px[0], 1), round(motion_px[1], 1))
    return cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT)


def lit(light: Light, view: View) -> Light:
    """Return light under the view's lamp: its brightness, its color, its vignetting.

    Parameters
    ----------
    light : ndarray
        Shape (Y, X, 3), float32.
    """
    even = falloff(light.shape[:2], view.vignetting, view.vignetting_center)
    color = np.asarray(view.light_color, np.float32) * np.float32(view.light)
    return light * even[..., None] * color


@functools.lru_cache(maxsize=8)
def falloff(shape: tuple[int, int], strength: float, center: tuple[float, float]) -> Light:
    """Return the share of the light that vignetting leaves in each pixel; see `lincei.optics.vignetted`."""
    return vignetted(np.ones(shape, np.float32), strength, center)


def recorded(light: Light, camera: CameraModel, random: np.random.Generator) -> Pixels:
    """Return gray values of light that falls on the camera's sensor.

    Parameters
    ----------
    light : ndarray
        Shape (Y, X, 3), float32: red, green, blue; 1 is what the camera was set for.
    camera : CameraModel
        The camera.
    random : numpy.random.Generator
        Chance, for the noise.

    Returns
    -------
    ndarray
        uint8 (8 bits) or uint16; shape (Y, X, 3), or (Y, X) behind a Bayer mosaic.
    """
    matrix = np.array(camera.sensor_colors, np.float32) * electrons_of_glass(camera)[:, None]
    electrons = opencv().transform(light, matrix)
    if camera.bayer:
        electrons = mosaic(electrons, camera.bayer)
    noise = random.standard_normal(electrons.shape, np.float32)
    return digitized(electrons, camera, noise)


def electrons_of_glass(camera: CameraModel) -> NDArray[np.float32]:
    """Return how many photoelectrons empty glass gives the red, green and blue pixels; shape (3,)."""
    share = np.array(camera.sensitivity) / max(camera.sensitivity)
    return (share * camera.glass_level * camera.full_well_e).astype(np.float32)


def digitized(electrons: Light, camera: CameraModel, noise: Light | None) -> Pixels:
    """Return gray values of photoelectrons: with noise, balanced, along the gamma curve, in whole numbers.

    Parameters
    ----------
    electrons : ndarray
        Shape (Y, X, 3), or (Y, X) behind a Bayer mosaic or of a sensor without colors, float32; it is
        written over.
    camera : CameraModel
        The camera.
    noise : ndarray or None
        Of the same shape, normally distributed with a standard deviation of 1; None leaves the noise out.

    Returns
    -------
    ndarray
        Of the same shape, uint8 (8 bits) or uint16.

    Notes
    -----
    Shot noise is the normal distribution that Poisson's comes close to, with its variance; a pixel of tissue
    has hundreds of photoelectrons or more.
    """
    if noise is not None:
        np.maximum(electrons, 0, out=electrons)
        spread = np.sqrt(electrons + np.float32(camera.read_noise_e**2))
        spread *= noise
        electrons += spread
    # A full pixel holds no more, however bright the lamp; white balance comes after.
    np.clip(electrons, 0, camera.full_well_e, out=electrons)
    gains = np.asarray(camera.white_balance, np.float32) * np.float32(_STEPS / camera.full_well_e)
    if camera.bayer:
        for channel, rows, columns in bayer_places(camera.bayer):
            electrons[rows, columns] *= gains[channel]
    else:
        electrons *= gains if electrons.ndim == 3 else gains[1]
    np.clip(electrons, 0, _STEPS, out=electrons)
    electrons += np.float32(0.5)
    return np.take(_curve(camera.gamma, camera.bits, camera.black_level), electrons.astype(np.uint16))


def mosaic(colors: NDArray[Any], bayer: str) -> NDArray[Any]:
    """Return what a sensor behind a Bayer mosaic keeps of colors.

    Parameters
    ----------
    colors : ndarray
        Shape (Y, X, 3): red, green, blue.
    bayer : str
        One of `arm_overlay.frames.BAYER_PATTERNS`.

    Returns
    -------
    ndarray
        Shape (Y, X), of the same type.
    """
    kept = np.empty(colors.shape[:2], colors.dtype)
    for channel, rows, columns in bayer_places(bayer):
        kept[rows, columns] = colors[rows, columns, channel]
    return kept


def bayer_places(bayer: str) -> list[tuple[int, slice, slice]]:
    """Return, for each pixel of the mosaic's 2x2 cell, its color's number and its rows and columns."""
    return [
        ("RGB".index(color), slice(place // 2, None, 2), slice(place % 2, None, 2))
        for place, color in enumerate(bayer)
    ]


def opencv() -> ModuleType:
    """Return the module ``cv2``.

    Raises
    ------
    LinceiError
        When OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise LinceiError(
            "the augmented-reality microscope needs OpenCV, which is not installed",
            "",
            "Install it with: pip install 'lincei[arm]'.",
        ) from error
    module: ModuleType = cv2
    return module


@functools.cache
def _srgb_to_light() -> NDArray[np.float32]:
    """Return the light of each display value (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@functools.cache
def _light_to_srgb() -> NDArray[np.uint8]:
    light = np.arange(_STEPS + 1) / _STEPS
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * value).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _curve(gamma: float, bits: int, black_level: float) -> Pixels:
    """Return the gray value for each of `_STEPS` + 1 amounts of light."""
    light = np.linspace(0, 1, _STEPS + 1)
    brightest = 2**bits - 1
    values = np.rint(brightest * (black_level + (1 - black_level) * light ** (1 / gamma)))
    return values.astype(np.uint8) if bits == 8 else values.astype(np.uint16)


@functools.lru_cache(maxsize=512)
def _kernel(defocus_um: float, pixel_size_um: float, na: float) -> NDArray[np.float32]:
    return defocus_kernel(defocus_um, pixel_size_um=pixel_size_um, na=na, wavelength_um=WAVELENGTH_UM)


@functools.lru_cache(maxsize=512)
def _motion_kernel(x_px: float, y_px: float) -> NDArray[np.float32]:
    """Return the share of the exposure that a point spends on each pixel along a straight way."""
    reach = int(np.ceil(max(abs(x_px), abs(y_px)) / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.linspace(-0.5, 0.5, 8 * reach + 1)
    x, y = reach + steps * x_px, reach + steps * y_px
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right in (0, 1):
        for down in (0, 1):
            share = (1 - np.abs(x - left - right)) * (1 - np.abs(y - top - down))
            np.add.at(kernel, (top + down, left + right), share)
    return (kernel / kernel.sum()).astype(np.float32)
