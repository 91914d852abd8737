"""The options of outlining tumor, still and live. Front ends derive their controls from these fields."""

from __future__ import annotations

from dataclasses import dataclass

from arm_overlay.overlay import MODES
from lincei.errors import UsageError
from lincei.options import ENGINE_NAMES, Options, option


@dataclass(frozen=True)
class TumorOptions(Options):
    """Options of `arm_overlay.tumor`, for still images."""

    model: str = option("tumor-breast", "Name or folder of the model.")
    pixel_size_um: float | None = option(
        None, "Pixel size of the images; read from them when left out.", unit="um", above=0
    )
    threshold: float | None = option(
        None,
        "Probability above which a pixel counts as tumor; the model's own for this scale when left out.",
        above=0,
        maximum=1,
    )
    smallest_um: float = option(
        50.0, "Regions (and holes) less wide than this are left out.", unit="um", minimum=0
    )
    engine: str | None = option(
        None,
        "What runs the network; the first that works when left out.",
        choices=ENGINE_NAMES,
        advanced=True,
    )
    threads: int = option(0, "Processor threads; 0 uses all.", minimum=0, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_threshold_of_1(self.threshold)


@dataclass(frozen=True)
class LiveOptions(Options):
    """Options of `arm_overlay.LiveOutline`: what is between camera and display."""

    model: str = option("tumor-breast", "Name or folder of the model.")
    objective: str = option(
        "", "The objective at the start, such as 20x; not needed where the microscope reports it."
    )
    pixel_size_um: float | None = option(
        None,
        "Size of a camera pixel at the specimen with that objective; with others it follows from the "
        "magnification. Not needed where the camera states it.",
        unit="um",
        above=0,
    )
    mode: str = option("outline", "What is shown.", choices=MODES)
    threshold: float | None = option(
        None,
        "Probability above which a pixel counts as tumor; the model's own for the objective when left out.",
        above=0,
        maximum=1,
    )
    smallest_um: float = option(
        50.0, "Regions (and holes) less wide than this are not outlined.", unit="um", minimum=0
    )
    # benchmarks/arm_speed.py measures what outlines lose at each speed by being shown late.
    top_speed: float = option(
        0.5,
        "Above this speed of the slide (widths of the view a second) the outline is hidden.",
        minimum=0,
        advanced=True,
    )
    focus_gate: bool = option(True, "Show no outline while the image is out of focus.")
    precision: str = option(
        "bfloat16",
        "Arithmetic of the network.",
        choices=("float32", "bfloat16"),
        advanced=True,
    )
    engine: str | None = option(
        None,
        "What runs the network; the first that works when left out.",
        choices=ENGINE_NAMES,
        advanced=True,
    )
    threads: int = option(0, "Processor threads; 0 uses all.", minimum=0, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_threshold_of_1(self.threshold)


def _refuse_threshold_of_1(threshold: float | None) -> None:
    if threshold == 1:  # no probability is above it
        raise UsageError("--threshold is 1", "", "It must be below 1.")
