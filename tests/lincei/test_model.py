"""A model folder is written whole, found by name, and never trusted."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy_models import TOY_TOOL, KerasFiles, card, convolution_onnx, noise, run_onnx, write_toy

from lincei.errors import LinceiError
from lincei.model import (
    Card,
    Model,
    Tensor,
    broken_models,
    find_model,
    install_model,
    list_models,
    remove_model,
    write_model,
)
from lincei.model_card import checked_reference, read_rdf, spec_problems


def edit_rdf(folder: Path, change: Any) -> None:
    """Change the description in place, as an attacker or a careless hand would."""
    path = folder / "rdf.yaml"
    rdf = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(rdf)
    path.write_text(yaml.safe_dump(rdf), encoding="utf-8")


def test_a_written_model_reads_back_as_it_was_written(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy")
    again = Model.from_folder(tmp_path / "toy")
    assert again.card == model.card
    assert (
        dataclasses.replace(
            again.card,
            input=card().input,
            outputs=card().outputs,
            created="",
            lincei_version="",
            onnx_file=None,
            files={},
        )
        == card()
    )
    np.testing.assert_array_equal(again.test_input(), noise())
    expected = run_onnx(convolution_onnx(), noise())
    assert list(again.test_outputs()) == ["mean", "sd", "parameters"]
    np.testing.assert_array_equal(again.test_outputs()["sd"], expected["sd"])


def test_the_description_tells_other_programs_size_pixel_size_and_halo(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy", halo_px=6)
    rdf = yaml.safe_load((model.folder / "rdf.yaml").read_text(encoding="utf-8"))
    y = rdf["inputs"][0]["axes"][2]
    assert y == {
        "type": "space",
        "id": "y",
        "size": {"min": 16, "step": 4},
        "unit": "micrometer",
        "scale": 0.25,
    }
    assert rdf["outputs"][0]["axes"][2]["halo"] == 6
    assert rdf["outputs"][0]["id"] == "mean"
    unknown = card(pixel_size_um=None).to_rdf()["inputs"][0]["axes"][2]
    assert "unit" not in unknown


def test_the_specification_is_checked_without_asking_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("nothing may be asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    rdf = card(onnx_file="weights.onnx", files={"weights.onnx": "0" * 64}).to_rdf()
    assert spec_problems(rdf) == []
    rdf["outputs"][0]["axes"][2]["size"] = {"tensor_id": "nobody", "axis_id": "y"}
    assert any("outputs" in problem for problem in spec_problems(rdf))


def test_a_network_without_y_and_x_in_its_output_and_one_on_a_coarser_grid_are_described(
    tmp_path: Path,
) -> None:
    focus = card(
        task="focus",
        modality="fluorescence",
        labels=(),
        input=Tensor("patch", ("gray",)),
        outputs=(
            Tensor("mean", tuple(f"level {k}" for k in range(11)), downsampling=None),
            Tensor("grid", ("a",), downsampling=84),
        ),
        z_planes=1,
        total_stride=84,
        halo_px=0,
    )
    rdf = {
        **focus.to_rdf(),
        "weights": {"onnx": {"source": "a.onnx", "sha256": "0" * 64, "opset_version": 18}},
    }
    assert spec_problems(rdf) == []
    (tmp_path / "rdf.yaml").write_text(yaml.safe_dump(rdf), encoding="utf-8")
    read = Card.from_folder(tmp_path)
    assert [tensor.downsampling for tensor in read.outputs] == [None, 84]


def test_the_hash_changes_with_what_changes_the_numbers_and_with_nothing_else(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "a")
    assert write_toy(tmp_path / "b", figures={"other": 1}, description="Other words.").hash == model.hash
    assert write_toy(tmp_path / "c", recalibration={"scale": 1.1}).hash != model.hash
    assert write_toy(tmp_path / "d", pixel_size_um=0.3).hash != model.hash
    other = write_model(tmp_path / "e", card(), onnx=convolution_onnx(seed=2))
    assert other.hash != model.hash
    assert write_toy(tmp_path / "f", pixel_size_um=1).hash == Model.from_folder(tmp_path / "f").hash


def test_the_summary_says_what_a_person_asks(tmp_path: Path) -> None:
    text = write_toy(tmp_path / "toy").card.summary()
    for part in (
        "phase contrast",
        "3 z planes",
        "0.5 um",
        "0.25 um",
        "DAPI, MAP2",
        "0.81",
        "Research use only",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "../evil"}, "name"),
        ({"name": ""}, "name"),
        ({"task": "denoise"}, "task"),
        ({"modality": "x-ray"}, "modality"),
        ({"total_stride": 0}, "total_stride"),
        ({"total_stride": 2.5}, "total_stride"),
        ({"min_size_px": 30}, "min_size_px"),
        ({"pixel_size_um": float("nan")}, "pixel_size_um"),
        ({"labels": ()}, "label"),
        ({"outputs": ()}, "output"),
        ({"figures": {"r": float("nan")}}, "figures"),
        ({"training": {"path": Path("x")}}, "training"),
    ],
)
def test_a_card_without_meaning_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(LinceiError, match=told):
        card(**change)


def test_a_failure_while_writing_leaves_nothing_and_spares_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_toy(tmp_path / "toy")

    def disk_full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", disk_full)
    for name in ("toy", "new"):
        with pytest.raises(LinceiError, match="No space left"):
            write_model(
                tmp_path / name,
                card(description="New."),
                onnx=convolution_onnx(),
                test_input=noise(),
                test_outputs={},
                replace=True,
            )
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert Model.from_folder(tmp_path / "toy").card == old.card


def test_a_failure_to_put_a_model_in_place_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_toy(tmp_path / "toy")
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Any) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(LinceiError, match="Permission denied"):
        write_model(tmp_path / "toy", card(description="New."), onnx=convolution_onnx(), replace=True)
    assert Model.from_folder(tmp_path / "toy").card == old.card
    assert len(list(tmp_path.iterdir())) == 1


def test_only_a_model_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy")
    with pytest.raises(LinceiError, match="a model already"):
        write_toy(tmp_path / "toy")
    replaced = write_model(tmp_path / "toy", card(description="New."), onnx=convolution_onnx(), replace=True)
    assert replaced.card.description == "New."
    assert not (tmp_path / "toy" / "test_input.npy").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(LinceiError, match="other files"):
        write_model(tmp_path / "thesis", card(), onnx=convolution_onnx(), replace=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_network_or_test_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinceiError, match="outputs are mean"):
        write_model(tmp_path / "a", card(), onnx=convolution_onnx(output_channels=(2,), names=("mean",)))
    with pytest.raises(LinceiError, match="channels"):
        write_model(tmp_path / "a", card(), onnx=convolution_onnx(output_channels=(3, 2, 6)))
    with pytest.raises(LinceiError, match="shape"):
        write_model(tmp_path / "a", card(), onnx=convolution_onnx(planes=4))
    with pytest.raises(LinceiError, match="not an ONNX file"):
        write_model(tmp_path / "a", card(), onnx=b"certainly not a network")
    wrong = {"mean": np.zeros((1, 2, 16, 16), np.float32)}
    with pytest.raises(LinceiError, match="test output 'mean' has shape"):
        write_model(tmp_path / "a", card(), onnx=convolution_onnx(), test_input=noise(), test_outputs=wrong)
    with pytest.raises(LinceiError, match="smaller than the"):
        write_model(tmp_path / "a", card(), onnx=convolution_onnx(), test_input=noise(8, 8))
    with pytest.raises(LinceiError, match="multiples of the network's stride"):
        write_model(tmp_path / "a", card(), onnx=convolution_onnx(), test_input=noise(18, 16))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_changed_is_not_used(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy")
    for name, use in (
        ("weights.onnx", lambda: model.onnx_path),
        ("test_input.npy", model.test_input),
        ("test_output_mean.npy", model.test_outputs),
    ):
        path = model.folder / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(LinceiError, match="SHA-256"):
            use()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy")
    outside = tmp_path / "outside.onnx"
    shutil.move(model.folder / "weights.onnx", outside)
    try:
        (model.folder / "weights.onnx").symlink_to(outside)
    except OSError:
        pytest.skip("this system lets no user make links")
    with pytest.raises(LinceiError, match="link out of"):
        _ = model.onnx_path


@pytest.mark.parametrize(
    "name",
    [
        "../weights.onnx",
        "a/../../b.onnx",
        "/etc/passwd",
        "C:\\weights.onnx",
        "C:weights.onnx",
        "a\\b.onnx",
        "\\\\server\\share\\w.onnx",
        "https://example.org/w.onnx",
        "file:///etc/passwd",
        "~/w.onnx",
        "con.onnx",
        "COM1",
        "a//b",
        "./a",
        "a/.",
        "w.onnx ",
        "w.onnx.",
        "a\nb",
        "a\0b",
        "",
        None,
        3,
    ],
)
def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(LinceiError, match="does not stay in the model's folder"):
        checked_reference(name)
    write_toy(tmp_path / "toy")
    edit_rdf(tmp_path / "toy", lambda rdf: rdf["weights"]["onnx"].update(source=name))
    with pytest.raises(LinceiError, match="does not stay in the model's folder"):
        Card.from_folder(tmp_path / "toy")


def test_a_description_cannot_name_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "rdf.yaml"
    target = tmp_path / "ran"
    path.write_text(f"type: !!python/object/apply:pathlib.Path.touch ['{target}']\n", encoding="utf-8")
    with pytest.raises(LinceiError, match="not valid YAML"):
        read_rdf(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
        ("[" * 5000, "not valid YAML"),
        ("- a list\n", "not a mapping"),
        ("a: [1\n", "not valid YAML"),
        ("x: " + "a" * 2**20, "larger than"),
        ("type: model\nname: foreign model\n", "without a lincei section"),
        ("type: model\nconfig: {lincei: {format: 99}}\n", "format 99"),
        ("type: model\nconfig: {lincei: {format: 1}}\n", "damaged"),
    ],
)
def test_a_description_that_is_no_card_is_told_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "rdf.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(LinceiError, match=told) as error:
        Card.from_folder(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_description_without_hashes_is_refused(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy")
    edit_rdf(tmp_path / "toy", lambda rdf: rdf["weights"]["onnx"].pop("sha256"))
    with pytest.raises(LinceiError, match="no valid sha256"):
        Card.from_folder(tmp_path / "toy")


def test_models_are_found_by_name_and_by_folder(models: Path, tmp_path: Path) -> None:
    assert list_models() == []
    model = write_toy(models / "toy-cells")
    assert list_models() == [model]
    assert list_models("focus") == []
    assert find_model("toy-cells") == model
    assert find_model(models / "toy-cells", task="label") == model


def test_an_unknown_name_brings_near_ones_and_the_list(models: Path) -> None:
    with pytest.raises(LinceiError, match="No model is installed yet"):
        find_model("toy-cels")
    write_toy(models / "toy-cells")
    with pytest.raises(LinceiError, match=r"Did you mean toy-cells\? There are: toy-cells"):
        find_model("toy-cels")
    with pytest.raises(LinceiError, match="for another task"):
        find_model("toy-cells", task="tumor")


def test_an_archive_is_to_be_installed_first(models: Path, tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_bytes(b"PK")
    with pytest.raises(LinceiError, match="lincei models install"):
        find_model(tmp_path / "m.zip")


def test_of_two_models_with_one_name_the_earlier_on_the_path_wins(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("LINCEI_MODELS", os.pathsep.join(map(str, (first, second))))
    write_toy(second / "toy-cells", description="second")
    write_toy(tmp_path / "user data" / "models" / "toy-cells", description="user")
    assert find_model("toy-cells").card.description == "second"
    write_toy(first / "toy-cells", description="first")
    assert find_model("toy-cells").card.description == "first"
    assert len(list_models()) == 1


def test_broken_models_are_listed_with_the_reason_and_harm_no_other(models: Path) -> None:
    good = write_toy(models / "toy-cells")
    for name in ("no-weights", "no-card", "bad-yaml"):
        shutil.copytree(good.folder, models / name)
    (models / "no-weights" / "weights.onnx").unlink()
    (models / "no-card" / "rdf.yaml").unlink()
    (models / "bad-yaml" / "rdf.yaml").write_text("a: [1", encoding="utf-8")
    (models / "just-a-folder").mkdir()
    assert list_models() == [good]
    reasons = {broken.folder.name: broken.reason for broken in broken_models()}
    assert set(reasons) == {"no-weights", "no-card", "bad-yaml"}
    assert "weights.onnx is missing" in reasons["no-weights"]
    assert "rdf.yaml" in reasons["no-card"]
    with pytest.raises(LinceiError, match="the model is broken"):
        find_model("bad-yaml")


def test_shipped_models_are_found_without_importing_their_tool(models: Path, toy_tool: Path) -> None:
    shipped = toy_tool / "weights" / "toy-cells"
    try:
        write_toy(shipped)
        assert find_model("toy-cells").folder == shipped
        assert TOY_TOOL not in sys.modules
        with pytest.raises(LinceiError, match="came with the program"):
            remove_model("toy-cells")
        installed = install_model(shipped)
        assert find_model("toy-cells").folder == installed.folder == models / "toy-cells"
        assert remove_model("toy-cells") == models / "toy-cells"
        assert find_model("toy-cells").folder == shipped
    finally:
        shutil.rmtree(toy_tool / "weights")


def test_removing_a_model_leaves_nothing_of_it(models: Path) -> None:
    write_toy(models / "toy-cells")
    remove_model("toy-cells")
    assert list(models.iterdir()) == []
    with pytest.raises(LinceiError, match="no installed model"):
        remove_model("toy-cells")


def test_an_installed_folder_brings_only_the_files_of_the_card(models: Path, tmp_path: Path) -> None:
    source = write_toy(tmp_path / "source")
    (source.folder / "extra.py").write_text("print('never')", encoding="utf-8")
    installed = install_model(source.folder, name="renamed")
    assert installed.name == "renamed"
    assert installed.hash == source.hash
    assert not (installed.folder / "extra.py").exists()
    with pytest.raises(LinceiError, match="a model already"):
        install_model(source.folder, name="renamed")
    assert install_model(source.folder, name="renamed", replace=True).card == installed.card


def test_a_keras_network_is_rebuilt_with_its_weights(keras_model: Model, keras_files: KerasFiles) -> None:
    network = keras_model.load_keras()
    answers = network(keras_files.stack.transpose(0, 2, 3, 1), training=False)
    mean = np.asarray(answers["mean"]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(mean, keras_files.outputs["mean"], atol=1e-5)


@pytest.mark.parametrize(
    "builder",
    [
        "os:system",
        "subprocess:run",
        f"{TOY_TOOL}.network:undeclared",
        f"{TOY_TOOL}.other:anything",
        f"{TOY_TOOL}.network.sub:build_network",
        f"{TOY_TOOL}:build_network",
        "lincei.network:build_network",
        None,
        ["x"],
    ],
)
def test_a_configuration_cannot_name_code_that_no_tool_declares(
    models: Path, toy_tool: Path, keras_files: KerasFiles, builder: Any
) -> None:
    model = write_model(
        models / "toy-cells",
        card(),
        onnx=convolution_onnx(),
        keras_weights=keras_files.weights,
        network={"builder": builder, "config": {}},
    )
    with pytest.raises(LinceiError, match="not one that an installed tool declares"):
        model.load_keras()
    assert f"{TOY_TOOL}.other" not in sys.modules


def test_weights_that_do_not_fit_or_lead_to_other_files_are_refused(
    models: Path, toy_tool: Path, keras_files: KerasFiles, tmp_path: Path
) -> None:
    import h5py

    narrow = {**keras_files.network, "config": {"planes": 3, "width": 4}}
    model = write_model(
        models / "narrow", card(), onnx=convolution_onnx(), keras_weights=keras_files.weights, network=narrow
    )
    with pytest.raises(LinceiError, match="do not belong to the network"):
        model.load_keras()

    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"1234" * 8)
    linked, external, soft = (tmp_path / f"{name}.weights.h5" for name in ("linked", "external", "soft"))
    with h5py.File(linked, "w") as file:
        file["layers"] = h5py.ExternalLink(str(keras_files.weights), "layers")
    with h5py.File(external, "w") as file:
        file.create_group("layers").create_dataset("v", (8,), "f4", external=[(str(secret), 0, 32)])
    with h5py.File(soft, "w") as file:
        file["layers"] = h5py.SoftLink("/elsewhere")
    for path in (linked, external, soft):
        model = write_model(
            models / "hostile",
            card(),
            onnx=convolution_onnx(),
            keras_weights=path,
            network=keras_files.network,
            replace=True,
        )
        with pytest.raises(LinceiError, match=r"hold a link|from another file"):
            model.load_keras()
        with pytest.raises(LinceiError, match=r"hold a link|from another file"):
            install_model(model.folder, name="installed")


def test_an_unfinished_model_says_how_to_finish_it(models: Path) -> None:
    model = write_model(models / "toy-cells", card(), network={"builder": "x", "config": {}})
    assert not model.card.finished
    for use in (lambda: model.hash, lambda: model.onnx_path):
        with pytest.raises(LinceiError, match="lincei models finish"):
            use()
    assert list_models() == []
    assert "lincei models finish" in broken_models()[0].reason


def test_machine_readable_figures_are_kept(tmp_path: Path) -> None:
    model = write_model(tmp_path / "toy", card(), onnx=convolution_onnx(), metrics={"pearson_r": [0.8]})
    assert json.loads(model.file("metrics.json").read_text(encoding="utf-8")) == {"pearson_r": [0.8]}
