from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from lincei import __version__
from lincei.report import (
    ColorScale,
    Figure,
    Page,
    Section,
    Table,
    color_composite,
    gray_to_rgb,
    map_to_rgb,
    render_page,
    scale_bar,
    write_page,
)


def gray(height: int = 200, width: int = 300, level: int = 90) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((height, width, 3), level, np.uint8)


def example_page() -> Page:
    ramp = np.tile(np.linspace(0, 1, 300), (200, 1))
    figures = (
        Figure(gray(), "Phase contrast, plane 6", alt="Neurons in phase contrast", pixel_size_um=0.5),
        Figure(map_to_rgb(ramp, 0, 1), "Uncertainty", color_scale=ColorScale(0, 0.25, "sd, normalized")),
    )
    table = Table(("label", "r", "images"), (("DAPI", 0.80123, 3), ("MAP2", 0.9, 12)), "On test data")
    section = Section("Motor <neurons>", ("A & B.",), figures, (table,), ("Not judged elsewhere.",), 2)
    return Page("A page", "What it shows.", (section, Section("Two"), Section("Three")), {"OpenVINO": "1.2"})


def embedded(html: str) -> list[np.ndarray[Any, Any]]:
    return [
        imageio.v3.imread(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    ]


def test_a_page_holds_its_text_figures_tables_and_notes_escaped() -> None:
    html = render_page(example_page())
    for text in (
        "<h1>A page</h1>",
        "What it shows.",
        "Motor &lt;neurons&gt;",
        "A &amp; B.",
        'alt="Neurons in phase contrast"',
        'alt="Uncertainty"',
        "<figcaption>Phase contrast, plane 6</figcaption>",
        "sd, normalized",
        ">0.801<",
        ">12<",
        "Not judged elsewhere.",
        "Research use only.",
        f"lincei {__version__}",
        "OpenVINO 1.2",
        'href="#section-3"',
    ):
        assert text in html


def test_pictures_are_embedded_as_they_are_and_only_the_one_with_a_pixel_size_has_a_bar() -> None:
    with_bar, without = embedded(render_page(example_page()))
    assert not np.array_equal(with_bar, gray())
    np.testing.assert_array_equal(with_bar, scale_bar(gray(), 0.5))
    np.testing.assert_array_equal(without[0, [0, -1]], map_to_rgb(np.array([[0.0, 1.0]]), 0, 1)[0])


def test_a_large_picture_is_shrunk_and_its_scale_bar_keeps_its_length() -> None:
    page = Page("t", sections=(Section("s", figures=(Figure(gray(600, 4096), "wide", pixel_size_um=0.1),)),))
    [picture] = embedded(render_page(page))
    assert picture.shape == (150, 1024, 3)
    np.testing.assert_array_equal(picture, scale_bar(gray(150, 1024), 0.4))


@pytest.mark.parametrize(
    ("pixel_size_um", "width_px", "bar_px"),
    [(0.5, 300, 40), (0.65, 700, 77), (1.0, 1000, 200), (0.1, 64, 10), (2000.0, 500, 100)],
)
def test_the_scale_bar_has_a_round_length_of_about_a_fifth_of_the_width(
    pixel_size_um: float, width_px: int, bar_px: int
) -> None:
    image = scale_bar(gray(200, width_px), pixel_size_um)
    longest = max(
        (
            len(run)
            for row in image[100:, :, 0]
            for run in re.findall(r"w+", "".join("w" if v == 255 else "." for v in row))
        ),
    )
    assert longest == bar_px


def test_no_scale_bar_without_a_pixel_size_or_room() -> None:
    np.testing.assert_array_equal(scale_bar(gray(), None), gray())
    np.testing.assert_array_equal(scale_bar(gray(20, 20), 0.5), gray(20, 20))


@pytest.mark.parametrize("pixel_size_um", [0.011, 0.3, 0.65, 90.0])
def test_the_scale_bar_and_its_text_keep_clear_of_the_edges(pixel_size_um: float) -> None:
    drawn = (scale_bar(gray(300, 200), pixel_size_um) != 90).any(axis=2)
    rows, columns = np.nonzero(drawn)
    assert rows.max() < 299
    assert columns.max() < 199
    assert columns.min() > 80
    assert rows.min() > 200


def test_the_picture_given_is_not_drawn_on() -> None:
    image = gray()
    scale_bar(image, 0.5)
    assert (image == 90).all()


def test_gray_pictures_run_from_black_to_white_between_the_limits() -> None:
    plane = np.array([[0, 50, 100, np.nan]])
    assert gray_to_rgb(plane, limits=(0, 100))[0, :, 0].tolist() == [0, 128, 255, 0]
    assert gray_to_rgb(plane * 1000 + 7, percentiles=(0, 100))[0, :, 0].tolist() == [0, 128, 255, 0]
    assert gray_to_rgb(np.full((2, 2), 7)).max() == 0
    assert gray_to_rgb(np.full((2, 2), np.nan)).max() == 0


def test_labels_add_up_as_light_does() -> None:
    red, green = np.array([[0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 1.0]])
    picture = color_composite([red, green], ["#ff0000", "#00FF00"], limits=(0, 1))
    assert picture[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 0]]
    with pytest.raises(ValueError, match="2 planes need as many colors"):
        color_composite([red, green], ["#ff0000"])
    with pytest.raises(ValueError, match="#RRGGBB"):
        color_composite([red], ["red"])


def test_the_sequential_map_is_perceptually_uniform_and_readable_in_gray() -> None:
    colors = map_to_rgb(np.linspace(0, 1, 256)[None], 0, 1)
    lab = rgb2lab(colors)[0]
    assert (np.diff(lab[:, 0]) > 0).all()
    assert lab[0, 0] < 12
    assert lab[-1, 0] > 90
    steps = deltaE_ciede2000(lab[:-16:16], lab[16::16])
    assert steps.max() < 2.6 * steps.min()


def test_unknown_values_are_gray_in_the_map() -> None:
    assert map_to_rgb(np.array([[np.nan, 0.0]]), 0, 1)[0, 0].tolist() == [128, 128, 128]


def test_what_makes_no_figure_or_table_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Figure(np.zeros((4, 4, 3)), "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        Figure(np.zeros((4, 4), np.uint8), "x")
    with pytest.raises(ValueError, match="alternative text"):
        Figure(gray(), "")
    with pytest.raises(ValueError, match="2 cells"):
        Table(("a",), (("x", "y"),))
    with pytest.raises(ValueError, match="one plane"):
        gray_to_rgb(np.zeros((2, 2, 2)))


def test_a_page_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(page: Page) -> str:
        raise RuntimeError("half-way")

    monkeypatch.setattr("lincei.report.render_page", fail)
    with pytest.raises(RuntimeError):
        write_page(example_page(), tmp_path / "index.html")
    assert list(tmp_path.iterdir()) == []


def requests_of(browser: Any, page: str) -> set[str]:
    """Return the addresses that ``page`` asked for (a browser also asks for things of its own)."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {request["request"]["url"] for request in sent if request["documentURL"] == page}


def test_a_browser_shows_the_page_without_errors_and_without_the_network(
    browser: Any, tmp_path: Path
) -> None:
    page = write_page(example_page(), tmp_path / "index.html")
    browser.set_window_size(1300, 900)
    browser.get(page.as_uri())
    assert browser.title == "A page"
    assert browser.get_log("browser") == []
    asked = requests_of(browser, page.as_uri())
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().top])"
    )
    assert [(complete, width) for complete, width, _ in sizes] == [(True, 300), (True, 300)]
    assert sizes[0][2] == sizes[1][2], "two figures in a row on a wide screen"


def test_on_a_narrow_screen_figures_are_stacked_and_nothing_sticks_out(browser: Any, tmp_path: Path) -> None:
    page = write_page(example_page(), tmp_path / "index.html")
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(page.as_uri())
    first, second = browser.execute_script(
        "return [...document.images].map(i => i.getBoundingClientRect().top)"
    )
    assert first < second
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_the_page_follows_the_readers_dark_mode(browser: Any, tmp_path: Path) -> None:
    page = write_page(example_page(), tmp_path / "index.html")
    brightness = {}
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(page.as_uri())
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness[mode] = sum(map(int, re.findall(r"\d+", color)[:3]))
    assert brightness["light"] > 700
    assert brightness["dark"] < 100
