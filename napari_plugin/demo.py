"""The viewer with a sample and the widgets: ``lincei demo --napari``."""

from __future__ import annotations

import warnings
from typing import Any

from lincei.errors import LinceiError, LinceiWarning
from napari_plugin.samples import motor_neurons

PLUGIN = "lincei"
# The first is on top.
WIDGETS = (
    "Predict fluorescence",
    "Focus quality",
    "Learn a label",
    "Compare predicted with true",
    "Outline tumor",
    "Models",
)


def open_demo(viewer: Any = None) -> Any:
    """Open the viewer with a sample loaded and the widgets docked as tabs.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        Where; a new one when left out.

    Returns
    -------
    napari.Viewer
        The viewer. The widget for the camera is left in the menu: it would open one.

    Raises
    ------
    LinceiError
        When napari, or what it draws with, is not installed.
    """
    from arm_overlay.displays import protect_constants

    try:
        protect_constants()
        import napari
        from napari.qt import get_qapp

        viewer = viewer if viewer is not None else napari.Viewer(title="lincei")
    except ImportError as error:
        raise missing_napari(error) from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LinceiWarning)
        layers = motor_neurons()
    for data, keywords, kind in layers:
        getattr(viewer, f"add_{kind}")(data, **keywords)
    viewer.layers.selection.active = viewer.layers[0]
    viewer.reset_view()
    docked: Any = None
    for name in WIDGETS:
        dock, _ = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=docked is not None)
        docked = docked or dock
    get_qapp().processEvents()  # before, a tab cannot be brought to the front
    docked.raise_()
    said = [str(warning.message) for warning in caught if issubclass(warning.category, LinceiWarning)]
    viewer.status = said[0] if said else "Research use only. The widgets are on the right, one tab each."
    return viewer


def run() -> None:
    """Open the demonstration and return when its window is closed.

    Raises
    ------
    LinceiError
        As `open_demo`.
    """
    open_demo()
    import napari

    napari.run()


def missing_napari(error: ImportError) -> LinceiError:
    """Return the error for a computer without napari."""
    return LinceiError(
        f"napari cannot be used here ({error})", "", "Install it: pip install 'napari[all]' 'lincei[napari]'"
    )
