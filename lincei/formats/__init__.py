"""The file formats that lincei opens and saves: one module for each family, imported only when used."""

from __future__ import annotations
