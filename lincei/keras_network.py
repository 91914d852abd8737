"""Keras networks: rebuilt from our own configuration, their weights read, and exported to ONNX."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lincei.errors import LinceiError

_INSTALL_TRAIN = "Install it with: pip install 'lincei[train]'."


def export_onnx(
    network: Any,
    path: str | Path,
    *,
    channels: int,
    output_names: Sequence[str],
    input_name: str = "stack",
    opset: int = 18,
) -> Path:
    """Export a Keras network (NHWC inside) as ONNX (NCHW outside), with N, Y and X free to vary.

    Parameters
    ----------
    network : keras.Model or callable
        Called as ``network(stack, training=False)`` with float32 (N, Y, X, ``channels``); returns a dict
        of outputs by name, or the outputs in the order of ``output_names``. Outputs with four dimensions
        are NHWC.
    path : str or Path
        The file to write; it is there as a whole or not at all.
    channels : int
        Channels of the input.
    output_names : sequence of str
        Names of the outputs, the first the one that other programs show.
    input_name : str
        Name of the input.
    opset : int
        ONNX operator set.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    LinceiError
        When Keras does not run on TensorFlow in this process, or the conversion fails.
    """
    tf = import_tensorflow()
    path = Path(path)
    ranks: dict[str, int] = {}

    def nchw(stack: Any) -> dict[str, Any]:
        answers = named_outputs(network(tf.transpose(stack, [0, 2, 3, 1]), training=False), output_names)
        ranks.update({name: len(answer.shape) for name, answer in answers.items()})
        return {
            name: tf.transpose(answer, [0, 3, 1, 2]) if ranks[name] == 4 else tf.identity(answer)
            for name, answer in answers.items()
        }

    with third_party_quiet():
        import tf2onnx

        try:
            proto, _ = tf2onnx.convert.from_function(
                tf.function(nchw, autograph=False),
                input_signature=[tf.TensorSpec([None, channels, None, None], tf.float32, name=input_name)],
                opset=opset,
            )
        except Exception as error:  # tf2onnx and TensorFlow raise many classes
            raise LinceiError(
                f"the network does not export to ONNX ({first_line(error)})",
                str(path),
                "Use layers that export with sizes that vary: nearest up-sampling, transposed convolution, "
                "depth-to-space.",
            ) from error
    _tidy(proto, output_names, ranks)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(proto.SerializeToString())
    partial.replace(path)
    return path


def named_outputs(answers: Any, output_names: Sequence[str]) -> dict[str, Any]:
    """Return a network's answers by name, whether it returned a dict, a sequence or one tensor.

    Raises
    ------
    LinceiError
        When their number or names do not fit.
    """
    if isinstance(answers, Mapping):
        if set(answers) != set(output_names):
            raise LinceiError(
                f"the network returns {', '.join(map(str, answers))}, not {', '.join(output_names)}"
            )
        return {name: answers[name] for name in output_names}
    sequence = list(answers) if isinstance(answers, (list, tuple)) else [answers]
    if len(sequence) != len(output_names):
        raise LinceiError(f"the network returns {len(sequence)} outputs, not {len(output_names)}")
    return dict(zip(output_names, sequence, strict=True))


def keras_network(network: Mapping[str, Any], weights: Path) -> Any:
    """Rebuild a Keras network from its configuration and read its weights, in float32.

    A builder is ``"package.network:function"``. It is only called when ``package`` is an installed tool
    (entry points ``lincei.tools``) and its module lists the function's name in ``NETWORK_BUILDERS``: the
    file cannot name any other code. It is called as ``function(config)``.

    Parameters
    ----------
    network : mapping
        ``{"builder": ..., "config": {...}}``.
    weights : Path
        A ``.weights.h5`` file.

    Returns
    -------
    keras.Model
        The network on whichever backend Keras runs.

    Raises
    ------
    LinceiError
        When Keras is not installed, the builder is not allowed or refuses the configuration, or the
        weights do not belong to the network.
    """
    build = _allowed_builder(network.get("builder"), str(weights.parent))
    keras = import_keras()
    refuse_linked_hdf5(weights)
    policy = keras.config.dtype_policy()
    # Training may run in bfloat16 mixed precision; numbers are computed in float32.
    keras.config.set_dtype_policy("float32")
    try:
        with third_party_quiet():
            model = build(network["config"])
            model.load_weights(weights)
    except LinceiError:
        raise
    except Exception as error:  # Keras and h5py raise many classes for what does not fit
        raise LinceiError(
            f"the weights do not belong to the network ({first_line(error)})",
            str(weights),
            "The model may be from another version of lincei; train it again or update.",
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return model


def refuse_linked_hdf5(path: Path) -> None:
    """Refuse weights that would make HDF5 read another file: external links and storage, virtual sets."""
    h5py: Any = importlib.import_module("h5py")

    hint = "Do not use this model; ask who made it."

    def visit(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise LinceiError(f"the weights hold a link ({name})", str(path), hint)
            item = group[name]
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise LinceiError(f"the weights are read from another file ({name})", str(path), hint)
            elif isinstance(item, h5py.Group):
                visit(item)

    try:
        with h5py.File(path, "r") as file:
            visit(file)
    except (OSError, RecursionError) as error:
        raise LinceiError(f"the weights cannot be read ({first_line(error)})", str(path), hint) from error


def import_keras() -> Any:
    """Import Keras, on TensorFlow unless the user chose another backend."""
    try:
        with held_back_stderr():
            import keras
    except ImportError as error:
        raise LinceiError("Keras is not installed", "", _INSTALL_TRAIN) from error
    return keras


def import_tensorflow() -> Any:
    """Import TensorFlow and check that Keras runs on it in this process."""
    keras = import_keras()
    try:
        with held_back_stderr():
            import tensorflow as tf
    except ImportError as error:
        raise LinceiError("TensorFlow is not installed", "", _INSTALL_TRAIN) from error
    if keras.backend.backend() != "tensorflow":
        raise LinceiError(
            f"Keras runs on {keras.backend.backend()} here; only TensorFlow exports for any image size",
            "",
            "Run this again with the environment variable KERAS_BACKEND=tensorflow.",
        )
    return tf


def _allowed_builder(builder: Any, where: str) -> Any:
    """Return the function when an installed tool declares it."""
    text = builder if isinstance(builder, str) else ""
    module_name, _, function = text.partition(":")
    package, _, rest = module_name.partition(".")
    tools = {
        entry.value.partition(":")[0].partition(".")[0]
        for entry in importlib.metadata.entry_points(group="lincei.tools")
    }
    refused = LinceiError(
        f"the network's builder {builder!r} is not one that an installed tool declares",
        where,
        "Install the tool that the model is for, or do not use this model.",
    )
    if rest != "network" or package not in tools:
        raise refused
    with held_back_stderr():
        module = importlib.import_module(module_name)
    if function not in getattr(module, "NETWORK_BUILDERS", ()):
        raise refused
    return getattr(module, function)


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Keep back what libraries print on the error stream, and show it only when they fail.

    TensorFlow's compiled part greets with lines about its own build before any log level is heeded.
    """
    try:
        original = os.dup(2)
    except OSError:  # a program with windows may have no error stream at all
        yield
        return
    if not os.environ.get("LINCEI_DEBUG"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow says much that no user can act on
    with tempfile.TemporaryFile() as held:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def third_party_quiet() -> Iterator[None]:
    """Silence deprecations inside tf2onnx, TensorFlow and Keras that nobody here can act on."""
    import logging

    logger = logging.getLogger("tf2onnx")
    level = logger.level
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _tidy(proto: Any, output_names: Sequence[str], ranks: Mapping[str, int]) -> None:
    """Put the outputs into their order, and name the sizes that vary."""
    by_name = {value.name: value for value in proto.graph.output}
    ordered = [by_name[name] for name in output_names]
    del proto.graph.output[:]
    proto.graph.output.extend(ordered)
    for value in (*proto.graph.input, *proto.graph.output):
        is_input = value.name not in ranks
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if index != 1 and (index == 0 or not dim.dim_value):
                # Outputs of another size than the input's must not carry its names.
                axis = ("n", "", "y", "x")[index]
                dim.dim_param = axis if is_input or index == 0 else f"{value.name}_{axis}"
    proto.producer_name = "lincei"
    proto.doc_string = ""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's exception, shortened, for a message of one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
