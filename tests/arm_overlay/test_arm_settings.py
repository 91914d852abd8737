"""The settings file of `lincei arm`: what it may say, and what it is told when it is wrong."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import arm_overlay
from arm_overlay.options import LiveOptions
from arm_overlay.settings import TABLES, ArmOptions, arm_options, read_settings
from lincei.errors import UsageError

EXAMPLES = Path(arm_overlay.__file__).parent / "arm_files"


def written(folder: Path, text: str) -> Path:
    path = folder / "arm.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_settings(written(folder, text))
    return caught.value


def test_every_option_has_one_place_in_the_file() -> None:
    keys = [key for keys in TABLES.values() for key in keys]
    assert sorted(keys) == sorted(field.name for field in dataclasses.fields(ArmOptions))


def test_the_file_sets_options_and_flags_win_over_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [camera]
        camera = "basler:123"
        exposure_ms = 5
        [display]
        field_of_view = [0.5, 0.5, 0.9]
        [live]
        objective = "20x"
        threshold = 0.4
        focus_gate = false
        [run]
        window = false
        """,
    )
    options = arm_options(path, {"threshold": 0.6, "mode": "text"})
    assert options.camera == "basler:123"
    assert options.exposure_ms == 5.0
    assert options.field_of_view == (0.5, 0.5, 0.9)
    assert (options.objective, options.threshold, options.mode) == ("20x", 0.6, "text")
    assert not options.focus_gate
    assert not options.window
    assert options.live() == LiveOptions(objective="20x", threshold=0.6, mode="text", focus_gate=False)
    assert arm_options(None, {}) == ArmOptions()


def test_an_objective_is_written_as_its_alignments_are_stored() -> None:
    assert ArmOptions(objective="20X").objective == "20x"
    assert ArmOptions(objective=" 2.50 x ").objective == "2.5x"


def test_keys_may_be_dotted_or_quoted_and_windows_writes_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "arm.toml"
    path.write_bytes(b'\xef\xbb\xbflive.mode = "text"\n"camera"."camera" = "usb:0"\n')
    assert read_settings(path) == {"mode": "text", "camera": "usb:0"}


@pytest.mark.parametrize(
    ("text", "line", "what", "allowed"),
    [
        ('[live]\nmodel = "a"\nthresold = 0.5\n', 3, "no setting 'thresold' in [live]", "mean 'threshold'"),
        ('\n[live]\ncamera = "usb:0"\n', 3, "no setting 'camera' in [live]", "belongs into [camera]"),
        ("[dispaly]\nbrightness = 1\n", 1, "no table [dispaly]", "mean [display]"),
        ('# a comment\nobjective = "20x"\n', 2, "'objective' stands in no table", "Write [live]"),
        ('zoom = "20x"\n', 1, "no setting 'zoom'", "[camera], [display], [live]"),
        ("live = 3\n", 1, "live is 3", "Write [live]"),
        ("[live]\nthreshold = 1.5\n", 2, "[live] threshold is 1.5", "at most 1"),
        ('[live]\nmode = "heat"\n', 2, "[live] mode is 'heat'", "outline, heatmap, text"),
        (
            '[live]\n\nthreshold = "high"\n',
            3,
            "[live] threshold needs a number",
            "Write a number",
        ),
        ("[live]\nobjective = 20\n", 2, "[live] objective needs text, not 20", "in quotes"),
        ('[run]\nwindow = "yes"\n', 2, "[run] window needs true or false", "true or false"),
        ("[display]\nbrightness = 0.0\n", 2, "[display] brightness is 0", "above 0"),
        ('[display]\nfield_of_view = "round"\n', 2, "needs a list, not 'round'", "[0.5, 0.5, 0.9]"),
        ("\n[display]\nfield_of_view = [0.5, 0.5]\n", 3, "[display] field_of_view has 2 numbers", "three"),
        ("[display]\nfield_of_view = [0.5, 0.5, 0]\n", 2, "[display] field_of_view has", "above 0"),
        ('[live]\nobjective = "big"\n', 2, "[live] objective: 'big' is no objective", "20x"),
        ("[live]\nthreads = 1.5\n", 2, "[live] threads needs a whole number", "whole number"),
        ("[live]\nmode = outline\n", 2, "not TOML", "Text stands in quotes"),
        ('[live]\nmode = "text"\nmode = "text"\n', 3, "not TOML", "Text stands in quotes"),
        ('[record]\nrecord = "C:\\Users"\n', 2, "not TOML", "single quotes"),
        ("live.thresold = 1\n", 1, "no setting 'thresold' in [live]", "'threshold'"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_key_and_what_is_allowed(
    text: str, line: int, what: str, allowed: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, text)
    assert error.where == f"{tmp_path / 'arm.toml'}, line {line}"
    assert what in error.what
    assert allowed in error.what_to_do
    assert "--" not in str(error)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"arm\.toml: there is no such settings file") as caught:
        read_settings(tmp_path / "arm.toml")
    assert str(EXAMPLES / "arm.toml") in caught.value.what_to_do
    with pytest.raises(UsageError, match="a folder"):
        read_settings(tmp_path)
    path = tmp_path / "arm.toml"
    path.write_bytes(b'[live]\nmodel = "\xff\xfe"\n')
    with pytest.raises(UsageError, match=r"line 2: this is not UTF-8"):
        read_settings(path)


def test_the_example_is_a_valid_file() -> None:
    values = read_settings(EXAMPLES / "arm.toml")
    assert values["camera"] == "basler"
    ArmOptions.from_mapping(values)


def test_the_example_names_every_table_and_its_comments_name_real_settings(tmp_path: Path) -> None:
    text = (EXAMPLES / "arm.toml").read_text("utf-8")
    for table in TABLES:
        assert f"[{table}]" in text
    # With the comments made settings the file is still valid.
    lines = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in text.splitlines()
    ]
    values = read_settings(written(tmp_path, "\n".join(lines)))
    assert {"threshold", "exposure_ms", "empty_field", "records", "record", "stats"} <= set(values)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_example_of_a_service_is_a_valid_unit(tmp_path: Path) -> None:
    text = (EXAMPLES / "lincei-arm.service").read_text("utf-8")
    assert "lincei arm --settings" in text
    program = tmp_path / "lincei"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "lincei-arm.service"
    unit.write_text(text.replace("%h/lincei/bin/lincei", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
