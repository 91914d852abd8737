"""See more through the microscope you already have. Research use only."""

from __future__ import annotations

__version__ = "0.1.0"
