"""In silico labeling: fluorescence predicted from transmitted light, with a distribution for every pixel.

After Christiansen et al., Cell 173:792 (2018). Research use only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insilico.evaluation import evaluate
    from insilico.labeling import label
    from insilico.options import EvaluateOptions, LabelOptions, TrainOptions
    from insilico.pair_files import TrainingPair
    from insilico.training import train

__all__ = ["EvaluateOptions", "LabelOptions", "TrainOptions", "TrainingPair", "evaluate", "label", "train"]

# Imported when first used, so that neither `import insilico` nor `lincei --help` waits for NumPy or Keras.
_HOMES = {
    "evaluate": "insilico.evaluation",
    "EvaluateOptions": "insilico.options",
    "label": "insilico.labeling",
    "LabelOptions": "insilico.options",
    "TrainOptions": "insilico.options",
    "TrainingPair": "insilico.pair_files",
    "train": "insilico.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'insilico' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
