"""Fixtures of the tests of the augmented-reality microscope: virtual monitors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from virtual_screens import NoServerError, TwoMonitors, VirtualScreens, one_monitor_server, two_monitor_server

HOW_TO_GET_THEM = "This test needs a virtual X server: `make system-packages` installs one."


@pytest.fixture(scope="session")
def two_monitors_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoMonitors]:
    """Run an X server with two monitors while tests run that need it."""
    server = two_monitor_server(tmp_path_factory.mktemp("xorg"))
    try:
        screens = server.__enter__()
    except NoServerError as error:
        pytest.skip(f"NO TWO MONITORS: {error}. {HOW_TO_GET_THEM}")
    try:
        yield screens
    finally:
        server.__exit__(None, None, None)


@pytest.fixture
def two_monitors(two_monitors_once: TwoMonitors, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoMonitors]:
    """Be on a desktop with two monitors: DUMMY0, 1600x900, the operator's; DUMMY1, 1280x720, on its right."""
    two_monitors_once.restore()
    _use(two_monitors_once, monkeypatch)
    yield two_monitors_once
    two_monitors_once.restore()


@pytest.fixture(scope="session")
def one_monitor_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualScreens]:
    """Run an X server with one monitor while tests run that need it."""
    server = one_monitor_server(tmp_path_factory.mktemp("xvfb"))
    try:
        screens = server.__enter__()
    except NoServerError as error:
        pytest.skip(f"NO MONITOR: {error}. {HOW_TO_GET_THEM}")
    try:
        yield screens
    finally:
        server.__exit__(None, None, None)


@pytest.fixture
def one_monitor(one_monitor_once: VirtualScreens, monkeypatch: pytest.MonkeyPatch) -> VirtualScreens:
    """Be on a desktop with one monitor, 1280x720."""
    _use(one_monitor_once, monkeypatch)
    return one_monitor_once


def _use(screens: VirtualScreens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs that the test starts show their windows there."""
    monkeypatch.setenv("DISPLAY", screens.display)
    for name in ("WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "QT_SCALE_FACTOR", "QT_SCREEN_SCALE_FACTORS"):
        monkeypatch.delenv(name, raising=False)
