"""What a level of defocus means, what a rating is made of, and when an image counts as in focus.

A **level** k = 0 to 10 is the blur of the point spread function at z = 2 k um of the reference optics: NA 0.5
in air, wavelength 0.5 um, pixels of 0.65 um. It is a blur in pixels: its paraxial diameter is about 3 k
pixels (2 z NA / n = 2 k um). What that is in micrometers of defocus depends on the optics, and
`Optics.defocus_um` says it where they are known.

A patch's rating is a probability for each level. Its **certainty** is 1 - H(p) / ln 11, with the entropy H: 0
when all levels are equally likely, 1 when one is sure.

An image's probabilities are the mean of its patches', weighted with their certainties.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lincei.optics import blur_diameter_um, defocus_psf

LEVELS = 11
STEP_UM = 2.0
REFERENCE_PIXEL_SIZE_UM = 0.65

InFocus = Literal["yes", "no", "uncertain"]

# The one cut. Levels up to this one count as in focus ...
LAST_LEVEL_IN_FOCUS = 2
# ... and a rating of which the certainty is below this says nothing about the image.
LEAST_CERTAINTY = 0.2


def certainty(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return 1 - H(p) / ln 11 of distributions over the levels.

    Parameters
    ----------
    probabilities : array_like, shape (..., 11)
        Probabilities that add up to 1 along the last axis.

    Returns
    -------
    ndarray
        Shape (...), from 0 (all levels equally likely) to 1 (one level is sure).

    Examples
    --------
    >>> float(certainty([1.0] + [0.0] * 10))
    1.0
    >>> round(float(certainty([1 / 11] * 11)), 12)
    0.0
    """
    p = np.asarray(probabilities, np.float64)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    result: NDArray[np.float64] = np.clip(1 - entropy / np.log(p.shape[-1]), 0.0, 1.0)
    return result


def pooled(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the probabilities of an image: those of its patches, averaged with their certainties as weights.

    Parameters
    ----------
    probabilities : array_like, shape (patches, 11)
        Of the patches.

    Returns
    -------
    ndarray
        Shape (11,). Where no patch has any certainty, all count alike.
    """
    p = np.asarray(probabilities, np.float64)
    weights = certainty(p)
    if weights.sum() <= 1e-12:
        weights = np.ones(len(p))
    result: NDArray[np.float64] = weights @ p / weights.sum()
    return result


def expected_level(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the mean level of distributions, shape (...)."""
    p = np.asarray(probabilities, np.float64)
    result: NDArray[np.float64] = p @ np.arange(p.shape[-1])
    return result


def in_focus(probabilities: ArrayLike, certainties: ArrayLike | None = None) -> NDArray[np.str_]:
    """Return whether images or patches count as in focus.

    Parameters
    ----------
    probabilities : array_like, shape (..., 11)
        Of images (see `pooled`) or of patches.
    certainties : array_like, shape (...), optional
        How sure they are. Of an image the weighted certainty of its patches: the pooled probabilities of
        patches that are sure of levels 1 and of 3 look unsure. By default that of the probabilities, as for a
        patch.

    Returns
    -------
    ndarray of str, shape (...)
        "uncertain" when the certainty is below 0.2; otherwise "yes" when a level of at most 2 is at least as
        likely as a higher one, else "no". The cut is the same for every image, model and microscope.
    """
    p = np.asarray(probabilities, np.float64)
    sure = certainty(p) if certainties is None else np.asarray(certainties, np.float64)
    sharp = p[..., : LAST_LEVEL_IN_FOCUS + 1].sum(axis=-1) >= 0.5
    return np.where(sure < LEAST_CERTAINTY, "uncertain", np.where(sharp, "yes", "no"))


@dataclass(frozen=True)
class Optics:
    """The microscope that an image was taken with, as far as defocus is concerned.

    Parameters
    ----------
    pixel_size_um : float
        Pixel size in the specimen, in um.
    na : float
        Numerical aperture of the objective.
    wavelength_um : float
        Wavelength of the light that is seen, in um.
    refractive_index : float
        Of the medium between objective and specimen: 1.0 air, 1.33 water, 1.515 oil.
    """

    pixel_size_um: float
    na: float
    wavelength_um: float = 0.5
    refractive_index: float = 1.0

    def defocus_um(self, level: ArrayLike) -> NDArray[np.float64]:
        """Return the distance from focus that blurs as much as a level does, in um (its sign is unknown).

        Parameters
        ----------
        level : array_like
            Levels from 0 to 10, also between them.

        Returns
        -------
        ndarray
            Of the shape of ``level``. 0 for level 0, and where these optics blur more than the level does
            even in focus.

        Notes
        -----
        Blur is measured as the radius that holds 80 % of a point's light, in pixels; it is that of the
        level in the reference optics, and the defocus is found at which these optics have the same. Between
        whole levels it is interpolated. For levels above 2 that is nearly geometric: 1.54 k n / NA times the
        pixel size.
        """
        here = _blur_table(self.pixel_size_um, self.na, self.wavelength_um, self.refractive_index)
        reference = _blur_table(REFERENCE_PIXEL_SIZE_UM, 0.5, 0.5, 1.0)
        levels = np.arange(LEVELS)
        distances = np.interp(np.interp(levels * STEP_UM, *reference), here[1], here[0])
        distances[0] = 0.0  # as sharp as it gets, also where coarse pixels hide the first micrometer
        result: NDArray[np.float64] = np.interp(np.asarray(level, np.float64), levels, distances)
        return result

    @classmethod
    def known(
        cls,
        pixel_size_um: float | None,
        na: float | None,
        wavelength_um: float | None,
        refractive_index: float | None,
    ) -> Optics | None:
        """Return the optics, or None where pixel size or aperture is unknown."""
        if pixel_size_um is None or na is None:
            return None
        return cls(pixel_size_um, na, wavelength_um or 0.5, refractive_index or 1.0)


@functools.lru_cache(maxsize=64)
def _blur_table(
    pixel_size_um: float, na: float, wavelength_um: float, refractive_index: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return distances from focus in um and the radius in pixels that holds 80 % of a point's light there."""
    # As far as the blur of the highest level reaches, and a little beyond.
    widest_um = 1.2 * blur_diameter_um(STEP_UM * (LEVELS - 1)) / REFERENCE_PIXEL_SIZE_UM * pixel_size_um
    farthest_um = widest_um * refractive_index / (2 * na)
    # Finer near focus, where the blur hardly changes at first.
    distances = farthest_um * np.linspace(0, 1, 49) ** 1.5
    radii = np.array([_radius_of_light(z, 0.8, na, wavelength_um, refractive_index) for z in distances])
    return distances, np.maximum.accumulate(radii) / pixel_size_um + np.arange(len(radii)) * 1e-9


def _radius_of_light(
    defocus_um: float, share: float, na: float, wavelength_um: float, refractive_index: float
) -> float:
    """Return the radius in um that holds a share of the light of a point."""
    disk = blur_diameter_um(defocus_um, na=na, refractive_index=refractive_index) / 2
    radius = np.linspace(0, disk + 4 * wavelength_um / na, 600)
    intensity = defocus_psf(
        radius, defocus_um, na=na, wavelength_um=wavelength_um, refractive_index=refractive_index
    )
    within = (
        2
        * np.pi
        * np.concatenate(
            [
                [0.0],
                np.cumsum((intensity[1:] * radius[1:] + intensity[:-1] * radius[:-1]) / 2 * np.diff(radius)),
            ]
        )
    )
    total = np.pi * (wavelength_um / (2 * np.pi * na)) ** 2
    return float(np.interp(share * total, within, radius))
