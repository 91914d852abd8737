"""The curve of a label's normalized scale: linear, or compressed where brightness spans several decades.

On either, 0 is the background percentile of a stained image and 1 its bright percentile. The ``asinh`` curve
is v = asinh(u / s) / asinh(1 / s) of the linear scale u, with s = 0.02: linear close to the background and
logarithmic above it (Lupton, Gunn and Szalay, AJ 118:1406, 1999), so that dim cells count beside bright ones
whose level transmitted light cannot show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CURVES = ("linear", "asinh")
SOFTNESS = 0.02


def curved(values: Array, curve: str) -> Array:
    """Return linear values of a label's scale on its curve.

    Examples
    --------
    >>> curved(np.array([0.0, 0.1, 1.0]), "asinh").round(2)
    array([0. , 0.5, 1. ])
    """
    if curve == "linear":
        return values
    return np.arcsinh(values / np.float32(SOFTNESS)) / np.float32(np.arcsinh(1 / SOFTNESS))


def straightened(values: Array, curve: str) -> Array:
    """Return values on a curve as linear ones: the inverse of `curved`."""
    if curve == "linear":
        return values
    return np.sinh(values * np.float32(np.arcsinh(1 / SOFTNESS))) * np.float32(SOFTNESS)
