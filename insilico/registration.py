"""How far a target lies beside its input: measured between a short fit's prediction and the target.

Transmitted light and fluorescence show different things of one structure, with halos, rims and shadows, so
that their cross-correlation does not peak where one lies on the other. Nor does a network tell: where light
falls in at an angle, and in DIC, every structure has a bright and a dark side, from which a network learns a
constant shift like anything else, however its crops are turned.

What is fitted here knows no sides. The input is described, at each pixel, by how strong its contrast is at
several scales: the amplitude of the monogenic signal (a band-passed image and its Riesz transform: Felsberg
and Sommer, IEEE Transactions on Signal Processing 49:3136, 2001), and the same of the Riesz transforms of
second and third order (Unser and Van De Ville, IEEE Transactions on Image Processing 19:636, 2010). These
stay the same when an image is turned or mirrored, and at an edge or a line they do not depend on its
profile, be it bright, dark, or bright on one side and dark on the other. The prediction is the sum of these
measures, weighted by ridge regression, that explains most of the target. All that the regression needs are
correlations, so it is made for every shift of the target at once, and the shift that lets most be explained
is the one reported. Its standard error comes from leaving out one part of the field after another (jackknife:
Efron and Stein, Annals of Statistics 9:586, 1981).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from lincei.tiles import mirrored

if TYPE_CHECKING:
    from insilico.training import Field

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

# Shifts are looked for up to this many pixels along y and x, in small fields up to a quarter of their side.
REACH_PX = 24
# What is reported as reliable has at most this standard error and at least this correlation.
MOST_ERROR_PX = 1.0
LEAST_CORRELATION = 0.1
# A shift up to this needs no correction; shifts closer to each other than this agree.
SMALL_PX = 1.0
# Of a large set, as many fields are measured, spread over it, and as many pixels around their centers.
MOST_FIELDS = 32
MOST_PIXELS = 8_000_000
SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 40, 1024

_PLANES = (0.25, 0.75, 0.5)  # planes of a stack that are tried, as shares of its height
_BANDS_PX = (1.0, 2.0, 4.0, 8.0)  # sigma of each band's finer Gaussian; the coarser one's is twice that
_POOLED = (1.0, 4.0)  # each measure is averaged over these multiples of its band's sigma
_COARSEST_PX = 16.0  # what varies more slowly (uneven light, mostly) does not count
_HALO_PX = 40  # as far as a measure sees, but for its faint tail
_FAINT = 0.05  # contrast below this, in standard deviations of the image, counts as none
_KNEE = 0.1  # the label counts by its logarithm above this, so that a few bright spots are not all there is
_RIDGE = 0.01
_BLOCK_PX = 192
_FEWEST_BLOCKS = 4
_CONTRADICTION = 4.0  # standard errors


@dataclass(frozen=True)
class Shift:
    """How far the structures of a target lie beyond where the input has them.

    Parameters
    ----------
    field, label : str
        Whose it is.
    y_px, x_px : float
        Down and to the right, in pixels.
    error_px : float
        Its standard error; infinite where nothing could be measured.
    correlation : float
        Pearson r of prediction and target at this shift, each part of the field predicted from the others;
        NaN where nothing could be measured.
    reliable : bool
        Whether to trust it.
    basis : str
        Empty where it was measured in this label of this field, else what it was taken from, in words.
    """

    field: str
    label: str
    y_px: float
    x_px: float
    error_px: float
    correlation: float
    reliable: bool
    basis: str = ""

    @property
    def distance_px(self) -> float:
        """Its length."""
        return float(np.hypot(self.y_px, self.x_px))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dict, rounded; what is infinite or no number is None."""
        return {
            name: (round(value, 2) if np.isfinite(value) else None) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }


@dataclass(frozen=True)
class _Sums:
    """What is kept of a label in a part of a field.

    ``cross`` (measures, shifts, shifts) correlates measures and target at every shift, ``gram`` (measures,
    measures) the measures with each other; ``energy`` is the target's.
    """

    cross: Array | Floats
    gram: Floats
    energy: float

    def at(self, place: tuple[int, int]) -> _Sums:
        """Return the sums of one shift, as a third and fourth axis of length 1."""
        y, x = place
        return _Sums(self.cross[:, y : y + 1, x : x + 1], self.gram, self.energy)


@dataclass(frozen=True)
class _Measured:
    """A shift (y, x) and, where they could be found, its standard error and its correlation."""

    place: Floats
    error_px: float = np.inf
    correlation: float = np.nan

    @property
    def reliable(self) -> bool:
        return self.error_px <= MOST_ERROR_PX and bool(self.correlation >= LEAST_CORRELATION)


def estimate_shifts(
    fields: Sequence[Field],
    labels: Sequence[str],
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> list[Shift]:
    """Measure how far each label of each field lies beside its input.

    Fields of one set share the fit; their shifts may differ. A label that cannot be measured in one field
    takes the shift of all fields of its set where these agree, or else that of the field's other labels,
    unless what was measured contradicts it.

    Parameters
    ----------
    fields : sequence of Field
        The fields. One plane of each stack is looked at: of three, the one that tells most about the labels.
    labels : sequence of str
        Names of the truth's channels.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    list of Shift
        For each field in turn, one for each label that is known in it.

    Raises
    ------
    CancelledError
        When ``cancelled`` turned true.
    """
    found: dict[int, list[Shift]] = {}
    for name in dict.fromkeys(field.set_name for field in fields):
        members = [index for index, field in enumerate(fields) if field.set_name == name]
        shifts = _shifts_of_set([fields[index] for index in members], labels, progress, cancelled)
        found.update(zip(members, shifts, strict=True))
    return [shift for index in range(len(fields)) for shift in found[index]]


def corrected(fields: Sequence[Field], labels: Sequence[str], shifts: Sequence[Shift]) -> list[Field]:
    """Return the fields with each target moved onto its input where its shift is reliable.

    Parameters
    ----------
    fields, labels : sequence
        As given to `estimate_shifts`.
    shifts : sequence of Shift
        What it returned.

    Returns
    -------
    list of Field
        Targets that lie half a pixel or more beside their input are moved, interpolated by cubic splines;
        their pixels that come from outside the image are NaN.
    """
    from scipy import ndimage

    remaining = iter(shifts)
    moved = []
    for field in fields:
        truth = field.truth
        for channel in _known_channels(field, labels):
            shift = next(remaining)
            if not shift.reliable or shift.distance_px < 0.5:
                continue
            back = (-shift.y_px, -shift.x_px)
            plane = field.truth[..., channel]
            known = np.isfinite(plane)
            # A spline reaches two pixels; beside unknown ones it would carry over what stands for them.
            sure = ndimage.binary_erosion(known, iterations=2, border_value=1).astype(np.float32)
            inside = ndimage.shift(sure, back, order=1, cval=0.0) > 0.999
            values = ndimage.shift(np.where(known, plane, 0), back, mode="mirror")
            truth = truth.copy() if truth is field.truth else truth
            truth[..., channel] = np.where(inside, values, np.nan)
        moved.append(field if truth is field.truth else dataclasses.replace(field, truth=truth))
    return moved


def in_words(shifts: Sequence[Shift], *, moved: bool) -> list[str]:
    """Say what was found, whether it matters, and what to do.

    Parameters
    ----------
    shifts : sequence of Shift
        From `estimate_shifts`.
    moved : bool
        Whether the targets have been moved (`corrected`).

    Returns
    -------
    list of str
        Sentences: one paragraph for each label.
    """
    paragraphs = []
    for label in dict.fromkeys(shift.label for shift in shifts):
        of_label = [shift for shift in shifts if shift.label == label]
        known = [shift for shift in of_label if shift.reliable]
        unknown = [shift for shift in of_label if not shift.reliable]
        sentences = []
        if known:
            sentences.append(_what_was_found(label, known, alone=len(of_label) == 1))
            if max(shift.distance_px for shift in known) > SMALL_PX:
                sentences.append(
                    "It was moved onto its input."
                    if moved
                    else "More than a pixel costs accuracy: train with --register to have it moved."
                )
        if unknown:
            where = "" if len(of_label) == 1 else f" in {_listed([shift.field for shift in unknown])}"
            sentences.append(
                f"How far {label} lies beside its input could not be estimated{where}: too little of it can "
                f"be told from the input, or it is more than {REACH_PX} px. Lay the two images over each "
                "other and look."
            )
        paragraphs.append(" ".join(sentences))
    return paragraphs


def _what_was_found(label: str, shifts: Sequence[Shift], *, alone: bool) -> str:
    places = np.array([(shift.y_px, shift.x_px) for shift in shifts])
    y, x = places.mean(axis=0)
    fields = "" if alone else f" in {len(shifts)} field{'s' if len(shifts) > 1 else ''}"
    bases = list(dict.fromkeys(shift.basis for shift in shifts if shift.basis))
    # All fields of a set taken together need no explanation.
    taken = "".join(f" (taken from {basis})" for basis in bases if basis != _ALL_FIELDS)
    if max(shift.distance_px for shift in shifts) <= SMALL_PX:
        return f"{label} lies on its input to within a pixel{fields}{taken}."
    if np.hypot(*(places - [y, x]).T).max() <= SMALL_PX:
        directions = [
            f"{abs(value):.1f} px {words[int(value > 0)]}"
            for value, words in ((y, ("up", "down")), (x, ("left", "right")))
            if abs(value) >= 0.05
        ]
        error = max(shift.error_px for shift in shifts)
        return (
            f"{label} lies {np.hypot(y, x):.1f} px beside its input{fields}: {' and '.join(directions)}, "
            f"give or take {error:.1f} px{taken}."
        )
    nearest, *_, furthest = sorted(shifts, key=lambda shift: shift.distance_px)
    return (
        f"{label} lies {nearest.distance_px:.1f} to {furthest.distance_px:.1f} px beside its input{fields}, "
        f"differently from field to field (furthest in {furthest.field}){taken}."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more fields" if len(names) > 5 else "")


_ALL_FIELDS = "all fields"


def _known_channels(field: Field, labels: Sequence[str]) -> list[int]:
    return [channel for channel in range(len(labels)) if np.isfinite(field.truth[..., channel]).any()]


def _shifts_of_set(
    fields: Sequence[Field],
    labels: Sequence[str],
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> list[list[Shift]]:
    sums = _sums_of_set(fields, labels, progress, cancelled)
    alone: list[dict[int, _Measured]] = [{} for _ in fields]
    together: dict[int, _Measured] = {}
    for channel in range(len(labels)):
        having = [index for index, of_field in sums.items() if channel in of_field]
        if not having:
            continue
        stop_if_cancelled(cancelled)
        blocks = [sums[index][channel] for index in having]
        common, each = _measured_together(blocks)
        for index, measured in zip(having, each, strict=True):
            alone[index][channel] = measured
        apart = [float(np.hypot(*(m.place - common.place))) for m in each if m.reliable]
        if len(fields) > 1 and common.reliable and (not apart or np.median(apart) <= SMALL_PX):
            together[channel] = common
    return [
        _shifts_of_field(field, labels, measured, together)
        for field, measured in zip(fields, alone, strict=True)
    ]


def _shifts_of_field(
    field: Field, labels: Sequence[str], alone: Mapping[int, _Measured], together: Mapping[int, _Measured]
) -> list[Shift]:
    """Decide what each label's shift is taken from."""
    nothing = _Measured(np.zeros(2))
    channels = _known_channels(field, labels)
    best: dict[int, tuple[_Measured, str]] = {}
    for channel in channels:
        own, common = alone.get(channel, nothing), together.get(channel)
        if own.reliable:
            best[channel] = own, ""
        elif common is not None and not _contradicts(own, common):
            best[channel] = common, _ALL_FIELDS
    others = _mean_of([measured for measured, _ in best.values()])
    names = " and ".join(labels[channel] for channel in best)
    shifts = []
    for channel in channels:
        own = alone.get(channel, nothing)
        if channel in best:
            measured, basis = best[channel]
        elif others is not None and not _contradicts(own, others):
            measured, basis = dataclasses.replace(others, correlation=own.correlation), names
        else:
            measured, basis = own, ""
        reliable = channel in best or bool(basis)
        y, x = measured.place
        shifts.append(
            Shift(
                field.name,
                labels[channel],
                float(y),
                float(x),
                measured.error_px,
                measured.correlation,
                reliable,
                basis,
            )
        )
    return shifts


def _contradicts(own: _Measured, other: _Measured) -> bool:
    """Tell whether what was measured, though not well enough, excludes the other shift."""
    if not own.correlation >= LEAST_CORRELATION:
        return False
    distance = float(np.hypot(*(own.place - other.place)))
    return distance > max(SMALL_PX, _CONTRADICTION * float(np.hypot(own.error_px, other.error_px)))


def _mean_of(several: Sequence[_Measured]) -> _Measured | None:
    """Return the mean of shifts weighted by their precision, where they agree."""
    if not several:
        return None
    places = np.array([measured.place for measured in several])
    weights = np.array([1 / max(measured.error_px, 0.1) ** 2 for measured in several])
    mean = weights @ places / weights.sum()
    if np.hypot(*(places - mean).T).max() > 2 * SMALL_PX:
        return None
    return _Measured(mean, float(1 / np.sqrt(weights.sum())))


def _sums_of_set(
    fields: Sequence[Field],
    labels: Sequence[str],
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> dict[int, dict[int, list[_Sums]]]:
    """Return, for fields spread over the set, each known label's sums over the blocks of the field."""
    large = [index for index, field in enumerate(fields) if min(field.truth.shape[:2]) >= SMALLEST_SIDE_PX]
    if not large:
        return {}
    count = min(len(large), MOST_FIELDS)
    chosen = [large[round(i)] for i in np.linspace(0, len(large) - 1, count)]
    smallest = min(min(fields[index].truth.shape[:2]) for index in chosen)
    reach = min(REACH_PX, smallest // 4)
    side = min(LARGEST_SIDE_PX, int(np.sqrt(MOST_PIXELS / count)))
    place = 0.5
    sums: dict[int, dict[int, list[_Sums]]] = {}
    for done, index in enumerate(chosen):
        stop_if_cancelled(cancelled)
        report(progress, Progress("checking the registration", done, count))
        shares = _PLANES if done == 0 else (place,)
        tried = _sums_of_field(fields[index], labels, shares, reach, side)
        place = max(tried, key=lambda share: _told(tried[share]))
        sums[index] = tried[place]
    return sums


def _told(sums: Mapping[int, Sequence[_Sums]]) -> float:
    """Return the share of the labels that is explained at best, summed over the labels."""
    return sum(
        float(_explained(total).max()) / total.energy
        for total in map(_added, sums.values())
        if total.energy > 0
    )


def _sums_of_field(
    field: Field, labels: Sequence[str], shares: Sequence[float], reach: int, side: int
) -> dict[float, dict[int, list[_Sums]]]:
    """Compute, for planes at shares of the stack's height, each label's sums over blocks of the center."""
    # Targets are looked at where the input is known as far as they may be shifted.
    rows, columns = (
        slice((size - inner) // 2, (size + inner) // 2)
        for size, inner in ((size, min(size - 2 * reach, side)) for size in field.truth.shape[:2])
    )
    targets = {
        channel: _target(field.truth[..., channel], rows, columns)
        for channel in _known_channels(field, labels)
    }
    planes = {round(share * (field.stack.shape[2] - 1)): share for share in shares}
    return {
        share: _sums_of_plane(_measures(field.stack[..., plane], rows, columns, reach), targets, reach)
        for plane, share in planes.items()
    }


def _sums_of_plane(
    measures: Array, targets: Mapping[int, tuple[Array, NDArray[np.bool_]]], reach: int
) -> dict[int, list[_Sums]]:
    from scipy import fft

    sums: dict[int, list[_Sums]] = {channel: [] for channel in targets}
    span = 2 * reach + 1
    height, width = (size - 2 * reach for size in measures.shape[1:])
    for top, bottom in _parts(height):
        for left, right in _parts(width):
            around = measures[:, top : bottom + 2 * reach, left : right + 2 * reach]
            beneath = around[:, reach:-reach, reach:-reach]
            shape = [fft.next_fast_len(size, real=True) for size in around.shape[1:]]
            spectra = fft.rfft2(around, shape).conj()
            for channel, (target, known) in targets.items():
                here = np.s_[top:bottom, left:right]
                if known[here].mean() < 0.5:
                    continue
                padded = np.zeros(shape, np.float32)
                padded[reach : reach + bottom - top, reach : reach + right - left] = target[here]
                cross = np.roll(fft.irfft2(fft.rfft2(padded) * spectra, shape), (reach, reach), (1, 2))
                flat = (beneath * known[here]).reshape(len(measures), -1)
                sums[channel].append(
                    _Sums(
                        cross[:, :span, :span].copy(),
                        (flat @ flat.T).astype(np.float64),
                        float((target[here].astype(np.float64) ** 2).sum()),
                    )
                )
    return {channel: of_label for channel, of_label in sums.items() if of_label}


def _parts(size: int) -> Iterator[tuple[int, int]]:
    """Cut a length into three parts or more, of about the size of a block."""
    edges = np.linspace(0, size, max(3, round(size / _BLOCK_PX)) + 1).astype(int)
    return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _measures(plane: Array, rows: slice, columns: slice, reach: int) -> Array:
    """Return the strength of the local contrast, with ``reach`` more pixels on each side.

    Returns
    -------
    ndarray
        Shape (measures, Y, X), float32, each of mean 0.
    """
    from scipy import fft

    margin = reach + _HALO_PX
    window = np.ix_(
        *(
            mirrored(np.arange(part.start - margin, part.stop + margin), size)
            for part, size in zip((rows, columns), plane.shape, strict=True)
        )
    )
    pixels = plane[window]
    shape = pixels.shape
    y, x = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    squared = y**2 + x**2

    def gaussian(sigma_px: float) -> Array:
        return np.exp(-2 * (np.pi * sigma_px) ** 2 * squared).astype(np.float32)

    frequency = np.sqrt(squared)
    frequency[0, 0] = 1
    along_y, along_x = ((1j * part / frequency).astype(np.complex64) for part in (y, x))
    second = (along_y**2 - along_x**2, 2 * along_y * along_x)
    third = (along_y * second[0] - along_x * second[1], along_x * second[0] + along_y * second[1])
    fine_only = 1 - gaussian(_COARSEST_PX)
    spectrum = fft.rfft2(pixels)
    inside = np.s_[_HALO_PX:-_HALO_PX, _HALO_PX:-_HALO_PX]
    measures = []
    for sigma_px in _BANDS_PX:
        band = spectrum * (gaussian(sigma_px) - gaussian(2 * sigma_px))
        for parts in (
            (band, band * along_y, band * along_x),
            tuple(band * part for part in (*second, *third)),
        ):
            strength = sum(fft.irfft2(part, shape) ** 2 for part in parts)
            logarithm = fft.rfft2(np.log(strength + np.float32(_FAINT**2))) * fine_only
            for pooled in _POOLED:
                measure = fft.irfft2(logarithm * gaussian(pooled * sigma_px), shape)[inside]
                measures.append(measure - measure.mean())
    return np.stack(measures)


def _target(truth: Array, rows: slice, columns: slice) -> tuple[Array, NDArray[np.bool_]]:
    """Return the label as it counts (0 where it is not known), and where it is known."""
    from scipy import ndimage

    # A Gaussian reaches four sigmas.
    margin = round(4 * _COARSEST_PX)
    before = [min(margin, part.start) for part in (rows, columns)]
    truth = truth[
        rows.start - before[0] : rows.stop + margin, columns.start - before[1] : columns.stop + margin
    ]
    rows, columns = (
        slice(skipped, skipped + part.stop - part.start)
        for skipped, part in zip(before, (rows, columns), strict=True)
    )
    known = np.isfinite(truth)
    values = np.arcsinh(np.where(known, truth, 0) / np.float32(_KNEE))
    share = ndimage.gaussian_filter(known.astype(np.float32), _COARSEST_PX, mode="reflect")
    # Unknown pixels take no part in the mean around a pixel.
    coarse = ndimage.gaussian_filter(values * known, _COARSEST_PX, mode="reflect") / np.maximum(share, 1e-3)
    fine = ndimage.gaussian_filter(np.where(known, values - coarse, 0), _BANDS_PX[0], mode="reflect")
    fine, known = fine[rows, columns], known[rows, columns]
    mean = fine.sum(where=known) / max(int(known.sum()), 1)
    return np.where(known, fine - mean, 0).astype(np.float32), known


def _added(sums: Sequence[_Sums]) -> _Sums:
    cross = np.zeros(sums[0].cross.shape)
    for part in sums:
        cross += part.cross
    return _Sums(cross, np.sum([part.gram for part in sums], axis=0), sum(part.energy for part in sums))


def _less(total: _Sums, part: _Sums) -> _Sums:
    return _Sums(total.cross - part.cross, total.gram - part.gram, total.energy - part.energy)


def _solved(sums: _Sums) -> tuple[Floats, Floats]:
    """Return the ridge regression's weights at every shift, and what the prediction explains there.

    The first has the shape of ``cross``, the second is in units of the energy.
    """
    scale = np.sqrt(np.maximum(np.diag(sums.gram), 1e-12))
    normal = sums.gram / np.outer(scale, scale) + _RIDGE * np.eye(len(scale))
    scaled = (sums.cross / scale[:, None, None]).reshape(len(scale), -1)
    solution = np.linalg.solve(normal, scaled)
    explained = (solution * scaled).sum(axis=0).reshape(sums.cross.shape[1:])
    return (solution / scale[:, None]).reshape(sums.cross.shape), explained


def _explained(sums: _Sums) -> Floats:
    return _solved(sums)[1]


def _highest(explained: Floats) -> tuple[int, int]:
    y, x = np.unravel_index(int(np.argmax(explained)), explained.shape)
    return int(y), int(x)


def _peak(explained: Floats) -> tuple[Floats, bool]:
    """Return the shift of a map's highest point, between pixels, and whether it is off the map's rim."""
    reach = explained.shape[0] // 2
    y, x = _highest(explained)
    place = np.array([y - reach, x - reach], np.float64)
    if not (0 < y < 2 * reach and 0 < x < 2 * reach):
        return place, False
    for axis, line in enumerate((explained[y - 1 : y + 2, x], explained[y, x - 1 : x + 2])):
        bend = line[0] - 2 * line[1] + line[2]
        if bend < 0:
            place[axis] += 0.5 * (line[0] - line[2]) / bend
    return place, True


def _measured_together(fields: Sequence[Sequence[_Sums]]) -> tuple[_Measured, list[_Measured]]:
    """Measure the shift that fields have in common, and that of each, the fit shared by all.

    Parameters
    ----------
    fields : sequence of sequence of _Sums
        One label's sums over the blocks of each field.
    """
    wholes = [_added(blocks) for blocks in fields]
    everything = _added(wholes)
    units = wholes if len(wholes) >= _FEWEST_BLOCKS else [block for blocks in fields for block in blocks]
    common = _measured(units, everything, None)
    if len(fields) == 1:
        return common, [common]
    # Each field is shifted in turn to where most is explained in all; whichever start leads to more is right.
    starts = [
        [_highest(_explained(everything))] * len(wholes),
        [_highest(_explained(whole)) for whole in wholes],
    ]
    places = max((_settled(wholes, start) for start in starts), key=lambda settled: settled[1])[0]
    placed = [whole.at(place) for whole, place in zip(wholes, places, strict=True)]
    total = _added(placed)
    each = [
        _measured(blocks, whole, _less(total, own))
        for blocks, whole, own in zip(fields, wholes, placed, strict=True)
    ]
    return common, each


def _settled(
    fields: Sequence[_Sums], places: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int]], float]:
    """Shift one field after the other until nothing more is gained."""
    places = list(places)
    total = _added([whole.at(place) for whole, place in zip(fields, places, strict=True)])
    for _ in range(5):
        before = list(places)
        for index, whole in enumerate(fields):
            others = _less(total, whole.at(places[index]))
            places[index] = _highest(_explained(_with(whole, others)))
            total = _with(whole.at(places[index]), others)
        if places == before:
            break
    return places, float(_explained(total).max())


def _with(part: _Sums, others: _Sums) -> _Sums:
    """Add the sums of others, which stay where they are."""
    return _Sums(part.cross + others.cross, part.gram + others.gram, part.energy + others.energy)


def _measured(blocks: Sequence[_Sums], whole: _Sums, others: _Sums | None) -> _Measured:
    """Measure a shift, its standard error and its correlation by leaving out one block at a time.

    Parameters
    ----------
    blocks : sequence of _Sums
        What is shifted.
    whole : _Sums
        Their sum.
    others : _Sums or None
        Other fields, each at its own shift, that the fit is shared with.
    """
    if others is not None:
        whole = _with(whole, others)
    explained = _explained(whole)
    place, inside = _peak(explained)
    if not inside or len(blocks) < _FEWEST_BLOCKS:
        return _Measured(place)
    y, x = _highest(explained)
    places, product, predicted, energy = [], 0.0, 0.0, 0.0
    for block in blocks:
        weights, explained = _solved(_less(whole, block))
        places.append(_peak(explained)[0])
        weight = weights[:, y, x]
        product += float(weight @ block.cross[:, y, x])
        predicted += float(weight @ block.gram @ weight)
        energy += block.energy
    count = len(blocks)
    variance = np.var(places, axis=0).sum() * (count - 1)
    norm = np.sqrt(predicted * energy)
    return _Measured(place, float(np.sqrt(variance)), product / norm if norm > 0 else np.nan)
