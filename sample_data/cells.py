"""A seeded simulator of cultured cells: transmitted-light z-stacks and the stains that belong to them.

For demonstrations and tests where real data are not at hand. Living cells of two types, dead cells and debris
are drawn as thin objects that delay and absorb light; the weak-object transfer functions of `lincei.optics`
make their phase-contrast, bright-field or DIC images; the stains are the truth. Command line:
``python -m sample_data.cells OUT --fields 6`` writes stacks and labels as OME-TIFF.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image, save_image
from lincei.optics import bright_field_transfer, dic_transfer, phase_contrast_transfer
from sample_data.cell_shapes import TEXTURE_PX, Drawing, Kind, Thing, draw

Array = NDArray[np.floating[Any]]
Modality = Literal["phase contrast", "bright field", "DIC"]

PIXEL_SIZE_UM = 0.65
Z_STEP_UM = 2.0
TIME_STEP_S = 600.0
LABELS = {
    "nuclei": "#0000FF",
    "cytoplasm": "#00FF00",
    "membrane": "#FFFF00",
    "cell death": "#FF0000",
    "spindle cells": "#FF00FF",
}
_MARGIN_PX = 48
_PHOTONS, _OFFSET, _READ_NOISE = 20_000.0, 100.0, 3.0
_HALO_UM = 16.0
# Multiples of the z step, so that things at different heights share their transfer functions.
_HEIGHTS_UM: dict[Kind, tuple[float, ...]] = {
    "spread cell": (-Z_STEP_UM, 0.0, 0.0, 0.0, Z_STEP_UM),
    "spindle cell": (-Z_STEP_UM, 0.0, 0.0, 0.0, Z_STEP_UM),
    "dead cell": (0.0, Z_STEP_UM, 2 * Z_STEP_UM),
    "debris": (0.0, Z_STEP_UM, 2 * Z_STEP_UM),
}


@dataclass(frozen=True)
class SimulatedField:
    """A simulated field.

    Parameters
    ----------
    stack : Image
        Transmitted light, uint16, shape (frames, 1, planes, Y, X).
    labels : dict of str to Image
        The stains, uint16, one plane each, pixel on pixel.
    things : tuple of tuple of Thing
        For each frame the cells and the debris; those whose center lies in the margin outside the field are
        included.
    """

    stack: Image
    labels: dict[str, Image]
    things: tuple[tuple[Thing, ...], ...]


def simulate_cells(
    seed: int,
    *,
    modality: Modality = "phase contrast",
    labels: Sequence[str] = ("nuclei", "cytoplasm"),
    size_px: int = 512,
    planes: int = 7,
    cells: int | None = None,
    dead_share: float | None = None,
    spindle_share: float | None = None,
    debris_share: float = 0.5,
    frames: int = 1,
    lamp_drift: float = 0.0,
    bleaching: float = 0.0,
    name: str | None = None,
) -> SimulatedField:
    """Simulate a field of cells.

    Parameters
    ----------
    seed : int
        Equal seeds give equal fields. The cells depend on the seed, the size and the shares alone, not on
        how they are looked at.
    modality : {"phase contrast", "bright field", "DIC"}
        How the field is looked at.
    labels : sequence of str
        Stains to make, of `LABELS`. ``nuclei`` stains all DNA; ``cytoplasm`` living cells and, faintly, dead
        ones; ``membrane`` the outlines of all cells; ``cell death`` the DNA of dead cells only, as propidium
        iodide does; ``spindle cells`` the cytoplasm of one of the two types of living cells. Debris takes
        no stain.
    size_px : int
        Height and width.
    planes : int
        Z planes, `Z_STEP_UM` apart, the middle one in focus.
    cells : int, optional
        Number of cells; by default one for each 90x90 pixels, a margin around the field included.
    dead_share, spindle_share : float, optional
        Share of the cells that are dead, and of the living ones that are spindle-shaped. By default 0.3 and
        0.4 where ``cell death`` and ``spindle cells`` are among the labels, and none otherwise.
    debris_share : float
        Pieces of debris for each cell.
    frames : int
        Time points, `TIME_STEP_S` apart, between which the cells move.
    lamp_drift, bleaching : float
        Share of its light that the lamp loses, and of their brightness that the stains lose, from each
        frame to the next.
    name : str, optional
        Name of the images; from the seed by default.

    Returns
    -------
    SimulatedField

    Raises
    ------
    ValueError
        When the modality or a label is not one of those above, or a share is not between 0 and 1.
    """
    from scipy import ndimage

    if modality not in get_args(Modality):
        raise ValueError(f"modality must be one of {', '.join(get_args(Modality))}, not {modality!r}")
    if unknown := [label for label in labels if label not in LABELS]:
        raise ValueError(f"labels must be of {', '.join(LABELS)}, not {unknown[0]!r}")
    random = np.random.default_rng(seed)
    # Fourier transforms wrap around: a margin is simulated and cut off.
    full_px = size_px + 2 * _MARGIN_PX
    count = round(full_px**2 / 90**2) if cells is None else cells
    if dead_share is None:
        dead_share = 0.3 if "cell death" in labels else 0.0
    if spindle_share is None:
        spindle_share = 0.4 if "spindle cells" in labels else 0.0
    numbers = _numbers(count, dead_share, spindle_share, debris_share)
    texture = ndimage.gaussian_filter(random.normal(size=(TEXTURE_PX, TEXTURE_PX)), 1.2, mode="wrap")
    texture /= texture.std()
    things = [tuple(_placed(numbers, full_px, random))]
    for _ in range(frames - 1):
        things.append(tuple(_moved(thing, random) for thing in things[-1]))

    transfers = _Transfers(modality, (full_px, full_px))
    # Noise has its own generators, so that a label looks the same whatever else is asked for.
    camera = np.random.default_rng([seed, 0])
    stack = np.empty((frames, 1, planes, size_px, size_px), np.uint16)
    stains = {label: np.empty((frames, 1, 1, size_px, size_px), np.uint16) for label in labels}
    noise = {label: np.random.default_rng([seed, 1 + list(LABELS).index(label)]) for label in labels}
    for frame, placed in enumerate(things):
        scene = _Scene.of(placed, texture, full_px, labels)
        lamp = _PHOTONS * (1 - lamp_drift) ** frame
        for plane in range(planes):
            focus_um = (plane - (planes - 1) / 2) * Z_STEP_UM
            light = _inside(scene.light(transfers, focus_um))
            stack[frame, 0, plane] = _photographed(lamp * light, camera) + np.uint16(_OFFSET)
        for label in labels:
            bright = 4000 * (1 - bleaching) ** frame * ndimage.gaussian_filter(scene.stains[label], 0.8)
            stains[label][frame, 0, 0] = _photographed(200 + _inside(bright), noise[label])

    title = name or f"simulated_{seed:03d}"
    shared: dict[str, Any] = {
        "source": f"sample_data.cells, seed {seed}",
        "pixel_size_um": PIXEL_SIZE_UM,
        "time_step_s": TIME_STEP_S if frames > 1 else None,
    }
    return SimulatedField(
        Image(
            stack,
            name=title,
            z_step_um=Z_STEP_UM,
            channel_names=(modality,),
            modality=modality,
            **shared,
        ),
        {
            label: Image(
                pixels,
                name=f"{title}_{_file_word(label)}",
                channel_names=(label,),
                channel_colors=(LABELS[label],),
                modality="fluorescence",
                **shared,
            )
            for label, pixels in stains.items()
        },
        tuple(
            tuple(
                dataclasses.replace(thing, row=thing.row - _MARGIN_PX, column=thing.column - _MARGIN_PX)
                for thing in placed
            )
            for placed in things
        ),
    )


def _numbers(cells: int, dead_share: float, spindle_share: float, debris_share: float) -> dict[Kind, int]:
    """Return how many there are of each kind."""
    for what, share in (("dead_share", dead_share), ("spindle_share", spindle_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"{what} must be between 0 and 1, not {share:g}")
    dead = round(dead_share * cells)
    spindles = round(spindle_share * (cells - dead))
    return {
        "spread cell": cells - dead - spindles,
        "spindle cell": spindles,
        "dead cell": dead,
        "debris": round(debris_share * cells),
    }


def _placed(numbers: dict[Kind, int], full_px: int, random: np.random.Generator) -> Iterator[Thing]:
    """Place things at random, cells with some distance between them."""
    taken = np.empty((0, 2))
    for kind, number in numbers.items():
        for _ in range(number):
            # Of some random places that farthest from all others: cells seldom grow over one another.
            places = random.uniform(0, full_px, (1 if kind == "debris" else 8, 2))
            distances = np.hypot(*(places[:, None] - taken[None]).transpose(2, 0, 1))
            place = places[np.argmax(distances.min(axis=1, initial=full_px))]
            taken = np.vstack([taken, place])
            yield Thing(
                kind,
                float(place[0]),
                float(place[1]),
                float(random.choice(_HEIGHTS_UM[kind])),
                random.uniform(0, 2 * np.pi),
                int(random.integers(2**32)),
            )


def _moved(thing: Thing, random: np.random.Generator) -> Thing:
    """Return a thing in the next frame: living cells crawl along their axis, the rest is jostled."""
    jolt = random.normal(size=3)
    alive = thing.kind in ("spread cell", "spindle cell")
    pace = 1.5 if alive else 0.0
    return dataclasses.replace(
        thing,
        row=thing.row + pace * np.sin(thing.angle) + 0.5 * jolt[0],
        column=thing.column + pace * np.cos(thing.angle) + 0.5 * jolt[1],
        angle=thing.angle + 0.04 * jolt[2],
    )


@dataclass
class _Scene:
    """One frame: the spectra of phase and absorption at each height, and the stains."""

    spectra: dict[float, tuple[NDArray[Any], NDArray[Any]]]
    stains: dict[str, Array]
    shape: tuple[int, int]

    @classmethod
    def of(cls, things: Sequence[Thing], texture: Array, full_px: int, labels: Sequence[str]) -> _Scene:
        """Draw things on a square field."""
        from scipy import fft

        shape = (full_px, full_px)
        optical: dict[float, Array] = defaultdict(lambda: np.zeros((2, *shape), np.float32))
        stains = {label: np.zeros(shape, np.float32) for label in labels}
        for thing in things:
            top, left, drawing = draw(thing, texture)
            height, width = drawing.phase.shape
            rows = slice(*np.clip([top, top + height], 0, full_px))
            columns = slice(*np.clip([left, left + width], 0, full_px))
            drawn = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            optical[thing.height_um][0, rows, columns] += drawing.phase[drawn]
            optical[thing.height_um][1, rows, columns] += drawing.absorption[drawn]
            for label, canvas in stains.items():
                stained = _stained(label, thing, drawing)
                if stained is not None:
                    canvas[rows, columns] += stained[drawn]
        spectra = {
            height: (fft.rfft2(phase), fft.rfft2(absorption))
            for height, (phase, absorption) in optical.items()
        }
        return cls(spectra, stains, shape)

    def light(self, transfers: _Transfers, focus_um: float) -> Array:
        """Return the light with the microscope focused at a height, where 1 is that of an empty field."""
        from scipy import fft

        contrast = np.zeros((self.shape[0], self.shape[1] // 2 + 1), np.complex64)
        for height_um, spectra in self.spectra.items():
            for spectrum, transfer in zip(spectra, transfers.at(focus_um - height_um), strict=False):
                contrast += spectrum * transfer
        # Rytov's exponent instead of Born's sum: the same for weak contrast, and never below 0.
        return np.exp(fft.irfft2(contrast, self.shape))


class _Transfers:
    """The transfer functions of one microscope, of phase and where it counts of absorption, by defocus."""

    def __init__(self, modality: Modality, shape: tuple[int, int]) -> None:
        self.modality, self.shape = modality, shape
        self._known: dict[float, tuple[NDArray[Any], ...]] = {}

    def at(self, defocus_um: float) -> tuple[NDArray[Any], ...]:
        if defocus_um not in self._known:
            self._known[defocus_um] = self._made(defocus_um)
        return self._known[defocus_um]

    def _made(self, defocus_um: float) -> tuple[NDArray[Any], ...]:
        scale: dict[str, Any] = {"pixel_size_um": PIXEL_SIZE_UM, "defocus_um": defocus_um}
        if self.modality == "phase contrast":
            return (phase_contrast_transfer(self.shape, halo_um=_HALO_UM, **scale),)
        make = bright_field_transfer if self.modality == "bright field" else dic_transfer
        return make(self.shape, **scale), make(self.shape, of="absorption", **scale)


def _stained(label: str, thing: Thing, drawing: Drawing) -> Array | None:
    """Return what of a thing a label's stain binds to; None for nothing."""
    if label == "nuclei":
        return drawing.dna
    if label == "cell death":
        return drawing.dna if thing.kind == "dead cell" else None
    if label == "spindle cells":
        return drawing.cytoplasm if thing.kind == "spindle cell" else None
    return drawing.membrane if label == "membrane" else drawing.cytoplasm


def _inside(pixels: Array) -> Array:
    return pixels[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]


def _photographed(photons: Array, random: np.random.Generator) -> NDArray[np.uint16]:
    """Add shot noise, which is Gaussian at a hundred photons and more, and read noise."""
    noise = random.standard_normal(photons.shape, dtype=np.float32)
    counts = photons + noise * np.sqrt(photons + _READ_NOISE**2)
    return np.clip(np.rint(counts), 0, 65535 - _OFFSET).astype(np.uint16)


def _file_word(label: str) -> str:
    return label.replace(" ", "_")


def write_fields(
    out: str | Path, fields: int, *, seed: int = 0, size_px: int = 512, planes: int = 7, **options: Any
) -> list[Path]:
    """Write simulated fields as ``stack_00.ome.tif``, ``nuclei_00.ome.tif`` and so on.

    Parameters
    ----------
    out : path-like
        Folder, made where it is not there.
    fields : int
        Number of fields.
    seed : int
        Seed of the first field.
    size_px, planes : int
        See `simulate_cells`.
    **options
        More of `simulate_cells`. Spaces in labels become underscores in file names.

    Returns
    -------
    list of Path
        The files of the stacks.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(fields):
        simulated = simulate_cells(seed + number, size_px=size_px, planes=planes, **options)
        paths.append(save_image(simulated.stack, folder / f"stack_{number:02d}.ome.tif"))
        for label, image in simulated.labels.items():
            save_image(image, folder / f"{_file_word(label)}_{number:02d}.ome.tif")
    return paths


if __name__ == "__main__":
    import typer

    def main(
        out: Annotated[Path, typer.Argument(help="Folder to write to.")],
        fields: Annotated[int, typer.Option(help="Number of fields.")] = 6,
        seed: Annotated[int, typer.Option(help="Seed of the first field.")] = 0,
        size_px: Annotated[int, typer.Option(help="Height and width in pixels.")] = 512,
        planes: Annotated[int, typer.Option(help="Z planes of each stack.")] = 7,
        modality: Annotated[
            str, typer.Option(help="phase contrast, bright field or DIC.")
        ] = "phase contrast",
        label: Annotated[
            list[str] | None,
            typer.Option(help=f"A stain to write; may be given again: {', '.join(LABELS)}."),
        ] = None,
        dead_share: Annotated[float | None, typer.Option(help="Share of the cells that are dead.")] = None,
        spindle_share: Annotated[
            float | None, typer.Option(help="Share of the living cells that are spindle-shaped.")
        ] = None,
        debris_share: Annotated[float, typer.Option(help="Pieces of debris for each cell.")] = 0.5,
        frames: Annotated[int, typer.Option(help="Time points.")] = 1,
        lamp_drift: Annotated[float, typer.Option(help="Share of light lost per frame.")] = 0.0,
        bleaching: Annotated[float, typer.Option(help="Share of the stains lost per frame.")] = 0.0,
    ) -> None:
        """Write simulated transmitted-light stacks and their stains."""
        try:
            paths = write_fields(
                out,
                fields,
                seed=seed,
                size_px=size_px,
                planes=planes,
                modality=modality,
                labels=label or ("nuclei", "cytoplasm"),
                dead_share=dead_share,
                spindle_share=spindle_share,
                debris_share=debris_share,
                frames=frames,
                lamp_drift=lamp_drift,
                bleaching=bleaching,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        for path in paths:
            print(path)

    typer.run(main)
