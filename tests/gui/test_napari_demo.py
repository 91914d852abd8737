"""``lincei demo --napari``."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lincei.cli import main
from napari_plugin import demo


def test_the_viewer_opens_with_a_sample_and_the_widgets(viewer, photograph, monkeypatch, real_data):
    monkeypatch.setenv("LINCEI_DATA", str(real_data))
    assert demo.open_demo(viewer) is viewer
    assert viewer.layers.selection.active.name == "motor neurons phase contrast"
    docked = list(viewer.window.dock_widgets)
    assert [name.removesuffix(" (lincei)") for name in docked][-len(demo.WIDGETS) :] == list(demo.WIDGETS)
    assert photograph(viewer, "demo")[..., :3].std() > 5
    seen = [name for name, panel in viewer.window.dock_widgets.items() if not panel.visibleRegion().isEmpty()]
    assert [name for name in seen if name.endswith("(lincei)")] == ["Predict fluorescence (lincei)"]


def test_without_real_data_cells_are_simulated_and_it_is_said(viewer, monkeypatch, tmp_path):
    monkeypatch.delenv("LINCEI_DATA", raising=False)
    monkeypatch.setattr("sample_data.registry.cache_folder", lambda: tmp_path)
    demo.open_demo(viewer)
    assert viewer.layers.selection.active.name == "simulated cells phase contrast"
    assert "stand in for real images" in str(viewer.status)


def test_without_napari_the_command_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "napari", None)
    assert main(["demo", "--napari"]) == 1
    assert "pip install 'napari[all]' 'lincei[napari]'" in capsys.readouterr().err


def test_without_the_plugin_the_command_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "napari_plugin.demo", None)
    assert main(["demo", "--napari"]) == 1
    assert "pip install 'napari[all]' 'lincei[napari]'" in capsys.readouterr().err


def test_the_command_opens_the_viewer(monkeypatch):
    opened: list[Any] = []
    monkeypatch.setattr(demo, "run", lambda: opened.append(True))
    assert main(["demo", "--napari"]) == 0
    assert opened == [True]


@pytest.mark.parametrize("name", demo.WIDGETS)
def test_the_widgets_of_the_demonstration_are_in_the_manifest(name):
    from npe2 import PluginManifest

    import napari_plugin

    manifest = PluginManifest.from_file(napari_plugin.__file__.replace("__init__.py", "napari.yaml"))
    assert name in [widget.display_name for widget in manifest.contributions.widgets]
