"""How unlike its training images an image looks to a labeling model: a distance measured on small patches.

A patch, as the network sees it, is described by texture statistics: power, skewness and kurtosis in octave
bands, orientation, and how the bands change through focus. What the images of a training set look like is
kept as a Gaussian; the score of an image is its distance from the nearest set's, as a multiple of what
held-out images of that set keep within.

The distance is that of Mahalanobis; for networks' own features it was shown to tell what a network has not
seen by Lee et al., NeurIPS 31:7167 (2018). Statistics of band-pass images are what tells textures apart for
Portilla and Simoncelli, Int. J. Computer Vision 40:49 (2000).
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insilico.z_planes import interpolation_weights, network_planes
from lincei.errors import LinceiError
from lincei.image import Image
from lincei.model_card import Card
from lincei.normalize import IntensityScaling, not_finite
from lincei.pixel_size import resampled
from lincei.tiles import mirrored

Array = NDArray[np.float32]

METHOD = "Gaussian of texture statistics, version 1"
PATCH_PX = 128
# Patches along a side of the grid that is spread over an image.
PATCHES_PER_SIDE = 5

BANDS = 5
# Smaller images are mirrored up to this side: the coarsest band still has some pixels then.
_SMALLEST_PX = 64
# Powers below that of 2 % of an image's standard deviation all count as nothing.
_LEAST_POWER = 0.02**2
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16

# Pieces of the training images (and of what is held out) that are described, and their sides.
_PIECES, _HELD_OUT_PIECES = 80, 40
_PIECE_PX = 5 * PATCH_PX // 2
_PIECE_COUNT = (_PIECE_PX / PATCH_PX) ** 2  # as many patches without overlap
# Share of an image's patches left out at either end of each statistic.
_TRIMMED = 0.2
# The limits are this percentile of held-out pieces and patches. What lies farther out than this many times
# the same percentile of training pieces is unlike them though it was held out.
_PERCENTILE, _FARTHEST_LIMIT = 99, 2.0
# Another look of a set must make held-out pieces this much likelier (in nats).
_MOST_LOOKS, _FEWEST_PIECES, _LEAST_GAIN = 3, 12, 2.0
# Covariances are shrunk towards independence; the look of an image is never known better than of ten patches.
_SHRINKAGE, _LARGEST_COUNT = 0.05, 10.0
_LEAST_SD = 0.05

# A patch with less contrast than this share of the image's, or this share of equal neighbors, is blank.
_BLANK_SD, _BLANK_SHARE = 0.15, 0.5

# How much the power of white noise falls from band 1 to 2 and from 2 to 3, in bits; how far off that, and off
# a normal distribution's shape, a patch of mere noise may be; and how many patches are in an empty image.
_EMPTY_SLOPES, _EMPTY_TOLERANCE, _EMPTY_SHARE = (-2.4, -2.05), 0.5, 0.9
_TINY = 1e-9


@dataclass(frozen=True)
class OutOfDistribution:
    """How unlike the training images an image looks.

    Parameters
    ----------
    score : float
        Of the image; above 1 it looks unlike all that 99 % of held-out pieces of training images look like.
    share_outside : float
        Share of its patches that are, each for itself, beyond the limit.
    nearest : str
        The training set that it looks most like.
    empty : bool
        Whether there seems to be nothing in it but noise.
    patch_scores : tuple of float
        Of the patches, in the order they were given; NaN where a patch is blank.
    """

    score: float
    share_outside: float
    nearest: str
    empty: bool
    patch_scores: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what is written beside a result."""
        return {
            "score": round(self.score, 3),
            "share_of_patches_outside": round(self.share_outside, 3),
            "nearest_training_set": self.nearest,
            "seems_empty": self.empty,
        }


@dataclass(frozen=True, eq=False)
class Look:
    """What the images of one training set look like.

    Parameters
    ----------
    name : str
        The set.
    mean : ndarray
        Shape (descriptors,), float32: of `descriptors`.
    of_images, of_patches : ndarray
        Shape (descriptors, descriptors), float32: covariance of the mean of an image's patches, and of
        single patches.
    image_limit, patch_limit : float
        Distances that 99 % of held-out pieces of images, and of their patches, keep within.
    """

    name: str
    mean: Array
    of_images: Array
    of_patches: Array
    image_limit: float
    patch_limit: float

    def distance(self, described: NDArray[np.floating], count: float) -> NDArray[np.floating]:
        """Return the Mahalanobis distance of means of ``count`` patches, per square root of descriptors.

        Parameters
        ----------
        described : ndarray
            Shape (n, descriptors).
        count : float
            Of how many patches each row is the mean; below 1 where it is a part of one.

        Returns
        -------
        ndarray
            Shape (n,).
        """
        from scipy import linalg

        lower = self._lower(count)
        whitened = linalg.solve_triangular(lower, (described - self.mean).T, lower=True)
        return np.sqrt(np.mean(whitened**2, axis=0))

    def log_volume(self, count: float) -> float:
        """Return the logarithm of the volume that means of ``count`` patches fill, less a constant."""
        return float(np.log(np.diag(self._lower(count))).sum())

    def _lower(self, count: float) -> NDArray[np.float64]:
        """Return the Cholesky factor of the covariance of means of ``count`` patches."""
        # An image differs from others, and the mean of its patches from the image's own, by chance.
        covariance = self.of_images + self.of_patches / min(count, _LARGEST_COUNT)
        return np.linalg.cholesky(covariance.astype(np.float64))

    def limit(self, count: float) -> float:
        """Return the limit for the mean of ``count`` patches, between a patch's and an image's."""
        alone = (1 / max(count, 1.0) - 1 / _PIECE_COUNT) / (1 - 1 / _PIECE_COUNT)
        return self.image_limit + (self.patch_limit - self.image_limit) * max(0.0, alone)


@dataclass(frozen=True, eq=False)
class Reference:
    """What a model was trained on looks like.

    Parameters
    ----------
    looks : tuple of Look
        At least one; several of one set where its images are of different kinds.
    """

    looks: tuple[Look, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the reference for a card: 4 kB for each look."""
        return {
            "method": METHOD,
            "limit": f"1 is percentile {_PERCENTILE} of pieces of held-out images",
            "sets": [
                {
                    "name": look.name,
                    "image_limit": look.image_limit,
                    "patch_limit": look.patch_limit,
                    "mean": _packed(look.mean, "<f4"),
                    "of_images": _packed_covariance(look.of_images),
                    "of_patches": _packed_covariance(look.of_patches),
                }
                for look in self.looks
            ],
        }

    @classmethod
    def from_json(cls, section: Mapping[str, Any]) -> Reference | None:
        """Read a card's section; None where it is empty, or of a method that this version does not know.

        Raises
        ------
        ValueError, KeyError, TypeError
            When the section is damaged.
        """
        if section.get("method") != METHOD:
            return None
        looks = tuple(
            Look(
                str(entry["name"]),
                _unpacked(entry["mean"], "<f4", len(DESCRIPTORS)),
                _unpacked_covariance(entry["of_images"]),
                _unpacked_covariance(entry["of_patches"]),
                float(entry["image_limit"]),
                float(entry["patch_limit"]),
            )
            for entry in section["sets"]
        )
        if not looks or not all(min(look.image_limit, look.patch_limit) > 0 for look in looks):
            raise ValueError("no set, or a limit that is not above 0")
        for look in looks:
            look.distance(look.mean[None], 1)  # fails where a covariance is none
        return cls(looks)

    def score(self, patches: Sequence[Array], area_px: float) -> OutOfDistribution:
        """Score an image by patches of it.

        Parameters
        ----------
        patches : sequence of ndarray
            Shape (planes, Y, X) each, float32, as the network sees them; `patch_places` says which. Of the
            planes only those that `planes_described` names need to be there.
        area_px : float
            Pixels of the whole image, which has fewer patches' worth of looks than overlapping patches seem.

        Returns
        -------
        OutOfDistribution
        """
        described = descriptors(patches)
        seen = _with_something(patches)
        area = _patch_area(patches)
        count = min(int(seen.sum()) * area, area_px / PATCH_PX**2 * float(seen.mean()))
        mean = _typical(described[seen])[None]
        images = [float(look.distance(mean, count)[0]) / look.limit(count) for look in self.looks]
        of_patches = np.min(
            [look.distance(described, area) / look.patch_limit for look in self.looks], axis=0
        )
        of_patches[~seen] = np.nan
        return OutOfDistribution(
            score=min(images),
            share_outside=float(np.mean(of_patches[seen] > 1)),
            nearest=self.looks[int(np.argmin(images))].name,
            empty=bool(_noise_alone(described).mean() >= _EMPTY_SHARE),
            patch_scores=tuple(float(value) for value in of_patches),
        )

    def score_stack(self, stack: Array) -> OutOfDistribution:
        """Score an image that is in memory, shape (Y, X, planes), float32, as the network sees it."""
        return self.score(_patches(stack), stack.shape[0] * stack.shape[1])


def fit_reference(
    stacks_by_set: Mapping[str, Sequence[Array]],
    held_out: Mapping[str, Sequence[Array]],
    *,
    seed: int = 0,
) -> Reference:
    """Learn what a model's training images look like.

    Pieces of the images are drawn at random and varied a little in focus, magnification, contrast,
    brightness, noise and sharpness, so that the same cells on another day are not found unlike.

    Parameters
    ----------
    stacks_by_set : mapping of str to sequence of ndarray
        Training images by the name of their set, shape (Y, X, planes), float32, as the network sees them.
    held_out : mapping of str to sequence of ndarray
        The same of images, or strips, that are not trained on. A set that is not in it gets its limits from
        its training images.
    seed : int
        Of all chance.

    Returns
    -------
    Reference
    """
    return Reference(
        tuple(
            look
            for number, (name, stacks) in enumerate(stacks_by_set.items())
            for look in _looks(
                name, stacks, held_out.get(name) or stacks, np.random.default_rng([seed, number])
            )
        )
    )


def _looks(
    name: str, stacks: Sequence[Array], held_out: Sequence[Array], random: np.random.Generator
) -> list[Look]:
    """Fit one look, or more where a set's images are of clearly different kinds."""
    pieces, others = (
        [_Piece.of(piece) for piece in _pieces(drawn, count, random)]
        for drawn, count in ((stacks, _PIECES), (held_out, _HELD_OUT_PIECES))
    )
    sd = np.maximum(np.concatenate([piece.patches for piece in pieces]).std(axis=0), _LEAST_SD)
    best: list[Look] = []
    least = np.inf
    for count in range(1, _MOST_LOOKS + 1):
        kinds = _kinds(np.stack([piece.typical for piece in pieces]) / sd, count, random)
        if np.bincount(kinds, minlength=count).min() < _FEWEST_PIECES:
            break
        looks = [
            _fitted(name, [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == number], sd)
            for number in range(count)
        ]
        # The median: a held-out image may have a corner with nothing in it.
        surprise = float(np.median([min(piece.surprise(look) for look in looks) for piece in others]))
        if surprise < least - _LEAST_GAIN:
            best, least = looks, surprise

    def limit(distances: Callable[[_Piece, Look], NDArray[np.floating]]) -> float:
        known, unknown = (
            float(
                np.percentile(
                    np.concatenate(
                        [np.min([distances(piece, look) for look in best], axis=0) for piece in drawn]
                    ),
                    _PERCENTILE,
                )
            )
            for drawn in (pieces, others)
        )
        return round(float(np.clip(unknown, known, _FARTHEST_LIMIT * known)), 4)

    image_limit = limit(lambda piece, look: look.distance(piece.typical[None], piece.count))
    patch_limit = limit(lambda piece, look: look.distance(piece.patches, piece.area))
    return [dataclasses.replace(look, image_limit=image_limit, patch_limit=patch_limit) for look in best]


@dataclass(frozen=True, eq=False)
class _Piece:
    """A piece of an image: its patches described, of how many without overlap, and of what area each."""

    patches: NDArray[np.floating]
    count: float
    area: float

    @classmethod
    def of(cls, stack: Array) -> _Piece:
        patches = _patches(stack)
        seen = _with_something(patches)
        described = descriptors([patch for patch, there in zip(patches, seen, strict=True) if there])
        whole = stack.shape[0] * stack.shape[1] / PATCH_PX**2
        return cls(described, whole * float(seen.mean()), _patch_area(patches))

    @cached_property
    def typical(self) -> NDArray[np.floating]:
        return _typical(self.patches)

    def surprise(self, look: Look) -> float:
        """Return minus the log density of the piece, less a constant."""
        distance = float(look.distance(self.typical[None], self.count)[0])
        return len(look.mean) / 2 * distance**2 + look.log_volume(self.count)


def _kinds(means: NDArray[np.floating], count: int, random: np.random.Generator) -> NDArray[np.integer]:
    """Sort pieces into kinds by what they look like (k-means, from starts that lie far apart)."""
    from scipy.cluster.vq import ClusterError, kmeans2

    starts = [int(random.integers(len(means)))]
    for _ in range(count - 1):
        nearest = np.min([np.sum((means - means[start]) ** 2, axis=1) for start in starts], axis=0)
        starts.append(int(np.argmax(nearest)))
    try:
        return np.asarray(kmeans2(means, means[starts], minit="matrix", missing="raise")[1])
    except ClusterError:  # there are not as many kinds
        return np.zeros(len(means), int)


def _fitted(name: str, pieces: Sequence[_Piece], sd: NDArray[np.floating]) -> Look:
    """Fit the Gaussians of one look, as exact as a card keeps them."""
    every = np.concatenate([piece.patches for piece in pieces])
    means = np.stack([piece.typical for piece in pieces])
    mean = means.mean(axis=0).astype(np.float32)
    of_images, of_patches = (
        _unpacked_covariance(_packed_covariance(_shrunk((values - mean) / sd) * np.outer(sd, sd)))
        for values in (means, every)
    )
    return Look(name, mean, of_images, of_patches, 1.0, 1.0)


def _typical(described: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean over an image's patches without the extreme ones: dirt does not make another image."""
    from scipy import stats

    return np.asarray(stats.trim_mean(described, _TRIMMED, axis=0))


def _shrunk(values: NDArray[np.floating]) -> NDArray[np.floating]:
    covariance = values.T @ values / len(values)
    size = len(covariance)
    return (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.trace(covariance) / size * np.eye(size)


def _pieces(stacks: Sequence[Array], count: int, random: np.random.Generator) -> Iterator[Array]:
    """Draw pieces of the images, and vary each as a whole as another day would."""
    from scipy import ndimage

    areas = np.array([stack.shape[0] * stack.shape[1] for stack in stacks], float)
    for index in random.choice(len(stacks), count, p=areas / areas.sum()):
        stack = stacks[index]
        zoom = float(np.exp(random.normal() * 0.1)) if random.random() < 0.5 else 1.0
        rows, columns = (
            slice(start := int(random.integers(size - length + 1)), start + length)
            for size, length in ((n, min(n, int(np.ceil(_PIECE_PX * zoom)))) for n in stack.shape[:2])
        )
        piece = stack[rows, columns]
        if zoom != 1:
            piece = resampled(piece, 1 / zoom)
        planes = piece.shape[-1]
        if planes > 1:
            piece = piece @ _focus(planes, random).T
        if random.random() < 0.2:
            sigma = random.uniform(0.3, 1.2)
            piece = ndimage.gaussian_filter(piece, (sigma, sigma, 0))
        piece = piece * np.float32(np.exp(random.normal() * 0.2)) + np.float32(random.normal() * 0.1)
        if random.random() < 0.5:
            noise = random.standard_normal(piece.shape, np.float32)
            piece = piece + noise * np.float32(abs(random.normal()) * 0.1)
        yield piece


def _focus(planes: int, random: np.random.Generator) -> Array:
    """Return weights for other focal positions; for one piece in four, for fewer planes interpolated."""
    middle = (planes - 1) / 2
    if random.random() < 0.75:
        stretch, shift = np.exp(random.normal() * 0.1), random.normal() * 0.5
        return interpolation_weights(middle + (np.arange(planes) - middle) * stretch + shift, planes)
    fewer = int(random.integers(1, planes))
    first, last = np.sort(random.uniform(0, planes - 1, 2)) if fewer > 1 else [middle + random.normal()] * 2
    taken = interpolation_weights(np.linspace(first, last, fewer), planes)
    weights = interpolation_weights(np.linspace(0, fewer - 1, planes), fewer) @ taken
    return np.asarray(weights, np.float32)


def reference_of(card: Card) -> Reference | None:
    """Return the reference that a model brings along; None where it has none that this version knows.

    Raises
    ------
    LinceiError
        When the card's section is damaged.
    """
    try:
        return Reference.from_json(card.out_of_distribution)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LinceiError(
            f"the card's section on what the model was trained on is damaged ({error})",
            f"model {card.name}",
            "Get the model again from where it came.",
        ) from error


def score_image(
    reference: Reference, image: Image, scaling: IntensityScaling, weights: Array
) -> OutOfDistribution:
    """Score an image that need not fit into memory; 25 patches of it at most are read.

    Parameters
    ----------
    reference : Reference
        Of the model.
    image : Image
        One channel, at the model's pixel size. Of several time points each patch is of another.
    scaling : IntensityScaling
        Of the whole image.
    weights : ndarray
        From the image's planes to the network's, shape (network planes, planes).

    Returns
    -------
    OutOfDistribution

    Raises
    ------
    LinceiError
        When a pixel is NaN or infinite.
    """
    times, _, _, height, width = image.shape
    weights = weights[planes_described(len(weights))]
    needed = [int(plane) for plane in np.flatnonzero(weights.any(axis=0))]
    places = patch_places(height, width)
    patches = []
    for number, (rows, columns) in enumerate(places):
        t = number * times // len(places)
        region = {"T": slice(t, t + 1), "Y": rows, "X": columns}
        pixels = np.concatenate(
            [image.read({**region, "Z": slice(plane, plane + 1)})[0, 0] for plane in needed]
        )
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise not_finite(image, 0)
        patches.append(network_planes(pixels, scaling, weights[:, needed]))
    return reference.score(patches, height * width)


def in_words(found: OutOfDistribution, image: str, model: str) -> str:
    """Return the sentence that warns of an image; empty where it looks as it should.

    Parameters
    ----------
    found : OutOfDistribution
        Of the image.
    image, model : str
        Their names.
    """
    if found.score <= 1:
        return ""
    if found.empty:
        return (
            f"{image}: there seems to be nothing in it but noise, so what is predicted means nothing. Check "
            "the focus, the light, and that this is the right channel."
        )
    return (
        f"{image}: this image does not look like what the model {model!r} learned from (score "
        f"{found.score:.1f}, 1 is the limit; {100 * found.share_outside:.0f} % of its patches lie outside). "
        "Do not rely on the prediction without a stained image to compare it with."
    )


def patch_places(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return the rows and columns of patches spread evenly over an image, the same for the same size.

    Parameters
    ----------
    height, width : int
        Of the image, in pixels.

    Returns
    -------
    list of (slice, slice)
        25 at most, of `PATCH_PX` pixels or the image's whole side, overlapping by half where there is room
        for few.

    Examples
    --------
    >>> [(rows.start, columns.start) for rows, columns in patch_places(128, 300)]
    [(0, 0), (0, 86), (0, 172)]
    """
    rows, columns = (_starts(size) for size in (height, width))
    return [
        (slice(y, min(y + PATCH_PX, height)), slice(x, min(x + PATCH_PX, width)))
        for y in rows
        for x in columns
    ]


def _starts(size: int) -> list[int]:
    count = int(np.clip(2 * size // PATCH_PX - 1, 1, PATCHES_PER_SIDE))
    return [int(start) for start in np.linspace(0, max(0, size - PATCH_PX), count)]


def _patches(stack: Array) -> list[Array]:
    use = planes_described(stack.shape[-1])
    return [np.moveaxis(stack[place][..., use], -1, 0) for place in patch_places(*stack.shape[:2])]


def planes_described(planes: int) -> list[int]:
    """Return which of the network's planes a patch is described by: first, middle and last.

    Examples
    --------
    >>> planes_described(13), planes_described(1)
    ([0, 6, 12], [0])
    """
    return sorted({0, planes // 2, planes - 1})


def _names() -> tuple[str, ...]:
    of_bands = (
        "power",
        "power out of focus",
        "correlation through focus",
        "skewness",
        "kurtosis",
        "coherence",
    )
    return (
        *(f"{name} {band}" for band in range(BANDS) for name in of_bands),
        *(f"shading {band}" for band in range(3)),
        "power of the rest",
        "mean",
    )


DESCRIPTORS = _names()


def descriptors(patches: Sequence[Array]) -> NDArray[np.float64]:
    """Describe patches by statistics of their texture that do not change when they are turned or mirrored.

    Parameters
    ----------
    patches : sequence of ndarray
        Shape (planes, Y, X) each, float32, all alike: one plane, or the first, middle and last.

    Returns
    -------
    ndarray
        Shape (patches, len(DESCRIPTORS)), float64. Of each of five octave bands (0: 2 to 4 pixels): log2 of
        the power in the middle plane, log2 of the outer planes' power against it, the outer planes'
        correlation with it, skewness (inverse hyperbolic sine), log2 of kurtosis, coherence of the structure
        tensor (0: no orientation, 1: one); of the three finest the skewness of the gradient's components (the
        shadows of DIC); the power and the mean of what is coarser than all bands.
    """
    whole = np.stack([_enlarged(patch) for patch in patches]).astype(np.float32)
    middle = whole.shape[1] // 2
    slope = _slope(whole)
    level = whole - slope  # uneven light is no texture
    columns: list[NDArray[np.floating]] = []
    shading = []
    for band in range(BANDS):
        smooth = _smoothed(level)
        detail = level - smooth
        # Products, not powers: these take ten times as long.
        squared = detail * detail
        powers = _average(squared)
        power, focused = powers[:, middle], detail[:, middle]
        outer = [plane for plane in range(level.shape[1]) if plane != middle] or [middle]
        sd = np.sqrt(power + _LEAST_POWER)
        columns.append(np.log2(power + _LEAST_POWER))
        columns.append(np.log2(powers[:, outer].mean(axis=1) + _LEAST_POWER) - columns[-1])
        columns.append(np.mean([_correlation(detail[:, plane], focused) for plane in outer], axis=0))
        columns.append(np.arcsinh(_average(squared[:, middle] * focused) / sd**3))
        columns.append(np.log2(_average(squared[:, middle] * squared[:, middle]) / sd**4 + 0.5))
        along_y, along_x = np.gradient(level[:, middle], axis=(-2, -1))
        yy, xx, xy = along_y * along_y, along_x * along_x, _average(along_y * along_x)
        mean_yy, mean_xx = _average(yy), _average(xx)
        both = mean_xx + mean_yy + _LEAST_POWER
        columns.append(np.sqrt((mean_xx - mean_yy) ** 2 + 4 * xy**2) / both)
        if band < 3:
            cubes = np.hypot(_average(yy * along_y), _average(xx * along_x))
            shading.append(np.arcsinh(cubes / (both / 2) ** 1.5))
        level = smooth[..., ::2, ::2]
    coarse = level[:, middle].var(axis=(-2, -1)) + slope[:, middle].var(axis=(-2, -1))
    columns += shading
    columns.append(np.log2(coarse + _LEAST_POWER))
    columns.append(np.arcsinh(whole[:, middle].mean(axis=(-2, -1))))
    return np.stack(columns, axis=-1).astype(np.float64)


def _enlarged(patch: Array) -> Array:
    """Mirror a patch that is too small for all bands."""
    rows, columns = (mirrored(np.arange(max(size, _SMALLEST_PX)), size) for size in patch.shape[1:])
    return patch if patch.shape[1:] == (len(rows), len(columns)) else patch[:, rows[:, None], columns]


def _slope(patches: Array) -> Array:
    """Return the plane, of mean 0, that fits each of the last two axes best."""
    result = np.zeros_like(patches)
    for axis in (-2, -1):
        size = patches.shape[axis]
        along = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        along = along[:, None] if axis == -2 else along
        steepness = np.mean(patches * along, axis=(-2, -1), keepdims=True) / np.mean(along**2)
        result += steepness * along
    return result


def _smoothed(level: Array) -> Array:
    from scipy import ndimage

    result = ndimage.correlate1d(level, _BINOMIAL, axis=-1, mode="mirror")
    return np.asarray(ndimage.correlate1d(result, _BINOMIAL, axis=-2, mode="mirror"))


def _average(planes: Array) -> NDArray[np.floating]:
    """Return the mean over the last two axes."""
    return np.asarray(planes.mean(axis=(-2, -1)))


def _correlation(a: Array, b: Array) -> NDArray[np.floating]:
    powers = [_average(part * part) + _LEAST_POWER for part in (a, b)]
    return (_average(a * b) + _LEAST_POWER) / np.sqrt(powers[0] * powers[1])


def _patch_area(patches: Sequence[Array]) -> float:
    """Return the area of the patches of a small image as a share of a whole patch's."""
    return patches[0].shape[1] * patches[0].shape[2] / PATCH_PX**2


def _with_something(patches: Sequence[Array]) -> NDArray[np.bool_]:
    """Return which patches are not blank, as where a mosaic has no field; all, if all are."""
    middle = [patch[patch.shape[0] // 2] for patch in patches]
    seen = np.array(
        [
            plane.std() > _BLANK_SD and np.mean(plane[1:, 1:] == plane[:-1, :-1]) < _BLANK_SHARE
            for plane in middle
        ]
    )
    return seen if seen.any() else np.ones(len(patches), bool)


def _noise_alone(described: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which patches have the power spectrum and the shape of noise, slow gradients aside.

    The finest band is left out: interpolation and compression take noise away there.
    """
    named = dict(zip(DESCRIPTORS, described.T, strict=True))
    # Uneven light makes noise small against the whole image, so nothing is added to its power here.
    powers = {band: np.maximum(2 ** named[f"power {band}"] - _LEAST_POWER, _TINY) for band in (1, 2, 3)}
    kurtosis = {
        band: (2 ** named[f"kurtosis {band}"] - 0.5) * (1 + _LEAST_POWER / powers[band]) ** 2
        for band in (1, 2)
    }
    return np.all(
        [
            *(
                np.abs(np.log2(powers[band + 1] / powers[band]) - slope) < _EMPTY_TOLERANCE
                for band, slope in zip((1, 2), _EMPTY_SLOPES, strict=True)
            ),
            *(np.abs(kurtosis[band] - 3) < 3 * _EMPTY_TOLERANCE for band in (1, 2)),
            *(np.abs(named[f"skewness {band}"]) < _EMPTY_TOLERANCE for band in (1, 2)),
        ],
        axis=0,
    )


def _packed(values: NDArray[np.floating], kind: str) -> str:
    return base64.b64encode(np.asarray(values, kind).tobytes()).decode("ascii")


def _unpacked(text: str, kind: str, size: int) -> Array:
    values = np.frombuffer(base64.b64decode(text, validate=True), kind).astype(np.float32)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(f"{values.size} values where {size} finite ones are expected")
    return values


def _packed_covariance(matrix: NDArray[np.floating]) -> dict[str, str]:
    """Pack standard deviations, and the correlations below the diagonal in 16 bits."""
    sd = np.sqrt(np.diag(matrix))
    correlations = (matrix / np.outer(sd, sd))[np.tril_indices(len(sd), -1)]
    return {"sd": _packed(sd, "<f4"), "correlations": _packed(correlations, "<f2")}


def _unpacked_covariance(packed: Mapping[str, str]) -> Array:
    size = len(DESCRIPTORS)
    sd = _unpacked(packed["sd"], "<f4", size)
    lower = np.zeros((size, size), np.float32)
    lower[np.tril_indices(size, -1)] = _unpacked(packed["correlations"], "<f2", size * (size - 1) // 2)
    return (lower + lower.T + np.eye(size, dtype=np.float32)) * np.outer(sd, sd)
