"""The options of labeling, training and evaluation. Front ends derive their controls from these fields."""

from __future__ import annotations

from dataclasses import dataclass

from lincei.options import ENGINE_NAMES, Options, option

MODALITIES = ("phase contrast", "bright field", "DIC")
# What `TrainOptions.start_from` says when no model is to be started from.
SCRATCH = "scratch"
STATISTICS = ("mean", "median", "mode", "sd", "q05", "q95", "entropy")


@dataclass(frozen=True)
class LabelOptions(Options):
    """Options of `insilico.label`."""

    model: tuple[str, ...] = option(
        ("motor-neurons",), "Name or folder of the model; several, separated by commas, share one reading."
    )
    labels: tuple[str, ...] = option((), "Only these labels, by name; all of the model's when left out.")
    statistics: tuple[str, ...] = option(
        ("mean", "sd"),
        "What to report of each pixel's distribution.",
        choices=STATISTICS,
    )
    pixel_size_um: float | None = option(
        None, "Pixel size of the input; goes before what the file states.", unit="um", above=0
    )
    z_step_um: float | None = option(
        None, "Distance of the z planes; goes before what the file states.", unit="um", above=0
    )
    modality: str | None = option(
        None, "What the input is; goes before what the file states.", choices=MODALITIES
    )
    channel: str | None = option(
        None, "Name or number (from 0) of the transmitted-light channel, where the input has several."
    )
    engine: str | None = option(
        None,
        "What runs the network; the first that works when left out.",
        choices=ENGINE_NAMES,
        advanced=True,
    )
    tile_px: int = option(
        1024,
        "Side of the tiles that are computed at a time; it changes memory and speed, not the result.",
        minimum=16,
        advanced=True,
    )
    threads: int = option(0, "Processor threads; 0 uses all.", minimum=0, advanced=True)
    resume: bool = option(
        False,
        "Of files: go on with what a stopped run of the same command left, and leave out what is done.",
        advanced=True,
    )


@dataclass(frozen=True)
class TrainOptions(Options):
    """Options of `insilico.train`."""

    max_minutes: float = option(
        10.0, "Time for training; it ends earlier when nothing improves.", unit="min", above=0
    )
    start_from: str = option(
        "joint", "Name or folder of the model to start from; 'scratch' starts from nothing."
    )
    resume: bool = option(False, "Go on with a training of the same images and options that was stopped.")
    register: bool = option(
        False, "Move each stained image onto its input where it lies beside it; the shift is told either way."
    )
    refit: bool = option(
        False,
        "After measuring, train once more as long on all pixels; the figures are of the first training.",
    )
    pixel_size_um: float | None = option(
        None,
        "Pixel size that the model works at; the first image's when left out. Others are resampled to it.",
        unit="um",
        above=0,
    )
    modality: str | None = option(
        None, "What the inputs are, where the files do not say.", choices=MODALITIES
    )
    channel: str | None = option(
        None, "Name or number (from 0) of the transmitted-light channel, where the inputs have several."
    )
    background_percentile: float = option(
        1.0, "Percentile of a stained image that is 0 on the label's scale.", minimum=0, maximum=100
    )
    bright_percentile: float = option(
        99.9, "Percentile of a stained image that is 1 on the label's scale.", minimum=0, maximum=100
    )
    rotate: bool = option(
        True,
        "Turn and mirror crops at will; --no-rotate turns them by 20 degrees at most (shadows keep sides).",
    )
    data_credit: str = option(
        "", "Whose images these are, under which license, and what to cite; written into the card."
    )
    license: str = option("", "License of the model, as an SPDX identifier such as CC-BY-4.0.")
    seed: int = option(0, "Seed of all chance.", minimum=0, advanced=True)
    planes: int = option(
        0, "Z planes that the network takes; 0 takes as many as the images have.", minimum=0, advanced=True
    )
    width: int = option(32, "Features at the finest scale.", minimum=8, maximum=256, advanced=True)
    scales: int = option(4, "Number of scales of the network.", minimum=2, maximum=5, advanced=True)
    components: int = option(
        3, "Logistic components of each pixel's distribution.", minimum=1, maximum=8, advanced=True
    )
    dropout: float = option(
        0.2, "Share of feature maps dropped while training.", minimum=0, maximum=0.5, advanced=True
    )
    learning_rate: float = option(1e-3, "Highest learning rate.", above=0, maximum=0.1, advanced=True)
    crop_px: int = option(192, "Side of the training crops.", unit="px", minimum=32, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        from lincei.errors import UsageError

        if self.background_percentile >= self.bright_percentile:
            raise UsageError(
                f"--background-percentile ({self.background_percentile:g}) is not below --bright-percentile "
                f"({self.bright_percentile:g})"
            )
        if self.start_from != SCRATCH:
            for name in ("width", "scales", "components", "dropout"):
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise UsageError(
                        f"--{name} cannot be chosen for a network that starts from the model "
                        f"{self.start_from!r}, which has its own",
                        "",
                        f"Leave it out, or add --start-from {SCRATCH}.",
                    )
        if self.crop_px % 2**self.scales:
            raise UsageError(
                f"--crop-px is {self.crop_px}",
                "",
                f"With {self.scales} scales it must be a multiple of {2**self.scales}.",
            )


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Options of `insilico.evaluate`."""

    model: str = option("motor-neurons", "Name or folder of the model.")
    nuclear_labels: tuple[str, ...] = option(
        (), "Labels whose nuclei are counted; known by their names (DAPI, Hoechst, nuclei) when left out."
    )
    nucleus_diameter_um: float = option(
        10.0, "Diameter of a typical nucleus; 20 pixels where the pixel size is unknown.", unit="um", above=0
    )
    pixel_size_um: float | None = option(
        None, "Pixel size of the input; goes before what the file states.", unit="um", above=0
    )
    z_step_um: float | None = option(
        None, "Distance of the z planes; goes before what the file states.", unit="um", above=0
    )
    modality: str | None = option(
        None, "What the input is; goes before what the file states.", choices=MODALITIES
    )
    channel: str | None = option(
        None, "Name or number (from 0) of the transmitted-light channel, where the input has several."
    )
    engine: str | None = option(
        None,
        "What runs the network; the first that works when left out.",
        choices=ENGINE_NAMES,
        advanced=True,
    )
    tile_px: int = option(
        1024,
        "Side of the tiles that are computed at a time; it changes memory and speed, not the result.",
        minimum=16,
        advanced=True,
    )
    threads: int = option(0, "Processor threads; 0 uses all.", minimum=0, advanced=True)
