"""The model folder that a training ends with: network, card in numbers and in words, test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from insilico.artifacts import artifacts_in_words
from insilico.distribution import DISCRETE_STEP, KIND
from insilico.label_curve import SOFTNESS
from insilico.options import TrainOptions

if TYPE_CHECKING:
    from insilico.network import NetworkConfig
    from lincei.model import Model

# Side of the test input. Smaller than twice the halo, or the test would outweigh the network.
TEST_SIZE_PX = 64

PAPER = (
    "Christiansen et al., In Silico Labeling: Predicting Fluorescent Labels in Unlabeled Images, "
    "Cell 173:792 (2018)",
    "10.1016/j.cell.2018.03.040",
)


def write_labeling_model(
    folder: Path,
    trunk: Any,
    config: NetworkConfig,
    *,
    labels: Mapping[str, str],
    options: TrainOptions,
    figures: Mapping[str, Any],
    modalities: Sequence[str],
    pixel_size_um: float | None,
    z_step_um: float | None,
    training: Mapping[str, Any],
    out_of_distribution: Mapping[str, Any] | None = None,
    curves: Mapping[str, str] | None = None,
    cover: bytes | None = None,
) -> Model:
    """Export a trained trunk and write it as a model folder, in place of an older one of that name.

    Parameters
    ----------
    folder : Path
        The model's folder; its last part is the model's name.
    trunk : keras.Model
        What was trained; `insilico.network.build_trunk`'s layers with the final weights.
    config : NetworkConfig
        The network's size and recalibrated spread.
    labels : mapping of str to str
        Label names and their display colors.
    options : TrainOptions
        What it was trained with.
    figures : mapping
        What was measured.
    modalities : sequence of str
        What the inputs are.
    pixel_size_um, z_step_um : float or None
        What the network works at.
    training : mapping
        How it was trained, for the card.
    out_of_distribution : mapping, optional
        What the training images look like, from `insilico.out_of_distribution.fit_reference`.
    curves : mapping of str to str, optional
        The curve of a label's scale, where it is not linear.
    cover : bytes, optional
        PNG file of a part that was not trained on.

    Returns
    -------
    Model
        Unfinished when Keras does not run on TensorFlow, which alone exports networks of any size.
    """
    from insilico.network import build_trunk, serving_network
    from lincei.model_card import Card, Label, Tensor
    from lincei.model_exchange import write_trained_model

    plain = build_trunk(config)
    plain.set_weights(trunk.get_weights())
    network = serving_network(plain, config)
    per_label = [
        f"{kind} {k + 1}" for kind in ("weight", "location", "scale") for k in range(config.components)
    ]
    card = Card(
        name=folder.name,
        task="label",
        description=f"Predicts {_listed(labels)} from {_listed(modalities, 'or')} images. Research use only.",
        modality=modalities[0],
        input=Tensor("stack", tuple(f"z{i}" for i in range(config.planes)), "Scaled z planes of one field."),
        outputs=(
            Tensor("mean", tuple(labels), "Expected fluorescence on the label's normalized scale."),
            Tensor("sd", tuple(f"{name} sd" for name in labels), "Standard deviation of the distribution."),
            Tensor(
                "parameters",
                tuple(f"{name} {part}" for name in labels for part in per_label),
                "Weights, locations and scales of the logistic components.",
            ),
        ),
        total_stride=config.total_stride,
        halo_px=config.halo_px,
        min_size_px=TEST_SIZE_PX,
        labels=tuple(
            Label(
                name,
                color,
                options.background_percentile,
                options.bright_percentile,
                (curves or {}).get(name, "linear"),
            )
            for name, color in labels.items()
        ),
        z_planes=config.planes,
        z_step_um=z_step_um,
        z_output="projected",
        pixel_size_um=pixel_size_um,
        distribution={
            "kind": KIND,
            "components": config.components,
            "discrete_step": DISCRETE_STEP,
            "reference": "Salimans et al., PixelCNN++, ICLR 2017, eq. 2",
        },
        recalibration={
            "method": "widening about the mean by one factor per label, lowest CRPS on tune",
            "spread": dict(zip(labels, (round(s, 4) for s in config.spread), strict=True)),
        },
        out_of_distribution=out_of_distribution or {},
        settings={"other_modalities": list(modalities[1:])} if len(modalities) > 1 else {},
        training=training,
        figures=figures,
        license=options.license,
        citations=(PAPER,),
    )
    stack = simulated_stack(config.planes, card.smallest_size_px)
    outputs = network.predict_on_batch(np.moveaxis(stack, 1, -1))
    return write_trained_model(
        folder,
        card,
        network,
        "insilico.network:build_network",
        config.to_json(),
        test_input=stack,
        test_outputs={name: np.moveaxis(np.asarray(value), -1, 1) for name, value in outputs.items()},
        readme=card_in_words(card.name, labels, modalities, config, options, figures, training, curves or {}),
        figures=figures,
        cover=cover,
    )


def simulated_stack(planes: int, size_px: int, seed: int = 20180412) -> NDArray[np.float32]:
    """Return a seeded, scaled stack of disks going through focus, for a model's test.

    Parameters
    ----------
    planes, size_px : int
        Z planes, and height and width.
    seed : int
        Seed.

    Returns
    -------
    ndarray
        Shape (1, planes, size_px, size_px), float32.
    """
    from scipy import ndimage

    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size_px, :size_px]
    disks = np.zeros((size_px, size_px))
    for _ in range(max(3, size_px**2 // 2500)):
        row, column, radius = random.uniform(0, size_px), random.uniform(0, size_px), random.uniform(4, 12)
        disks += random.uniform(0.5, 1) * (np.hypot(y - row, x - column) < radius)
    stack = []
    for position in np.linspace(-1, 1, planes) if planes > 1 else [0.5]:
        blurred = ndimage.gaussian_filter(disks, 1 + 2 * abs(position))
        stack.append(blurred - ndimage.gaussian_filter(disks, 6) + position * ndimage.laplace(blurred))
    result = np.array(stack)
    result += random.normal(scale=0.05, size=result.shape)
    return (result / result.std()).astype(np.float32)[None]


def card_in_words(
    name: str,
    labels: Mapping[str, str],
    modalities: Sequence[str],
    config: NetworkConfig,
    options: TrainOptions,
    figures: Mapping[str, Any],
    training: Mapping[str, Any],
    curves: Mapping[str, str],
) -> str:
    """Return the README of a model: what it does, how good it is, how it came about."""
    rows = [
        "| label | Pearson r | NRMSE | SSIM | CRPS | inside the 90 % interval |",
        "|---|---|---|---|---|---|",
        *(
            f"| {label} | {f['pearson_r']:.3f} | {f['nrmse']:.3f} | {f['ssim']:.3f} | {f['crps']:.4f} | "
            f"{100 * f['coverage_90']:.1f} % |"
            for label, f in figures["test"].items()
        ),
    ]
    planes = f"{config.planes} z planes" if config.planes > 1 else "one plane"
    lines = [
        f"# {name}",
        "",
        f"Predicts {_listed(labels)} from {_listed(modalities, 'or')} images ({planes}). Research use only.",
        "",
        f"A value of 0 is percentile {options.background_percentile:g} of a stained image, 1 is percentile "
        f"{options.bright_percentile:g}. A stack is projected to one plane. Other numbers of planes are "
        "interpolated to these; with few planes the prediction is worse.",
        *(
            f"The scale of {label} is compressed between them (v = asinh(u / {SOFTNESS:g}) / asinh(1 / "
            f"{SOFTNESS:g}) of the linear scale u): its level differs much from cell to cell, which "
            "transmitted light cannot show."
            for label, curve in curves.items()
            if curve == "asinh"
        ),
        "",
        "## Measured on data it was not trained on",
        "",
        *rows,
        "",
        "Truth and prediction are on the label's normalized scale; nothing is fitted. "
        f"Split: {figures['split']}.",
        *(["", figures["refit"]] if "refit" in figures else []),
        *_planes_in_words(figures.get("pearson_r_by_planes", {}), list(labels)),
        *artifacts_in_words(figures.get("artifacts", {})),
        "",
        "## Training",
        "",
        f"{training['fields']} field(s), {figures['epochs']} epochs, {training['steps']} steps in "
        f"{figures['minutes']:g} minutes on {training['backend']} ({training['precision']})"
        + (
            f", from the model `{training['start_from']}`."
            if training.get("start_from")
            else ", from scratch."
        ),
        *(["", *(f"- {text}" for text in training["registration"])] if training.get("registration") else []),
        *(["", "```", training["command"], "```"] if training.get("command") else []),
        *(["", f"Images: {options.data_credit}"] if options.data_credit else []),
        *(["", f"License of the model: {options.license}."] if options.license else []),
        "",
        f"Network: {config.scales} scales, {config.width} features at the finest, "
        f"{config.components} logistic components; an input pixel reaches {config.reach_px} pixels far.",
    ]
    return "\n".join(lines) + "\n"


def _planes_in_words(figures: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> list[str]:
    """Return the table of what fewer planes cost; nothing for a network of one plane."""
    if len(figures) < 2:
        return []
    rows = [
        [count, *(f"{measured[name]:.3f}" if name in measured else "" for name in labels)]
        for count, measured in figures.items()
    ]
    return [
        "",
        "Pearson r on the same part when it is seen through fewer planes (a single one: the middle plane):",
        "",
        f"| planes | {' | '.join(labels)} |",
        "|---" * (len(labels) + 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _listed(names: Iterable[str], word: str = "and") -> str:
    words = list(names)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {word} {words[-1]}"
