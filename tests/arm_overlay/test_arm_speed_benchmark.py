"""That the benchmark of the microscope measures what it says, on frames small enough for a test."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tumor_models import write_tiny_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CAMERA = "size=320x200,bits=8"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    module = importlib.import_module("arm_speed")
    monkeypatch.setattr(module, "WARM_UP_S", 0.5)
    monkeypatch.setattr(module, "SPEEDS", (0.3,))
    # In this process, so that what was changed for the test holds.
    monkeypatch.setattr(module, "in_fresh_process", lambda function, *given: function(*given))
    monkeypatch.setattr(module, "use_cores", lambda count: count)
    yield module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    table = {name: {"pixel_size_um": 1.0, "threshold": 0.5} for name in ("10x", "20x")}
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", objectives=table).folder)


def test_the_loop_is_timed_end_to_end(speed: Any, model: str) -> None:
    times = speed.time_loop(model, "20x", f"{CAMERA},rendered=8,speed=0.1", 1.0, 20.0, "none", 1)
    assert times.network_px == (188, 117)
    assert 5 < times.fps_sent < 25
    assert 0 < times.fps_shown <= times.fps_sent * 1.2
    assert times.answers_per_s > 0
    assert 0 < times.latency_ms["p50"] <= times.latency_ms["p95"] <= times.latency_ms["p99"]
    assert {"debayer", "motion", "inference", "outline"} <= set(times.stages_ms)
    assert times.cpu_ms > 0
    assert 0 <= times.shown_share <= 1
    assert times.end_mib > 0


def test_an_objective_without_a_model_is_told(speed: Any, model: str) -> None:
    with pytest.raises(SystemExit, match="not made for 4x"):
        speed.time_loop(model, "4x", f"{CAMERA},rendered=2", 0.1, 20.0, "none", 1)


def test_a_moved_outline_loses_what_it_lags_behind(speed: Any) -> None:
    mask = np.zeros((60, 100), bool)
    mask[20:40, 30:60] = True
    moved = speed._shifted(mask, (7, -4))
    assert moved.sum() == mask.sum()
    assert moved[16:36, 37:67].all()
    assert not speed._shifted(mask, (200, 0)).any()


def test_speeds_are_binned_and_the_top_one_is_where_outlines_still_follow(speed: Any) -> None:
    found = [(v, 0.95, 0.95 - 0.1 * v) for v in np.linspace(0, 1.9, 60).tolist()]
    rows = speed.binned(found)
    assert [row[:2] for row in rows][:2] == [(0.0, 0.05), (0.1, 0.2)] or rows[0][2] >= 3
    assert sum(row[2] for row in rows) <= 60
    # Half a width a second costs 0.05.
    assert speed.top_speed(rows) == pytest.approx(0.5)
    assert speed.top_speed([(0.0, 0.1, 5, 0.9, 0.5)]) is None


def test_outlines_at_speed_are_compared_with_the_truth_of_the_simulation(speed: Any, model: str) -> None:
    found = speed.follow(model, "20x", CAMERA, 0.3, 0.0, 6, 1)
    for _, now, later in found:
        assert later == pytest.approx(now)
    late = speed.follow(model, "20x", CAMERA, 0.3, 500.0, 6, 1)
    assert len(late) == len(found)


def test_flicker_and_precision_are_shares(speed: Any, model: str) -> None:
    found = speed.flicker(model, "20x", CAMERA, 6, 1)
    assert set(found) == {"steadied", "as answered"}
    assert all(0 <= value <= 1 for values in found.values() for value in values)
    assert all(0 <= value <= 1 for value in speed.compare_precisions(model, "20x", CAMERA, 2, 1))


def test_the_report_holds_every_part(
    speed: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny models have no Keras network to run beside.
    monkeypatch.setattr(speed, "time_tensorflow", lambda *given: [2.0, 3.0])
    speed.main(
        model=model,
        objectives="20x",
        cores=1,
        seconds=0.5,
        fps=20.0,
        size="320x200",
        rendered=4,
        display="none",
        latency_ms=50.0,
        frames=6,
        runs=2,
        out=tmp_path,
    )
    text = (tmp_path / "arm_speed.md").read_text("utf-8")
    for part in (
        "## End to end",
        "## The network alone",
        "## bfloat16",
        "## A slide at rest",
        "overlays a second",
    ):
        assert part in text
    assert "tf.function float32" in text
    stored = json.loads((tmp_path / "arm_speed.json").read_text("utf-8"))
    assert stored["loops"][0]["objective"] == "20x"
    assert stored["networks_ms"]["188x117"]["tf.function float32"] == [2.0, 3.0]
