"""Lengths and times in the units that files state them in."""

from __future__ import annotations

UM_PER_UNIT = {
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "picometer": 1e-6,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}
S_PER_UNIT = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "millisecond": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "microsecond": 1e-6,
    "ns": 1e-9,
    "nanosecond": 1e-9,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}


def to_um(value: float | None, unit: str | None) -> float | None:
    """Return a length in um, or None when the value or its unit says nothing."""
    return _converted(value, unit, UM_PER_UNIT)


def to_s(value: float | None, unit: str | None) -> float | None:
    """Return a time in s, or None when the value or its unit says nothing."""
    return _converted(value, unit, S_PER_UNIT)


def _converted(value: float | None, unit: str | None, factors: dict[str, float]) -> float | None:
    factor = factors.get((unit or "").strip().lower())
    if value is None or factor is None or not 0 < value * factor < float("inf"):
        return None
    # Rounding hides the noise of the conversion: 160 nm is 0.16 um and not 0.16000000000000003.
    return float(f"{value * factor:.12g}")
