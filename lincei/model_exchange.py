"""Models to and from other programs: import, export, and finishing a training done without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lincei.errors import LinceiError, UsageError
from lincei.keras_network import export_onnx, import_tensorflow, named_outputs, third_party_quiet
from lincei.model import Model, write_card, write_model
from lincei.model_card import ONNX_FILE, Card, sha256_of
from lincei.model_import import ImportOptions, import_model
from lincei.onnx_check import check_onnx

__all__ = [
    "EXPORT_FORMATS",
    "ImportOptions",
    "export_model",
    "export_onnx",
    "finish_model",
    "import_model",
    "write_trained_model",
]

EXPORT_FORMATS = ("bioimageio", "savedmodel", "onnx")


def export_model(model: Model, out: str | Path, format: str = "bioimageio") -> Path:
    """Write a model for other programs.

    Parameters
    ----------
    model : Model
        A finished model.
    out : str or Path
        The file or folder to write, which must not exist.
    format : str
        ``"bioimageio"`` (a zip archive), ``"onnx"`` (the bare network, NCHW), or ``"savedmodel"`` (a
        TensorFlow folder, NHWC; needs TensorFlow and a model that lincei made).

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    LinceiError
        When ``out`` exists or cannot be written, or the model has no Keras network for a SavedModel.
    """
    from lincei.model_archive import pack_model

    out = Path(out)
    if format not in EXPORT_FORMATS:
        raise UsageError(f"there is no format {format!r}", "", f"Choose from: {', '.join(EXPORT_FORMATS)}.")
    if out.exists():
        raise LinceiError("this exists already", str(out), "Choose another name.")
    if format == "bioimageio":
        return pack_model(model, out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if format == "onnx":
            shutil.copyfile(model.onnx_path, partial)
        else:
            _save_tensorflow(model, partial)
        partial.replace(out)
    except OSError as error:
        raise LinceiError(
            f"the model cannot be written ({error.strerror or error})", str(out), "Choose another place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink()
    return out


def write_trained_model(
    folder: Path,
    card: Card,
    network: Any,
    builder: str,
    config: Mapping[str, Any],
    *,
    test_input: NDArray[Any],
    test_outputs: Mapping[str, NDArray[Any]],
    readme: str,
    figures: Mapping[str, Any],
    cover: bytes | None = None,
) -> Model:
    """Export a network that was just trained, and write its model folder in place of an older one.

    Parameters
    ----------
    folder : Path
        The model's folder.
    card : Card
        Its card; names and channels of input and outputs are taken from it.
    network : keras.Model
        The network as it serves, with its final weights.
    builder, config
        What rebuilds it: ``"package.module:function"``, and what that takes.
    test_input, test_outputs, readme, cover
        As for `lincei.model.write_model`.
    figures : mapping
        What was measured; written beside the card, too.

    Returns
    -------
    Model
        Unfinished when Keras does not run on TensorFlow.
    """
    import keras

    with tempfile.TemporaryDirectory(prefix="lincei-model-") as scratch:
        weights = Path(scratch) / "network.weights.h5"
        network.save_weights(weights)
        onnx = None
        if keras.backend.backend() == "tensorflow":
            onnx = export_onnx(
                network,
                Path(scratch) / "network.onnx",
                channels=len(card.input.channels),
                output_names=[tensor.name for tensor in card.outputs],
                input_name=card.input.name,
            )
        return write_model(
            folder,
            card,
            onnx=onnx,
            keras_weights=weights,
            network={"builder": builder, "config": dict(config)},
            test_input=test_input,
            test_outputs=test_outputs,
            readme=readme,
            cover=cover,
            metrics=dict(figures),
            replace=True,
        )


def finish_model(folder: str | Path) -> Model:
    """Export the network of a model trained without TensorFlow, and complete its card.

    Parameters
    ----------
    folder : str or Path
        A model folder with ``network.json`` and Keras weights.

    Returns
    -------
    Model
        The finished model. One that is finished already is returned as it is.

    Raises
    ------
    LinceiError
        When TensorFlow is not installed, something is missing, or the exported network's test output is
        not the one that the training wrote.
    """
    from lincei.model_check import compare

    model = Model.from_folder(folder)
    if model.card.finished:
        return model
    import_tensorflow()
    with tempfile.TemporaryDirectory(prefix="lincei-finish-") as scratch:
        exported = export_onnx(
            model.load_keras(),
            Path(scratch) / ONNX_FILE,
            channels=len(model.card.input.channels),
            output_names=[tensor.name for tensor in model.card.outputs],
            input_name=model.card.input.name,
        )
        opset = check_onnx(exported.read_bytes(), model.card, str(model.folder))
        partial = model.folder / f".{ONNX_FILE}.partial"
        shutil.copyfile(exported, partial)
    partial.replace(model.folder / ONNX_FILE)
    card = dataclasses.replace(
        model.card,
        onnx_file=ONNX_FILE,
        opset=opset,
        files={**model.card.files, ONNX_FILE: sha256_of(model.folder / ONNX_FILE)},
    )
    finished = Model(model.folder, card)
    if finished.has_test():
        report = compare(finished)
        if not report.passed:
            (model.folder / ONNX_FILE).unlink()
            raise LinceiError(
                f"the exported network answers otherwise than the trained one ({report.describe()})",
                str(model.folder),
                "Report this with the versions that `lincei doctor` shows.",
            )
    write_card(model.folder, card)
    return Model.from_folder(model.folder)


def _save_tensorflow(model: Model, folder: Path) -> None:
    """Save the Keras network as a SavedModel with one NHWC signature that names its outputs."""
    tf = import_tensorflow()
    network = model.load_keras()
    names = [tensor.name for tensor in model.card.outputs]
    spec = tf.TensorSpec(
        [None, None, None, len(model.card.input.channels)], tf.float32, name=model.card.input.name
    )

    def serve(stack: Any) -> dict[str, Any]:
        return named_outputs(network(stack, training=False), names)

    module = tf.Module()
    module.network = network
    module.serve = tf.function(serve, input_signature=[spec], autograph=False)
    with third_party_quiet():
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
