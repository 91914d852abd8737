"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real microscopy data, which tests only read.

    Named by the environment variable LINCEI_DATA, or else ``../shared/data`` beside the repository.
    """
    named = os.environ.get("LINCEI_DATA")
    folder = Path(named).expanduser() if named else BESIDE
    if not folder.is_dir():
        asked = f"LINCEI_DATA is {named}" if named else f"LINCEI_DATA is not set and there is no {BESIDE}"
        pytest.skip(f"NO REAL DATA: {asked}. This test needs the data that README.md tells how to get.")
    return folder


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A real browser without a window, that notes its console and every request."""
    driver_path = shutil.which("chromedriver")
    browser_path = (
        shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    )
    if driver_path is None or browser_path is None:
        pytest.skip(
            "no Chromium with its driver: `make system-packages` installs chromium and chromium-driver"
        )
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser_path
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
        *(
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ),
    ):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    try:
        yield driver
    finally:
        driver.quit()
