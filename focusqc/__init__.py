"""Focus quality: patches of 84x84 pixels rated on 11 levels of defocus, with the certainty of each rating.

After Yang et al., BMC Bioinformatics 19:77 (2018). Research use only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from focusqc.focus_image import focus
    from focusqc.options import FocusOptions, TrainFocusOptions
    from focusqc.rating import FocusRating
    from focusqc.training import train

__all__ = ["FocusOptions", "FocusRating", "TrainFocusOptions", "focus", "train"]

# Imported when first used, so that neither `import focusqc` nor `lincei --help` waits for NumPy or Keras.
_HOMES = {
    "focus": "focusqc.focus_image",
    "FocusOptions": "focusqc.options",
    "FocusRating": "focusqc.rating",
    "TrainFocusOptions": "focusqc.options",
    "train": "focusqc.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'focusqc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
