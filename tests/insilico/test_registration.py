"""How far a target lies beside its input: found, told, corrected."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft, ndimage

from insilico.pair_files import TrainingPair
from insilico.registration import MOST_ERROR_PX, Shift, corrected, estimate_shifts, in_words
from insilico.training import Field, TrainOptions, read_fields
from lincei.errors import CancelledError
from lincei.image import open_image, open_stack
from sample_data.cells import simulate_cells

# Down and to the right, in pixels: 0, 1.5, 3, 7 and 10 px long.
KNOWN_SHIFTS = [(0.0, 0.0), (-1.5, 0.0), (1.8, 2.4), (-4.2, 5.6), (0.0, -10.0)]


def fields_of(pairs: list[TrainingPair], labels: list[str]) -> list[Field]:
    return read_fields(pairs, labels, max(pair.image.shape[2] for pair in pairs), None, None, TrainOptions())


def moved(field: Field, *shifts: tuple[float, float]) -> Field:
    """Return the field with its targets moved, each by its shift, or all by the one that is given."""
    channels = field.truth.shape[-1]
    every = shifts if len(shifts) == channels else shifts * channels
    planes = [ndimage.shift(field.truth[..., i], by, mode="grid-wrap") for i, by in enumerate(every)]
    return dataclasses.replace(field, truth=np.stack(planes, axis=-1))


def cropped(field: Field, rows: slice, columns: slice) -> Field:
    return dataclasses.replace(
        field, stack=field.stack[rows, columns].copy(), truth=field.truth[rows, columns].copy()
    )


def shadowed(field: Field) -> Field:
    """Return the field as if seen by DIC: each structure bright on one side and dark on the other."""
    (one, other) = (
        ndimage.shift(field.stack, (sign * 1.2, sign * 0.8, 0), order=1, mode="reflect") for sign in (1, -1)
    )
    return dataclasses.replace(field, stack=(one - other) / (one - other).std())


def place(shift: Shift) -> NDArray:
    return np.array([shift.y_px, shift.x_px])


def plainly_correlated(field: Field) -> NDArray:
    """Return where input and target correlate most, either way, as a plain registration would find it."""

    def fine(plane: NDArray) -> NDArray:
        return ndimage.gaussian_filter(plane, 1) - ndimage.gaussian_filter(plane, 16)

    seen, target = fine(field.stack[..., field.stack.shape[2] // 2]), fine(field.truth[..., 0])
    correlation = np.abs(fft.irfft2(fft.rfft2(target) * fft.rfft2(seen).conj(), seen.shape))
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    return np.array([at - size if at > size / 2 else at for at, size in zip(peak, seen.shape, strict=True)])


@pytest.fixture(scope="module")
def bacteria(real_data: Path) -> list[Field]:
    """Phase contrast and YFP of E. coli."""
    folder = real_data / "ecoli_phase_yfp"
    return fields_of(
        [
            TrainingPair(
                open_image(folder / f"O3_delta_phase_pos_{number:02d}.tif"),
                {"YFP": open_image(folder / f"O3_delta_yfp_pos_{number:02d}.tif")},
            )
            for number in range(4)
        ],
        ["YFP"],
    )


@pytest.fixture(scope="module")
def cells(real_data: Path) -> Field:
    """Bright field and DNA of single Jurkat cells, a part of a montage."""
    folder = real_data / "jurkat_flow_cytometry"
    pair = TrainingPair(
        open_image(folder / "G1_Ch3_CP0008.tif"), {"DNA": open_image(folder / "G1_Ch4_CP0008.tif")}
    )
    return cropped(fields_of([pair], ["DNA"])[0], slice(0, 560), slice(0, 560))


@pytest.fixture(scope="module")
def neurons(real_data: Path) -> Field:
    """Phase contrast and two stains of motor neurons."""
    folder = real_data / "isl_motor_neurons"
    files = sorted(folder.glob("phase_z*.tif"))
    stains = {name: open_image(folder / f"{name.lower()}_confocal_maxproj.tif") for name in ("DAPI", "NFH")}
    return fields_of([TrainingPair(open_stack(files), stains)], ["DAPI", "NFH"])[0]


def simulated(modality: str, seed: int = 0, size_px: int = 384, labels=("nuclei", "membrane")) -> Field:
    field = simulate_cells(seed, modality=modality, labels=labels, size_px=size_px, planes=3)
    return fields_of([TrainingPair(field.stack, field.labels)], list(labels))[0]


class TestKnownShifts:
    @pytest.mark.parametrize("by", KNOWN_SHIFTS)
    def test_of_bacteria_are_found(self, by: tuple[float, float], bacteria: list[Field]):
        (own,) = estimate_shifts(bacteria[:1], ["YFP"])
        (found,) = estimate_shifts([moved(bacteria[0], by)], ["YFP"])
        assert found.reliable
        np.testing.assert_allclose(place(found) - place(own), by, atol=0.3)

    @pytest.mark.parametrize("by", KNOWN_SHIFTS[2:])
    def test_of_single_cells_are_found(self, by: tuple[float, float], cells: Field):
        (own,), (found,) = (estimate_shifts([field], ["DNA"]) for field in (cells, moved(cells, by)))
        assert found.reliable
        np.testing.assert_allclose(place(found) - place(own), by, atol=0.5)

    def test_of_neurons_are_found_though_nuclei_alone_show_too_little(self, neurons: Field):
        by = (-4.2, 5.6)
        shifts = {shift.label: shift for shift in estimate_shifts([moved(neurons, by)], ["DAPI", "NFH"])}
        assert all(shift.reliable for shift in shifts.values())
        assert shifts["NFH"].basis == ""
        assert shifts["DAPI"].basis == "NFH"
        # The stains lie about 1.5 px to the right of what phase contrast shows.
        np.testing.assert_allclose(place(shifts["NFH"]), by + np.array([0.0, 1.5]), atol=1)
        np.testing.assert_allclose(place(shifts["DAPI"]), place(shifts["NFH"]))

    @pytest.mark.parametrize("modality", ["phase contrast", "bright field", "DIC"])
    @pytest.mark.parametrize("by", [(0.0, 0.0), (6.0, -8.0)])
    def test_of_simulated_cells_are_found_to_a_pixel(self, modality: str, by: tuple[float, float]):
        for shift in estimate_shifts([moved(simulated(modality), by)], ["nuclei", "membrane"]):
            assert shift.reliable
            assert np.hypot(*(place(shift) - by)) < 1

    def test_of_two_labels_can_differ(self):
        field = moved(simulated("phase contrast"), (0.0, 5.0), (-3.0, 0.0))
        nuclei, membrane = estimate_shifts([field], ["nuclei", "membrane"])
        np.testing.assert_allclose(place(nuclei), (0, 5), atol=0.7)
        np.testing.assert_allclose(place(membrane), (-3, 0), atol=0.7)

    def test_stated_errors_are_about_right(self):
        found = [
            shift
            for seed in range(3, 7)
            for shift in estimate_shifts([simulated("phase contrast", seed, 256)], ["nuclei", "membrane"])
        ]
        assert all(shift.reliable for shift in found)
        true_error = np.sqrt(np.mean([shift.distance_px**2 for shift in found]))
        stated = np.sqrt(np.mean([shift.error_px**2 for shift in found]))
        assert 0.5 < stated / true_error < 3


class TestShadows:
    def test_do_not_move_what_is_found(self, bacteria: list[Field], cells: Field):
        for field in (bacteria[0], cells):
            (plain,) = estimate_shifts([field], ["stain"])
            (shadow,) = estimate_shifts([moved(shadowed(field), (5.0, 5.0))], ["stain"])
            assert shadow.reliable
            assert np.hypot(*(place(shadow) - place(plain) - 5)) < 1

    @pytest.mark.parametrize("modality", ["phase contrast", "DIC"])
    def test_mislead_plain_correlation(self, modality: str):
        field = simulated(modality, labels=("nuclei",))
        (found,) = estimate_shifts([field], ["nuclei"])
        assert found.distance_px < 1
        if modality == "DIC":
            assert np.hypot(*plainly_correlated(field)) > 3


class TestSeveralFields:
    def test_may_have_different_shifts(self, bacteria: list[Field]):
        by = [(0.0, 0.0), (9.0, -4.0), (-6.0, -6.0), (0.0, 10.0)]
        own = estimate_shifts(bacteria, ["YFP"])
        found = estimate_shifts([moved(*each) for each in zip(bacteria, by, strict=True)], ["YFP"])
        for before, after, expected in zip(own, found, by, strict=True):
            assert after.reliable
            np.testing.assert_allclose(place(after) - place(before), expected, atol=0.5)

    def test_that_are_too_small_alone_take_the_shift_of_all(self, bacteria: list[Field]):
        crops = [
            cropped(moved(field, (5.0, -5.0)), slice(top, top + 128), slice(left, left + 128))
            for field in bacteria[:2]
            for top in (100, 300)
            for left in (100, 300)
        ]
        own = np.mean([place(shift) for shift in estimate_shifts(bacteria[:2], ["YFP"])], axis=0)
        found = estimate_shifts(crops, ["YFP"])
        assert all(shift.reliable for shift in found)
        assert "all fields" in {shift.basis for shift in found}
        for shift in found:
            np.testing.assert_allclose(place(shift) - own, (5, -5), atol=1)
        assert not any(estimate_shifts([crop], ["YFP"])[0].reliable for crop in crops[:2])

    def test_of_other_sets_do_not_take_part(self, bacteria: list[Field], cells: Field):
        fields = [
            dataclasses.replace(cells, set_name="cells"),
            *(dataclasses.replace(field, set_name="bacteria") for field in bacteria[:2]),
        ]
        together = estimate_shifts(fields, ["stain"])
        assert together[:1] == estimate_shifts(fields[:1], ["stain"])
        assert together[1:] == estimate_shifts(fields[1:], ["stain"])

    def test_give_one_shift_for_each_label_that_is_known(self, bacteria: list[Field]):
        unknown = np.full_like(bacteria[0].truth, np.nan)
        fields = [
            dataclasses.replace(field, truth=np.concatenate(channels, axis=-1))
            for field, channels in (
                (bacteria[0], (bacteria[0].truth, unknown)),
                (bacteria[1], (unknown, bacteria[1].truth)),
            )
        ]
        found = estimate_shifts(fields, ["a", "b"])
        assert [(shift.field, shift.label) for shift in found] == [
            (fields[0].name, "a"),
            (fields[1].name, "b"),
        ]


class TestWhatCannotBeFound:
    def test_the_target_of_another_field(self, bacteria: list[Field]):
        mixed = [dataclasses.replace(bacteria[i], truth=bacteria[i - 1].truth) for i in range(len(bacteria))]
        assert not any(shift.reliable for shift in estimate_shifts(mixed, ["YFP"]))
        assert not any(estimate_shifts([field], ["YFP"])[0].reliable for field in mixed[:2])

    @pytest.mark.parametrize("side", [8, 39, 64, 200])
    def test_noise(self, side: int):
        random = np.random.default_rng(side)
        field = Field(
            "noise",
            random.normal(size=(side, side + 7, 1)).astype(np.float32),
            random.random((side, side + 7, 1)).astype(np.float32),
        )
        (shift,) = estimate_shifts([field], ["stain"])
        assert not shift.reliable

    def test_images_in_which_there_is_nothing(self, bacteria: list[Field]):
        empty = np.zeros_like(bacteria[0].truth)
        for nothing in (
            dataclasses.replace(bacteria[0], truth=empty),
            dataclasses.replace(bacteria[0], stack=empty),
        ):
            (shift,) = estimate_shifts([nothing], ["YFP"])
            assert not shift.reliable

    def test_a_label_that_contradicts_the_others_is_not_taken_from_them(self, bacteria: list[Field]):
        field = cropped(bacteria[0], slice(0, 300), slice(0, 300))
        truth = field.truth[..., 0]
        # Of the second label little is known, but enough to see that it lies elsewhere.
        second = np.full_like(truth, np.nan)
        second[60:240, 60:240] = np.roll(truth, (0, 14), (0, 1))[60:240, 60:240]
        noise = np.random.default_rng(0).normal(0, 0.6, truth.shape)
        both = dataclasses.replace(field, truth=np.stack([truth, second + noise], axis=-1).astype(np.float32))
        first, other = estimate_shifts([both], ["YFP", "other"])
        assert first.reliable
        assert other.basis == ""
        if other.reliable:
            assert abs(other.x_px - first.x_px - 14) < 2


class TestCorrection:
    def test_moves_targets_onto_their_inputs(self, bacteria: list[Field]):
        (own,) = estimate_shifts(bacteria[:1], ["YFP"])
        fields = [moved(bacteria[0], (-4.0, 6.0))]
        shifts = [dataclasses.replace(own, y_px=-4.0, x_px=6.0)]
        (field,) = corrected(fields, ["YFP"], shifts)
        known = np.isfinite(field.truth[..., 0])
        # What lay beyond the image is not known: four rows at the top, six columns at the right.
        assert not known[:4].any()
        assert not known[:, -6:].any()
        assert known[4:, :-6].all()
        inner = np.s_[12:-12, 12:-12]
        np.testing.assert_allclose(field.truth[inner], bacteria[0].truth[inner], atol=0.01)
        assert field.truth.dtype == np.float32
        assert field.stack is fields[0].stack
        assert np.isfinite(fields[0].truth).all()

    def test_leaves_nothing_to_correct(self, bacteria: list[Field]):
        fields = [moved(field, (3.3, -7.7)) for field in bacteria[:2]]
        again = estimate_shifts(corrected(fields, ["YFP"], estimate_shifts(fields, ["YFP"])), ["YFP"])
        assert all(shift.reliable for shift in again)
        assert max(shift.distance_px for shift in again) < 0.5

    @pytest.mark.parametrize(
        ("y_px", "reliable"), [(0.4, True), (5.0, False)], ids=["hardly any", "not reliable"]
    )
    def test_leaves_alone_what_needs_none(self, y_px: float, reliable: bool, bacteria: list[Field]):
        shift = Shift(bacteria[0].name, "YFP", y_px, 0.0, 0.2, 0.9, reliable)
        assert corrected(bacteria[:1], ["YFP"], [shift])[0] is bacteria[0]

    def test_carries_nothing_over_from_pixels_that_are_not_known(self, bacteria: list[Field]):
        truth = bacteria[0].truth + 5
        truth[200:240, 200:240] = np.nan
        fields = [dataclasses.replace(bacteria[0], truth=truth)]
        (field,) = corrected(fields, ["YFP"], [Shift("", "YFP", 0.0, 8.0, 0.1, 0.9, True)])
        assert np.isnan(field.truth[200:240, 192:232]).all()
        known = np.isfinite(field.truth)
        assert known.mean() > 0.95
        np.testing.assert_allclose(
            field.truth[:, :-8][known[:, :-8]], (bacteria[0].truth + 5)[:, 8:][known[:, :-8]], atol=0.05
        )


class TestWords:
    def shift(self, label: str = "DAPI", field: str = "a", **changes: object) -> Shift:
        return dataclasses.replace(Shift(field, label, 0.3, -0.2, 0.2, 0.8, True), **changes)

    def test_say_when_all_is_well(self):
        assert in_words([self.shift()], moved=False) == ["DAPI lies on its input to within a pixel."]

    def test_say_how_far_in_which_direction_and_what_to_do(self):
        (text,) = in_words([self.shift(y_px=-3.0, x_px=4.0)], moved=False)
        assert "DAPI lies 5.0 px beside its input: 3.0 px up and 4.0 px right" in text
        assert "0.2 px" in text
        assert "--register" in text

    def test_say_when_it_was_corrected(self):
        (text,) = in_words([self.shift(y_px=-3.0, x_px=4.0)], moved=True)
        assert "It was moved onto its input." in text
        assert "--register" not in text

    def test_tell_fields_that_agree_from_fields_that_do_not(self):
        alike = [self.shift(field=name, x_px=4.0, y_px=0.0) for name in "abc"]
        (text,) = in_words(alike, moved=False)
        assert "4.0 px beside its input in 3 fields: 4.0 px right" in text
        (text,) = in_words([*alike, self.shift(field="d", x_px=-8.0, y_px=0.0)], moved=False)
        assert "4.0 to 8.0 px" in text
        assert "furthest in d" in text

    def test_name_what_could_not_be_estimated(self):
        (alone,) = in_words([self.shift(reliable=False)], moved=False)
        assert "could not be estimated: " in alone
        fields = [self.shift(field=f"field {i}", reliable=i == 0) for i in range(9)]
        (text,) = in_words(fields, moved=False)
        assert "within a pixel in 1 field." in text
        assert "could not be estimated in field 1, field 2, field 3, field 4, field 5 and 3 more" in text

    def test_say_what_a_shift_was_taken_from(self):
        texts = in_words(
            [self.shift("NFH", x_px=3.0), self.shift("DAPI", x_px=3.0, basis="NFH")], moved=False
        )
        assert len(texts) == 2
        assert "(taken from NFH)" not in texts[0]
        assert "(taken from NFH)" in texts[1]


def test_a_shift_can_be_written_as_json():
    written = Shift("a", "DAPI", 1.23456, -2.0, np.inf, np.nan, False).to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == {
        "field": "a",
        "label": "DAPI",
        "y_px": 1.23,
        "x_px": -2.0,
        "error_px": None,
        "correlation": None,
        "reliable": False,
        "basis": "",
    }


def test_the_same_fields_give_the_same_shifts(bacteria: list[Field]):
    fields = [cropped(field, slice(0, 256), slice(0, 256)) for field in bacteria[:2]]
    assert estimate_shifts(fields, ["YFP"]) == estimate_shifts(fields, ["YFP"])


def test_it_reports_each_field_and_can_be_stopped(bacteria: list[Field]):
    fields = [cropped(field, slice(0, 200), slice(0, 256)) for field in bacteria]
    updates = []
    estimate_shifts(fields, ["YFP"], progress=updates.append)
    assert [(update.done, update.total) for update in updates] == [(i, 4) for i in range(4)]
    with pytest.raises(CancelledError):
        estimate_shifts(fields, ["YFP"], cancelled=lambda: True)


def test_what_is_called_reliable_is_known_to_a_pixel(bacteria: list[Field]):
    for shift in estimate_shifts(bacteria, ["YFP"]):
        assert shift.reliable
        assert shift.error_px <= MOST_ERROR_PX
        assert shift.correlation > 0.8
