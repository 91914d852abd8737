"""What napari is told about the plugin, and that every widget explains itself."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from npe2 import PluginManifest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QDialog,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QScrollBar,
    QTabBar,
    QTextEdit,
    QWidget,
)

import napari_plugin

MANIFEST = Path(napari_plugin.__file__).with_name("napari.yaml")
WIDGETS = (
    "Predict fluorescence",
    "Learn a label",
    "Focus quality",
    "Augmented-reality microscope",
    "Outline tumor",
    "Compare predicted with true",
    "Models",
)
CONTROLS = (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
)


def manifest() -> PluginManifest:
    return PluginManifest.from_file(MANIFEST)


def test_the_manifest_is_valid_and_names_the_widgets_in_order():
    read = manifest()
    assert [widget.display_name for widget in read.contributions.widgets] == list(WIDGETS)


def test_every_command_names_something_that_is_there():
    for command in manifest().contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), command.id


def test_menus_are_such_that_napari_lets_a_plugin_add_to():
    from napari._app_model.constants import MenuId

    menus = manifest().contributions.menus
    assert set(menus) <= {str(menu) for menu in MenuId.contributables()}
    in_menus = {item.command for items in menus.values() for item in items}
    widgets = {widget.command for widget in manifest().contributions.widgets}
    assert in_menus == widgets - {"lincei.models"}


def test_reading_the_manifest_imports_nothing_heavy():
    code = (
        "import sys, napari_plugin\n"
        "heavy = {'numpy', 'openvino', 'tensorflow', 'keras', 'pandas', 'napari', 'qtpy', 'lincei'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from npe2 import PluginManifest\n"
        "before = set(sys.modules)\n"
        f"PluginManifest.from_file({str(MANIFEST)!r})\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(added & heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def unexplained(panel: QWidget) -> list[str]:
    """The controls of a widget without a tooltip of their own or of a control that they are part of."""
    found = []
    for control in panel.findChildren(QWidget):
        if not isinstance(control, CONTROLS) or isinstance(control, QScrollBar):
            continue
        if any(isinstance(parent, QDialog) for parent in parents(control, panel)):
            continue
        chain = [control, *parents(control, panel)]
        # What is within another control (the entries of a list, the text of a number) is explained by that
        # one; the parts of a row by the row.
        outermost = max(place for place, widget in enumerate(chain) if isinstance(widget, CONTROLS))
        if not any(widget.toolTip() for widget in chain[: outermost + 2]) and not inner(control):
            text = getattr(control, "text", None)
            found.append(f"{type(control).__name__} {text() if callable(text) else ''}".strip())
    return found


def inner(control: QWidget) -> bool:
    """Whether Qt made it as part of something else: the corner of a table, the buttons of a row of tabs."""
    return (
        control.objectName().startswith("qt_")
        or type(control).__name__ in ("QTableCornerButton", "QHeaderView")
        or isinstance(control.parentWidget(), QTabBar)
    )


def parents(control: QWidget, top: QWidget) -> list[QWidget]:
    chain = []
    parent = control.parentWidget()
    while parent is not None and parent is not top:
        chain.append(parent)
        parent = parent.parentWidget()
    return chain


@pytest.mark.parametrize("name", WIDGETS)
def test_a_widget_opens_from_the_menu_and_every_control_says_what_it_is_for(viewer, name):
    menu_entry(viewer.window.plugins_menu, "lincei", f"{name} (lincei)").trigger()
    panel = viewer.window.dock_widgets[f"{name} (lincei)"]
    assert unexplained(panel) == []
    heading = panel.findChildren(QLabel)[0].text()
    assert panel.TITLE in heading
    assert len(panel.HELP) > 20
    assert panel.HELP in heading
    assert panel.copy_button.toolTip()
    assert panel.copy_button.menu() is not None
    assert not panel.RUN or panel.RUN_TIP
    shown = [label.text() for label in panel.findChildren(QLabel)]
    assert any("Research use only" in text for text in shown)


def test_a_control_without_a_tooltip_is_found(viewer):
    from napari_plugin.panel import Panel

    class Bare(Panel):
        TITLE, HELP, RUN_TIP = "Bare", "Has a control that nobody explained.", "Run."

    panel: Any = Bare(viewer)
    viewer.window.add_dock_widget(panel, name="Bare")
    panel.add_row("Amount", QLineEdit("3"))
    assert unexplained(panel) == ["QLineEdit 3"]


def menu_entry(menu: Any, *texts: str) -> Any:
    """The entry of a menu, reached through its submenus."""
    for text in texts:
        (entry,) = [action for action in menu.actions() if action.text() == text]
        menu = entry.menu()
    return entry


def test_what_is_done_with_a_layer_is_in_the_menu_of_layers(viewer):
    for menu, name in (
        ("Filter", "Predict fluorescence"),
        ("Classify", "Learn a label"),
        ("Measure", "Focus quality"),
        ("Measure", "Compare predicted with true"),
        ("Segment", "Outline tumor"),
    ):
        assert menu_entry(viewer.window.layers_menu, menu, f"{name} (lincei)").isEnabled()
