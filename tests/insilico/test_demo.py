"""The demonstration: on real data when it is there, on simulated cells otherwise."""

from __future__ import annotations

import pytest

from insilico import demo
from lincei.errors import LinceiWarning
from lincei.image import open_image


def test_real_data_is_shown_with_what_was_held_out(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("LINCEI_DATA", str(real_data))
    # The planes of this field are shifted against each other, and the user is told so.
    with pytest.warns(LinceiWarning, match="shifted sideways"):
        sections = demo.run(tmp_path, progress=None, cancelled=None)
    titles = [section.title for section in sections]
    assert titles == [
        "In silico labeling",
        "Label by label",
        "Measured where it was not trained: motor-neurons",
        "Bacteria",
        "Bacteria: label by label",
        "Measured where it was not trained: ecoli",
        "Single cells in flow",
        "Single cells in flow: label by label",
        "Measured where it was not trained: jurkat",
        "Measured where it was not trained: joint",
    ]
    assert sections[0].text[0].startswith("Real data")
    assert any("flatter" in note for note in sections[1].notes)
    assert len(sections[1].figures) == 3 * 4
    for live in (sections[4], sections[7]):
        ((_, r, _),) = live.tables[0].rows
        assert r > 0.8
    predicted = open_image(tmp_path / "motor_neurons.ome.tif")
    assert predicted.channel_names == ("DAPI", "MAP2", "NFH")
    assert predicted.provenance["predicted"] is True


def test_without_real_data_simulated_cells_are_shown_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "locate", lambda name, **more: None)
    sections = demo.run(tmp_path, progress=None, cancelled=None)
    assert sections[0].text[0].startswith("Simulated data")
    assert "simulated-cells" in sections[0].text[1]
    r = {row[0]: row[1] for row in sections[1].tables[0].rows}
    assert r["nuclei"] > 0.8
    assert sections[-1].title == "Measured where it was not trained: joint"
    assert sections[0].figures[0].pixel_size_um == 0.65  # a scale bar is drawn
