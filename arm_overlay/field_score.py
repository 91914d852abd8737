"""One number for a field of view: how sure it is that there is tumor anywhere in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of the field. Less would let a few cells of chance decide, more would miss small metastases.
TOP_SHARE = 0.05


def field_score(probability: NDArray[Any], top_share: float = TOP_SHARE) -> float:
    """Return the mean of the highest probabilities of a field.

    Parameters
    ----------
    probability : ndarray
        Probability of tumor, any shape; what is no number does not count.
    top_share : float
        Share of the field that is averaged, at least one cell.

    Returns
    -------
    float
        0 to 1; 0 for a field without a number in it.

    Examples
    --------
    >>> round(field_score(np.array([[0.0, 0.1], [0.2, 0.9]]), 0.5), 6)
    0.55
    """
    values = np.asarray(probability, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0
    count = max(1, round(top_share * values.size))
    return float(np.partition(values, values.size - count)[values.size - count :].mean())
