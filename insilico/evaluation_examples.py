"""What the pictures of an evaluation are made of, kept of a few images only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from insilico.nuclei import Labels
from lincei.image import Image

if TYPE_CHECKING:
    from insilico.evaluation import LabelFigures

Array = NDArray[np.float32]

# Longest sides of pictures: of whole images, of close-ups, of outlined nuclei.
WHOLE_PX, CLOSE_PX, NUCLEI_PX = 448, 192, 1024
# Pictures of all labels together; a page with more is slow to open and nobody looks at them.
_MOST_EXAMPLES = 12


@dataclass(frozen=True, eq=False)
class Planes:
    """What is shown side by side, each of shape (Y, X).

    Parameters
    ----------
    pixel_size_um : float or None
        Of these arrays.
    light : ndarray
        Transmitted light, the middle plane.
    truth, mean, sd : ndarray
        A label on its normalized scale.
    """

    pixel_size_um: float | None
    light: Array
    truth: Array
    mean: Array
    sd: Array


@dataclass(frozen=True, eq=False)
class FoundNuclei:
    """Nuclei of a plane, true and predicted ones.

    Parameters
    ----------
    pixel_size_um : float or None
        Of these arrays.
    truth, mean : ndarray, shape (Y, X)
        The planes in which they were found, thinned out where they are large.
    true, predicted : ndarray of int32, shape (Y, X)
        Numbers of the nuclei, 0 outside; positive for those that match, negative for the others.
    """

    pixel_size_um: float | None
    truth: Array
    mean: Array
    true: Labels
    predicted: Labels


@dataclass(frozen=True, eq=False)
class Example:
    """What the pictures of one label of one image are made of.

    Parameters
    ----------
    image : str
        Name of the image.
    time : str
        Which of its times it is; empty where there is one.
    figures : LabelFigures
        Of the whole image.
    whole : Planes
        All of it, reduced.
    close : Planes
        The part where the squared error is largest, not reduced.
    nuclei : FoundNuclei, optional
        Of a nuclear label.
    """

    image: str
    time: str
    figures: LabelFigures
    whole: Planes
    close: Planes
    nuclei: FoundNuclei | None = None


class Gallery:
    """Keeps a few examples of each label: the worst, the best, and some that nobody selected.

    The last are spread evenly over the images, and settled before anything is known of them.
    """

    def __init__(self, images: int, labels: int) -> None:
        spread = max(1, _MOST_EXAMPLES // labels - 2)
        self._spread = set(np.linspace(0, images - 1, min(spread, images)).round().astype(int).tolist())
        self._kept: dict[str, dict[int, Example]] = {}

    def add(self, index: int, label: str, example: Example) -> None:
        """Look at an example of the image with this number."""
        kept = self._kept.setdefault(label, {})
        kept[index] = example
        ends = {choose(kept, key=lambda i: rank(kept[i].figures)) for choose in (min, max)}
        for other in set(kept) - self._spread - ends:
            del kept[other]

    @property
    def examples(self) -> dict[str, list[Example]]:
        """By label, the worst first."""
        return {
            label: sorted(kept.values(), key=lambda example: rank(example.figures))
            for label, kept in self._kept.items()
        }


def rank(figures: LabelFigures) -> float:
    """Return the correlation; what has none is worst."""
    return figures.pearson_r if math.isfinite(figures.pearson_r) else -2.0


def reduction(image: Image, longest_px: int) -> int:
    """Return by how much an image is reduced so that no side is longer than ``longest_px``."""
    return max(1, math.ceil(max(image.shape[3:]) / longest_px))


def worst_window(squared_error: Array) -> tuple[slice, slice]:
    """Return the window in which the errors are largest."""
    height, width = (min(CLOSE_PX, side) for side in squared_error.shape)
    sums = np.zeros((squared_error.shape[0] + 1, squared_error.shape[1] + 1))
    np.cumsum(squared_error, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def reduced(plane: NDArray[Any], step: int) -> Array:
    """Return the means of blocks of ``step`` x ``step`` pixels; what does not fill one is left out."""
    height, width = (side // step for side in plane.shape)
    blocks = plane[: height * step, : width * step].reshape(height, step, width, step)
    result: Array = blocks.mean(axis=(1, 3), dtype=np.float32)
    return result
