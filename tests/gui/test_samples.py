"""Sample data as the menu opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lincei.errors import LinceiWarning
from napari_plugin.layers import image_of, pixel_size_um


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LINCEI_DATA", raising=False)
    monkeypatch.setattr("sample_data.registry.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def data_at_hand(monkeypatch: pytest.MonkeyPatch, real_data: Path) -> None:
    monkeypatch.setenv("LINCEI_DATA", str(real_data))


def opened(viewer: Any, key: str) -> dict[str, Any]:
    return {layer.name: layer for layer in viewer.open_sample("lincei", key)}


def test_real_motor_neurons_are_a_stack_with_three_stains(viewer, data_at_hand):
    layers = opened(viewer, "motor_neurons")
    stack = layers.pop("motor neurons phase contrast")
    assert stack.data.shape == (13, 1024, 704)
    assert image_of(stack).modality == "phase contrast"
    assert list(layers) == [f"motor neurons true {name}" for name in ("DAPI", "MAP2", "NFH")]
    for layer in layers.values():
        assert not layer.visible
        assert layer.data.shape == stack.data.shape[1:]


def test_the_real_focus_series_has_its_z_step(viewer, data_at_hand):
    (layer,) = opened(viewer, "focus_series").values()
    assert layer.data.shape == (10, 512, 512)
    assert layer.scale[0] == 5
    assert image_of(layer).modality == "fluorescence"


def test_real_tissue_is_in_color_with_the_tumor_marked(viewer, data_at_hand):
    layers = opened(viewer, "tissue")
    tissue, tumor = layers["breast tissue"], layers["breast tissue true tumor"]
    assert tissue.rgb
    assert pixel_size_um(tissue) == 0.25
    assert tissue.data.shape[:2] == tumor.data.shape
    assert 0.05 < (tumor.data > 0).mean() < 0.95
    # Tumor is darker than what surrounds it: image and marks lie the right way round.
    gray = np.asarray(tissue.data).mean(axis=-1)
    assert gray[tumor.data > 0].mean() < gray[tumor.data == 0].mean()


@pytest.mark.parametrize(
    ("key", "stand_in"),
    [("motor_neurons", "simulated cells phase contrast"), ("focus_series", "simulated focus series"),
     ("tissue", "drawn slide")],
)  # fmt: skip
def test_simulated_data_stand_in_where_there_are_no_real_ones(viewer, no_data, key, stand_in):
    with pytest.warns(LinceiWarning, match="stand in for real images"):
        layers = opened(viewer, key)
    assert stand_in in layers
    assert image_of(layers[stand_in]).pixel_size_um > 0


def test_the_simulated_focus_series_is_sharpest_in_the_middle(viewer, no_data):
    with pytest.warns(LinceiWarning, match="stand in"):
        (layer,) = opened(viewer, "focus_series").values()
    spread = np.diff(layer.data.astype(float), axis=-1).std(axis=(1, 2))
    assert spread.argmax() == len(spread) // 2


def test_simulated_samples_need_no_real_data(viewer, no_data):
    cells, slide = opened(viewer, "simulated_cells"), opened(viewer, "drawn_slide")
    assert image_of(cells["simulated cells phase contrast"]).modality == "phase contrast"
    assert "simulated cells true nuclei" in cells
    assert slide["drawn slide"].rgb
    assert slide["drawn slide true tumor"].data.max() == 1
