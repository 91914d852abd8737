"""Every engine gives the same numbers, and says why when it gives none."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_models import KerasFiles, card, convolution_onnx, noise, run_onnx, write_toy

from lincei import engine as engine_module
from lincei.engine import ENGINES, Engine, cached_engine, clear_engines, engine_status, open_engine
from lincei.errors import LinceiError, UsageError
from lincei.model import Model, write_model
from lincei.options import ENGINE_NAMES

ONNX_ENGINES = ("openvino", "onnxruntime")


@pytest.mark.parametrize("name", ONNX_ENGINES)
def test_an_engine_computes_what_onnx_defines_for_any_size_and_batch(tmp_path: Path, name: str) -> None:
    model = write_toy(tmp_path / "toy")
    with open_engine(model, engine=name) as engine:
        assert engine.name == name
        assert engine.version
        for shape in ((16, 24), (4, 4), (40, 8), (16, 24)):
            for batch in (1, 3):
                stack = noise(*shape, batch=batch)
                found = engine.run(stack)
                expected = run_onnx(convolution_onnx(), stack)
                assert list(found) == ["mean", "sd", "parameters"]
                for output, answer in found.items():
                    assert answer.dtype == np.float32
                    np.testing.assert_allclose(answer, expected[output], atol=1e-4)


@pytest.mark.parametrize("name", list(ENGINES))
def test_all_engines_agree_with_keras(keras_model: Model, keras_files: KerasFiles, name: str) -> None:
    with open_engine(keras_model, engine=name) as engine:
        found = engine.run(keras_files.stack)
    for output, expected in keras_files.outputs.items():
        np.testing.assert_allclose(found[output], expected, atol=1e-4)


@pytest.mark.parametrize("name", list(ENGINES))
def test_only_the_outputs_asked_for_are_computed(
    keras_model: Model, keras_files: KerasFiles, name: str
) -> None:
    with open_engine(keras_model, engine=name, outputs=["sd"]) as engine:
        found = engine.run(keras_files.stack)
    assert list(found) == ["sd"]
    np.testing.assert_allclose(found["sd"], keras_files.outputs["sd"], atol=1e-4)
    with pytest.raises(LinceiError, match="no output 'median'"):
        open_engine(keras_model, engine=name, outputs=["median"])


@pytest.mark.parametrize("name", ONNX_ENGINES)
def test_an_earlier_answer_is_not_overwritten_by_a_later_run(tmp_path: Path, name: str) -> None:
    with open_engine(write_toy(tmp_path / "toy"), engine=name) as engine:
        first = engine.run(noise())["mean"]
        kept = first.copy()
        engine.run(noise() + 5)
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ONNX_ENGINES)
def test_threads_may_share_an_engine(tmp_path: Path, name: str) -> None:
    stacks = [noise() * factor for factor in range(1, 9)]
    with open_engine(write_toy(tmp_path / "toy"), engine=name, threads=1) as engine:
        alone = [engine.run(stack)["mean"] for stack in stacks]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda stack: engine.run(stack)["mean"], stacks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_sizes_than_are_kept_compiled_still_run(tmp_path: Path) -> None:
    with open_engine(write_toy(tmp_path / "toy"), engine="openvino") as engine:
        for size in (4, 8, 12, 16, 20, 24, 4):
            stack = noise(size, size)
            np.testing.assert_allclose(
                engine.run(stack)["mean"], run_onnx(convolution_onnx(), stack)["mean"], atol=1e-4
            )


def test_float32_is_exact_where_bfloat16_is_not(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy")
    expected = run_onnx(convolution_onnx(), noise())["mean"]
    with open_engine(model, engine="openvino") as engine:
        assert engine.precision == "float32"
        np.testing.assert_allclose(engine.run(noise())["mean"], expected, atol=1e-4)
    with open_engine(model, engine="openvino", precision="bfloat16") as engine:
        deviation = np.abs(engine.run(noise())["mean"] - expected).max()
        # A processor without bfloat16 computes in float32, and the engine says so.
        assert (deviation > 1e-4) == (engine.precision == "bfloat16")
        assert deviation < 0.2
    with open_engine(model, engine="onnxruntime", precision="bfloat16") as engine:
        assert engine.precision == "float32"


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((1, 3, 18, 16), "multiples of the network's stride, 4 pixels, not 18 x 16"),
        ((1, 3, 16, 0), "multiples"),
        ((1, 2, 16, 16), r"\(N, 3, Y, X\), not \(1, 2, 16, 16\)"),
        ((3, 16, 16), r"\(N, 3, Y, X\)"),
    ],
)
def test_an_array_that_does_not_suit_the_network_is_refused(
    tmp_path: Path, shape: tuple[int, ...], told: str
) -> None:
    with (
        open_engine(write_toy(tmp_path / "toy"), engine="onnxruntime") as engine,
        pytest.raises(LinceiError, match=told),
    ):
        engine.run(np.zeros(shape, np.float32))


def test_integers_are_converted(tmp_path: Path) -> None:
    with open_engine(write_toy(tmp_path / "toy")) as engine:
        counts = np.arange(3 * 16 * 16, dtype=np.uint16).reshape(1, 3, 16, 16)
        np.testing.assert_array_equal(
            engine.run(counts)["mean"], engine.run(counts.astype(np.float32))["mean"]
        )


@pytest.mark.parametrize("name", ONNX_ENGINES)
def test_bytes_as_pictures_have_them_give_the_same_answers(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 16, 24, 3), np.uint8)
    with open_engine(write_toy(tmp_path / "toy"), engine=name) as engine:
        expected = engine.run(np.moveaxis(pixels, -1, 1))
        found = engine.run_pixels(pixels)
        assert list(found) == list(expected)
        for output, answer in found.items():
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, expected[output], rtol=1e-5, atol=1e-3)
        with pytest.raises(LinceiError, match="multiples of the network's stride"):
            engine.run_pixels(pixels[:, :15])
        with pytest.raises(LinceiError, match=r"\(N, 3, Y, X\)"):
            engine.run_pixels(pixels[0])


def test_the_next_engine_takes_over_when_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_import_openvino", _not_installed("openvino"))
    with open_engine(write_toy(tmp_path / "toy")) as engine:
        assert engine.name == "onnxruntime"


def test_when_no_engine_works_the_error_says_why_each_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_import_openvino", _not_installed("openvino"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LinceiError) as error:
        open_engine(write_toy(tmp_path / "toy"))
    assert "openvino: openvino is not installed" in str(error.value)
    assert "onnxruntime:" in str(error.value)
    assert "tensorflow: the model was not made by lincei" in str(error.value)
    assert "pip install" in error.value.what_to_do


def test_a_damaged_network_is_told_as_such_and_not_as_an_engine_that_fails(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy")
    (model.folder / "weights.onnx").write_bytes(b"x")
    with pytest.raises(LinceiError, match="SHA-256"):
        open_engine(model)


def test_wrong_settings_are_wrong_usage(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy")
    for settings in ({"engine": "abacus"}, {"precision": "float8"}, {"threads": 0}):
        with pytest.raises(UsageError):
            open_engine(model, **settings)  # type: ignore[arg-type]


def test_options_offer_the_engines_there_are() -> None:
    assert tuple(ENGINES) == ENGINE_NAMES


def test_status_tells_what_works_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    found = {status.name: status for status in engine_status()}
    assert list(found) == list(ENGINES)
    assert found["openvino"].works
    assert found["openvino"].version
    assert not found["tensorflow"].works
    assert found["tensorflow"].reason


def test_a_cached_engine_is_opened_once_and_the_oldest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    real = open_engine

    def counting(model: Model, **settings: Any) -> Engine:
        opened.append(settings["outputs"])
        return real(model, **settings)

    monkeypatch.setattr(engine_module, "open_engine", counting)
    clear_engines()
    model = write_toy(tmp_path / "toy")
    try:
        with ThreadPoolExecutor(4) as pool:
            engines = list(pool.map(lambda _: cached_engine(model, engine="onnxruntime"), range(8)))
        assert len(set(map(id, engines))) == 1
        assert cached_engine(model, engine="onnxruntime", outputs=["mean"]) is not engines[0]
        assert len(opened) == 2
        for threads in (1, 2, 3, 4):
            cached_engine(model, engine="onnxruntime", threads=threads)
        engines[0].run(noise())  # whoever still holds it can use it
        cached_engine(model, engine="onnxruntime")
        assert len(opened) == 7
    finally:
        clear_engines()


def test_weights_in_another_file_are_refused_when_a_model_is_opened(tmp_path: Path) -> None:
    import onnx

    network = onnx.load_model_from_string(convolution_onnx())
    kernel = network.graph.initializer[0]
    kernel.ClearField("raw_data")
    kernel.data_location = onnx.TensorProto.EXTERNAL
    entry = kernel.external_data.add()
    entry.key, entry.value = "location", "../../secret.bin"
    with pytest.raises(LinceiError, match=r"reads its weights from another file \('../../secret.bin'\)"):
        write_model(tmp_path / "toy", card(), onnx=network.SerializeToString())
    # A folder that was made by hand, with hashes that fit, gets no further.
    model = write_toy(tmp_path / "toy")
    hostile = tmp_path / "toy" / "weights.onnx"
    hostile.write_bytes(network.SerializeToString())
    from lincei.model_card import sha256_of

    files = {**model.card.files, "weights.onnx": sha256_of(hostile)}
    import dataclasses

    forged = Model(model.folder, dataclasses.replace(model.card, files=files))
    with pytest.raises(LinceiError, match="reads its weights from another file"):
        open_engine(forged)


def test_opening_openvino_sends_and_stores_nothing_about_the_user(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "from lincei.engine import engine_status\n"
        "def refuse(*a): raise SystemExit('asked for the network')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "assert engine_status()[0].works, engine_status()[0].reason\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    environment = {**_environment(), "HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    for variable in ("CI", "TF_BUILD", "JENKINS_URL"):  # there OpenVINO keeps quiet by itself
        environment.pop(variable, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("[Ii]ntel*"))


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def _not_installed(name: str) -> Any:
    """Return a function that fails as an import of a missing package does."""

    def fail() -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fail
