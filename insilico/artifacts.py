"""Painted artifacts: what dust, smears and bubbles do to a transmitted-light stack, to measure their effect.

They are drawn by optics of their own (diffraction at an opaque grain, refraction in a film and in a sphere),
not by the random spots that training adds to its crops, so that what is measured on them was not practiced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insilico.distribution import LogisticMixture
from insilico.z_planes import SOFT_LIMIT
from lincei.metrics import coverage, nrmse, pearson_r
from lincei.tiles import mirrored

Array = NDArray[np.float32]

KINDS = ("dust", "smear", "bubble")

# Standard deviations from the median down to no light at all, and up to a saturated camera.
LIGHT = 5.0
# More hidden than the first: inside an artifact. Less than the second: outside.
_INSIDE, _OUTSIDE = 0.5, 0.02
_MOST_PAINTED, _FEWEST_PAINTED = 400, 3


@dataclass(frozen=True, eq=False)
class Spoiled:
    """A stack with artifacts painted on it.

    Parameters
    ----------
    stack : ndarray
        Shape (Y, X, planes), float32, scaled as the stack it was painted on.
    hidden : ndarray
        Shape (Y, X), float32: how much of the specimen an artifact hides or distorts, 0 to 1.
    """

    stack: Array
    hidden: Array

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Pixels that an artifact covers."""
        return self.hidden > _INSIDE

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Pixels that none touches; an artifact's edge is neither inside nor outside."""
        return self.hidden < _OUTSIDE


def paint_artifacts(
    stack: Array, kind: str, *, seed: int = 0, share: float = 0.12, light: float = LIGHT
) -> Spoiled:
    """Paint artifacts of one kind on a stack until they cover a share of it.

    Parameters
    ----------
    stack : ndarray
        Shape (Y, X, planes), float32, as `insilico.z_planes.network_planes` scales it; it is not changed.
    kind : str
        "dust": opaque grains and fibers at any height, sharp in one plane or in none, with the fringes of
        Fresnel diffraction. "smear": an uneven, streaky film that shifts, blurs and shades what lies behind
        it. "bubble": a sphere of air that shows the specimen reduced, with a bright center, a dark rim, and
        rings that change through focus.
    seed : int
        Equal seeds give equal artifacts.
    share : float
        Share of the pixels that are inside an artifact at least.
    light : float
        Brightness of the background in standard deviations of the image: no light is ``-light`` of them.

    Returns
    -------
    Spoiled

    Raises
    ------
    ValueError
        When there is no such kind.
    """
    painters: dict[str, Callable[[Array, np.random.Generator, float], tuple[Array, Array]]] = {
        "dust": _dust,
        "smear": _smear,
        "bubble": _bubble,
    }
    if kind not in painters:
        raise ValueError(f"kind is {kind!r}, not one of {KINDS}")
    random = np.random.default_rng([seed, KINDS.index(kind)])
    height, width = stack.shape[:2]
    # Light adds up and is absorbed on the linear scale.
    linear = SOFT_LIMIT * np.sinh(stack / SOFT_LIMIT)
    brightest = max(light, float(linear.max()))
    hidden = np.zeros((height, width), np.float32)
    for _ in range(_MOST_PAINTED):
        if (hidden > _INSIDE).mean() >= share:
            break
        # Every painter draws in a square that it fills the middle of; what lies beyond the field is cut off.
        side = 2 * int(np.exp(random.uniform(np.log(24), np.log(min(96, max(height, width) / 2)))))
        top, left = (int(random.integers(-side // 2, size - side // 2)) for size in (height, width))
        rows, columns = np.arange(top, top + side), np.arange(left, left + side)
        place = np.ix_(mirrored(rows, height), mirrored(columns, width))
        drawn, covered = painters[kind](linear[place], random, light)
        seen = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
        into = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
        linear[into] = np.clip(drawn, -light, brightest)[seen]
        hidden[into] = np.maximum(hidden[into], covered[seen])
    return Spoiled((SOFT_LIMIT * np.arcsinh(linear / SOFT_LIMIT)).astype(np.float32), hidden)


def _grid(side: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    axis = np.arange(side) - (side - 1) / 2
    return axis[:, None], axis[None]


def _rough(side: int, grain_px: float, random: np.random.Generator) -> Array:
    """Return smooth noise of mean 0 and standard deviation 1, a square."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(random.standard_normal((side, side), np.float32), grain_px)
    return (noise - noise.mean()) / noise.std()


def _focus(planes: int, random: np.random.Generator) -> NDArray[np.floating]:
    """Return each plane's distance from an artifact, in um: within the stack, near it, or far outside."""
    positions = 2.0 * (np.arange(planes) - (planes - 1) / 2)
    height = random.choice([random.uniform(-12, 12), random.choice([-1, 1]) * random.uniform(15, 60)])
    return positions - height


def _dust(
    behind: Array, random: np.random.Generator, light: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Draw a grain with a jagged outline, or a fiber, by Fresnel diffraction of its shadow."""
    from scipy import ndimage

    side = behind.shape[0]
    y, x = _grid(side)
    if random.random() < 0.6:
        radius = side * random.uniform(0.1, 0.22)
        outline = np.hypot(y, x) / radius + 0.35 * _rough(side, radius / 3, random)
        outline += 0.15 * _rough(side, 1.5, random)
        solid = (outline < 1).astype(float)
    else:
        solid = np.zeros((side, side))
        steps = np.cumsum(ndimage.gaussian_filter1d(random.normal(size=2 * side), side / 6)) * 0.15
        steps += random.uniform(0, 2 * np.pi)
        path = np.cumsum(0.35 * np.stack([np.sin(steps), np.cos(steps)]), axis=1)
        path += (side - 1) / 2 - path.mean(axis=1, keepdims=True)
        inside = ((path > side * 0.15) & (path < side * 0.85)).all(axis=0)
        solid[tuple(np.rint(path[:, inside]).astype(int))] = 1
        solid = (ndimage.distance_transform_edt(solid == 0) < random.uniform(1.0, 3.0)).astype(float)
    opacity = random.uniform(0.75, 1.0)
    wavelength_um, pixel_size_um, condenser_na = 0.55, 0.5, 0.12  # about those of a 10x objective
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side, pixel_size_um)] * 2, indexing="ij"))
    pupil = frequency < 0.45 / wavelength_um
    spectrum = np.fft.fft2(1 - opacity * ndimage.gaussian_filter(solid, 0.6))
    light_through = []
    for distance_um in _focus(behind.shape[-1], random):
        # Fresnel's transfer function (Goodman, Introduction to Fourier Optics, 4.2), then the lamp's size.
        wave = np.fft.ifft2(
            spectrum * pupil * np.exp(-1j * np.pi * wavelength_um * distance_um * frequency**2)
        )
        blur_px = 0.3 + abs(distance_um) * condenser_na / pixel_size_um / 2
        light_through.append(ndimage.gaussian_filter(np.abs(wave) ** 2, blur_px, mode="nearest"))
    through = np.stack(light_through, axis=-1)
    # Only the missing light fades towards the square's edge, so that no square is seen.
    through = 1 + (through - 1) * _window(side)[..., None]
    return (behind + light) * through - light, np.clip(1 - through, 0, 1).mean(axis=-1)


def _smear(
    behind: Array, random: np.random.Generator, _light: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Draw a film of grease, thick here and thin there, wiped along one direction."""
    from scipy import ndimage

    side, planes = behind.shape[0], behind.shape[-1]
    turned = ndimage.rotate(
        ndimage.gaussian_filter(random.standard_normal((2 * side, 2 * side)), (1.5, side / 12)),
        random.uniform(0, 180),
        reshape=False,
        mode="wrap",
    )[side // 2 : side // 2 + side, side // 2 : side // 2 + side]
    film = turned / turned.std() + 1.2 * _rough(side, side / 16, random)
    y, x = _grid(side)
    reach = np.hypot(y, x * random.uniform(0.7, 1.0)) / (0.3 * side) + 0.15 * _rough(side, side / 12, random)
    covered = ndimage.gaussian_filter((reach < 1).astype(float), random.uniform(1, 4)) * _window(side)
    slope = np.stack(np.gradient(ndimage.gaussian_filter(film, 1.0)))
    bend_px = random.uniform(2, 6) * slope / np.abs(slope).max()
    rows, columns = np.mgrid[:side, :side] + bend_px * covered
    scatter_px = random.uniform(1.5, 5)
    haze = random.uniform(0.3, 0.8)
    shade = random.uniform(0.5, 2.0) * (film * 0.4 + bend_px.sum(axis=0) / 2)
    result = np.empty(behind.shape)
    for plane in range(planes):
        moved = ndimage.map_coordinates(behind[..., plane], [rows, columns], order=1, mode="mirror")
        veiled = (1 - haze) * ndimage.gaussian_filter(moved, scatter_px) + shade
        result[..., plane] = behind[..., plane] * (1 - covered) + veiled * covered
    return result, covered


def _bubble(
    behind: Array, random: np.random.Generator, light: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Draw a sphere of air: rays near its rim are reflected away, those near its center are bent apart."""
    from scipy import ndimage

    side = behind.shape[0]
    radius = side * random.uniform(0.2, 0.34)
    y, x = _grid(side)
    distance = np.hypot(y, x * random.uniform(0.92, 1.08))
    reach = np.clip(distance / radius, 0, 1)
    # A thin diverging lens: at the rim one looks far to the side.
    widen = 1 + 1.5 * reach**2
    rows, columns = ((side - 1) / 2 + part * widen for part in (y, x))
    inside = 1 / (1 + np.exp(np.clip((distance - radius) / 0.8, -30, 30)))
    # Beyond asin(1/1.33) of the angle of incidence nothing passes: 0.75 of the radius.
    passes = 1 / (1 + np.exp(np.clip((reach - random.uniform(0.55, 0.75)) / 0.06, -30, 30)))
    middle = 0.5 * np.exp(-((reach / 0.3) ** 2))
    result = np.empty(behind.shape)
    for plane, distance_um in enumerate(_focus(behind.shape[-1], random) / 2):
        moved = ndimage.map_coordinates(
            behind[..., plane], np.broadcast_arrays(rows, columns), order=1, mode="mirror"
        )
        moved = ndimage.gaussian_filter(moved, 1.5)
        lens = (light + 0.4 * moved) * passes * (1 + middle * np.sign(distance_um)) + 0.1 * light
        spread_px = 3 + 0.15 * abs(distance_um)
        rings = np.cos(2 * np.pi * (distance - radius) / spread_px + distance_um / 3)
        rings *= np.exp(-np.abs(distance - radius) / (1.2 * spread_px)) * light
        blur_px = 0.05 * abs(distance_um)
        drawn = lens - light + rings
        drawn = ndimage.gaussian_filter(drawn, blur_px) if blur_px > 0.2 else drawn
        result[..., plane] = behind[..., plane] * (1 - inside) + drawn * inside
        # The rings go on outside, over the specimen.
        result[..., plane] += (1 - inside) * rings * _window(side)
    edge = np.exp(-np.clip(distance - radius, 0, None) / 3.6)
    return result, np.maximum(inside, edge * _window(side))


def _window(side: int) -> NDArray[np.floating]:
    """Return 1 in the middle of a square, falling softly to 0 at its edge."""
    y, x = (np.clip((side / 2 - np.abs(axis)) / (0.12 * side), 0, 1) for axis in _grid(side))
    return np.asarray(np.sin(np.pi / 2 * y) ** 2 * np.sin(np.pi / 2 * x) ** 2)


def measure_artifacts(
    predict: Callable[[Array], Sequence[LogisticMixture]],
    stacks: Sequence[Array],
    truths: Sequence[Array],
    labels: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how prediction and uncertainty fare inside and outside of painted artifacts.

    Parameters
    ----------
    predict : callable
        Gives one distribution per label for a stack (Y, X, planes).
    stacks : sequence of ndarray
        Scaled stacks of data that were not trained on, shape (Y, X, planes).
    truths : sequence of ndarray
        Shape (Y, X, labels) each, on the label's normalized scale; NaN where it is not known.
    labels : sequence of str
        Names of the labels.
    seed : int
        Of the artifacts.

    Returns
    -------
    dict
        ``{kind: {"share": ..., "labels": {label: {"inside": ..., "outside": ...}}}}``: the share of pixels
        inside, and for either place ``pearson_r``, ``nrmse``, ``sd`` (mean predicted) and ``coverage_90``
        with the artifacts, and ``clean_pearson_r`` and so on: of the same pixels without them.
        Labels without any truth are left out, and so is r where nothing varies.
    """
    measured: dict[str, Any] = {}
    plain = [predict(stack) for stack in stacks]
    # A few stacks are painted several times, so that the figures do not hang on where a grain fell.
    turns = [turn % len(stacks) for turn in range(max(len(stacks), _FEWEST_PAINTED))]
    clean = [plain[number] for number in turns]
    known = [truths[number] for number in turns]
    for kind in KINDS:
        spoiled = [paint_artifacts(stacks[n], kind, seed=seed + turn) for turn, n in enumerate(turns)]
        predicted = [predict(item.stack) for item in spoiled]
        places = {
            "inside": [item.inside for item in spoiled],
            "outside": [item.outside for item in spoiled],
        }
        measured[kind] = {
            "share": round(float(np.mean([mask.mean() for mask in places["inside"]])), 3),
            "labels": {
                label: {
                    place: {
                        **_figures(known, predicted, masks, i),
                        **{f"clean_{name}": v for name, v in _figures(known, clean, masks, i).items()},
                    }
                    for place, masks in places.items()
                }
                for i, label in enumerate(labels)
                if any(np.isfinite(truth[..., i]).any() for truth in truths)
            },
        }
    return measured


def _figures(
    truths: Sequence[Array],
    predicted: Sequence[Sequence[LogisticMixture]],
    masks: Sequence[NDArray[np.bool_]],
    index: int,
) -> dict[str, float]:
    """Return the figures of one label over the pixels of the masks."""
    columns: list[list[Array]] = []
    for truth, mixtures, mask in zip(truths, predicted, masks, strict=True):
        known = mask & np.isfinite(truth[..., index])
        mixture = LogisticMixture(
            mixtures[index].weights[:, known],
            mixtures[index].locations[:, known],
            mixtures[index].scales[:, known],
        )
        if known.any():
            columns.append(
                [
                    truth[..., index][known],
                    mixture.mean,
                    mixture.sd,
                    mixture.quantile(0.05),
                    mixture.quantile(0.95),
                ]
            )
    if not columns:
        return {}
    truth, mean, sd, low, high = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    figures = {
        "pearson_r": pearson_r(mean, truth),
        "nrmse": nrmse(mean, truth),
        "sd": float(sd.mean()),
        "coverage_90": coverage(low, high, truth),
    }
    return {name: round(value, 4) for name, value in figures.items() if np.isfinite(value)}


def artifacts_in_words(measured: Mapping[str, Any]) -> list[str]:
    """Return the lines of a model's README on what `measure_artifacts` found; none where nothing was."""
    if not measured:
        return []

    def change(figures: Mapping[str, float], name: str, digits: int) -> str:
        values = [figures.get(f"clean_{name}"), figures.get(name)]
        return " -> ".join("" if value is None else f"{value:.{digits}f}" for value in values)

    rows = [
        [
            kind,
            label,
            change(places["inside"], "sd", 3),
            change(places["inside"], "pearson_r", 2),
            change(places["inside"], "coverage_90", 2),
            change(places["outside"], "sd", 3),
        ]
        for kind, found in measured.items()
        for label, places in found["labels"].items()
    ]
    return [
        "",
        "## Where the input is spoiled",
        "",
        "Dust, smears and bubbles were painted on the test part. Without them -> with them, on the same "
        "pixels: the mean predicted sd, r and the share of pixels in the 90 % interval inside the artifacts, "
        "and the sd outside of them.",
        "",
        "| artifact | label | sd inside | r inside | in the interval | sd outside |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
