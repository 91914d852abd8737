"""Networks from elsewhere (ONNX, Keras, SavedModel) become models, without running their code."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError, UsageError
from lincei.image import MODALITIES
from lincei.keras_network import (
    export_onnx,
    first_line,
    import_keras,
    import_tensorflow,
    named_outputs,
    refuse_linked_hdf5,
    third_party_quiet,
)
from lincei.model import Model, models_folder, write_model
from lincei.model_card import ONNX_FILE, TASKS, Card, Label, Tensor
from lincei.onnx_check import Shapes, onnx_interface
from lincei.options import Options, flag_name, option, resolve_options

# A class of one of these modules is part of Keras itself.
_KERAS_MODULES = frozenset(
    {
        *("keras", "keras.layers", "keras.models", "keras.activations", "keras.initializers"),
        *("keras.regularizers", "keras.constraints", "keras.dtype_policies", "keras.optimizers"),
        *("keras.losses", "keras.metrics", "keras.src.models.functional", "keras.src.models.sequential"),
    }
)
# Part of Keras, and yet they run code or read files that their configuration names.
_KERAS_CODE_CLASSES = frozenset(
    {
        *("Lambda", "__lambda__", "function", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"),
        *("StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup", "HashedCrossing"),
    }
)
_INNER = "network/"
_KERAS_CONFIG_BYTES_MAX = 64 * 2**20
_TENSORFLOW_UNSAFE_OPS = frozenset(
    {
        *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "Save"),
        *("SaveSlices", "WholeFileReader", "WholeFileReaderV2", "FixedLengthRecordDataset", "PrintV2"),
        *("TextLineDataset", "TFRecordDataset", "TextLineReader", "TextLineReaderV2", "DebugIdentity"),
        *("DebugIdentityV2", "DebugIdentityV3", "InitializeTableFromTextFile", "LoadLibrary"),
        *("InitializeTableFromTextFileV2", "Rpc", "TryRpc", "DecodeProtoV2"),
    }
)


@dataclass(frozen=True)
class ImportOptions(Options):
    """What a card needs and a bare network does not say."""

    name: str | None = option(None, "What --model will take.")
    task: str | None = option(None, "What the network is for.", choices=TASKS)
    modality: str | None = option(None, "Modality of the input.", choices=MODALITIES)
    total_stride: int | None = option(
        None, "Height and width of an input must be multiples of this.", unit="pixels", minimum=1
    )
    halo_px: int | None = option(
        None, "How far a pixel of the output looks in the input.", unit="pixels", minimum=0
    )
    labels: tuple[str, ...] = option((), "Names of what the channels of the first output show.")
    colors: tuple[str, ...] = option((), "Display colors of the labels, such as #0000FF.")
    outputs: tuple[str, ...] = option((), "Names for the outputs, in their order; the first is 'mean'.")
    pixel_size_um: float | None = option(
        None, "Pixel size that the network expects; unknown when left out.", unit="um", above=0
    )
    z_step_um: float | None = option(
        None, "Distance of the z planes; unknown when left out.", unit="um", above=0
    )
    description: str = option("", "One or two sentences about the model.")
    license: str = option("", "SPDX identifier of the license of the weights.")


# Flags that an import cannot do without, for every task.
_REQUIRED = ("name", "task", "modality", "total_stride", "halo_px")


def import_model(
    path: str | Path, options: ImportOptions | None = None, *, replace: bool = False, **overrides: Any
) -> Model:
    """Install a bare network from elsewhere as a model.

    Parameters
    ----------
    path : str or Path
        A ``.onnx`` file (NCHW or NHWC, one input, height and width free), a ``.keras`` file without code
        of its own, or a TensorFlow SavedModel folder.
    options : ImportOptions, optional
        The card's fields; keywords override them.
    replace : bool
        Whether an installed model of that name is replaced.

    Returns
    -------
    Model
        Installed, with a test input of seeded noise and the outputs measured for it.

    Raises
    ------
    LinceiError
        When fields are missing (it lists their flags), the file is of another kind or holds code, or the
        network does not run as its fields say.
    """
    fields = resolve_options(ImportOptions, options, overrides)
    path = Path(path)
    if not path.exists():
        raise LinceiError("there is no such file or folder", str(path))
    missing = [name for name in _REQUIRED if getattr(fields, name) is None]
    if fields.task in (None, "label") and not fields.labels:
        missing.append("labels")
    if missing:
        raise UsageError(
            f"a card needs more than the network says; give {', '.join(map(flag_name, missing))}",
            str(path),
        )
    with tempfile.TemporaryDirectory(prefix="lincei-import-") as scratch:
        content = _as_onnx(path, Path(scratch), fields)
        card, stack = _imported_card(content, fields, path)
        card, outputs = _measured(card, content, stack, Path(scratch))
        name = fields.name or path.stem
        return write_model(
            models_folder() / name,
            card,
            onnx=content,
            test_input=stack,
            test_outputs=outputs,
            replace=replace,
        )


def _as_onnx(path: Path, scratch: Path, fields: ImportOptions) -> bytes:
    """Turn what is imported into ONNX: NCHW, input "stack", outputs with plain names."""
    where = str(path)
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise LinceiError("the folder is no SavedModel", where, "Give a .onnx, a .keras or a SavedModel.")
        network, channels, names = _saved_model(path)
    elif path.suffix.lower() == ".onnx":
        return _normalized_onnx(path.read_bytes(), fields, where)
    elif path.suffix.lower() == ".keras":
        network, channels, names = _keras_file(path)
    else:
        raise LinceiError(
            "this is no network that can be imported", where, "Give a .onnx, a .keras or a SavedModel folder."
        )
    wanted = _output_names(names, fields, where)

    def renamed(stack: Any, **_: Any) -> dict[str, Any]:
        answers = named_outputs(network(stack), names)
        return dict(zip(wanted, answers.values(), strict=True))

    file = export_onnx(renamed, scratch / ONNX_FILE, channels=channels, output_names=wanted)
    return file.read_bytes()


def _output_names(found: Sequence[str], fields: ImportOptions, where: str) -> list[str]:
    """Name the outputs as the user says, or "mean", "output_1", ..."""
    if fields.outputs and len(fields.outputs) != len(found):
        raise UsageError(
            f"the network has {len(found)} outputs ({', '.join(found)}), --outputs names "
            f"{len(fields.outputs)}",
            where,
        )
    return list(fields.outputs) or ["mean", *(f"output_{index}" for index in range(1, len(found)))]


def _normalized_onnx(content: bytes, fields: ImportOptions, where: str) -> bytes:
    """Give a foreign ONNX our names and, where it is NHWC, transposes around it."""
    import onnx
    import onnx.compose

    inputs, outputs = onnx_interface(content, where)
    if len(inputs) != 1:
        raise LinceiError(f"the network has {len(inputs)} inputs ({', '.join(inputs)}), not one", where)
    ((input_name, shape),) = inputs.items()
    channels_last = _is_channels_last(shape, where)
    names = _output_names(list(outputs), fields, where)
    # Every name inside gets a prefix, so that ours cannot meet one that is there already.
    proto = onnx.compose.add_prefix(onnx.load_model_from_string(content), _INNER)
    graph = proto.graph
    count = shape[3] if channels_last else shape[1]
    wanted: Shapes = {"stack": [None, count, None, None]}
    graph.node.insert(0, _step("stack", _INNER + input_name, [0, 2, 3, 1] if channels_last else None))
    for old, name in zip(outputs, names, strict=True):
        sizes = outputs[old]
        if len(sizes) not in (2, 4):
            raise LinceiError(f"the output {old!r} has {len(sizes)} dimensions, not two or four", where)
        dense = len(sizes) == 4
        graph.node.append(_step(_INNER + old, name, [0, 3, 1, 2] if channels_last and dense else None))
        count = sizes[3] if channels_last and dense else sizes[1]
        wanted[name] = [None, count, None, None] if dense else [None, count]
    inner = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name in inner]
    del graph.input[:], graph.output[:]
    described = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name, sizes in wanted.items()
    ]
    graph.input.extend([described[0], *kept])
    graph.output.extend(described[1:])
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise LinceiError(f"the ONNX file is not valid ({first_line(error)})", where) from error
    normalized: bytes = proto.SerializeToString()
    return normalized


def _step(source: str, target: str, permutation: list[int] | None) -> Any:
    """Return a node that copies or transposes."""
    import onnx

    if permutation is None:
        return onnx.helper.make_node("Identity", [source], [target], name=f"lincei_{target}")
    return onnx.helper.make_node("Transpose", [source], [target], name=f"lincei_{target}", perm=permutation)


def _is_channels_last(shape: Sequence[int | None], where: str) -> bool:
    """Tell NHWC from NCHW by which size is fixed; height and width must be free."""
    if len(shape) != 4:
        raise LinceiError(f"the network's input has {len(shape)} dimensions, not four", where)
    if shape[2] is None and shape[3] is None and shape[1] is not None:
        return False
    if shape[1] is None and shape[2] is None and shape[3] is not None:
        return True
    raise LinceiError(
        f"the network's input has the sizes {tuple(shape)}; only the number of channels may be fixed",
        where,
        "Export it again with height and width free.",
    )


def _keras_file(path: Path) -> tuple[Any, int, list[str]]:
    """Load a .keras file that holds Keras layers only."""
    _refuse_keras_code(path)
    import_tensorflow()
    keras = import_keras()
    try:
        with third_party_quiet():
            network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many classes
        raise LinceiError(
            f"Keras cannot load the file ({first_line(error)})", str(path), "Save it with Keras 3."
        ) from error
    if len(network.inputs) != 1:
        raise LinceiError(f"the network has {len(network.inputs)} inputs, not one", str(path))
    shape = list(network.inputs[0].shape)
    if not _is_channels_last(shape, str(path)):
        raise LinceiError("the network is channels-first", str(path), "Save it in Keras' channels-last form.")
    structure = network.output
    names = list(structure) if isinstance(structure, Mapping) else [o.name for o in network.outputs]
    return lambda stack: network(stack, training=False), int(shape[3]), [str(name) for name in names]


def _refuse_keras_code(path: Path) -> None:
    """Refuse a .keras file with Python code or a class from outside Keras in its configuration."""
    hint = "Export it to ONNX where it was made, and import that."
    try:
        with zipfile.ZipFile(path) as opened:
            if opened.getinfo("config.json").file_size > _KERAS_CONFIG_BYTES_MAX:
                raise LinceiError("its configuration is too large", str(path), hint)
            config = json.loads(opened.read("config.json"))
            weights = [n for n in opened.namelist() if n not in ("config.json", "metadata.json")]
            odd = [name for name in weights if name != "model.weights.h5"]
            if odd:
                raise LinceiError(
                    f"it holds a file that Keras layers do not need ({odd[0]})", str(path), hint
                )
            with tempfile.TemporaryDirectory(prefix="lincei-keras-") as scratch:
                file = Path(scratch) / "model.weights.h5"
                with opened.open("model.weights.h5") as source, file.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                refuse_linked_hdf5(file)
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, OSError) as error:
        raise LinceiError(
            f"this is no .keras file, or it is damaged ({first_line(error)})", str(path)
        ) from error
    pending: list[Any] = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                _refuse_keras_class(item, str(path), hint)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _refuse_keras_class(item: Mapping[str, Any], where: str, hint: str) -> None:
    """Refuse one entry of a Keras configuration that is not a plain layer, initializer, or the like."""
    name, module = item["class_name"], item.get("module")
    if name in _KERAS_CODE_CLASSES:
        raise LinceiError(f"it holds a {name} layer, which runs code or reads files", where, hint)
    allowed = module is None and str(name).startswith("__") and name != "__lambda__"
    if item.get("registered_name") and module not in _KERAS_MODULES:
        allowed = False
    if not allowed and module not in _KERAS_MODULES:
        raise LinceiError(f"it needs the class {name} of {module}, which is not part of Keras", where, hint)


def _saved_model(path: Path) -> tuple[Any, int, list[str]]:
    """Load a SavedModel without operations that touch files or run Python."""
    where = str(path)
    tf = import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    described = saved_model_pb2.SavedModel()
    try:
        described.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf raises its own classes, which differ between its back ends
        raise LinceiError("its saved_model.pb is damaged", where) from error
    for graph in (meta.graph_def for meta in described.meta_graphs):
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        bad = sorted({node.op for node in nodes} & _TENSORFLOW_UNSAFE_OPS)
        if bad:
            raise LinceiError(
                f"the SavedModel uses {', '.join(bad)}, which reads or writes files or runs code",
                where,
                "Export it to ONNX where it was made, and import that.",
            )
    try:
        with third_party_quiet():
            loaded = tf.saved_model.load(where)
        signature = loaded.signatures["serving_default"]
    except Exception as error:  # TensorFlow raises many classes
        raise LinceiError(f"TensorFlow cannot load it ({first_line(error)})", where) from error
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise LinceiError(f"the network has {len(inputs)} inputs ({', '.join(inputs)}), not one", where)
    ((input_name, spec),) = inputs.items()
    shape = list(spec.shape)
    channels_last = _is_channels_last(shape, where)
    names = sorted(signature.structured_outputs)

    def network(stack: Any) -> dict[str, Any]:
        _ = loaded  # the signature does not keep the variables alive
        given = stack if channels_last else tf.transpose(stack, [0, 3, 1, 2])
        answers = signature(**{input_name: given})
        if channels_last:
            return dict(answers)
        return {n: tf.transpose(a, [0, 2, 3, 1]) if len(a.shape) == 4 else a for n, a in answers.items()}

    return network, int(shape[3] if channels_last else shape[1]), names


def _imported_card(content: bytes, fields: ImportOptions, path: Path) -> tuple[Card, NDArray[np.float32]]:
    """Build the card of an imported network from its shapes and the user's fields, and a test input."""
    where = str(path)
    inputs, outputs = onnx_interface(content, where)
    channels = inputs["stack"][1] or 0
    tensors = []
    for index, (name, shape) in enumerate(outputs.items()):
        if len(shape) not in (2, 4) or not shape[1]:
            raise LinceiError(f"the network does not say how many channels its output {name!r} has", where)
        names = tuple(f"{name} {number}" for number in range(shape[1]))
        if index == 0 and fields.labels:
            if len(fields.labels) != shape[1]:
                raise UsageError(
                    f"the first output has {shape[1]} channels, --labels names {len(fields.labels)}", where
                )
            names = fields.labels
        tensors.append(Tensor(name, names, downsampling=1 if len(shape) == 4 else None))
    if fields.colors and len(fields.colors) != len(fields.labels):
        raise UsageError(f"--colors names {len(fields.colors)}, --labels {len(fields.labels)}", where)
    colors = fields.colors or ("#FFFFFF",) * len(fields.labels)
    is_rgb = fields.modality == "H&E" and channels == 3
    stride = fields.total_stride or 1
    card = Card(
        name=fields.name or "",
        task=fields.task or "",
        description=fields.description or f"Imported from {path.name}.",
        modality=fields.modality or "",
        input=Tensor(
            "stack", ("red", "green", "blue") if is_rgb else tuple(f"z{i}" for i in range(channels))
        ),
        outputs=tuple(tensors),
        total_stride=stride,
        halo_px=fields.halo_px or 0,
        labels=tuple(Label(*pair) for pair in zip(fields.labels, colors, strict=True)),
        z_planes=1 if is_rgb else channels,
        z_step_um=fields.z_step_um,
        pixel_size_um=fields.pixel_size_um,
        training={"imported from": path.name},
        figures={"note": "nothing was measured by lincei"},
        license=fields.license,
        authors=("unknown",),
    )
    # Unequal height and width tell when a network has swapped them.
    size = card.smallest_size_px
    noise = np.random.default_rng(0).normal(size=(1, channels, size, size + stride))
    return card, noise.astype(np.float32)


def _measured(
    card: Card, content: bytes, stack: NDArray[np.float32], scratch: Path
) -> tuple[Card, dict[str, NDArray[np.float32]]]:
    """Run the test input, and correct the card by the sizes of the outputs."""
    from lincei.engine import open_engine

    provisional = write_model(scratch / card.name, card, onnx=content)
    with open_engine(provisional) as engine:
        answers = engine.run(stack)
    outputs = []
    for tensor in card.outputs:
        shape = answers[tensor.name].shape
        factor = None
        if len(shape) == 4:
            factor = max(1, round(stack.shape[2] / max(shape[2], 1)))
            if tuple(size // factor for size in stack.shape[2:]) != shape[2:]:
                raise LinceiError(
                    f"an input of {stack.shape[2]} x {stack.shape[3]} pixels gives {shape[2]} x {shape[3]} "
                    f"in the output {tensor.name!r}",
                    f"model {card.name}",
                    "Only networks whose output is as large as the input, or smaller by a whole factor, fit; "
                    "check --total-stride.",
                )
        outputs.append(dataclasses.replace(tensor, downsampling=factor))
    return dataclasses.replace(card, outputs=tuple(outputs)), answers
