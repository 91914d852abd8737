"""Engines that run an exported network: OpenVINO, ONNX Runtime, TensorFlow, tried in this order."""

from __future__ import annotations

import abc
import importlib
import importlib.metadata
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError, UsageError
from lincei.keras_network import first_line, held_back_stderr, import_tensorflow, named_outputs
from lincei.model import Model
from lincei.model_card import check_size
from lincei.onnx_check import refuse_external_data

PRECISIONS = ("float32", "bfloat16")
_CACHE_SIZE = 4
_SHAPES_KEPT = 4


class Engine(abc.ABC):
    """An opened network; close it, or use it in a ``with`` statement.

    Parameters
    ----------
    model : Model
        The model.
    outputs : sequence of str
        The outputs to compute.
    precision : str
        ``"float32"`` or ``"bfloat16"``.
    threads : int or None
        Threads to use; None leaves it to the engine.

    Attributes
    ----------
    name : str
        Name of the engine.
    version : str
        Version of its library, for provenance.
    precision : str
        Precision that it really computes in.
    """

    name: ClassVar[str]
    distribution: ClassVar[tuple[str, ...]]

    def __init__(self, model: Model, outputs: Sequence[str], precision: str, threads: int | None) -> None:
        self.model = model
        self.outputs = tuple(outputs)
        self.precision = precision
        self.threads = threads
        self.version = _version(self.distribution)

    @abc.abstractmethod
    def _run(self, stack: NDArray[np.float32]) -> list[Any]:
        """Compute ``self.outputs`` in their order."""

    def run(self, stack: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Run the network on one batch; several threads may call it at once.

        Parameters
        ----------
        stack : ndarray
            Shape (N, C, Y, X), converted to float32 where it is not; Y and X are multiples of the
            network's total stride.

        Returns
        -------
        dict of str to ndarray
            The outputs by name, float32, NCHW (or NC).

        Raises
        ------
        LinceiError
            When the shape does not suit the network, or the engine fails (for want of memory, say).
        """
        check_size(self.model.card, np.shape(stack))
        return self._answers(np.ascontiguousarray(stack, dtype=np.float32), self._run)

    def _answers(
        self, array: NDArray[Any], run: Callable[[NDArray[Any]], list[Any]]
    ) -> dict[str, NDArray[np.float32]]:
        """Run the network with one of the engine's methods."""
        try:
            answers = run(array)
        except Exception as error:  # each engine raises its own classes
            raise LinceiError(
                f"{self.name} failed on an array of shape {array.shape} ({first_line(error)})",
                f"model {self.model.name}",
                "Try smaller tiles, or another engine.",
            ) from error
        return {
            name: np.asarray(answer, dtype=np.float32)
            for name, answer in zip(self.outputs, answers, strict=True)
        }

    def run_pixels(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the network on bytes as cameras and pictures have them, without a copy where the engine can.

        Parameters
        ----------
        pixels : ndarray
            Shape (N, Y, X, C), uint8, contiguous; the network sees them as numbers from 0 to 255.

        Returns
        -------
        dict of str to ndarray
            As `run` does.

        Raises
        ------
        LinceiError
            As `run` does.
        """
        return self.run(np.moveaxis(pixels, -1, 1))

    @abc.abstractmethod
    def close(self) -> None:
        """Free the network's memory; the engine cannot run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OpenVINOEngine(Engine):
    """Runs ONNX with OpenVINO on the CPU.

    The network is compiled for each shape that comes and the last few are kept. Measured on 2 cores (a
    13-plane U-Net, 512 x 512): 126 ms an image and 50 ms to compile, against 140 ms and 120 ms when
    compiled once for any shape, whose first image of each size takes 50 ms longer too.
    """

    name = "openvino"
    distribution = ("openvino",)

    def __init__(self, model: Model, outputs: Sequence[str], precision: str, threads: int | None) -> None:
        openvino = _import_openvino()
        self._core = openvino.Core()
        if "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            precision = "float32"
        super().__init__(model, outputs, precision, threads)
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        }
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._network = self._core.read_model(_onnx_bytes(model))
        for result in self._network.get_results():
            # What only an output that nobody asked for needs is not computed either.
            if not set(result.get_output_tensor(0).get_names()) & set(outputs):
                self._network.remove_result(result)
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        size = model.card.total_stride
        # Whether it compiles is known now, while another engine can still take over.
        self._request((1, len(model.card.input.channels), size, size))

    def _request(self, shape: tuple[int, ...], pixels: bool = False) -> Any:
        """Return what runs arrays of this shape, NCHW, or NHWC bytes; call it with the lock held."""
        key = (*shape, pixels)
        if key not in self._requests:
            network = self._network.clone()
            network.reshape(list(shape))
            if pixels:
                network = _taking_pixels(network)
            compiled = self._core.compile_model(network, "CPU", self._settings)
            self._requests[key] = compiled.create_infer_request()
            if len(self._requests) > _SHAPES_KEPT:
                self._requests.popitem(last=False)
        self._requests.move_to_end(key)
        return self._requests[key]

    def _run(self, stack: NDArray[np.float32]) -> list[Any]:
        return self._inferred(stack, stack.shape, pixels=False)

    def run_pixels(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the network on bytes: their conversion is part of the compiled network."""
        shape = (*pixels.shape[:1], *pixels.shape[-1:], *pixels.shape[1:-1])
        check_size(self.model.card, shape)
        array = np.ascontiguousarray(pixels, np.uint8)
        return self._answers(array, lambda given: self._inferred(given, shape, pixels=True))

    def _inferred(self, array: NDArray[Any], shape: tuple[int, ...], *, pixels: bool) -> list[Any]:
        # A request holds the buffers of one run, and the CPU is busy with one anyway.
        with self._lock:
            request = self._request(shape, pixels)
            request.infer([array], share_inputs=True)
            return [np.array(request.get_tensor(name).data) for name in self.outputs]

    def close(self) -> None:
        """Free the network's memory."""
        self._requests.clear()
        self._network = None


class OnnxRuntimeEngine(Engine):
    """Runs ONNX with ONNX Runtime on the CPU, in float32."""

    name = "onnxruntime"
    distribution = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")

    def __init__(self, model: Model, outputs: Sequence[str], precision: str, threads: int | None) -> None:
        import onnxruntime

        del precision  # the CPU provider has float32 only
        super().__init__(model, outputs, "float32", threads)
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            _onnx_bytes(model), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def _run(self, stack: NDArray[np.float32]) -> list[Any]:
        answers: list[Any] = self._session.run(list(self.outputs), {self.model.card.input.name: stack})
        return answers

    def close(self) -> None:
        """Free the network's memory."""
        self._session = None


class TensorFlowEngine(Engine):
    """Runs the Keras network itself, rebuilt from its configuration and weights, in float32."""

    name = "tensorflow"
    distribution = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-nightly")

    def __init__(self, model: Model, outputs: Sequence[str], precision: str, threads: int | None) -> None:
        del precision  # weights and numbers are float32
        super().__init__(model, outputs, "float32", threads)
        tf = import_tensorflow()
        network = model.load_keras()
        names = [tensor.name for tensor in model.card.outputs]

        def nchw(stack: Any) -> list[Any]:
            answers = named_outputs(network(tf.transpose(stack, [0, 2, 3, 1]), training=False), names)
            wanted = [answers[name] for name in self.outputs]
            return [tf.transpose(a, [0, 3, 1, 2]) if len(a.shape) == 4 else a for a in wanted]

        channels = len(model.card.input.channels)
        signature = [tf.TensorSpec([None, channels, None, None], tf.float32)]
        self._function = tf.function(nchw, input_signature=signature, autograph=False)

    def _run(self, stack: NDArray[np.float32]) -> list[Any]:
        return [answer.numpy() for answer in self._function(stack)]

    def close(self) -> None:
        """Free the network's memory."""
        self._function = None


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (OpenVINOEngine, OnnxRuntimeEngine, TensorFlowEngine)
}


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine can be used here.

    Parameters
    ----------
    name, version : str
        The engine; the version is empty where it is not installed.
    works : bool
        Whether its library loads.
    reason : str
        One clause that says why not.
    """

    name: str
    version: str
    works: bool
    reason: str = ""


def open_engine(
    model: Model,
    *,
    engine: str | None = None,
    threads: int | None = None,
    precision: str = "float32",
    outputs: Sequence[str] | None = None,
) -> Engine:
    """Open a model with the first engine that works.

    Parameters
    ----------
    model : Model
        A finished model.
    engine : str, optional
        Only this engine: ``"openvino"``, ``"onnxruntime"`` or ``"tensorflow"``.
    threads : int, optional
        How many threads it may use; by default all cores.
    precision : str
        ``"float32"`` for numbers; ``"bfloat16"`` where only outlines are drawn. An engine or processor
        without bfloat16 computes in float32; `Engine.precision` says which it was.
    outputs : sequence of str, optional
        The outputs to compute; by default all of the card.

    Returns
    -------
    Engine
        With a ``run`` method.

    Raises
    ------
    UsageError
        When the engine or precision is unknown, or ``threads`` is below 1.
    LinceiError
        When no engine works; it says why each failed. When the model is damaged or has no such output.
    """
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}", "", f"Choose from: {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r}", "", f"Choose from: {', '.join(PRECISIONS)}.")
    if threads is not None and threads < 1:
        raise UsageError(f"the number of threads is {threads}", "", "It must be at least 1.")
    names = [t.name for t in model.card.outputs] if outputs is None else list(outputs)
    for name in names:
        model.card.output(name)
    # Damage is the model's fault, not an engine's: it is found before any is tried.
    _ = model.onnx_path
    failures = []
    for candidate in [engine] if engine is not None else list(ENGINES):
        try:
            return ENGINES[candidate](model, names, precision, threads)
        except Exception as error:  # each engine raises its own classes
            failures.append(f"{candidate}: {_reason(error)}")
    raise LinceiError(
        f"no engine can run the network ({'; '.join(failures)})",
        f"model {model.name}",
        "Install one with: pip install openvino",
    )


def engine_status() -> list[EngineStatus]:
    """Return which engines can be used here, and why the others cannot; each one's library is loaded."""
    return [_status(engine) for engine in ENGINES.values()]


_cache: OrderedDict[tuple[Any, ...], Engine] = OrderedDict()
_cache_lock = threading.Lock()


def cached_engine(
    model: Model,
    *,
    engine: str | None = None,
    threads: int | None = None,
    precision: str = "float32",
    outputs: Sequence[str] | None = None,
) -> Engine:
    """Return an engine that stays open for the next call with the same model and settings.

    For workers, where each task runs in a thread of its own: one thread opens, the others wait. The
    four most recently used stay open; do not close what this returns.

    Parameters
    ----------
    model, engine, threads, precision, outputs
        As for `open_engine`.

    Returns
    -------
    Engine
        Shared with others.

    Raises
    ------
    LinceiError
        As `open_engine` does.
    """
    wanted = None if outputs is None else tuple(outputs)
    key = (model.hash, str(model.folder), engine, threads, precision, wanted)
    with _cache_lock:
        if key not in _cache:
            _cache[key] = open_engine(
                model, engine=engine, threads=threads, precision=precision, outputs=wanted
            )
        _cache.move_to_end(key)
        while len(_cache) > _CACHE_SIZE:
            # Not closed: a thread may still run it. It goes when the last one lets go of it.
            _cache.popitem(last=False)
        return _cache[key]


def clear_engines() -> None:
    """Let go of all engines that `cached_engine` keeps open."""
    with _cache_lock:
        _cache.clear()


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import to its makers unless opted out."""
    import sys

    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    silenced = "openvino_telemetry" not in sys.modules
    if silenced:
        # A name that is None cannot be imported; OpenVINO then takes its own empty stand-in.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]


def _taking_pixels(network: Any) -> Any:
    """Return an OpenVINO network of NCHW numbers that takes NHWC bytes."""
    openvino = _import_openvino()
    preprocessing = importlib.import_module("openvino.preprocess").PrePostProcessor(network)
    taken = preprocessing.input()
    taken.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    taken.model().set_layout(openvino.Layout("NCHW"))
    return preprocessing.build()


def _status(engine: type[Engine]) -> EngineStatus:
    """Load one engine's library."""
    version = _version(engine.distribution)
    try:
        if engine is OpenVINOEngine:
            _import_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME")
        else:
            with held_back_stderr():
                importlib.import_module(engine.name)
    except Exception as error:  # a broken installation raises anything
        return EngineStatus(engine.name, version, False, _reason(error))
    return EngineStatus(engine.name, version, True)


def _onnx_bytes(model: Model) -> bytes:
    """Read the network into memory, so that no engine looks for files beside it."""
    content = model.onnx_path.read_bytes()
    refuse_external_data(content, str(model.folder))
    return content


def _version(names: Sequence[str]) -> str:
    """Return the version of the first distribution that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _reason(error: BaseException) -> str:
    """Say in one clause why an engine failed."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    if isinstance(error, LinceiError):
        return error.what
    return first_line(error)
