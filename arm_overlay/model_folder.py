"""The model folder that a training ends with: network, card in numbers and in words, test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.network import ENCODER_BLOCKS, OUTPUT_STRIDE, TOTAL_STRIDE
from arm_overlay.train_options import TrainTumorOptions
from arm_overlay.training import BUILDER, MODEL_PIXEL_SIZE_UM
from arm_overlay.tumor_model import INPUT_CHANNELS, OUTPUT_NAMES, PROBABILITY_MAP

if TYPE_CHECKING:
    from arm_overlay.network import TumorNetworkConfig
    from lincei.model import Model

PAPER = (
    (
        "Chen et al., An augmented reality microscope with real-time artificial intelligence integration for "
        "cancer diagnosis, Nature Medicine 25:1453 (2019)"
    ),
    "10.1038/s41591-019-0539-7",
)
ENCODER_PAPER = (
    "Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
    "10.48550/arXiv.1905.11946",
)
_TEST_PX = 256


def write_tumor_model(
    folder: Path,
    trainer: Any,
    config: TumorNetworkConfig,
    *,
    objectives: Mapping[str, Mapping[str, Any]],
    options: TrainTumorOptions,
    figures: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Model:
    """Export a trained network and write it as a model folder, in place of an older one of that name.

    Parameters
    ----------
    folder : Path
        The model's folder; its last part is the model's name.
    trainer : keras.Model
        From `arm_overlay.network.build_trainer`, with the final weights.
    config : TumorNetworkConfig
        The network's size and recalibration.
    objectives : mapping
        The card's table: from an objective to ``network``, ``pixel_size_um``, ``threshold``.
    options : TrainTumorOptions
        What it was trained with.
    figures, training : mapping
        What was measured, and how it was trained; for the card.

    Returns
    -------
    Model
        Unfinished when Keras does not run on TensorFlow.
    """
    from arm_overlay.network import build_network
    from lincei.model_card import Card, Tensor
    from lincei.model_exchange import write_trained_model

    network = build_network(config.to_json())
    network.set_weights(trainer.get_weights())
    output = OUTPUT_NAMES[PROBABILITY_MAP]
    at_model_scale = [
        entry["threshold"] for entry in objectives.values() if entry["pixel_size_um"] == MODEL_PIXEL_SIZE_UM
    ]
    card = Card(
        name=folder.name,
        task="tumor",
        description="Probability of tumor, for each place of a section stained with H&E. Research use only.",
        modality="H&E",
        input=Tensor(
            "field", INPUT_CHANNELS, "Display values, 0 to 255, white-balanced: empty glass is near 255."
        ),
        outputs=(
            Tensor(
                output, ("tumor",), "Probability of tumor, 0 to 1, calibrated.", downsampling=OUTPUT_STRIDE
            ),
        ),
        total_stride=TOTAL_STRIDE,
        halo_px=config.halo_px,
        min_size_px=_TEST_PX,
        pixel_size_um=MODEL_PIXEL_SIZE_UM,
        distribution={"kind": "probability"},
        recalibration={
            "method": "sigmoid(sharpening * logit + offset), highest likelihood on held-out images",
            "sharpening": config.sharpening,
            "offset": config.offset,
        },
        settings={
            "output_kind": PROBABILITY_MAP,
            "threshold": at_model_scale[0] if at_model_scale else 0.5,
            "objectives": {name: dict(entry) for name, entry in objectives.items()},
        },
        training=training,
        figures=figures,
        license=options.license,
        citations=(PAPER, ENCODER_PAPER),
    )
    fields = simulated_section()
    probability = np.asarray(network.predict_on_batch(np.moveaxis(fields, 1, -1)))
    return write_trained_model(
        folder,
        card,
        network,
        BUILDER,
        config.to_json(),
        test_input=fields,
        test_outputs={output: np.moveaxis(probability, -1, 1)},
        readme=card_in_words(folder.name, config, objectives, options, figures, training),
        figures=figures,
    )


def simulated_section(seed: int = 20190812) -> NDArray[np.float32]:
    """Return a seeded drawing of a section, for a model's test.

    Returns
    -------
    ndarray
        Shape (1, 3, 256, 256), float32 display values.
    """
    colors, _ = drawn_section(np.random.default_rng(seed), _TEST_PX)
    return np.moveaxis(colors, -1, 0)[None].astype(np.float32)


def drawn_section(random: np.random.Generator, side_px: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a section: nests of large nuclei, which stand for tumor, among small ones.

    Parameters
    ----------
    random : numpy.random.Generator
        Source of chance.
    side_px : int
        Height and width, in pixels of 1 um.

    Returns
    -------
    tuple of ndarray
        Colors, shape (Y, X, 3), uint8 display values; and where the nests are, shape (Y, X), bool.
    """
    import cv2

    rough = cv2.resize(random.normal(0, 1, (6, 6)).astype(np.float32), (side_px, side_px))
    nest = rough > np.median(rough)
    eosin = 0.25 + 0.1 * cv2.GaussianBlur(random.normal(0, 1, rough.shape), (0, 0), 3)
    nuclei = np.zeros(rough.shape, np.float32)
    for _ in range(round(0.025 * side_px**2)):
        x, y = (int(value) for value in random.integers(0, side_px, 2))
        radius = random.uniform(4, 6) if nest[y, x] else random.uniform(1.5, 3)
        # Positions and axes in 1/16 pixel.
        axes = (round(16 * radius), round(16 * radius * random.uniform(0.6, 1)))
        angle, dark = random.uniform(0, 180), random.uniform(0.4, 1.0)
        cv2.ellipse(nuclei, (16 * x, 16 * y), axes, angle, 0, 360, dark, -1, cv2.LINE_8, 4)
    density = eosin[..., None] * np.array([0.1, 1.0, 0.3])
    density += 0.8 * nuclei[..., None] * np.array([0.9, 1.0, 0.4])
    colors = np.clip(np.rint(250 * np.exp(-density)), 0, 255).astype(np.uint8)
    return colors, np.asarray(nest, np.bool_)


def card_in_words(
    name: str,
    config: TumorNetworkConfig,
    objectives: Mapping[str, Mapping[str, Any]],
    options: TrainTumorOptions,
    figures: Mapping[str, Any],
    training: Mapping[str, Any],
) -> str:
    """Return the README of a model: what it does, how good it is, how it came about."""
    lines = [
        f"# {name}",
        "",
        "Probability of tumor (or of what else was outlined), for cells of 8x8 pixels of a section stained "
        "with hematoxylin and eosin. **Research use only: not for diagnosis.**",
        "",
        "Colors go in as display values (0 to 255), white-balanced so that empty glass is near 255. The same "
        "network serves all objectives; the image is resampled to:",
        "",
        "| objective | pixel size | threshold |",
        "|---|---|---|",
        *(
            f"| {objective} | {entry['pixel_size_um']:g} um | {entry['threshold']:g} |"
            for objective, entry in objectives.items()
        ),
        "",
        "## Measured on images it was not trained on",
        "",
        *_pixel_table(figures["held_out"]),
        *_patch_lines(figures["held_out"]),
        "",
        "AUC, Dice (at a threshold chosen on other images) and ECE (expected calibration error) are over "
        f"pixels. Split: {figures['split']}.",
        "",
        "These are few slides: with others, from other laboratories, expect less. Field scores at each "
        "objective, through a simulated camera and with intervals by slide, are measured by "
        "benchmarks/tumor_fields.py. The published augmented-reality microscope reached 0.98 (lymph node) "
        "over fields of view of many slides (Nature Medicine 25:1453); that is no figure of this model.",
        "",
        f"Highest probability on bare glass: {figures['glass']['highest_probability']:.3f}.",
        "",
        f"It knows only tissues like those it learned from{_sets_in_words(training['sets'])}. For another "
        "organ train a model with `lincei train-tumor` on outlined images of it. That goes for prostate too: "
        "lincei ships no model for it, since no open prostate images with outlines were at hand.",
    ]
    if figures["other_images"]:
        lines += ["", "Measured on other images:", "", *_pixel_table(figures["other_images"])]
        lines += _patch_lines(figures["other_images"])
    if figures["before"]:
        lines += [
            "",
            f"The same held-out images with what the training started from ({training['start_from']}):",
            "",
            *_pixel_table(figures["before"]),
            *_patch_lines(figures["before"]),
        ]
    groups = ", ".join(training["groups"][:20]) + (", ..." if len(training["groups"]) > 20 else "")
    lines += [
        "",
        "## Training",
        "",
        f"{training['fields']} images of {len(training['groups'])} groups (slides, runs or images: "
        f"{groups}); {training['steps']} steps of {options.batch} crops; {figures['minutes']:g} minutes in "
        f"all on {training['backend']}. Start: {training['start_from']}.",
        *(["", "```", training["command"], "```"] if training.get("command") else []),
        *(["", f"Images: {options.data_credit}"] if options.data_credit else []),
        *(["", f"License of the model: {options.license}."] if options.license else []),
        "",
        f"Network: the first {len(ENCODER_BLOCKS)} blocks of EfficientNet-Lite0, "
        f"{100 * config.expansion_share:g} % of their expanded features kept, and a decoder of "
        f"{config.width} features at a stride of 8; an input pixel reaches at most {config.halo_px} pixels "
        f"far. Probability = sigmoid({config.sharpening:g} * logit + {config.offset:g}) after recalibration.",
    ]
    return "\n".join(lines) + "\n"


def _sets_in_words(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _pixel_table(figures: Mapping[str, Any]) -> list[str]:
    """Return a table of the fields' figures; empty where there are only patches."""
    rows = [
        f"| {name} | {entry['fields']} | {objective} | {row['pixel_size_um']:g} | {_shown(row['auc'])} | "
        f"{_shown(row['dice'])} | {_shown(row['calibration_error'])} |"
        for name, entry in figures.items()
        for objective, row in _scales(entry.get("objectives", {}))
    ]
    header = ("measured on", "fields", "objectives", "um per pixel", "AUC", "Dice", "ECE")
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *rows] if rows else []


def _scales(objectives: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of different pixel sizes; objectives that share one are named together."""
    sizes = dict.fromkeys(row["pixel_size_um"] for row in objectives.values())
    for size in sizes:
        names = [name for name, row in objectives.items() if row["pixel_size_um"] == size]
        yield ", ".join(names), objectives[names[0]]


def _patch_lines(figures: Mapping[str, Any]) -> list[str]:
    return [
        line
        for name, entry in figures.items()
        if "patch_auc" in entry
        for line in (
            "",
            f"{name}: AUC {_shown(entry['patch_auc'])} over {entry['fields']} patches, "
            f"{entry['tumor_patches']} of them tumor, of {len(entry['groups'])} slide(s).",
        )
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
