"""Models that rate focus by a known rule, in place of a trained network, and images to try them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image
from lincei.model import Card, Model, Tensor, write_model

PATCH_PX = 84
# By how many levels the rating rises when neighboring pixels differ by half as much.
LEVELS_PER_HALVING = 1.5


def rule(patches: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the network answers, written in NumPy; patches (N, 1, 84, 84) to probabilities (N, 11).

    The mean squared difference of neighbors along x, as a share of the variance, is 2 for noise and falls
    with blur: the level is -1.5 times the binary logarithm of half of it. A constant patch is rated evenly.
    """
    x = patches.astype(np.float64) - patches.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    x = x / np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True) + 1e-6)
    there = (x**2).mean(axis=(1, 2, 3))
    difference = ((x[..., 1:] - x[..., :-1]) ** 2).mean(axis=(1, 2, 3))
    level = np.clip(-LEVELS_PER_HALVING * np.log2(difference / 2 + 1e-9), 0, 10)
    logits = -there[:, None] * (np.arange(11) - level[:, None]) ** 2
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def rule_onnx() -> bytes:
    """Return `rule` as a network."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "all": np.array([1, 2, 3]),
        "small": np.array(1e-6, np.float32),
        "first": np.array([0]),
        "second": np.array([1]),
        "last": np.array([PATCH_PX]),
        "but_last": np.array([PATCH_PX - 1]),
        "along_x": np.array([3]),
        "half": np.array(0.5, np.float32),
        "least": np.array(1e-9, np.float32),
        "slope": np.array(-LEVELS_PER_HALVING / np.log(2), np.float32),
        "zero": np.array(0, np.float32),
        "ten": np.array(10, np.float32),
        "levels": np.arange(11, dtype=np.float32)[None],
        "column": np.array([-1, 1]),
    }

    def mean(name: str, result: str) -> Any:
        return helper.make_node("ReduceMean", [name, "all"], [result], keepdims=1)

    nodes = [
        mean("patches", "mean"),
        helper.make_node("Sub", ["patches", "mean"], ["centered"]),
        helper.make_node("Mul", ["centered", "centered"], ["squares"]),
        mean("squares", "variance"),
        helper.make_node("Add", ["variance", "small"], ["more"]),
        helper.make_node("Sqrt", ["more"], ["sd"]),
        helper.make_node("Div", ["centered", "sd"], ["x"]),
        helper.make_node("Mul", ["x", "x"], ["x2"]),
        mean("x2", "there"),
        helper.make_node("Slice", ["x", "second", "last", "along_x"], ["right"]),
        helper.make_node("Slice", ["x", "first", "but_last", "along_x"], ["left"]),
        helper.make_node("Sub", ["right", "left"], ["steps"]),
        helper.make_node("Mul", ["steps", "steps"], ["steps2"]),
        mean("steps2", "difference"),
        helper.make_node("Mul", ["difference", "half"], ["share"]),
        helper.make_node("Add", ["share", "least"], ["above_zero"]),
        helper.make_node("Log", ["above_zero"], ["log"]),
        helper.make_node("Mul", ["log", "slope"], ["unbounded"]),
        helper.make_node("Clip", ["unbounded", "zero", "ten"], ["level"]),
        helper.make_node("Reshape", ["level", "column"], ["level_column"]),
        helper.make_node("Reshape", ["there", "column"], ["there_column"]),
        helper.make_node("Sub", ["levels", "level_column"], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["off2"]),
        helper.make_node("Mul", ["off2", "there_column"], ["weighted"]),
        helper.make_node("Neg", ["weighted"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "rule",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", 1, "y", "x"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 11])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(network)
    content: bytes = network.SerializeToString()
    return content


def write_stand_in(folder: Path, *, modality: str = "fluorescence", pixel_size_um: float = 0.65) -> Model:
    """Write the rule as a model that is named after its folder."""
    patches = noise(PATCH_PX, PATCH_PX)[None, None].astype(np.float32)
    card = Card(
        name=folder.name,
        task="focus",
        description="Rates patches by the difference of neighboring pixels; for tests.",
        modality=modality,
        input=Tensor("patches", ("gray",)),
        outputs=(Tensor("probabilities", tuple(f"level {k}" for k in range(11)), downsampling=None),),
        total_stride=PATCH_PX,
        halo_px=0,
        pixel_size_um=pixel_size_um,
    )
    outputs = {"probabilities": rule(patches).astype(np.float32)}
    return write_model(folder, card, onnx=rule_onnx(), test_input=patches, test_outputs=outputs)


def noise(height: int = 200, width: int = 300, *, blur_px: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    """Return texture of mean 0 and standard deviation 1; blur makes its level by the rule higher.

    Most of it is dark and little of it bright, as in fluorescence.
    """
    pixels = even_noise(height, width, blur_px=blur_px, seed=seed)
    pixels = np.exp(0.5 * pixels / pixels.std())
    return (pixels - pixels.mean()) / pixels.std()


def even_noise(
    height: int = 200, width: int = 300, *, blur_px: float = 0.0, seed: int = 0
) -> NDArray[np.float64]:
    """Return texture of mean 0 that is as dark as it is bright, as in phase contrast."""
    from scipy import ndimage

    pixels = np.random.default_rng(seed).normal(size=(height, width))
    if blur_px:
        pixels = ndimage.gaussian_filter(pixels, blur_px, mode="wrap")
    return pixels / pixels.std()


def gray(pixels: NDArray[np.float64], dtype: str = "uint16", axes: str | None = None, **fields: Any) -> Image:
    """Return texture as an image whose gray values fill a part of the type's range, and none is cut off."""
    zero, unit = {
        "uint8": (60, 10),
        "uint16": (10_000, 3000),
        "float32": (0.3, 0.03),
        "float64": (0.3, 0.03),
    }[dtype]
    return Image.from_array((zero + unit * pixels).astype(dtype), axes, **fields)
