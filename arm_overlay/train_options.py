"""The options of training a tumor network. Front ends derive their controls from these fields."""

from __future__ import annotations

from dataclasses import dataclass

from lincei.options import Options, option

# What `TrainTumorOptions.start_from` says besides the name of a model.
IMAGENET = "imagenet"
NOTHING = "nothing"


@dataclass(frozen=True)
class TrainTumorOptions(Options):
    """Options of `arm_overlay.train`."""

    start_from: str = option(
        "tumor-breast",
        "Name or folder of the model to go on from; 'imagenet' starts from weights learned on photographs, "
        "'nothing' from chance.",
    )
    max_minutes: float = option(12.0, "Time for training; with folds, for each network.", unit="min", above=0)
    pixel_size_um: float | None = option(
        None, "Pixel size of the images; read from them when left out.", unit="um", above=0
    )
    classes: tuple[str, ...] = option(
        (),
        "The classes of QuPath outlines that are tumor; Tumor, and outlines without a class, when left out.",
    )
    edge_um: float = option(
        0.0,
        "How far drawn borders may be off to either side; nothing is learned from there.",
        unit="um",
        minimum=0,
        maximum=200,
    )
    folds: int = option(
        0,
        "Train so many more networks, each without a part of the slides, and measure and calibrate on the "
        "part that each has not seen; the model itself then learns from everything. 0 holds a part back.",
        minimum=0,
        maximum=20,
    )
    folds_out: str = option(
        "", "Folder in which the networks of the folds are kept as models.", advanced=True
    )
    resume: bool = option(False, "Go on with a training of the same images and options that was stopped.")
    data_credit: str = option(
        "", "Whose images these are, under which license, and what to cite; written into the card."
    )
    license: str = option("", "License of the model, as an SPDX identifier such as CC-BY-4.0.")
    max_steps: int = option(
        0,
        "Steps after which a network is done, however long they take; 0 leaves it to the time.",
        minimum=0,
        advanced=True,
    )
    seed: int = option(0, "Seed of all chance.", minimum=0, advanced=True)
    color_variation: float = option(
        1.0,
        "How much stain and color are varied while training: 1 as much as among laboratories; less where all "
        "images are stained and photographed alike.",
        minimum=0,
        maximum=2,
        advanced=True,
    )
    crop_px: int = option(192, "Side of the crops.", minimum=64, maximum=1024, advanced=True)
    batch: int = option(14, "Crops in a step.", minimum=1, maximum=128, advanced=True)
    learning_rate: float = option(1e-3, "Highest learning rate.", above=0, maximum=0.1, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        from lincei.errors import UsageError

        if self.folds == 1:
            raise UsageError("--folds is 1", "", "Give 0, or 2 and more.")
        if self.crop_px % 16:
            raise UsageError(f"--crop-px is {self.crop_px}", "", "Give a multiple of 16.")
