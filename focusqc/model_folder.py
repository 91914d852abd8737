"""The model folder that a training ends with: network, card in numbers and in words, test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focusqc.levels import LEVELS, REFERENCE_PIXEL_SIZE_UM
from focusqc.options import TrainFocusOptions
from focusqc.patches import PATCH_PX

if TYPE_CHECKING:
    from focusqc.network import FocusNetworkConfig
    from lincei.model import Model

PAPER = (
    (
        "Yang et al., Assessing microscope image focus quality with deep learning, "
        "BMC Bioinformatics 19:77 (2018)"
    ),
    "10.1186/s12859-018-2087-4",
)
_TEST_PATCHES = 4


def write_focus_model(
    folder: Path,
    trainer: Any,
    config: FocusNetworkConfig,
    *,
    options: TrainFocusOptions,
    figures: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Model:
    """Export a trained network and write it as a model folder, in place of an older one of that name.

    Parameters
    ----------
    folder : Path
        The model's folder; its last part is the model's name.
    trainer : keras.Model
        From `focusqc.network.build_trainer`, with the final weights.
    config : FocusNetworkConfig
        The network's size and recalibration.
    options : TrainFocusOptions
        What it was trained with.
    figures, training : mapping
        What was measured, and how it was trained; for the card.

    Returns
    -------
    Model
        Unfinished when Keras does not run on TensorFlow.
    """
    from focusqc.network import build_network
    from lincei.model_card import Card, Tensor
    from lincei.model_exchange import write_trained_model

    network = build_network(config.to_json())
    network.set_weights(trainer.get_weights())
    seen = "stained sections in bright field" if options.modality == "H&E" else "fluorescence images"
    card = Card(
        name=folder.name,
        task="focus",
        description=f"Rates the focus of 84x84-pixel patches of {seen} on 11 levels. Research use only.",
        modality=options.modality,
        input=Tensor("patches", ("intensity",), "Patches of 84x84 pixels in gray values of any camera."),
        outputs=(
            Tensor(
                "probabilities",
                tuple(f"level {k}" for k in range(LEVELS)),
                "Probability of each level of defocus: 0 sharp, 10 most blurred.",
                downsampling=None,
            ),
        ),
        total_stride=PATCH_PX,
        halo_px=0,
        min_size_px=PATCH_PX,
        pixel_size_um=REFERENCE_PIXEL_SIZE_UM,
        distribution={"kind": "levels", "levels": LEVELS, "step_um": 2.0, "reference_na": 0.5},
        recalibration={
            "method": "temperature scaling: one factor of the logits, highest likelihood on tune",
            "factor": config.sharpening,
        },
        training=training,
        figures=figures,
        license=options.license,
        citations=(PAPER,),
    )
    patches = simulated_patches()
    probabilities = np.asarray(network.predict_on_batch(np.moveaxis(patches, 1, -1)))
    return write_trained_model(
        folder,
        card,
        network,
        "focusqc.network:build_network",
        config.to_json(),
        test_input=patches,
        test_outputs={"probabilities": probabilities},
        readme=card_in_words(folder.name, config, options, figures, training),
        figures=figures,
    )


def simulated_patches(seed: int = 20180315) -> NDArray[np.float32]:
    """Return seeded patches of drawn scenes at four levels of defocus, for a model's test.

    Returns
    -------
    ndarray
        Shape (4, 1, 84, 84), float32 gray values.
    """
    from focusqc.defocusing import FLUORESCENCE, defocused, photographed
    from focusqc.scenes import drawn_scene

    random = np.random.default_rng(seed)
    patches = []
    for level in np.linspace(0, LEVELS - 1, _TEST_PATCHES):
        scene = drawn_scene(random, 2 * PATCH_PX)[:PATCH_PX, :PATCH_PX]
        patches.append(photographed(defocused(scene, float(level)), FLUORESCENCE, random, vary=False))
    return np.stack(patches)[:, None].astype(np.float32)


def card_in_words(
    name: str,
    config: FocusNetworkConfig,
    options: TrainFocusOptions,
    figures: Mapping[str, Any],
    training: Mapping[str, Any],
) -> str:
    """Return the README of a model: what it does, how good it is, how it came about."""
    measured = {
        "held-out images": figures["test"],
        **{f"of these: {set_name}": f for set_name, f in figures["test_sets"].items()},
        **{f"never trained on: {other}": f for other, f in figures["other_images"].items()},
    }
    header = ("measured on", "fields", "exact", "within one", "rank correlation", "patches exact", "ECE")
    rows = [
        f"| {header[0]} | " + " | ".join(header[1:]) + " |",
        "|---" * len(header) + "|",
        *(
            f"| {what} | {f['fields']} | {100 * f['exact']:.1f} % | {100 * f['within_one']:.1f} % | "
            f"{f['rank_correlation']:.3f} | {100 * f['patch_exact']:.1f} % | {f['calibration_error']:.3f} |"
            for what, f in measured.items()
        ),
    ]
    blank = figures["blank"]
    seen = "stained sections in bright field" if options.modality == "H&E" else "fluorescence images"
    lines = [
        f"# {name}",
        "",
        f"Rates the focus of patches of 84x84 pixels of {seen} on 11 levels, 0 sharp to 10 most blurred, "
        "with a probability for each level. Research use only.",
        "",
        "Level k is the blur of the point spread function at z = 2k um for NA 0.5 in air, wavelength 0.5 um "
        "and pixels of 0.65 um: about 3k pixels across. Gain and offset of the camera do not matter.",
        "",
        "## Measured on images it was not trained on",
        "",
        *rows,
        "",
        "Sharp fields (large ones in pieces, at most 24 of a set) were blurred to each of the 11 levels and "
        "photographed by simulated cameras of many kinds; exact and within one are shares of whole fields or "
        "pieces (their patches pooled), ECE is the expected calibration error over patches. No real defocus "
        "is in this table; for that see benchmarks/results/focus_measures.md.",
        "",
        f"Split: {figures['split']}.",
        "",
        f"Certainty of patches with nothing in them: {blank['noise_certainty_mean']:.3f} on average for a "
        f"camera's noise (95th percentile {blank['noise_certainty_95th_percentile']:.3f}), "
        f"{blank['black_certainty']:.3f} all black, {blank['saturated_certainty']:.3f} all saturated.",
        "",
        "## Training",
        "",
        f"{training['fields']} sharp images, {training['steps']} steps in {figures['minutes']:g} minutes on "
        f"{training['backend']} ({training['precision']}).",
        *(["", "```", training["command"], "```"] if training.get("command") else []),
        *(["", f"Images: {options.data_credit}"] if options.data_credit else []),
        *(["", f"License of the model: {options.license}."] if options.license else []),
        "",
        f"Network: five convolutions, {config.width} features in the first; logits times "
        f"{config.sharpening:g} after recalibration.",
    ]
    return "\n".join(lines) + "\n"
