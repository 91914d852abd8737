"""Shapes of simulated cells and debris: how they delay and absorb light, and where their stains lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Kind = Literal["spread cell", "spindle cell", "dead cell", "debris"]

TEXTURE_PX = 256
# Half the width of the largest window that is drawn, in pixels.
LARGEST_PX = 64


@dataclass(frozen=True)
class Thing:
    """One cell or piece of debris of a field.

    Parameters
    ----------
    kind : str
        What it is.
    row, column : float
        Its center in pixels; may lie outside the field.
    height_um : float
        How far it lies above the middle plane, toward the objective.
    angle : float
        How it is turned in the field, in radians.
    seed : int
        Everything else about its shape follows from this.
    """

    kind: Kind
    row: float
    column: float
    height_um: float
    angle: float
    seed: int


@dataclass
class Drawing:
    """What one thing does to the light, and its stains, in a window around it.

    Parameters
    ----------
    phase, absorption : ndarray
        Delay of the light in radians, and share of it that is absorbed.
    dna, cytoplasm, membrane : ndarray
        Amount of what the stains bind to; about 1 in a living cell.
    """

    phase: Array
    absorption: Array
    dna: Array = field(init=False)
    cytoplasm: Array = field(init=False)
    membrane: Array = field(init=False)

    def __post_init__(self) -> None:
        self.dna, self.cytoplasm, self.membrane = (np.zeros_like(self.phase) for _ in range(3))


@dataclass(frozen=True)
class _Window:
    """Coordinates in pixels around a thing's center, along its axis and across, and a grain of unit sd."""

    along: Array
    across: Array
    grain: Array

    def ellipse(
        self, length: float, width: float, at: tuple[float, float] = (0, 0), waves: Array | None = None
    ) -> Array:
        """Return the distance from the center of an ellipse as a share of that to its outline.

        ``waves`` are amplitudes and phases (2, n) that make the outline wavy, from 2 waves around it on.
        """
        u, v = (self.along - at[0]) / length, (self.across - at[1]) / width
        distance = np.hypot(u, v)
        if waves is None:
            return distance
        around = np.arctan2(v, u)
        outline = 1 + sum(a * np.cos((k + 2) * around + shift) for k, (a, shift) in enumerate(waves.T))
        return distance / outline


def draw(thing: Thing, texture: Array) -> tuple[int, int, Drawing]:
    """Draw one thing.

    Parameters
    ----------
    thing : Thing
        What to draw.
    texture : ndarray
        Shape ``(TEXTURE_PX, TEXTURE_PX)``, of unit sd: grain that cells take theirs from.

    Returns
    -------
    tuple
        Row and column of the window's first pixel, and the window.
    """
    random = np.random.default_rng(thing.seed)
    drawer, half = _DRAWERS[thing.kind]
    top, left = round(thing.row) - half, round(thing.column) - half
    y = (np.arange(2 * half + 1) + top - thing.row)[:, None]
    x = (np.arange(2 * half + 1) + left - thing.column)[None]
    sine, cosine = np.sin(thing.angle), np.cos(thing.angle)
    start = random.integers(TEXTURE_PX - 2 * half, size=2)
    grain = texture[start[0] : start[0] + 2 * half + 1, start[1] : start[1] + 2 * half + 1]
    window = _Window(y * sine + x * cosine, y * cosine - x * sine, grain)
    return top, left, drawer(window, random)


def _spread_cell(window: _Window, random: np.random.Generator) -> Drawing:
    """Draw a flat cell with lobes, thickest over its nucleus."""
    length = random.uniform(19, 36)
    nucleus_px = random.uniform(7, 10.5)
    width = max(length * random.uniform(0.45, 0.85), nucleus_px + 4)
    waves = np.stack([random.uniform(0, [0.12, 0.15, 0.1, 0.06]), random.uniform(0, 2 * np.pi, 4)])
    outline = window.ellipse(length, width, waves=waves)
    at = (random.uniform(-0.2, 0.2) * length, random.uniform(-0.1, 0.1) * width)
    turned = random.uniform(0.72, 1.0)
    nucleus = window.ellipse(nucleus_px, nucleus_px * turned, at, 0.35 * waves[:, ::-1])
    bulge = np.exp(-0.5 * window.ellipse(1.3 * nucleus_px, 1.3 * nucleus_px * turned, at) ** 2)
    thickness = _dome(outline) ** 1.5 * (0.45 + 0.55 * bulge)
    return _living(window, random, outline, nucleus, thickness, nucleus_px, at)


def _spindle_cell(window: _Window, random: np.random.Generator) -> Drawing:
    """Draw a long thin cell with two processes and a long nucleus."""
    length, width = random.uniform(34, 54), random.uniform(6.5, 8.5)
    bend = random.normal() * 0.12 / length
    across = window.across - bend * window.along**2 + 0.5 * bend * (0.4 * length) ** 2
    bent = _Window(window.along, across, window.grain)
    along = window.along / length
    half_width = 1.2 + (width - 1.2) * np.exp(-((along / 0.42) ** 2))
    outline = np.hypot(across / half_width, along**3)
    at = (random.uniform(-0.08, 0.08) * length, 0.0)
    nucleus_px = random.uniform(9, 12)
    nucleus = bent.ellipse(nucleus_px, min(nucleus_px * random.uniform(0.42, 0.52), width - 1.5), at)
    thickness = _dome(outline) * half_width / width
    return _living(bent, random, outline, nucleus, thickness, nucleus_px, at)


def _living(
    window: _Window,
    random: np.random.Generator,
    outline: Array,
    nucleus: Array,
    thickness: Array,
    nucleus_px: float,
    nucleus_at: tuple[float, float],
) -> Drawing:
    """Fill the outlines of a living cell with nucleoli, granules and stains."""
    inside, in_nucleus = _inside(outline), _inside(nucleus)
    nucleus_dome = _dome(nucleus) * inside
    nucleoli = np.zeros_like(outline)
    for _ in range(random.integers(1, 4)):
        spot = (
            nucleus_at[0] + nucleus_px * random.uniform(-0.5, 0.5),
            nucleus_at[1] + nucleus_px * random.uniform(-0.25, 0.25),
        )
        nucleoli = np.maximum(
            nucleoli, _dome(window.ellipse(random.uniform(1.2, 2.6), random.uniform(1.2, 2.6), spot))
        )
    nucleoli *= nucleus_dome
    drawing = Drawing(
        random.uniform(0.3, 0.42) * thickness * (1 + 0.12 * window.grain)
        + 0.14 * nucleus_dome * (1 + 0.25 * window.grain)
        + 0.12 * nucleoli
        + 0.10 * _rim(in_nucleus),
        0.01 * thickness,
    )
    granules = _granules(window, random, nucleus_at, 1.2 * nucleus_px)
    drawing.phase += 0.12 * granules * inside * (1 - in_nucleus)
    drawing.dna = random.uniform(0.6, 1.0) * np.sqrt(nucleus_dome) * inside * (1 - 0.5 * nucleoli)
    drawing.dna *= 1 + 0.08 * window.grain
    stained = random.uniform(0.6, 1.0)
    drawing.cytoplasm = stained * np.sqrt(thickness) * inside * (1 - 0.5 * in_nucleus)
    drawing.cytoplasm *= 1 + 0.1 * window.grain
    drawing.membrane = random.uniform(0.7, 1.0) * (1.6 * _rim(inside) + 0.15 * inside)
    return drawing


def _dead_cell(window: _Window, random: np.random.Generator) -> Drawing:
    """Draw a dead cell: round, shrunken, with blebs; its nucleus condensed to a ball or broken up."""
    radius = random.uniform(7, 11)
    # Of those that lost their contents only a pale ghost is left around the nucleus.
    ghost = random.uniform() < 0.35
    drawing, thickness = _corpse(window, random, radius, random.uniform(0.16, 0.24) if ghost else None)
    pieces = 1 if random.uniform() < 0.5 else random.integers(3, 7)
    condensed = np.zeros_like(thickness)
    for _ in range(pieces):
        size = random.uniform(3.0, 4.5) if pieces == 1 else random.uniform(1.4, 2.6)
        distance = (0.3 if pieces == 1 else 0.6) * radius * np.sqrt(random.uniform())
        at = _polar(distance, random.uniform(0, 2 * np.pi))
        ball = window.ellipse(size, size * random.uniform(0.8, 1.0), at)
        condensed = np.maximum(condensed, size / 3 * _dome(ball))
    drawing.phase += 0.34 * condensed
    drawing.absorption += 0.04 * condensed
    drawing.dna = random.uniform(1.1, 1.6) * np.sqrt(condensed)
    drawing.cytoplasm = random.uniform(0.05, 0.2) * thickness
    drawing.membrane = 0.8 * _rim(np.minimum(1.5 * thickness, 1)) + 0.25 * thickness
    return drawing


def _debris(window: _Window, random: np.random.Generator) -> Drawing:
    """Draw a clump of what cells leave behind: like a small dead cell, but with nothing in it."""
    if random.uniform() < 0.5:
        return _corpse(window, random, random.uniform(5, 10), random.uniform(0.2, 0.5))[0]
    clump = np.zeros_like(window.along)
    reach = random.uniform(0, 6)
    for _ in range(random.integers(1, 7)):
        size = random.uniform(1.2, 4.5)
        at = _polar(reach * random.uniform(), random.uniform(0, 2 * np.pi))
        clump = np.maximum(clump, size / 3 * _dome(window.ellipse(size, size * random.uniform(0.5, 1), at)))
    delay = random.uniform(0.2, 0.45)
    return Drawing(delay * clump * (1 + 0.2 * window.grain), random.uniform(0.0, 0.15) * clump)


def _corpse(
    window: _Window, random: np.random.Generator, radius: float, delay: float | None
) -> tuple[Drawing, Array]:
    """Draw a ball with blebs; return what it does to light, and its thickness (0 to 1)."""
    thickness = _dome(window.ellipse(radius, radius * random.uniform(0.8, 1.0)))
    for _ in range(random.integers(2, 9)):
        size = random.uniform(1.6, 0.42 * radius)
        at = _polar(radius * random.uniform(0.75, 1.1), random.uniform(0, 2 * np.pi))
        thickness = np.maximum(thickness, size / radius * _dome(window.ellipse(size, size, at)))
    phase = (random.uniform(0.42, 0.58) if delay is None else delay) * thickness * (1 + 0.2 * window.grain)
    vacuoles = _granules(window, random, (0.0, 0.0), 0.6 * radius)
    return Drawing(phase * (1 - 0.3 * np.minimum(vacuoles, 1)), 0.05 * thickness), thickness


def _granules(
    window: _Window, random: np.random.Generator, at: tuple[float, float], reach_px: float
) -> Array:
    """Return small balls strewn around a point."""
    strewn = np.zeros_like(window.along)
    for _ in range(random.integers(4, 16)):
        spot = random.normal(size=2) * reach_px * 0.8 + at
        size = random.uniform(0.8, 1.6)
        strewn += np.exp(-((window.along - spot[0]) ** 2 + (window.across - spot[1]) ** 2) / size**2)
    return strewn


def _dome(distance: Array) -> Array:
    """Return the thickness of an ellipsoid (0 to 1) from the distances of `_Window.ellipse`."""
    return np.sqrt(np.clip(1 - distance**2, 0, None))


def _inside(distance: Array) -> Array:
    """Return 1 inside an outline and 0 outside, with an edge two pixels wide."""
    slope = np.hypot(*np.gradient(distance))
    return np.clip((1 - distance) / np.maximum(slope, 1e-3) / 2 + 0.5, 0, 1)


def _rim(inside: Array) -> Array:
    """Return the edge of an area that `_inside` returned; about 1 there."""
    return 4 * inside * (1 - inside)


def _polar(distance: float, around: float) -> tuple[float, float]:
    return distance * np.cos(around), distance * np.sin(around)


_DRAWERS: dict[Kind, tuple[Callable[[_Window, np.random.Generator], Drawing], int]] = {
    "spread cell": (_spread_cell, 48),
    "spindle cell": (_spindle_cell, LARGEST_PX),
    "dead cell": (_dead_cell, 20),
    "debris": (_debris, 18),
}
