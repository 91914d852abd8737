"""Slides of stained tissue drawn from a seed: nests of tumor in stroma, lymphocytes, fat, glass around them.

Each thing takes up an amount of the two stains, hematoxylin and eosin; what the light loses in both follows
from the law of Beer and Lambert. Maps of a few micrometers a pixel say what lies where; nuclei are drawn one
by one, from shapes of three kinds; the rest are textures.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sample_data.slides import GLASS, Mask, Slide

Array = NDArray[np.float32]

# Absorbance of red, green and blue light by the two stains, as in the reference section of Macenko et al.,
# IEEE ISBI 2009, 1107.
HEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)
# Pixel size of the maps of what lies where, and that of the textures, which repeat after so many pixels.
_MAP_UM, _TEXTURE_UM, _TEXTURE_PX = 8.0, 0.75, 1024
# Things are drawn on pixels of this size or finer. Coarser ones are averages, of so many squared at most.
_DRAWN_UM, _MOST_FINE = 1.5, 4
# Rows that are drawn at once.
_BAND_PX = 128


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of one kind.

    Parameters
    ----------
    kind : str
        One of `_KINDS`.
    xy_um : ndarray
        Shape (N, 2), float32, by y.
    variant : ndarray
        Shape (N,): which of the drawn shapes each has.
    """

    kind: str
    xy_um: Array
    variant: NDArray[np.intp]


@dataclass(frozen=True)
class NucleusKind:
    """How nuclei of a kind look.

    Parameters
    ----------
    length_um, width_um : tuple of float
        Limits of their diameters.
    stain : tuple of float
        Limits of the amount of hematoxylin inside.
    rim : float
        How much more there is along the border.
    nucleoli : int
        Most nucleoli in one.
    irregular : float
        How far the outline departs from an ellipse.
    clumped : float
        How uneven the stain is.
    """

    length_um: tuple[float, float]
    width_um: tuple[float, float]
    stain: tuple[float, float]
    rim: float
    nucleoli: int
    irregular: float
    clumped: float


_KINDS = {
    "tumor": NucleusKind((11.0, 18.0), (8.5, 13.0), (0.5, 0.95), 0.35, 3, 0.10, 0.28),
    "lymphocyte": NucleusKind((6.0, 7.4), (5.4, 6.6), (1.25, 1.7), 0.05, 0, 0.04, 0.18),
    "fibroblast": NucleusKind((12.0, 20.0), (2.8, 4.4), (0.75, 1.15), 0.1, 0, 0.06, 0.12),
}
_ANGLES, _SHAPES = 16, 8


class DrawnSlide(Slide):
    """A slide drawn from a seed: nests of tumor in stroma, lymphocytes, fat, glass around it.

    Parameters
    ----------
    seed : int
        Equal seeds give equal slides.
    size_um : tuple of float
        Width and height.
    """

    def __init__(self, seed: int = 0, *, size_um: tuple[float, float] = (8000.0, 5600.0)) -> None:
        if min(size_um) < 200:
            raise ValueError(f"a slide must be at least 200 um wide and high, not {size_um}")
        super().__init__(f"drawn slide {seed}", size_um)
        random = np.random.default_rng([seed, 71])
        self._layout = _Layout.drawn(size_um, random)
        self._textures = _textures()
        self.nuclei = _placed_nuclei(self._layout, self._textures.cell_centers_um, random)
        self._stain_strength = float(random.uniform(0.92, 1.08))

    def survey(self, pixel_size_um: float) -> tuple[Mask, Mask]:
        """Return where tissue is on the whole slide, and where tumor is, without drawing it."""
        x_um, y_um = (
            (np.arange(max(1, round(length / pixel_size_um)), dtype=np.float64) + 0.5) * pixel_size_um
            for length in self.size_um
        )
        tissue = self._layout.at(x_um, y_um)
        return (tissue.tissue > 0) & (tissue.fat < 0), tissue.nest > 0

    def _read_into(
        self, rgb: NDArray[np.uint8], tumor: Mask, left_um: float, top_um: float, pixel_size_um: float
    ) -> None:
        for row in range(0, len(tumor), _BAND_PX):
            band = slice(row, row + _BAND_PX)
            self._draw(rgb[band], tumor[band], left_um, top_um + row * pixel_size_um, pixel_size_um)

    def _draw(
        self, rgb: NDArray[np.uint8], tumor: Mask, left_um: float, top_um: float, pixel_size_um: float
    ) -> None:
        times = min(max(1, int(np.ceil(pixel_size_um / _DRAWN_UM))), _MOST_FINE)
        fine_um = pixel_size_um / times
        height, width = tumor.shape
        x_um = left_um + (np.arange(width * times, dtype=np.float64) + 0.5) * fine_um
        y_um = top_um + (np.arange(height * times, dtype=np.float64) + 0.5) * fine_um
        tissue = self._layout.at(x_um, y_um)
        if tissue.tissue.max() < -50:
            rgb[...], tumor[...] = GLASS, False
            return
        h, e = self._ground(tissue, x_um, y_um)
        for nuclei in self.nuclei:
            self._stamp(nuclei, h, e, left_um, top_um, fine_um)
        h *= np.float32(self._stain_strength)
        for channel, glass in enumerate(GLASS):
            light = h * np.float32(-HEMATOXYLIN[channel])
            light -= np.float32(EOSIN[channel]) * e
            np.exp(light, out=light)
            rgb[..., channel] = np.rint(_averaged(light, times) * np.float32(glass))
        tumor[...] = _averaged((tissue.nest > 0).astype(np.float32), times) > 0.5

    def _ground(
        self, tissue: _Tissue, x_um: NDArray[np.float64], y_um: NDArray[np.float64]
    ) -> tuple[Array, Array]:
        """Return the amounts of hematoxylin and eosin of everything but the nuclei."""
        textures = self._textures
        grain, cloud = (_repeated(texture, x_um, y_um) for texture in (textures.grain, textures.cloud))
        fibers = _warped(textures.fibers, tissue.along_um, tissue.across_um)

        # Collagen: bundles, with clefts of bare glass where they part.
        cleft = _step(fibers + 0.35 * cloud + 0.3 * tissue.drift, -2.2, -1.4)
        e = (0.50 + 0.10 * fibers + 0.04 * grain + 0.07 * cloud) * cleft
        h = (0.10 + 0.015 * grain) * cleft
        # Tumor: purple cytoplasm, paler toward the borders between cells, a cleft around some nests.
        inside = _step(tissue.nest, 0.0, 3.0)
        if inside.any():
            border = _repeated(textures.cell_border, x_um, y_um)
            e += inside * (0.42 + 0.06 * cloud + 0.05 * grain - 0.16 * border - e)
            h += inside * (0.33 + 0.05 * cloud + 0.04 * grain - 0.14 * border - h)
            retracted = np.exp(-(((tissue.nest + 3) / 2.5) ** 2)) * _step(cloud + tissue.drift, 0.5, 1.0)
            e *= 1 - 0.85 * retracted
            h *= 1 - 0.85 * retracted
        # Lymphocytes lie in little but themselves.
        lymphoid = _step(tissue.lymphoid, -4.0, 8.0) * (1 - inside)
        e += lymphoid * (0.22 + 0.05 * grain - e)
        h += lymphoid * (0.30 + 0.05 * grain - h)
        # Fat: cells that the embedding emptied, thin walls between them.
        fat = _step(tissue.fat, 0.0, 4.0)
        if fat.any():
            wall = _repeated(textures.fat_wall, x_um, y_um)
            e += fat * ((0.45 + 0.1 * grain) * wall - e)
            h += fat * (0.08 * wall - h)
        edge = _step(tissue.tissue + 4 * fibers, 0.0, 5.0)
        e *= edge
        h *= edge
        return np.clip(h, 0, None), np.clip(e, 0, None)

    def _stamp(
        self, nuclei: Nuclei, h: Array, e: Array, left_um: float, top_um: float, pixel_size_um: float
    ) -> None:
        """Draw the nuclei that lie in a part into it."""
        stamps = _stamps(nuclei.kind, round(pixel_size_um, 4))
        half = stamps[0][0].shape[0] // 2
        height, width = h.shape
        margin_um = (half + 1) * pixel_size_um
        first, last = np.searchsorted(
            nuclei.xy_um[:, 1], (top_um - margin_um, top_um + height * pixel_size_um + margin_um)
        )
        places = nuclei.xy_um[first:last] - np.array([left_um, top_um], np.float32)
        corners = np.floor(places / np.float32(pixel_size_um)).astype(int) - half
        side = 2 * half + 1
        kept = (corners[:, 0] > -side) & (corners[:, 0] < width)
        for (x, y), variant in zip(
            corners[kept].tolist(), nuclei.variant[first:last][kept].tolist(), strict=True
        ):
            stain, covered = stamps[variant]
            y0, y1, x0, x1 = max(y, 0), min(y + side, height), max(x, 0), min(x + side, width)
            if y0 >= y1 or x0 >= x1:
                continue
            cut = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
            place = slice(y0, y1), slice(x0, x1)
            share = covered[cut]
            h[place] += share * (stain[cut] - h[place])
            e[place] *= 1 - 0.75 * share


@dataclass(frozen=True)
class _Tissue:
    """What lies where in a part; lengths in um, positive inside (distances to the border)."""

    tissue: Array
    nest: Array
    lymphoid: Array
    fat: Array
    across_um: Array
    along_um: Array
    drift: Array


@dataclass(frozen=True)
class _Layout:
    """Maps of what lies where, with pixels of `_MAP_UM`; see `_Tissue`."""

    maps: dict[str, Array]

    @classmethod
    def drawn(cls, size_um: tuple[float, float], random: np.random.Generator) -> _Layout:
        """Draw the maps of a slide."""
        from scipy import ndimage

        width, height = (int(np.ceil(length / _MAP_UM)) + 1 for length in size_um)
        shape = (height, width)

        def noise(scale_um: float) -> Array:
            return _smooth_noise(shape, scale_um / _MAP_UM, random)

        y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height * 2 - 1
        x = (np.arange(width, dtype=np.float32)[None] + 0.5) / width * 2 - 1
        # A section that fills most of the slide, with a wavy outline.
        border = 1 - (np.abs(x) ** 4 + np.abs(y) ** 4) ** 0.25
        tissue = _distance(border + 0.05 * noise(700) + 0.015 * noise(120) > 0.10)
        # Where the tumor grows: one or two large areas; nests in them.
        area = noise(1500) - 0.35 * (x**2 + y**2) + 0.25
        nests = noise(230) + 0.45 * noise(80)
        nest = _distance(_without_small((nests + 1.1 * area > 0.9) & (tissue > 60), 60)) + 2.5 * noise(24)
        fat_area = noise(900) - 0.75 * np.clip(area, -1, 1) + 0.5 * (np.hypot(x, y) - 0.8)
        fat = _distance(_without_small((fat_area > 0.95) & (nest < -80) & (tissue > 30), 150))
        aggregates = noise(420) - 0.6 * np.abs(area) - 0.3
        lymphoid = _distance(
            _without_small((aggregates > 0.35) & (nest < -10) & (tissue > 40) & (fat < -60), 60)
        )
        # Fibers run along the borders of the nests, else mostly from left to right, and wavy.
        from_nest = ndimage.gaussian_filter(np.clip(-nest, 0, 250), 5.0)
        along_x, along_y = (_MAP_UM * np.arange(n, dtype=np.float32) for n in (width, height))
        across = 0.55 * along_y[:, None] + 0.8 * from_nest + 45 * noise(350) + 6 * noise(60)
        along = 0.8 * along_x[None] + 60 * noise(400)
        maps = {
            "tissue": tissue,
            "nest": np.minimum(nest, tissue - 10),
            "lymphoid": lymphoid,
            "fat": fat,
            "across_um": across,
            "along_um": along,
            "drift": noise(300),
        }
        return cls({name: np.ascontiguousarray(values, np.float32) for name, values in maps.items()})

    def at(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> _Tissue:
        """Return what lies on a grid, between the maps' pixels linearly; beyond the slide's edges glass."""
        values = {name: _interpolated(values, x_um, y_um) for name, values in self.maps.items()}
        height, width = self.maps["tissue"].shape
        outside = (y_um < 0) | (y_um > (height - 1) * _MAP_UM), (x_um < 0) | (x_um > (width - 1) * _MAP_UM)
        for name in ("tissue", "nest"):
            values[name][outside[0]] = -1000
            values[name][:, outside[1]] = -1000
        return _Tissue(**values)

    def among(self, name: str, xy_um: NDArray[Any]) -> Array:
        """Return the values of a map at places, shape (N, 2), from the nearest pixel."""
        values = self.maps[name]
        column, row = np.rint(xy_um.T / _MAP_UM).astype(int)
        return values[np.clip(row, 0, values.shape[0] - 1), np.clip(column, 0, values.shape[1] - 1)]


@dataclass(frozen=True)
class _Textures:
    """Textures that repeat after `_TEXTURE_PX` pixels; of mean 0 and standard deviation 1 where not said."""

    grain: Array
    cloud: Array
    fibers: Array
    # 1 on the borders, 0 within the cells.
    cell_border: Array
    fat_wall: Array
    # Shape (N, 2): x and y within the texture.
    cell_centers_um: NDArray[np.float64]


@functools.cache
def _textures() -> _Textures:
    """Draw the textures; they are the same on all slides."""
    random = np.random.default_rng(7)
    shape = (_TEXTURE_PX, _TEXTURE_PX)
    fibers = _smooth_noise(shape, 1.6, random, stretched=26) + 0.6 * _smooth_noise(
        shape, 5.0, random, stretched=22
    )
    cells, centers = _cells(13.0, 0.15, random)
    fat_cells, _ = _cells(62.0, 0.25, random)
    return _Textures(
        grain=_smooth_noise(shape, 1.1, random),
        cloud=_smooth_noise(shape, 14, random),
        fibers=fibers / fibers.std(),
        cell_border=1 - _step(cells, 0.4, 2.2),
        fat_wall=1 - _step(fat_cells, 0.6, 1.8),
        cell_centers_um=centers,
    )


def _cells(
    spacing_um: float, jitter: float, random: np.random.Generator
) -> tuple[Array, NDArray[np.float64]]:
    """Return how far each pixel lies from the border of its cell, in um, and the cells' centers.

    Cells are the places nearest to one center (Voronoi), on a jittered hexagonal lattice that repeats.
    """
    from scipy import ndimage

    side_um = _TEXTURE_PX * _TEXTURE_UM
    across = round(side_um / spacing_um)
    down = 2 * round(side_um / (spacing_um * np.sqrt(3) / 2) / 2)
    column, row = np.meshgrid(np.arange(across), np.arange(down))
    centers = np.stack([(column + 0.5 * (row % 2)) * side_um / across, row * side_um / down], -1)
    centers = centers.reshape(-1, 2) + random.normal(0, jitter * spacing_um, (across * down, 2))
    centers %= side_um
    # What lies around the texture is the texture again: with a margin of it nothing shows where it repeats.
    margin = round(2 * spacing_um / _TEXTURE_UM)
    seeds = np.zeros((_TEXTURE_PX, _TEXTURE_PX), np.intp)
    places = np.floor(centers / _TEXTURE_UM).astype(np.intp)
    seeds[places[:, 1], places[:, 0]] = np.arange(1, len(centers) + 1)
    seeds = np.pad(seeds, margin, mode="wrap")
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    cell = seeds[tuple(nearest)]
    same = np.ones(cell.shape, np.bool_)
    same[:-1] &= cell[:-1] == cell[1:]
    same[:, :-1] &= cell[:, :-1] == cell[:, 1:]
    to_border = ndimage.gaussian_filter(ndimage.distance_transform_edt(same), 0.7) * _TEXTURE_UM
    inner = slice(margin, -margin)
    return to_border[inner, inner].astype(np.float32), centers


def _placed_nuclei(
    layout: _Layout, cell_centers_um: NDArray[np.float64], random: np.random.Generator
) -> tuple[Nuclei, ...]:
    """Place the nuclei of all kinds; those drawn later lie on top."""
    height, width = (n * _MAP_UM for n in layout.maps["tissue"].shape)

    def strewn(per_mm2: float) -> NDArray[np.float64]:
        return random.uniform((0, 0), (width, height), (random.poisson(width * height * per_mm2 / 1e6), 2))

    def lattice(spacing_um: float) -> NDArray[np.float64]:
        column, row = np.meshgrid(
            np.arange(0, width, spacing_um), np.arange(0, height, spacing_um * np.sqrt(3) / 2)
        )
        places = np.stack([column + 0.5 * spacing_um * (np.arange(row.shape[0])[:, None] % 2), row], -1)
        return places.reshape(-1, 2) + random.normal(0, 0.17 * spacing_um, (places.size // 2, 2))

    # Fibroblasts lie along the fibers.
    stroma = strewn(1500)
    stroma = stroma[
        (layout.among("nest", stroma) < -4)
        & (layout.among("tissue", stroma) > 8)
        & (layout.among("fat", stroma) < 0)
        & (layout.among("lymphoid", stroma) < 0)
    ]
    slope = [
        layout.among("across_um", stroma + step) - layout.among("across_um", stroma - step)
        for step in ((2 * _MAP_UM, 0), (0, 2 * _MAP_UM))
    ]
    angle = np.arctan2(slope[0], -slope[1]) + random.normal(0, 0.2, len(stroma))
    turned = np.rint(angle / np.pi * _ANGLES).astype(int) % _ANGLES
    # Lymphocytes lie close together in their aggregates, and here and there in the stroma.
    crowd = lattice(7.6)
    crowd = crowd[
        (layout.among("lymphoid", crowd) > random.normal(0, 12, len(crowd)))
        & (layout.among("nest", crowd) < -3)
        & (random.uniform(size=len(crowd)) < 0.93)
    ]
    few = strewn(260)
    few = few[
        (layout.among("nest", few) < 25) & (layout.among("tissue", few) > 8) & (layout.among("fat", few) < 0)
    ]
    small = np.concatenate([crowd, few])
    # A nucleus in each tumor cell, a few without (cut above or below it).
    side_um = _TEXTURE_PX * _TEXTURE_UM
    starts = [(x, y) for y in np.arange(0, height, side_um) for x in np.arange(0, width, side_um)]
    large = np.concatenate([cell_centers_um + start for start in starts])
    large = large[(layout.among("nest", large) > 3) & (random.uniform(size=len(large)) < 0.93)]
    large += random.normal(0, 0.8, large.shape)

    def sorted_nuclei(kind: str, xy: NDArray[np.float64], variant: NDArray[np.intp]) -> Nuclei:
        order = np.argsort(xy[:, 1])
        return Nuclei(kind, xy[order].astype(np.float32), variant[order])

    def any_variant(count: int) -> NDArray[np.intp]:
        return random.integers(_ANGLES * _SHAPES, size=count)

    return (
        sorted_nuclei("fibroblast", stroma, turned * _SHAPES + random.integers(_SHAPES, size=len(stroma))),
        sorted_nuclei("tumor", large, any_variant(len(large))),
        sorted_nuclei("lymphocyte", small, any_variant(len(small))),
    )


@functools.lru_cache(maxsize=24)
def _stamps(kind: str, pixel_size_um: float) -> list[tuple[Array, Array]]:
    """Return the shapes that nuclei of a kind have: their stain, and how much of each pixel they cover.

    Number ``angle * _SHAPES + shape``; each has its center in the middle.
    """
    from scipy import ndimage

    look = _KINDS[kind]
    half = int(np.ceil((look.length_um[1] / 2 * (1 + 2 * look.irregular) + 1) / pixel_size_um))
    steps = np.arange(-half, half + 1) * pixel_size_um
    x, y = steps[None], steps[:, None]
    stamps = []
    for number in range(_ANGLES * _SHAPES):
        # The same shapes at every pixel size.
        random = np.random.default_rng([list(_KINDS).index(kind), number])
        turn = (number // _SHAPES) * np.pi / _ANGLES
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        length, width = random.uniform(*look.length_um) / 2, random.uniform(*look.width_um) / 2
        around = np.arctan2(v / width, u / length)
        outline = 1 + sum(
            look.irregular * random.normal() / k * np.cos(k * around + random.uniform(0, 2 * np.pi))
            for k in (2, 3, 4)
        )
        distance = np.hypot(u / length, v / width) / outline
        border_um = (1 - distance) * min(length, width)
        covered = np.clip(border_um / max(pixel_size_um, 0.5) + 0.5, 0, 1)
        grain = ndimage.gaussian_filter(random.standard_normal((64, 64)), 1.5, mode="wrap")
        # Clumps of chromatin a micrometer wide.
        texture = ndimage.map_coordinates(
            grain / grain.std(), np.broadcast_arrays(y / 0.45, x / 0.45), order=1, mode="grid-wrap"
        )
        stain = random.uniform(*look.stain) * (1 + look.clumped * texture)
        stain += look.rim * np.exp(-((border_um / 0.8) ** 2))
        for _ in range(random.integers(look.nucleoli + 1)):
            where = random.uniform(-0.4, 0.4, 2) * (length, width)
            stain += 0.8 * np.exp(
                -((u - where[0]) ** 2 + (v - where[1]) ** 2) / random.uniform(0.7, 1.3) ** 2
            )
        stamps.append((np.clip(stain, 0, None).astype(np.float32), covered.astype(np.float32)))
    return stamps


def _smooth_noise(
    shape: tuple[int, int], scale_px: float, random: np.random.Generator, *, stretched: float = 1.0
) -> Array:
    """Return noise of mean 0 and standard deviation 1, smooth over a length; so many times that along x.

    With sides of a power of two it repeats without a seam.
    """
    from scipy import fft

    full = tuple(fft.next_fast_len(n, real=True) for n in shape)
    white = fft.rfft2(random.standard_normal(full, np.float32))
    y = np.fft.fftfreq(full[0]).astype(np.float32)[:, None] * np.float32(scale_px)
    x = np.fft.rfftfreq(full[1]).astype(np.float32)[None] * np.float32(scale_px * stretched)
    smooth = fft.irfft2(white * np.exp(-2 * (x**2 + y**2)), full)[: shape[0], : shape[1]]
    smooth -= smooth.mean()
    return (smooth / max(float(smooth.std()), 1e-9)).astype(np.float32)


def _step(values: Array, low: float, high: float) -> Array:
    """Return 0 below one value, 1 above another, and a smooth rise between."""
    share = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _distance(inside: Mask) -> Array:
    """Return the distance to the border in um, negative outside, with rounded corners.

    A map without a border is far from one.
    """
    from scipy import ndimage

    if not inside.any():
        return np.full(inside.shape, -1000, np.float32)
    if inside.all():
        return np.full(inside.shape, 1000, np.float32)
    to_outside, to_inside = (ndimage.distance_transform_edt(part) for part in (inside, ~inside))
    return ndimage.gaussian_filter(((to_outside - to_inside) * _MAP_UM).astype(np.float32), 2.0)


def _without_small(inside: Mask, radius_um: float) -> Mask:
    """Return a mask without parts, and holes, narrower than a disk."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(inside) * _MAP_UM > radius_um / 2
    inside = ndimage.distance_transform_edt(~inside) * _MAP_UM <= radius_um / 2
    filled = ndimage.distance_transform_edt(~inside) * _MAP_UM > radius_um / 3
    opened: Mask = ndimage.distance_transform_edt(~filled) * _MAP_UM > radius_um / 3
    return opened


def _averaged(values: Array, times: int) -> Array:
    """Return the means of squares of so many pixels."""
    if times == 1:
        return values
    height, width = (n // times for n in values.shape)
    means: Array = values.reshape(height, times, width, times).mean(axis=(1, 3), dtype=np.float32)
    return means


def _interpolated(values: Array, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> Array:
    """Return a map on a grid, linearly between its pixels; beyond its edges the nearest."""
    rows, columns = (
        _weights(along / _MAP_UM, n) for along, n in zip((y_um, x_um), values.shape, strict=True)
    )
    (top, down), (left, right) = rows, columns
    first, last = int(top[0]), int(top[-1]) + 2
    begin, end = int(left[0]), int(left[-1]) + 2
    part = values[first:last, begin:end]
    wide = part[:, left - begin] * (1 - right) + part[:, left - begin + 1] * right
    there = wide[top - first] * (1 - down[:, None]) + wide[top - first + 1] * down[:, None]
    return there.astype(np.float32, copy=False)


def _repeated(texture: Array, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> Array:
    """Return a texture on a grid, over and over, linearly between its pixels."""
    (top, down), (left, right) = (
        (np.floor(along / _TEXTURE_UM).astype(np.intp), (along / _TEXTURE_UM % 1).astype(np.float32))
        for along in (y_um, x_um)
    )
    upper, lower = texture[top % _TEXTURE_PX], texture[(top + 1) % _TEXTURE_PX]
    lines = upper + (lower - upper) * down[:, None]
    before, after = lines[:, left % _TEXTURE_PX], lines[:, (left + 1) % _TEXTURE_PX]
    return (before + (after - before) * right).astype(np.float32, copy=False)


def _warped(texture: Array, x_um: Array, y_um: Array) -> Array:
    """Return a texture at any places, over and over, linearly between its pixels."""
    x, y = x_um / np.float32(_TEXTURE_UM), y_um / np.float32(_TEXTURE_UM)
    left, top = np.floor(x), np.floor(y)
    right, down = x - left, y - top
    columns, rows = left.astype(np.int32), top.astype(np.int32)
    flat = texture.reshape(-1)
    columns, after = columns % _TEXTURE_PX, (columns + 1) % _TEXTURE_PX
    rows, below = rows % _TEXTURE_PX * _TEXTURE_PX, (rows + 1) % _TEXTURE_PX * _TEXTURE_PX
    upper = flat[rows + columns] * (1 - right) + flat[rows + after] * right
    lower = flat[below + columns] * (1 - right) + flat[below + after] * right
    return upper * (1 - down) + lower * down


def _weights(places: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], Array]:
    """Return the pixel before each place, and the weight of the one after it."""
    clipped = np.clip(places, 0, count - 1.001)
    before = np.floor(clipped).astype(np.intp)
    return before, (clipped - before).astype(np.float32)
