"""A seeded simulator of cultured cells: phase-contrast z-stacks and the stains that belong to them.

For demonstrations and tests where real data are not at hand. Command line:
``python -m sample_data.cells OUT --fields 6`` writes stacks and labels as OME-TIFF.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image, save_image
from lincei.optics import phase_contrast_transfer

Array = NDArray[np.floating[Any]]

PIXEL_SIZE_UM = 0.65
Z_STEP_UM = 2.0
_MARGIN_PX = 48
LABELS = {"nuclei": "#0000FF", "cytoplasm": "#00FF00"}


@dataclass(frozen=True)
class SimulatedField:
    """A simulated field.

    Parameters
    ----------
    stack : Image
        Phase contrast, uint16, shape (1, 1, planes, Y, X).
    labels : dict of str to Image
        The stains, uint16, one plane each, pixel on pixel.
    """

    stack: Image
    labels: dict[str, Image]


def simulate_cells(
    seed: int, *, size_px: int = 512, planes: int = 7, cells: int | None = None, name: str | None = None
) -> SimulatedField:
    """Simulate a field of cells.

    Parameters
    ----------
    seed : int
        Equal seeds give equal fields.
    size_px : int
        Height and width.
    planes : int
        Z planes, `Z_STEP_UM` apart, the middle one in focus.
    cells : int, optional
        Number of cells; by default one for each 90x90 pixels, a margin around the field included.
    name : str, optional
        Name of the images; from the seed by default.

    Returns
    -------
    SimulatedField
    """
    from scipy import ndimage

    random = np.random.default_rng(seed)
    # Fourier transforms wrap around: a margin is simulated and cut off.
    full_px = size_px + 2 * _MARGIN_PX
    shape, inside = (full_px, full_px), slice(_MARGIN_PX, _MARGIN_PX + size_px)
    count = round(full_px**2 / 90**2) if cells is None else cells
    depths = (-1.5, 0.0, 1.5)  # um: cells lie at slightly different heights
    phases = [np.zeros(shape) for _ in depths]
    nuclei, cytoplasm = np.zeros(shape), np.zeros(shape)
    texture = ndimage.gaussian_filter(random.normal(size=shape), 1.2)
    texture /= texture.std()
    for _ in range(count):
        body, nucleus = _cell(shape, random)
        depth = int(random.integers(len(depths)))
        brightness = random.uniform(0.6, 1.0)
        nuclei += brightness * np.sqrt(nucleus)
        cytoplasm += random.uniform(0.5, 1.0) * np.sqrt(body) * (1 - 0.5 * (nucleus > 0))
        # A nucleus is grainier than the cell around it, and its rim refracts.
        rim = ndimage.gaussian_gradient_magnitude((nucleus > 0).astype(float), 1.0)
        phases[depth] += 0.5 * body * (1 + 0.12 * texture) + 0.35 * nucleus * (1 + 0.35 * texture) + 0.3 * rim
    for _ in range(count // 2):  # debris: seen in phase contrast, without any stain
        row, column = random.uniform(0, full_px, 2)
        phases[int(random.integers(len(depths)))] += 0.5 * _dome(shape, row, column, random.uniform(1, 3))
    transformed = [np.fft.rfft2(phase) for phase in phases]
    stack = []
    for plane in range(planes):
        focus = (plane - (planes - 1) / 2) * Z_STEP_UM
        contrast = sum(
            spectrum * phase_contrast_transfer(shape, pixel_size_um=PIXEL_SIZE_UM, defocus_um=focus - depth)
            for spectrum, depth in zip(transformed, depths, strict=True)
        )
        light = 1 + 0.35 * np.fft.irfft2(contrast, shape)
        stack.append(random.poisson(np.clip(light, 0.05, None) * 8000) + random.normal(100, 3, shape))
    title = name or f"simulated_{seed:03d}"
    source = f"sample_data.cells, seed {seed}"
    stains = {"nuclei": nuclei, "cytoplasm": cytoplasm}
    return SimulatedField(
        Image(
            _camera(np.array(stack)[:, inside, inside])[None, None],
            name=title,
            z_step_um=Z_STEP_UM,
            channel_names=("phase contrast",),
            modality="phase contrast",
            source=source,
            pixel_size_um=PIXEL_SIZE_UM,
        ),
        {
            label: Image(
                _camera(random.poisson(200 + 4000 * ndimage.gaussian_filter(stain, 0.8)[inside, inside]))[
                    None, None, None
                ],
                name=f"{title}_{label}",
                channel_names=(label,),
                channel_colors=(LABELS[label],),
                modality="fluorescence",
                source=source,
                pixel_size_um=PIXEL_SIZE_UM,
            )
            for label, stain in stains.items()
        },
    )


def _cell(shape: tuple[int, int], random: np.random.Generator) -> tuple[Array, Array]:
    """Return the thickness (0 to 1) of one cell and of its nucleus."""
    row, column = random.uniform(0, shape[0]), random.uniform(0, shape[1])
    angle = random.uniform(0, np.pi)
    length = random.uniform(18, 38)
    body = _dome(shape, row, column, length, length * random.uniform(0.35, 0.8), angle)
    side = random.uniform(-0.25, 0.25) * length
    radius = random.uniform(7, 11)
    nucleus = _dome(
        shape,
        row + side * np.sin(angle),
        column + side * np.cos(angle),
        radius,
        radius * random.uniform(0.7, 1.0),
        angle + random.normal() * 0.3,
    )
    return np.maximum(body, 0.8 * nucleus), nucleus


def _dome(
    shape: tuple[int, int],
    row: float,
    column: float,
    length: float,
    width: float | None = None,
    angle: float = 0.0,
) -> Array:
    """Return an elliptic dome of height 1; lengths in pixels are half axes."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    along = (y - row) * np.sin(angle) + (x - column) * np.cos(angle)
    across = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
    return np.clip(1 - (along / length) ** 2 - (across / (width or length)) ** 2, 0, None)


def _camera(counts: Array) -> NDArray[np.uint16]:
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def write_fields(
    out: str | Path, fields: int, *, seed: int = 0, size_px: int = 512, planes: int = 7
) -> list[Path]:
    """Write simulated fields as ``stack_00.ome.tif``, ``nuclei_00.ome.tif`` and so on.

    Returns
    -------
    list of Path
        The files of the stacks.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(fields):
        simulated = simulate_cells(seed + number, size_px=size_px, planes=planes)
        paths.append(save_image(simulated.stack, folder / f"stack_{number:02d}.ome.tif"))
        for label, image in simulated.labels.items():
            save_image(image, folder / f"{label}_{number:02d}.ome.tif")
    return paths


if __name__ == "__main__":
    import typer

    def main(
        out: Annotated[Path, typer.Argument(help="Folder to write to.")],
        fields: Annotated[int, typer.Option(help="Number of fields.")] = 6,
        seed: Annotated[int, typer.Option(help="Seed of the first field.")] = 0,
        size_px: Annotated[int, typer.Option(help="Height and width in pixels.")] = 512,
    ) -> None:
        """Write simulated phase-contrast stacks and their stains."""
        for path in write_fields(out, fields, seed=seed, size_px=size_px):
            print(path)

    typer.run(main)
