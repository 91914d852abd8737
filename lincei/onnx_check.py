"""Checks of an ONNX file before an engine reads it: it stands alone, and it is what the card says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lincei.errors import LinceiError

if TYPE_CHECKING:
    from lincei.model_card import Card, Tensor

Shapes = dict[str, list[int | None]]
_DO_NOT_USE = "Do not use this model; ask who made it to export it with its weights inside."


def refuse_external_data(content: bytes, where: str) -> None:
    """Refuse a network that names a file beside it, from which an engine would read its weights.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    where : str
        The model or file, for the message.

    Raises
    ------
    LinceiError
        When the file names external data or cannot be parsed.
    """
    # External data has a key spelled "location"; without these bytes there is none, and no need to parse.
    if b"location" in content:
        _parsed(content, where)


def check_onnx(content: bytes, card: Card, where: str) -> int:
    """Check that a network is self-contained and has the inputs and outputs of the card.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    card : Card
        Names, channels and downsampling of input and outputs.
    where : str
        The model or file, for the message.

    Returns
    -------
    int
        The version of the operator set.

    Raises
    ------
    LinceiError
        When it is not ONNX, names external data, needs operators that are not in the standard, or has
        other inputs and outputs.
    """
    network = _parsed(content, where)
    inner = {tensor.name for tensor in network.graph.initializer}
    inputs = [value for value in network.graph.input if value.name not in inner]
    if [value.name for value in inputs] != [card.input.name]:
        names = ", ".join(value.name for value in inputs)
        raise LinceiError(f"the network's inputs are {names}, the card says {card.input.name}", where)
    found = [value.name for value in network.graph.output]
    if found != [tensor.name for tensor in card.outputs]:
        said = ", ".join(tensor.name for tensor in card.outputs)
        raise LinceiError(f"the network's outputs are {', '.join(found)}, the card says {said}", where)
    for value, tensor in zip((*inputs, *network.graph.output), (card.input, *card.outputs), strict=True):
        _check_shape(value, tensor, where)
    versions = {entry.domain: int(entry.version) for entry in network.opset_import}
    return versions.get("", versions.get("ai.onnx", 0))


def onnx_interface(content: bytes, where: str) -> tuple[Shapes, Shapes]:
    """Return the shapes of a network's inputs and outputs by name; None is a size that may vary.

    Raises
    ------
    LinceiError
        As `check_onnx` does.
    """
    network = _parsed(content, where)
    inner = {tensor.name for tensor in network.graph.initializer}
    return (
        {value.name: _shape(value) for value in network.graph.input if value.name not in inner},
        {value.name: _shape(value) for value in network.graph.output},
    )


def _parsed(content: bytes, where: str) -> Any:
    """Parse without reading any other file, and refuse what does not stand alone."""
    import onnx

    try:
        network = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises its own classes, which differ between its back ends
        raise LinceiError("this is not an ONNX file", where, "Export the network again.") from error
    if not network.graph.node:
        raise LinceiError("this is not an ONNX file with a network in it", where, "Export the network again.")
    for tensor in _tensors(network, onnx):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            raise LinceiError(
                f"the network reads its weights from another file ({location!r})", where, _DO_NOT_USE
            )
    domains = {entry.domain for entry in network.opset_import} - {"", "ai.onnx", "ai.onnx.ml"}
    used = {node.domain for node in network.graph.node} & domains
    if used:
        raise LinceiError(
            f"the network needs operators of {', '.join(sorted(used))}, which not every engine has",
            where,
            "Export it with the standard ONNX operators.",
        )
    return network


def _tensors(network: Any, onnx: Any) -> Iterator[Any]:
    """Yield every tensor of a model: initializers, constants, in subgraphs and functions too."""
    pending: list[Any] = [network.graph, *network.functions]
    for training in network.training_info:
        pending += [training.initialization, training.algorithm]
    while pending:
        graph = pending.pop()
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for attribute in [a for node in graph.node for a in node.attribute] + list(
            getattr(graph, "attribute_proto", [])
        ):
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            pending.extend(
                inner for inner in (attribute.g, *attribute.graphs) if inner.node or inner.initializer
            )


def _shape(value: Any) -> list[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    ]


def _check_shape(value: Any, tensor: Tensor, where: str) -> None:
    """Check one tensor: float32, the channels that the card says, y and x free to vary."""
    import onnx

    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise LinceiError(f"the tensor {tensor.name!r} of the network is not float32", where)
    shape: Sequence[int | None] = _shape(value)
    if not shape:
        return
    dimensions = 2 if tensor.downsampling is None else 4
    if len(shape) != dimensions or shape[1] not in (None, len(tensor.channels)):
        raise LinceiError(
            f"the tensor {tensor.name!r} of the network has shape {shape}, the card says {dimensions} "
            f"dimensions and {len(tensor.channels)} channels",
            where,
        )
