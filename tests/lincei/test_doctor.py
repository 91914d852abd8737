from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lincei import cli, doctor
from lincei.doctor import BROKEN, NOTE, OK, Finding, name_owner, report_text
from lincei.engine import EngineStatus


def install(folder: Path, distribution: str, package: str) -> None:
    """Lay out an installed distribution with one top-level package."""
    information = folder / f"{distribution}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (information / "top_level.txt").write_text(f"{package}\n")
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text("")


@pytest.mark.parametrize("name", doctor.OWN_NAMES)
def test_the_import_names_are_lincei_s_own_here(name: str) -> None:
    assert name_owner(name).state == OK


def test_another_package_with_the_same_name_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "silico-tools", "insilico")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "insilico", raising=False)
    finding = name_owner("insilico")
    assert finding.state == BROKEN
    assert "pip uninstall silico-tools" in finding.text
    assert str(tmp_path) in finding.text


def test_a_stray_folder_that_hides_a_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample_data").mkdir()
    (tmp_path / "sample_data" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sample_data", raising=False)
    finding = name_owner("sample_data")
    assert finding.state == BROKEN
    assert str(tmp_path / "sample_data") in finding.text


def test_a_name_that_cannot_be_imported_is_broken() -> None:
    assert name_owner("a_package_that_is_not_there").state == BROKEN


def test_the_report_covers_all_that_support_asks_for() -> None:
    findings = doctor.examine()
    text = report_text(findings)
    for words in ("Python", "lincei", "openvino", "onnxruntime", "cores", "memory", "LINCEI_DATA", "cache"):
        assert words in text
    names = {finding.name for finding in findings}
    assert set(doctor.OWN_NAMES) <= names
    assert {name for extra in doctor.EXTRAS.values() for name in extra} <= names


@pytest.mark.parametrize(("state", "status"), [(OK, 0), (NOTE, 0), (BROKEN, 1)])
def test_the_exit_status_says_whether_something_is_broken(
    state: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("Engines", "openvino", "1.0", state)])
    assert cli.main(["doctor"]) == status
    shown = capsys.readouterr().out
    assert ("Broken: openvino." in shown) == (state == BROKEN)


def test_an_engine_that_is_installed_and_fails_is_broken_and_one_that_is_absent_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses = [
        EngineStatus("openvino", "2026.1", False, "libtbb.so is missing"),
        EngineStatus("onnxruntime", "1.20", True),
        EngineStatus("tensorflow", "", False, "tensorflow is not installed"),
    ]
    monkeypatch.setattr("lincei.engine.engine_status", lambda: statuses)
    findings = {finding.name: finding for finding in doctor._engines()}
    assert findings["openvino"].state == BROKEN
    assert "libtbb.so" in findings["openvino"].text
    assert findings["onnxruntime"].state == OK
    assert findings["tensorflow"].state == NOTE


def test_without_any_engine_the_doctor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lincei.engine.engine_status", lambda: [EngineStatus("openvino", "", False, "absent")]
    )
    [text] = [finding.text for finding in doctor._engines() if finding.state == BROKEN]
    assert "pip install openvino" in text


def test_a_data_folder_that_is_not_there_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINCEI_DATA", str(tmp_path / "gone"))
    finding = next(finding for finding in doctor._places() if finding.name == "LINCEI_DATA")
    assert finding.state == BROKEN


def test_the_machine_has_cores_and_memory() -> None:
    assert doctor.usable_cores() >= 1
    assert doctor.memory_bytes() > 2**28
