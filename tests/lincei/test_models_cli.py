"""The commands of `lincei models` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_models import convolution_onnx, write_toy

from lincei.cli import main
from lincei.model import find_model


def run(*words: str) -> int:
    return main(["models", *words])


def test_list_shows_models_and_broken_ones(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "no model" in capsys.readouterr().out
    write_toy(models / "toy-cells")
    (models / "bad").mkdir()
    (models / "bad" / "rdf.yaml").write_text("a: [", encoding="utf-8")
    assert run("list") == 0
    out = capsys.readouterr().out
    for part in ("toy-cells", "label", "DAPI, MAP2", "phase contrast", "0.25 um", str(models / "toy-cells")):
        assert part in out
    assert f"cannot be used: {models / 'bad'}" in out
    assert run("list", "--task", "focus") == 0
    assert "toy-cells" not in capsys.readouterr().out
    assert run("list", "--task", "cooking") == 2


def test_list_speaks_json(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_toy(models / "toy-cells")
    assert run("list", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert entry["name"] == "toy-cells"
    assert entry["hash"] == model.hash
    assert entry["pixel_size_um"] == 0.25


def test_show_prints_the_card(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_toy(models / "toy-cells")
    assert run("show", "toy-cells") == 0
    out = capsys.readouterr().out
    assert model.hash in out
    assert "Research use only" in out
    assert run("show", "toy-cell") == 1
    assert "Did you mean toy-cells?" in capsys.readouterr().err


def test_check_reports_the_deviation_on_every_engine(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_toy(models / "toy-cells")
    assert run("check", "toy-cells") == 0
    out = capsys.readouterr().out
    assert "passed  openvino" in out
    assert "passed  onnxruntime" in out
    assert "mean off by" in out
    assert run("check", "toy-cells", "--engine", "onnxruntime") == 0
    assert "openvino" not in capsys.readouterr().out
    (model.folder / "README.md").unlink()
    (model.folder / "weights.onnx").write_bytes(b"x")
    assert run("check", str(model.folder)) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_model_is_exported_removed_and_installed(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_toy(models / "toy-cells")
    archive = tmp_path / "toy.zip"
    assert run("export", "toy-cells", "--out", str(archive)) == 0
    assert run("remove", "toy-cells") == 0
    assert not model.folder.exists()
    assert run("remove", "toy-cells") == 1
    assert run("install", str(archive)) == 0
    assert "--model toy-cells" in capsys.readouterr().out
    assert run("install", str(archive)) == 1
    assert run("install", str(archive), "--name", "other") == 0
    assert run("install", str(archive), "--replace") == 0
    assert find_model("other").hash == find_model("toy-cells").hash == model.hash


def test_import_asks_for_what_is_missing_and_then_installs(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(convolution_onnx())
    assert run("import", str(file), "--name", "net-one") == 2
    err = capsys.readouterr().err
    assert "--task" in err
    assert "--name" not in err
    words = ["--name", "net-one", "--task", "label", "--modality", "DIC", "--total-stride", "4"]
    words += ["--halo-px", "2", "--labels", "A,B", "--pixel-size-um", "0.5"]
    assert run("import", str(file), *words) == 0
    assert find_model("net-one").card.pixel_size_um == 0.5
    assert run("check", "net-one") == 0


def test_finish_of_a_finished_model_changes_nothing(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_toy(models / "toy-cells")
    before = (model.folder / "rdf.yaml").read_bytes()
    assert run("finish", str(model.folder)) == 0
    assert "is finished" in capsys.readouterr().out
    assert (model.folder / "rdf.yaml").read_bytes() == before


def test_errors_are_one_sentence_without_a_traceback(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.zip").write_bytes(b"text")
    assert run("install", str(tmp_path / "bad.zip")) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
