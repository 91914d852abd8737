"""The options of rating and of training. Front ends derive their controls from these fields."""

from __future__ import annotations

from dataclasses import dataclass

from lincei.image import MODALITIES
from lincei.options import ENGINE_NAMES, Options, option

# What `FocusOptions.model` says when the image decides.
AUTOMATIC = "auto"


@dataclass(frozen=True)
class FocusOptions(Options):
    """Options of `focusqc.focus`. None has to be set."""

    model: str = option(
        AUTOMATIC,
        "Name or folder of the model; 'auto' takes focus-he for color images of stained sections and "
        "focus-fluorescence for all others.",
    )
    channel: tuple[str, ...] = option(
        (), "Only these channels, by name or by number (from 0); all of them when left out."
    )
    modality: str | None = option(
        None, "What the images are; goes before what the files state.", choices=MODALITIES
    )
    pixel_size_um: float | None = option(
        None,
        "Pixel size of the images. When given, they are resampled to the model's; without it they are rated "
        "as they are.",
        unit="um",
        above=0,
    )
    na: float | None = option(
        None,
        "Numerical aperture of the objective; with it and a known pixel size, defocus is given in um.",
        above=0,
        maximum=2,
    )
    wavelength_um: float | None = option(
        None, "Wavelength of the light that is seen; 0.5 when left out.", unit="um", minimum=0.2, maximum=2
    )
    refractive_index: float | None = option(
        None,
        "Of the medium between objective and specimen: 1 air (when left out), 1.33 water, 1.515 oil.",
        minimum=1,
        maximum=2,
    )
    tile_count: tuple[int, ...] = option(
        (),
        "Patches along x and along y, spread evenly as the ImageJ plugin does; side by side without gaps "
        "when left out.",
        minimum=1,
    )
    probabilities: bool = option(False, "Also write each image's probabilities as a TIFF of 11 channels.")
    overlays: bool = option(True, "Write each image with the borders of its patches as a PNG.")
    engine: str | None = option(
        None,
        "What runs the network; the first that works when left out.",
        choices=ENGINE_NAMES,
        advanced=True,
    )
    threads: int = option(0, "Processor threads; 0 uses all.", minimum=0, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        from lincei.errors import UsageError

        if len(self.tile_count) not in (0, 2):
            raise UsageError(
                f"--tile-count is {','.join(map(str, self.tile_count))}",
                "",
                "Give two whole numbers: patches along x, patches along y, such as 4,3.",
            )
        if self.na is not None and self.na > (self.refractive_index or 1.0):
            raise UsageError(
                f"--na is {self.na:g}, above the refractive index of the medium "
                f"({self.refractive_index or 1.0:g})",
                "",
                "Give --refractive-index too: 1.33 for water, 1.515 for oil.",
            )


@dataclass(frozen=True)
class TrainFocusOptions(Options):
    """Options of `focusqc.train`."""

    max_minutes: float = option(
        12.0, "Time for training; it ends earlier when nothing improves.", unit="min", above=0
    )
    modality: str = option(
        "fluorescence",
        "What the images are: light that adds up (fluorescence), or stained sections in color (H&E).",
        choices=("fluorescence", "H&E"),
    )
    synthetic_share: float = option(
        0.2,
        "Share of drawn scenes (points, threads, disks) among the training images; they make a model for "
        "other specimens than those at hand.",
        minimum=0,
        maximum=1,
    )
    magnification: float = option(
        3.0, "A third of the images are enlarged while training, by up to this factor.", minimum=1, maximum=6
    )
    resume: bool = option(False, "Go on with a training of the same images and options that was stopped.")
    data_credit: str = option(
        "", "Whose images these are, under which license, and what to cite; written into the card."
    )
    license: str = option("", "License of the model, as an SPDX identifier such as CC-BY-4.0.")
    seed: int = option(0, "Seed of all chance.", minimum=0, advanced=True)
    width: int = option(16, "Features of the first layer.", minimum=4, maximum=64, advanced=True)
    learning_rate: float = option(5e-3, "Highest learning rate.", above=0, maximum=0.1, advanced=True)
