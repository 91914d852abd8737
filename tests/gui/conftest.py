"""A real napari window on a virtual screen, for the tests of the plugin.

These tests run in a pytest process of their own: TensorFlow and an OpenGL canvas in one process crash.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MADE_FOR_TESTS = "lincei-tests"
_LONG_S = 120.0

_server: subprocess.Popen[bytes] | None = None


def pytest_configure(config: pytest.Config) -> None:
    """Open a virtual screen before Qt is imported."""
    global _server
    if os.environ.get("LINCEI_TEST_DISPLAY"):  # a person who wants to watch
        return
    server = shutil.which("Xvfb")
    if server is None:
        return
    read_end, write_end = os.pipe()
    _server = subprocess.Popen(
        [server, "-displayfd", str(write_end), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
        pass_fds=(write_end,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        number = answer.readline().strip()
    os.environ["DISPLAY"] = f":{number}"
    os.environ.pop("WAYLAND_DISPLAY", None)
    os.environ.pop("QT_QPA_PLATFORM", None)
    os.environ["NAPARI_ENSURE_PLUGIN_MAIN_THREAD"] = "1"
    with warnings.catch_warnings():  # those of other packages, while they are imported, are not ours
        warnings.simplefilter("ignore")
        import napari.qt
        import napari.viewer  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out warnings of napari's own making."""
    for item in items:
        for text in ("ignore:`json_encoders` is deprecated",):
            item.add_marker(pytest.mark.filterwarnings(text))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the virtual screen."""
    if _server is not None:
        _server.kill()
        _server.wait()


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's settings of napari, and the user's models, out of the tests."""
    folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CONFIG", str(folder / "napari.yaml"))
        patch.setenv("LINCEI_MODELS", str(folder / "models"))
        yield


@pytest.fixture(scope="session")
def qt_application() -> Any:
    """The one application of the process."""
    if _server is None and not os.environ.get("LINCEI_TEST_DISPLAY"):
        pytest.skip("NO VIRTUAL SCREEN: Xvfb is not installed; `make system-packages` installs it.")
    from napari.qt import get_qapp

    from arm_overlay.displays import protect_constants

    protect_constants()
    return get_qapp()


@pytest.fixture
def viewer(qt_application: Any) -> Iterator[Any]:
    """A napari viewer with its window; what is left over when it has closed fails the test."""
    import napari
    from qtpy.QtWidgets import QApplication

    threads_before, widgets_before = set(threading.enumerate()), QApplication.allWidgets()
    shown = napari.Viewer(show=True)
    shown.window._qt_window.resize(1500, 950)
    try:
        yield shown
    finally:
        shown.close()
        for _ in range(3):
            QApplication.sendPostedEvents(None, 52)  # what is to be deleted later, now
            qt_application.processEvents()
        gc.collect()
        QApplication.sendPostedEvents(None, 52)
    ended = time.monotonic() + _LONG_S
    ours: list[str] = []
    while time.monotonic() < ended:
        ours = [
            thread.name
            for thread in set(threading.enumerate()) - threads_before
            if thread.name.startswith(("lincei", "Appose"))
        ]
        if not ours:
            break
        qt_application.processEvents()
        time.sleep(0.02)
    assert not ours, f"threads that did not end when the window closed: {ours}"
    left = [
        type(widget).__name__
        for widget in QApplication.allWidgets()
        if widget not in widgets_before and type(widget).__module__.startswith("napari_plugin")
    ]
    assert not left, f"widgets that are still there when the window has closed: {left}"
    assert "tensorflow" not in sys.modules, "TensorFlow was imported beside a window"
    assert "keras" not in sys.modules, "Keras was imported beside a window"


@pytest.fixture
def until(qt_application: Any) -> Callable[..., None]:
    """A function that lets the window work until something holds."""

    def wait(holds: Callable[[], Any], what: str = "it", limit_s: float = _LONG_S) -> None:
        ended = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < ended, f"waited in vain until {what}"
            qt_application.processEvents()
            time.sleep(0.005)

    return wait


@pytest.fixture
def photograph(qt_application: Any, tmp_path: Any) -> Callable[[Any, str], Any]:
    """A function that photographs a viewer's whole window; the picture is returned as an array.

    With LINCEI_PHOTOGRAPHS the pictures are kept in that folder, to be looked at.
    """

    def take(viewer: Any, name: str) -> Any:
        import imageio.v3 as iio

        for _ in range(10):
            qt_application.processEvents()
            time.sleep(0.02)
        picture = viewer.screenshot(canvas_only=False, flash=False)
        folder = os.environ.get("LINCEI_PHOTOGRAPHS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            iio.imwrite(Path(folder) / f"{name}.png", picture)
        return picture

    return take
