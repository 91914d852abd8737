"""Tiny tumor models of each kind of output, which follow a known rule in place of a trained network.

Dark places are tumor: a cell of 8x8 pixels whose green is on average below `DARK` is likelier than not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.tumor_model import (
    CLASS_PROBABILITIES,
    INPUT_CHANNELS,
    NUMBER,
    OUTPUT_NAMES,
    POINTS,
    PROBABILITY_MAP,
)
from lincei.model import Card, Model, Tensor, write_model

STRIDE = 16
CELL_PX = 8
# The green value at which a cell is tumor with probability 0.5, and by how much the logit falls with each.
DARK = 128.0
STEEPNESS = 0.1
CLASSES = ("benign", "tumor")
KINDS = (PROBABILITY_MAP, POINTS, CLASS_PROBABILITIES, NUMBER)


def rule(colors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of tumor in each cell: colors (N, 3, Y, X), 0 to 255, to (N, 1, Y/8, X/8)."""
    green = np.asarray(colors, np.float64)[:, 1]
    n, height, width = green.shape
    cells = green.reshape(n, height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX).mean(axis=(2, 4))
    probability: NDArray[np.float64] = 1 / (1 + np.exp(STEEPNESS * (cells - DARK)))
    return probability[:, None]


def answer(kind: str, colors: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a model of a kind answers, written in NumPy.

    A map of probabilities and one of points are the rule; the classes are (1 - p, p) and the number 100 p,
    with the mean p of the cells.
    """
    cells = rule(colors)
    if kind in (PROBABILITY_MAP, POINTS):
        return cells
    mean = cells.mean(axis=(2, 3))
    return np.concatenate([1 - mean, mean], axis=1) if kind == CLASS_PROBABILITIES else 100 * mean


def network_onnx(kind: str) -> bytes:
    """Return `answer` as a network."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((1, len(INPUT_CHANNELS), CELL_PX, CELL_PX), np.float32)
    weights[:, 1] = -STEEPNESS / CELL_PX**2
    constants = {
        "weights": weights,
        "bias": np.array([STEEPNESS * DARK], np.float32),
        "all": np.array([2, 3]),
        "one": np.array(1, np.float32),
        "hundred": np.array(100, np.float32),
    }
    name = OUTPUT_NAMES[kind]
    cells = name if kind in (PROBABILITY_MAP, POINTS) else "cells"
    nodes = [
        helper.make_node("Conv", ["field", "weights", "bias"], ["logits"], strides=[CELL_PX, CELL_PX]),
        helper.make_node("Sigmoid", ["logits"], [cells]),
    ]
    if kind in (CLASS_PROBABILITIES, NUMBER):
        nodes.append(helper.make_node("ReduceMean", [cells, "all"], ["mean"], keepdims=0))
    if kind == CLASS_PROBABILITIES:
        nodes.append(helper.make_node("Sub", ["one", "mean"], ["benign"]))
        nodes.append(helper.make_node("Concat", ["benign", "mean"], [name], axis=1))
    if kind == NUMBER:
        nodes.append(helper.make_node("Mul", ["mean", "hundred"], [name]))
    used = {given for node in nodes for given in node.input}
    shape = {
        PROBABILITY_MAP: ["n", 1, "rows", "columns"],
        POINTS: ["n", 1, "rows", "columns"],
        CLASS_PROBABILITIES: ["n", len(CLASSES)],
        NUMBER: ["n", 1],
    }[kind]
    graph = helper.make_graph(
        nodes,
        "rule",
        [helper.make_tensor_value_info("field", TensorProto.FLOAT, ["n", len(INPUT_CHANNELS), "y", "x"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, title) for title, value in constants.items() if title in used],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(network)
    content: bytes = network.SerializeToString()
    return content


def write_tiny_model(
    folder: Path,
    kind: str = PROBABILITY_MAP,
    *,
    pixel_size_um: float = 1.0,
    threshold: float = 0.5,
    objectives: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Model:
    """Write the rule as a model that is named after its folder.

    Parameters
    ----------
    folder : Path
        The model's folder.
    kind : str
        One of `KINDS`.
    pixel_size_um, threshold : float
        Of the card.
    objectives : mapping, optional
        The card's table of objectives; left out of the card by default, so that any objective will do.
    **settings
        More of the card's settings, or others in place of these.
    """
    field = field_with_disks(3 * STRIDE, 3 * STRIDE)
    named = {"points": {"point_name": "nucleus"}, "number": {"number_name": "dark area", "number_unit": "%"}}
    table = {} if objectives is None else {"objectives": {name: dict(e) for name, e in objectives.items()}}
    card = Card(
        name=folder.name,
        task="tumor",
        description="Takes dark places for tumor; for tests.",
        modality="H&E",
        input=Tensor("field", INPUT_CHANNELS),
        outputs=(_output(kind),),
        total_stride=STRIDE,
        halo_px=STRIDE,
        pixel_size_um=pixel_size_um,
        settings={
            "output_kind": kind,
            "threshold": threshold,
            **table,
            **named.get(kind, {}),
            **settings,
        },
    )
    expected = {OUTPUT_NAMES[kind]: answer(kind, field).astype(np.float32)}
    return write_model(folder, card, onnx=network_onnx(kind), test_input=field, test_outputs=expected)


def write_all_kinds(folder: Path) -> dict[str, Model]:
    """Write one model of each kind into a folder; the models by their kind."""
    return {kind: write_tiny_model(folder / f"tiny-{kind.replace(' ', '-')}", kind) for kind in KINDS}


def field_with_disks(
    height: int, width: int, disks: Sequence[tuple[float, float, float]] = ()
) -> NDArray[Any]:
    """Return a field as a model takes it, (1, 3, Y, X) float32: pale, with dark disks (x, y, radius)."""
    y, x = np.mgrid[:height, :width]
    field = np.full((1, 3, height, width), 220, np.float32)
    for center_x, center_y, radius in disks or ((width / 2, height / 2, width / 4),):
        field[0, :, np.hypot(y - center_y, x - center_x) <= radius] = (90, 50, 110)
    return field


def _output(kind: str) -> Tensor:
    if kind == CLASS_PROBABILITIES:
        return Tensor(OUTPUT_NAMES[kind], CLASSES, downsampling=None)
    if kind == NUMBER:
        return Tensor(OUTPUT_NAMES[kind], ("number",), downsampling=None)
    return Tensor(OUTPUT_NAMES[kind], (OUTPUT_NAMES[kind],), downsampling=CELL_PX)
