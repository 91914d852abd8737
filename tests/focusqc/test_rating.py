"""What a rating says: its numbers by their definitions, its tables, its image of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from focusqc.levels import LEVELS, Optics, certainty, pooled
from focusqc.rating import IMAGE_COLUMNS, PATCH_COLUMNS, FocusRating, PlaneRating

UNIFORM = np.full(LEVELS, 1 / LEVELS, np.float32)
# 1 - ln 2 / ln 11
CERTAINTY_OF_TWO = 0.710935


def sure(level: int) -> NDArray[np.float32]:
    return np.eye(LEVELS, dtype=np.float32)[level]


def two(a: int, b: int) -> NDArray[np.float32]:
    return (sure(a) + sure(b)) / 2


def plane(*rows: list[NDArray[np.float32]], **fields: Any) -> PlaneRating:
    """Return the rating of a plane of 84x84 patches side by side."""
    probabilities = np.array(rows, np.float32)
    defaults: dict[str, Any] = {
        "time": 0,
        "channel": 0,
        "z": 0,
        "channel_name": "DAPI",
        "y": tuple(range(0, 84 * probabilities.shape[0], 84)),
        "x": tuple(range(0, 84 * probabilities.shape[1], 84)),
        "patch_px": (84, 84),
        "probabilities": probabilities,
    }
    return PlaneRating(**{**defaults, **fields})


def rating(*planes: PlaneRating, **fields: Any) -> FocusRating:
    defaults: dict[str, Any] = {"name": "a", "file": "folder/a.tif", "planes": planes, "size_px": (168, 168)}
    return FocusRating(**{**defaults, **fields})


MIXED = plane([sure(4), two(0, 1)], [UNIFORM, two(4, 5)])


def stack(levels: list[NDArray[np.float32]], **fields: Any) -> list[PlaneRating]:
    return [plane([p], z=z, **fields) for z, p in enumerate(levels)]


class TestPlane:
    def test_its_certainties_are_those_of_the_definitions(self):
        c = CERTAINTY_OF_TWO
        np.testing.assert_allclose(MIXED.patch_certainties, [[1, c], [0, c]], atol=1e-5)
        assert MIXED.certainty_mean == pytest.approx((1 + 2 * c) / 4, abs=1e-5)
        assert MIXED.certainty_max == pytest.approx(1)
        assert MIXED.certainty_weighted == pytest.approx((1 + 2 * c**2) / (1 + 2 * c), abs=1e-5)
        p = np.array([c / 2, c / 2, 1 + c / 2, c / 2]) / (1 + 2 * c)
        assert MIXED.certainty_aggregate == pytest.approx(1 + (p * np.log(p)).sum() / np.log(11), abs=1e-5)

    def test_its_level_is_that_of_the_pooled_probabilities(self):
        c = CERTAINTY_OF_TWO
        np.testing.assert_allclose(
            MIXED.image_probabilities[[0, 1, 4, 5]],
            np.array([c / 2, c / 2, 1 + c / 2, c / 2]) / (1 + 2 * c),
            atol=1e-5,
        )
        assert MIXED.predicted_level == 4
        assert MIXED.expected_level == pytest.approx(
            (c / 2 + 4 * (1 + c / 2) + 5 * c / 2) / (1 + 2 * c), abs=1e-5
        )
        assert MIXED.in_focus == "no"

    def test_its_patches_keep_their_places(self):
        assert MIXED.patch_levels.tolist() == [[4, 0], [0, 4]]
        assert MIXED.patch_levels.dtype == np.int64

    def test_where_nothing_can_be_said_all_certainties_are_zero(self):
        empty = plane([UNIFORM, UNIFORM])
        for name in ("mean", "max", "aggregate", "weighted"):
            assert getattr(empty, f"certainty_{name}") == pytest.approx(0, abs=1e-6)
        assert empty.in_focus == "uncertain"
        assert empty.expected_level == pytest.approx(5, abs=1e-5)


class TestSharpest:
    def test_it_is_the_plane_of_the_lowest_expected_level(self):
        found = rating(*stack([sure(7), two(1, 4), two(1, 2), sure(3)])).sharpest
        assert found == {(0, 0): 2}

    def test_planes_that_say_nothing_do_not_compete(self):
        assert rating(*stack([sure(8), UNIFORM, sure(6)])).sharpest == {(0, 0): 2}
        assert rating(*stack([UNIFORM, UNIFORM])).sharpest == {}

    def test_every_time_point_and_channel_has_its_own(self):
        planes = [
            *stack([sure(0), sure(5)]),
            *stack([sure(5), sure(0)], channel=1, channel_name="GFP"),
            *stack([sure(9), sure(2)], time=1),
        ]
        assert rating(*planes).sharpest == {(0, 0): 0, (0, 1): 1, (1, 0): 1}

    def test_of_equal_planes_the_first_is_named(self):
        assert rating(*stack([sure(4), sure(2), sure(2)])).sharpest == {(0, 0): 1}


class TestLookUp:
    def test_a_plane_is_found_by_time_channel_and_z(self):
        planes = stack([sure(0), sure(5)], time=1)
        assert rating(*planes).plane(time=1, z=1) is planes[1]

    def test_a_plane_that_was_not_rated_is_named(self):
        with pytest.raises(KeyError, match="time 0, channel 3, z 0"):
            rating(MIXED).plane(channel=3)


class TestTables:
    def test_there_is_one_row_for_each_plane_with_the_documented_columns(self):
        planes = stack([sure(7), two(1, 2)], notes=("all saturated", "smaller than a patch"))
        table = rating(*planes).to_dataframe(patches=False)
        assert tuple(table.columns) == IMAGE_COLUMNS
        assert table["z"].tolist() == [0, 1]
        assert table["predicted_level"].tolist() == [7, 1]
        assert table["expected_level"].tolist() == pytest.approx([7, 1.5])
        assert table["in_focus"].tolist() == ["no", "yes"]
        assert table["sharpest"].tolist() == ["no", "yes"]
        assert table["patches"].tolist() == [1, 1]
        assert table["note"].tolist() == ["all saturated; smaller than a patch"] * 2
        assert set(table["file"]) == {"folder/a.tif"}
        assert set(table["channel"]) == {"DAPI"}

    def test_its_probabilities_are_the_planes(self):
        row = rating(MIXED).image_rows()[0]
        p = [row[f"p{k:02d}"] for k in range(LEVELS)]
        np.testing.assert_allclose(p, pooled(MIXED.probabilities.reshape(-1, LEVELS)))
        assert sum(p) == pytest.approx(1)
        assert row["certainty_aggregate"] == pytest.approx(float(certainty(p)))
        assert (row["certainty_mean"], row["certainty_max"], row["certainty_weighted"]) == (
            MIXED.certainty_mean,
            MIXED.certainty_max,
            MIXED.certainty_weighted,
        )

    def test_only_a_stack_has_a_sharpest_plane(self):
        assert rating(MIXED).image_rows()[0]["sharpest"] == ""
        assert [row["sharpest"] for row in rating(*stack([UNIFORM, UNIFORM])).image_rows()] == ["", ""]

    def test_there_is_one_row_for_each_patch_from_the_top_left(self):
        table = rating(MIXED).to_dataframe()
        assert tuple(table.columns) == PATCH_COLUMNS
        places = table[["row", "column", "y", "x"]].to_numpy().tolist()
        assert places == [[0, 0, 0, 0], [0, 1, 0, 84], [1, 0, 84, 0], [1, 1, 84, 84]]
        assert set(table["width"]) == set(table["height"]) == {84}
        np.testing.assert_allclose(table["certainty"], MIXED.patch_certainties.ravel())
        np.testing.assert_allclose(table["expected_level"], [4, 0.5, 5, 4.5], atol=1e-5)
        assert table["in_focus"].tolist() == ["no", "yes", "uncertain", "no"]
        np.testing.assert_allclose(
            table[[f"p{k:02d}" for k in range(LEVELS)]].to_numpy(), MIXED.probabilities.reshape(-1, LEVELS)
        )

    def test_a_patch_of_a_small_image_has_its_own_width_and_height(self):
        row = rating(plane([sure(1)], patch_px=(40, 60)), size_px=(40, 60)).patch_rows()[0]
        assert (row["height"], row["width"]) == (40, 60)

    def test_defocus_is_given_where_the_optics_are_known(self):
        known, unknown = rating(plane([sure(3)]), optics=Optics(0.65, 0.5)), rating(plane([sure(3)]))
        for rows in (FocusRating.image_rows, FocusRating.patch_rows):
            assert rows(known)[0]["defocus_um"] == pytest.approx(6, abs=1e-4)
            assert rows(unknown)[0]["defocus_um"] is None
        assert unknown.to_dataframe()["defocus_um"].isna().all()

    def test_defocus_that_the_optics_hide_is_not_called_zero(self):
        """A small aperture on small pixels: a point in focus is as wide as one of level 10."""
        hiding = Optics(0.05, 0.3)
        made = rating(plane([sure(10), sure(0)]), optics=hiding)
        assert [row["defocus_um"] for row in made.patch_rows()] == [None, 0.0]
        assert made.image_rows()[0]["defocus_um"] is None
        assert [made.defocus_um(level) for level in (0, 0.1, 10)] == [0.0, None, None]

    def test_rows_can_be_written_as_json(self):
        import json

        made = rating(*stack([sure(1), two(3, 4)]), optics=Optics(0.65, 0.5))
        assert json.loads(json.dumps(made.patch_rows() + made.image_rows()))[1]["expected_level"] == 3.5


class TestProbabilityImage:
    def test_every_pixel_has_the_probabilities_of_its_patch(self):
        image = rating(MIXED, pixel_size_um=0.3).probability_image()
        assert image.shape == (1, LEVELS, 1, 168, 168)
        pixels = image.read()[0, :, 0]
        assert pixels.dtype == np.float32
        for (row, column), place in {(0, 0): (10, 20), (0, 1): (83, 84), (1, 1): (167, 167)}.items():
            np.testing.assert_allclose(pixels[:, place[0], place[1]], MIXED.probabilities[row, column])
        assert image.channel_names == tuple(f"level {k}" for k in range(LEVELS))
        assert image.pixel_size_um == 0.3

    def test_overlapping_patches_are_averaged_and_gaps_are_nan(self):
        overlapping = plane([sure(0), sure(10)], x=(0, 60))
        pixels = rating(overlapping, size_px=(90, 150)).probability_image().read()[0, :, 0]
        np.testing.assert_allclose(pixels[:, 0, 59], sure(0))
        np.testing.assert_allclose(pixels[:, 0, 60], two(0, 10))
        np.testing.assert_allclose(pixels[:, 83, 83], two(0, 10))
        np.testing.assert_allclose(pixels[:, 83, 84], sure(10))
        assert np.isnan(pixels[:, :, 144:]).all()
        assert np.isnan(pixels[:, 84:]).all()
        assert not np.isnan(pixels[:, :84, :144]).any()

    def test_planes_channels_and_times_keep_their_order(self):
        planes = [
            plane([sure(t + 2 * z + 4 * (c > 0))], time=t, z=z, channel=c, channel_name=name)
            for t in (0, 1)
            for z in (0, 1)
            for c, name in ((0, "DAPI"), (2, "GFP"))
        ]
        image = rating(*planes, size_px=(84, 84)).probability_image()
        assert image.shape == (2, 22, 2, 84, 84)
        found = image.read()[..., 5, 5]
        for t in (0, 1):
            for z in (0, 1):
                assert found[t, :11, z].argmax() == t + 2 * z
                assert found[t, 11:, z].argmax() == t + 2 * z + 4
        assert image.channel_names is not None
        assert image.channel_names[0] == "DAPI level 0"
        assert image.channel_names[21] == "GFP level 10"


def test_an_overlay_needs_the_image():
    with pytest.raises(ValueError, match="does not hold its image"):
        rating(MIXED).overlay()
