"""The augmented-reality microscope: a camera in, tumor outlines out to a microdisplay, live.

After Chen et al., Nature Medicine 25:1453 (2019). Research use only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arm_overlay.live import LiveOutline
    from arm_overlay.options import LiveOptions, TumorOptions
    from arm_overlay.train_options import TrainTumorOptions
    from arm_overlay.training import train
    from arm_overlay.tumor_image import TumorOutline, tumor

__all__ = [
    "LiveOptions",
    "LiveOutline",
    "TrainTumorOptions",
    "TumorOptions",
    "TumorOutline",
    "train",
    "tumor",
]

# Imported when first used, so that neither `import arm_overlay` nor `lincei --help` waits for NumPy or Keras.
_HOMES = {
    "LiveOptions": "arm_overlay.options",
    "LiveOutline": "arm_overlay.live",
    "TrainTumorOptions": "arm_overlay.train_options",
    "TumorOptions": "arm_overlay.options",
    "TumorOutline": "arm_overlay.tumor_image",
    "train": "arm_overlay.training",
    "tumor": "arm_overlay.tumor_image",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'arm_overlay' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
