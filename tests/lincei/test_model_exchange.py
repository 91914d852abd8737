"""Networks come from other programs and go to them; what holds code stays out."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_models import TOY_TOOL, KerasFiles, card, convolution_onnx, noise, run_onnx, write_toy

from lincei.engine import open_engine
from lincei.errors import LinceiError, UsageError
from lincei.keras_network import export_onnx, named_outputs
from lincei.model import Model, Tensor, find_model, install_model, list_models, write_model
from lincei.model_check import check_model, check_on_all_engines
from lincei.model_exchange import export_model, finish_model, import_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FIELDS: dict[str, Any] = {
    "name": "foreign-net",
    "task": "label",
    "modality": "phase contrast",
    "total_stride": 4,
    "halo_px": 8,
    "labels": ("DAPI", "MAP2"),
}


def test_a_model_with_a_test_passes_its_check_on_every_engine(keras_model: Model) -> None:
    reports = check_on_all_engines(keras_model)
    assert list(reports) == ["openvino", "onnxruntime", "tensorflow"]
    for report in reports.values():
        assert report.passed, report.describe()
        assert set(report.max_abs_deviation) == {"mean", "sd", "parameters"}
        assert max(report.max_abs_deviation.values()) < 1e-4


def test_a_model_whose_answer_is_another_fails_its_check(tmp_path: Path) -> None:
    content = convolution_onnx()
    outputs = run_onnx(content, noise())
    outputs["sd"] = outputs["sd"] + 0.5
    model = write_model(tmp_path / "toy", card(), onnx=content, test_input=noise(), test_outputs=outputs)
    report = check_model(model)
    assert not report.passed
    assert report.within == {"mean": True, "sd": False, "parameters": True}
    assert report.max_abs_deviation["sd"] == pytest.approx(0.5, abs=1e-3)
    assert "sd off by 0.5 (too much)" in report.describe()


def test_a_model_without_a_test_does_not_pass(tmp_path: Path) -> None:
    report = check_model(write_model(tmp_path / "toy", card(), onnx=convolution_onnx()))
    assert not report.passed
    assert "no test input" in report.describe()


def test_the_exported_network_takes_any_size(keras_files: KerasFiles) -> None:
    import onnx

    network = onnx.load_model_from_string(keras_files.onnx)
    sizes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*network.graph.input, *network.graph.output)
    ]
    assert sizes[0] == ["n", 3, "y", "x"]
    assert [value.name for value in network.graph.output] == ["mean", "sd", "parameters"]
    assert all(isinstance(size[2], str) and isinstance(size[3], str) for size in sizes)


def test_a_network_is_rebuilt_in_float32_whatever_training_used(
    keras_model: Model, keras_files: KerasFiles
) -> None:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = keras_model.load_keras()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}


def test_outputs_are_named_whether_a_network_returns_a_dict_a_list_or_one_tensor() -> None:
    assert named_outputs({"sd": 2, "mean": 1}, ["mean", "sd"]) == {"mean": 1, "sd": 2}
    assert named_outputs([1, 2], ["mean", "sd"]) == {"mean": 1, "sd": 2}
    assert named_outputs(1, ["mean"]) == {"mean": 1}
    with pytest.raises(LinceiError, match="returns 2 outputs, not 1"):
        named_outputs([1, 2], ["mean"])
    with pytest.raises(LinceiError, match="returns mode, not mean"):
        named_outputs({"mode": 1}, ["mean"])


def test_a_network_with_one_answer_per_image_is_exported(keras_files: KerasFiles, tmp_path: Path) -> None:
    import keras

    stack = keras.layers.Input((None, None, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(stack))
    network = keras.Model(stack, keras.layers.Dense(11, activation="softmax")(pooled))
    content = export_onnx(
        network, tmp_path / "focus.onnx", channels=1, output_names=["mean"], input_name="patch"
    ).read_bytes()
    patches = card(
        name="focus-toy",
        task="focus",
        labels=(),
        input=Tensor("patch", ("gray",)),
        outputs=(Tensor("mean", tuple(f"level {k}" for k in range(11)), downsampling=None),),
        z_planes=1,
        total_stride=84,
        halo_px=0,
    )
    images = noise(84, 84, planes=1, batch=3)
    expected = np.asarray(network(images.transpose(0, 2, 3, 1), training=False))
    model = write_model(
        tmp_path / "focus-toy", patches, onnx=content, test_input=images, test_outputs={"mean": expected}
    )
    for name in ("openvino", "onnxruntime"):
        assert check_model(model, name).passed
    with open_engine(model) as engine:
        np.testing.assert_allclose(engine.run(images)["mean"].sum(axis=1), 1, atol=1e-5)


def test_a_network_that_does_not_export_is_told(tmp_path: Path, keras_files: KerasFiles) -> None:
    def network(stack: Any, training: bool) -> Any:
        raise ValueError("no gradient here\nmany more lines")

    with pytest.raises(LinceiError, match=r"does not export to ONNX \(.*no gradient here"):
        export_onnx(network, tmp_path / "net.onnx", channels=1, output_names=["mean"])
    assert list(tmp_path.iterdir()) == []


def test_a_training_without_tensorflow_is_finished(
    models: Path, toy_tool: Path, keras_files: KerasFiles
) -> None:
    unfinished = write_model(
        models / "toy-cells",
        card(),
        keras_weights=keras_files.weights,
        network=keras_files.network,
        test_input=keras_files.stack,
        test_outputs=keras_files.outputs,
    )
    assert list_models() == []
    finished = finish_model(unfinished.folder)
    assert finished.card.finished
    assert find_model("toy-cells") == finished
    assert check_model(finished).passed
    assert finish_model(unfinished.folder) == finished
    assert not [path for path in finished.folder.iterdir() if path.name.startswith(".")]


def test_a_finished_network_must_answer_as_the_trained_one(
    models: Path, toy_tool: Path, keras_files: KerasFiles
) -> None:
    outputs = {**keras_files.outputs, "mean": keras_files.outputs["mean"] + 1}
    unfinished = write_model(
        models / "toy-cells",
        card(),
        keras_weights=keras_files.weights,
        network=keras_files.network,
        test_input=keras_files.stack,
        test_outputs=outputs,
    )
    with pytest.raises(LinceiError, match="answers otherwise"):
        finish_model(unfinished.folder)
    assert not Model.from_folder(unfinished.folder).card.finished
    assert not (unfinished.folder / "weights.onnx").exists()


def test_finishing_on_another_backend_says_what_to_set(
    models: Path, toy_tool: Path, keras_files: KerasFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    folder = models / "toy-cells"
    write_model(folder, card(), keras_weights=keras_files.weights, network=keras_files.network)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(LinceiError, match="KERAS_BACKEND=tensorflow"):
        finish_model(folder)


def test_an_exported_archive_installs_again(keras_model: Model, models: Path, tmp_path: Path) -> None:
    archive = export_model(keras_model, tmp_path / "out" / "toy.zip")
    shutil.rmtree(models)
    assert install_model(archive).card == keras_model.card
    with pytest.raises(LinceiError, match="exists already"):
        export_model(keras_model, archive)
    with pytest.raises(UsageError, match="no format"):
        export_model(keras_model, tmp_path / "x", "docx")


def test_a_bare_onnx_goes_out_and_comes_back(models: Path, tmp_path: Path) -> None:
    model = write_toy(models / "toy-cells")
    file = export_model(model, tmp_path / "net.onnx", "onnx")
    assert file.read_bytes() == model.onnx_path.read_bytes()
    back = import_model(file, outputs=("mean", "sd", "parameters"), **FIELDS)
    assert find_model("foreign-net") == back
    assert back.card.input.channels == ("z0", "z1", "z2")
    assert [tensor.name for tensor in back.card.outputs] == ["mean", "sd", "parameters"]
    assert check_model(back).passed
    with open_engine(back) as one, open_engine(model) as other:
        for name, answer in one.run(noise()).items():
            np.testing.assert_allclose(answer, other.run(noise())[name], atol=1e-5)


def test_a_saved_model_goes_out_and_comes_back(
    keras_model: Model, keras_files: KerasFiles, tmp_path: Path
) -> None:
    folder = export_model(keras_model, tmp_path / "saved", "savedmodel")
    assert (folder / "saved_model.pb").is_file()
    back = import_model(folder, outputs=("mean", "parameters", "sd"), **FIELDS)
    with open_engine(back) as engine:
        answers = engine.run(keras_files.stack)
    for name, expected in keras_files.outputs.items():
        np.testing.assert_allclose(answers[name], expected, atol=1e-4)


def test_a_keras_file_is_imported(models: Path, keras_files: KerasFiles) -> None:
    model = import_model(keras_files.keras, outputs=("mean", "parameters", "sd"), **FIELDS)
    with open_engine(model) as engine:
        answers = engine.run(keras_files.stack)
    np.testing.assert_allclose(answers["mean"], keras_files.outputs["mean"], atol=1e-4)
    assert model.card.outputs[0].channels == ("DAPI", "MAP2")


def test_an_onnx_with_channels_last_and_foreign_names_is_imported(models: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    network = onnx.load_model_from_string(convolution_onnx(output_channels=(2,), names=("mean",)))
    kernel = network.graph.initializer[0]
    # "mean" and "stack" are inner names here, the outer ones are those of other programs.
    nodes = [
        helper.make_node("Transpose", ["input_1:0"], ["stack"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["stack", kernel.name], ["mean"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["mean"], ["Identity:0"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input_1:0", TensorProto.FLOAT, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, ["n", "h", "w", 2])],
        [kernel],
    )
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    model = import_model(tmp_path / "foreign.onnx", colors=("#0000FF", "#00FF00"), **FIELDS)
    expected = run_onnx(convolution_onnx(output_channels=(2,), names=("mean",)), noise())
    for engine_name in ("openvino", "onnxruntime"):
        with open_engine(model, engine=engine_name) as engine:
            np.testing.assert_allclose(engine.run(noise())["mean"], expected["mean"], atol=1e-4)
    assert [label.color for label in model.card.labels] == ["#0000FF", "#00FF00"]


def test_missing_fields_are_named_by_their_flags_in_one_sentence(models: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(convolution_onnx())
    with pytest.raises(UsageError) as error:
        import_model(tmp_path / "net.onnx")
    text = str(error.value)
    for flag in ("--name", "--task", "--modality", "--total-stride", "--halo-px", "--labels"):
        assert flag in text
    with pytest.raises(UsageError, match="give --modality") as error:
        import_model(tmp_path / "net.onnx", **{**FIELDS, "modality": None})
    assert "--name" not in str(error.value)
    with pytest.raises(UsageError, match="the first output has 2 channels"):
        import_model(tmp_path / "net.onnx", **{**FIELDS, "labels": ("DAPI",)})
    with pytest.raises(UsageError, match="--outputs names 1"):
        import_model(tmp_path / "net.onnx", outputs=("mean",), **FIELDS)
    assert not models.exists()


def test_what_is_no_network_is_told(models: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"text")
    (tmp_path / "net.pt").write_bytes(b"text")
    (tmp_path / "net.keras").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("net.onnx", "not an ONNX file"),
        ("net.pt", "no network that can be imported"),
        ("net.keras", r"no \.keras file"),
        ("folder", "no SavedModel"),
        ("nothing.onnx", "no such file"),
    ):
        with pytest.raises(LinceiError, match=told):
            import_model(tmp_path / name, **FIELDS)


def test_a_network_of_one_image_size_is_refused(models: Path, tmp_path: Path) -> None:
    import onnx

    network = onnx.load_model_from_string(convolution_onnx())
    for dim in network.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 256
    (tmp_path / "net.onnx").write_bytes(network.SerializeToString())
    with pytest.raises(LinceiError, match="only the number of channels may be fixed"):
        import_model(tmp_path / "net.onnx", **FIELDS)


def edited_keras(source: Path, target: Path, edit: Any, extra: dict[str, bytes] | None = None) -> Path:
    """Copy a .keras file with another configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                edit(config["config"]["layers"][1])
                content = json.dumps(config).encode()
            new.writestr(name, content)
        for name, content in (extra or {}).items():
            new.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ({"class_name": "Lambda", "module": "keras.layers"}, "holds a Lambda layer"),
        ({"class_name": "TFSMLayer", "module": "keras.layers"}, "holds a TFSMLayer layer"),
        ({"class_name": "TorchModuleWrapper", "module": "keras.layers"}, "holds a TorchModuleWrapper"),
        ({"class_name": "system", "module": "os"}, "the class system of os"),
        ({"class_name": "get_file", "module": "keras.utils"}, "the class get_file of keras.utils"),
        ({"class_name": "Model", "module": "keras.src.saving"}, "not part of Keras"),
        ({"class_name": "Mine", "module": None, "registered_name": "mine>Mine"}, "not part of Keras"),
        (
            {"config": {"activation": {"class_name": "function", "config": "system", "module": "builtins"}}},
            "holds a function",
        ),
        ({"config": {"activation": {"class_name": "__lambda__", "config": {"value": "4wEA"}}}}, "__lambda__"),
    ],
)
def test_a_keras_file_that_could_run_code_is_refused_before_keras_sees_it(
    models: Path,
    keras_files: KerasFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layer: dict[str, Any],
    told: str,
) -> None:
    import keras

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the file must not be loaded")

    monkeypatch.setattr(keras.saving, "load_model", never)
    hostile = edited_keras(keras_files.keras, tmp_path / "evil.keras", lambda entry: entry.update(layer))
    with pytest.raises(LinceiError, match=told):
        import_model(hostile, **FIELDS)


def test_a_keras_file_with_files_of_its_own_is_refused(
    models: Path, keras_files: KerasFiles, tmp_path: Path
) -> None:
    hostile = edited_keras(
        keras_files.keras, tmp_path / "evil.keras", lambda entry: None, {"assets/vocabulary.txt": b"x"}
    )
    with pytest.raises(LinceiError, match="do not need"):
        import_model(hostile, **FIELDS)


def test_a_real_lambda_layer_is_refused(models: Path, keras_files: KerasFiles, tmp_path: Path) -> None:
    import keras

    stack = keras.layers.Input((None, None, 3))
    network = keras.Model(stack, keras.layers.Lambda(lambda x: x * 2)(stack))
    network.save(tmp_path / "lambda.keras")
    with pytest.raises(LinceiError, match="holds a Lambda layer"):
        import_model(tmp_path / "lambda.keras", **FIELDS)


def test_a_saved_model_that_touches_files_is_refused(
    models: Path, keras_files: KerasFiles, tmp_path: Path
) -> None:
    import tensorflow as tf

    module = tf.Module()
    target = tmp_path / "written"

    def serve(stack: Any) -> Any:
        tf.io.write_file(str(target), "hello")
        return stack

    module.serve = tf.function(
        serve, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)], autograph=False
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    with pytest.raises(LinceiError, match="WriteFile"):
        import_model(tmp_path / "saved", **FIELDS)
    assert not target.exists()


def test_a_model_from_elsewhere_has_no_saved_model(models: Path, tmp_path: Path) -> None:
    model = write_toy(models / "toy-cells")
    with pytest.raises(LinceiError, match="not made by lincei"):
        export_model(model, tmp_path / "saved", "savedmodel")
    assert not [path for path in tmp_path.iterdir() if "saved" in path.name]


def test_the_tool_that_a_network_needs_is_named_when_it_is_not_installed(
    keras_model: Model, toy_tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(toy_tool.parent)])
    with pytest.raises(LinceiError, match=f"{TOY_TOOL}.network:build_network") as error:
        keras_model.load_keras()
    assert "Install the tool" in error.value.what_to_do
