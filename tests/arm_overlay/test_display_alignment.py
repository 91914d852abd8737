from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from optical_path import CAMERA_PX, DISPLAY_PX, MONITOR, largest_error_px, some_map

from arm_overlay.display_alignment import (
    Alignment,
    AlignmentError,
    Residual,
    alignment_file,
    alignments_for,
    check_map,
    display_key,
    fit_alignment,
    load_alignment,
    manual_matrix,
    mapped,
    residual_of,
    save_alignment,
    stored_alignments,
)
from lincei.errors import UsageError

GOOD = Residual(0.1, 0.3, 0.12, 100, 1, 0.7)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINCEI_ARM", str(tmp_path / "arm"))


def an_alignment(objective: str = "20x", **changes: Any) -> Alignment:
    alignment = Alignment(
        matrix=some_map(rotation_deg=10, mirrored=True, keystone=(0.05, 0.02)),
        kind="homography",
        objective=objective,
        camera_size_px=CAMERA_PX,
        display_size_px=DISPLAY_PX,
        display="DUMMY1",
        method="automatic",
        residual=GOOD,
        camera="a camera",
    )
    return dataclasses.replace(alignment, **changes)


def points(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform((20, 20), np.array(CAMERA_PX) - 20, (count, 2))


def fitted(camera: Any, display: Any, **options: Any) -> tuple[NDArray[np.float64], str, Residual]:
    return fit_alignment(camera, display, camera_size_px=CAMERA_PX, **options)


# -- the fit


@pytest.mark.parametrize("keystone", [(0.0, 0.0), (0.15, -0.08)])
def test_exact_points_give_the_exact_map(keystone: tuple[float, float]) -> None:
    true = some_map(rotation_deg=33, shear=0.1, mirrored=True, keystone=keystone)
    camera = points(20)
    matrix, kind, residual = fitted(camera, mapped(true, camera))
    assert kind == ("homography" if any(keystone) else "affine")
    assert residual.max_px < 0.001
    assert largest_error_px(matrix, true) < 0.01


def test_a_homography_is_taken_only_where_it_predicts_better() -> None:
    random = np.random.default_rng(1)
    camera = points(40)
    kinds = []
    for keystone in ((0.0, 0.0), (0.3, 0.0)):
        display = mapped(some_map(keystone=keystone), camera) + random.normal(0, 1, camera.shape)
        kinds.append(fitted(camera, display)[1])
    assert kinds == ["affine", "homography"]


@pytest.mark.parametrize("keystone", [(0.0, 0.0), (0.2, 0.1)])
def test_the_residual_of_points_left_out_is_that_of_leaving_them_out(keystone: tuple[float, float]) -> None:
    random = np.random.default_rng(2)
    camera = points(14, seed=5)
    display = mapped(some_map(keystone=keystone), camera) + random.normal(0, 0.5, camera.shape)
    _, kind, residual = fitted(camera, display, tolerance_px=50)
    distances = []
    for left_out in range(len(camera)):
        rest = np.arange(len(camera)) != left_out
        matrix, same, _ = fitted(camera[rest], display[rest], tolerance_px=50)
        assert same == kind
        distances.append(np.linalg.norm(mapped(matrix, camera[left_out])[0] - display[left_out]))
    assert residual.left_out_rms_px == pytest.approx(np.sqrt(np.mean(np.square(distances))), rel=0.03)
    assert residual.left_out_rms_px > residual.rms_px


def test_points_that_disagree_are_left_out_and_counted() -> None:
    true = some_map(rotation_deg=-5)
    camera = points(30)
    display = mapped(true, camera)
    display[::6] += (80, -45)
    matrix, _, residual = fitted(camera, display)
    assert residual.outliers == 5
    assert residual.points == 25
    assert largest_error_px(matrix, true) < 0.1
    assert "5 more disagreed" in residual.sentence()


def test_points_of_no_map_are_refused() -> None:
    random = np.random.default_rng(3)
    with pytest.raises(AlignmentError, match="the points disagree"):
        fitted(points(30), random.uniform(0, 1000, (30, 2)))


def test_points_on_a_line_are_refused_in_a_sentence() -> None:
    along = np.linspace(50, 500, 6)
    camera = np.column_stack([along, 100 + 0.3 * along])
    camera += np.random.default_rng(4).normal(0, 1, camera.shape)
    with pytest.raises(AlignmentError, match=r"the points lie on a line.*surround the middle"):
        fitted(camera, mapped(some_map(), camera))


def test_three_points_are_refused() -> None:
    with pytest.raises(AlignmentError, match="3 points; 4 are needed"):
        fitted(points(3), mapped(some_map(), points(3)))


def test_four_points_are_fitted_and_their_residual_told() -> None:
    camera = np.array([[50, 50], [600, 60], [580, 370], [40, 350]])
    display = mapped(some_map(rotation_deg=4), camera)
    display[2] += (6, 0)
    _, kind, residual = fitted(camera, display)
    assert kind == "affine"
    assert residual.points == 4
    assert 1 < residual.rms_px < 3
    assert residual.left_out_rms_px > residual.rms_px


def test_the_covered_part_of_the_view_is_told() -> None:
    camera = np.array([[0, 0], [320, 0], [320, 200], [0, 200]])
    _, _, residual = fitted(camera, mapped(some_map(), camera))
    assert residual.covered == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 3)),
        np.diag([1.0, 0.0, 1.0]),
        np.full((3, 3), np.nan),
        np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]]),
        np.diag([1000.0, 1000.0, 1.0]),
    ],
    ids=["zero", "flat", "not finite", "horizon in the view", "thousandfold"],
)
def test_maps_that_no_optics_makes_are_refused(matrix: NDArray[np.float64]) -> None:
    with pytest.raises(AlignmentError, match="none that optics can make"):
        check_map(matrix, CAMERA_PX)


def test_the_residual_of_other_points_tells_how_far_it_is_off() -> None:
    alignment = an_alignment()
    camera = points(10)
    residual = residual_of(alignment, camera, alignment.to_display(camera) + np.array((3, 4)))
    assert residual.rms_px == pytest.approx(5)
    assert residual.max_px == pytest.approx(5)


def test_there_and_back_is_the_same_place() -> None:
    alignment = an_alignment()
    camera = points(10)
    np.testing.assert_allclose(alignment.to_camera(alignment.to_display(camera)), camera, atol=1e-6)


def test_by_hand_the_middle_shifts_and_the_rest_turns_about_it() -> None:
    matrix = manual_matrix(CAMERA_PX, DISPLAY_PX, shift_px=(10, -4), scale=0.5, rotation_deg=90)
    middle = (np.array(CAMERA_PX) - 1) / 2
    np.testing.assert_allclose(mapped(matrix, middle)[0], (np.array(DISPLAY_PX) - 1) / 2 + (10, -4))
    # 720 / 400 fits; half of it; to the right becomes down.
    step = mapped(matrix, middle + np.array((1, 0)))[0] - mapped(matrix, middle)[0]
    np.testing.assert_allclose(step, (0, 0.9), atol=1e-9)
    assert np.linalg.det(manual_matrix(CAMERA_PX, DISPLAY_PX, mirrored=True)[:2, :2]) < 0


# -- stored per objective


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    path = save_alignment(an_alignment())
    assert path.is_relative_to(tmp_path / "arm")
    assert list(path.parent.iterdir()) == [path]
    loaded = load_alignment("20x", CAMERA_PX, "DUMMY1", DISPLAY_PX)
    np.testing.assert_array_equal(loaded.matrix, an_alignment().matrix)
    assert loaded.residual == GOOD
    assert loaded.camera == "a camera"
    assert loaded.created


def test_alignments_of_objectives_are_stored_apart() -> None:
    save_alignment(an_alignment("10x"))
    save_alignment(an_alignment("20x", matrix=np.eye(3)))
    assert not np.array_equal(load_alignment("10x", CAMERA_PX, "DUMMY1", DISPLAY_PX).matrix, np.eye(3))
    np.testing.assert_array_equal(load_alignment("20x", CAMERA_PX, "DUMMY1", DISPLAY_PX).matrix, np.eye(3))
    assert {alignment.objective for alignment in stored_alignments()[0]} == {"10x", "20x"}


def test_a_new_one_takes_the_place_of_the_old_one() -> None:
    save_alignment(an_alignment())
    save_alignment(an_alignment(matrix=np.eye(3)))
    np.testing.assert_array_equal(load_alignment("20x", CAMERA_PX, "DUMMY1", DISPLAY_PX).matrix, np.eye(3))
    assert len(stored_alignments()[0]) == 1


@pytest.mark.parametrize(
    ("camera_px", "display", "display_px"),
    [
        ((800, 600), "DUMMY1", DISPLAY_PX),
        (CAMERA_PX, "HDMI-2", DISPLAY_PX),
        (CAMERA_PX, "DUMMY1", (800, 600)),
    ],
    ids=["camera size", "display", "display size"],
)
def test_an_alignment_of_another_camera_size_or_display_is_not_used(
    camera_px: tuple[int, int], display: str, display_px: tuple[int, int]
) -> None:
    save_alignment(an_alignment())
    with pytest.raises(
        AlignmentError, match=r"not aligned for 20x.*there is one for a camera of 640x400"
    ) as told:
        load_alignment("20x", camera_px, display, display_px)
    assert "lincei arm align --camera ... --display ... --objective 20x" in str(told.value)


def test_a_file_put_in_another_ones_place_is_refused() -> None:
    path = save_alignment(an_alignment())
    other = alignment_file("20x", (800, 600), "DUMMY1", DISPLAY_PX)
    path.rename(other)
    with pytest.raises(AlignmentError, match="made for the camera size 640x400, and this is 800x600"):
        load_alignment("20x", (800, 600), "DUMMY1", DISPLAY_PX)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format_version": 99}', "matrix", "shape", "singular"],
)
def test_a_damaged_file_is_named(text: str) -> None:
    path = save_alignment(an_alignment())
    values = json.loads(path.read_text())
    if text == "matrix":
        del values["matrix"]
    if text == "shape":
        values["matrix"] = [[1, 0], [0, 1]]
    if text == "singular":
        values["matrix"] = np.zeros((3, 3)).tolist()
    path.write_text(json.dumps(values) if text in ("matrix", "shape", "singular") else text)
    with pytest.raises(AlignmentError, match="cannot be read") as told:
        load_alignment("20x", CAMERA_PX, "DUMMY1", DISPLAY_PX)
    assert str(path) in str(told.value)
    assert "Delete the file" in str(told.value)
    assert len(stored_alignments()[1]) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("LINCEI_ARM", str(in_the_way))
    with pytest.raises(AlignmentError, match=r"cannot be stored.*LINCEI_ARM"):
        save_alignment(an_alignment())


def test_what_was_started_from_another_objective_waits_for_confirmation() -> None:
    save_alignment(an_alignment("20x").seeded("10x"))
    with pytest.raises(AlignmentError, match=r"started from that of 20x and nobody has confirmed.*--check"):
        load_alignment("10x", CAMERA_PX, "DUMMY1", DISPLAY_PX)
    waiting = load_alignment("10x", CAMERA_PX, "DUMMY1", DISPLAY_PX, unconfirmed=True)
    assert not waiting.confirmed
    assert waiting.residual is None
    np.testing.assert_allclose(waiting.matrix, an_alignment("20x").matrix)
    assert "not confirmed" in waiting.describe()


def test_a_scale_between_objectives_keeps_the_middle_of_the_view() -> None:
    alignment = an_alignment(matrix=some_map(rotation_deg=10), kind="affine")
    larger = alignment.seeded("10x", scale=2.0)
    middle = (np.array(CAMERA_PX) - 1) / 2
    np.testing.assert_allclose(larger.to_display(middle), alignment.to_display(middle))
    here, there = (a.to_display([middle, middle + np.array((10, 0))]) for a in (alignment, larger))
    assert np.linalg.norm(there[1] - there[0]) == pytest.approx(2 * np.linalg.norm(here[1] - here[0]))


def test_an_objective_may_be_written_in_capitals() -> None:
    save_alignment(an_alignment(display=display_key(MONITOR)))
    np.testing.assert_array_equal(alignments_for(MONITOR)("20X", CAMERA_PX), an_alignment().matrix)


def test_the_loop_gets_the_map_of_its_objective_and_camera_size() -> None:
    save_alignment(an_alignment(display=display_key(MONITOR)))
    matrix_of = alignments_for(MONITOR)
    np.testing.assert_array_equal(matrix_of("20x", CAMERA_PX), an_alignment().matrix)
    with pytest.raises(AlignmentError, match="not aligned for 40x"):
        matrix_of("40x", CAMERA_PX)
    with pytest.raises(AlignmentError, match="objective is not known"):
        matrix_of("", CAMERA_PX)
    with pytest.raises(UsageError, match="no objective"):
        matrix_of("../20x", CAMERA_PX)


def test_a_display_is_known_by_its_serial_number_or_else_its_connector() -> None:
    assert display_key(dataclasses.replace(MONITOR, maker="EIZ", model="M1")) == "DUMMY1"
    assert display_key(dataclasses.replace(MONITOR, maker="EIZ", model="M1", serial="7")) == "EIZ M1 7"
