"""The page of a folder's ratings, as a browser shows it."""

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
from made_ratings import SIZE_PX, made_plane, made_rating

import focusqc.page
from focusqc.overlay import level_color, overlay_rgb
from focusqc.page import PageCollector, curve_figure, rating_section
from lincei import __version__
from lincei.errors import LinceiError

KEY = (0, 0, 0)
MODEL = {"model": {"name": "focus-fluorescence", "version": "2026-01-02"}}


def picture_of(plane: Any, seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 4000, SIZE_PX).astype(np.uint16)
    return overlay_rgb(pixels, plane)


def collected(
    levels: Any, spreads: Any = 1.0, *, pictures: bool = True, out: Path | None = None
) -> PageCollector:
    """Return a page of images w00.tif, w01.tif ... with these levels and spreads."""
    page = PageCollector("Focus of plate 1")
    for number, (level, spread) in enumerate(zip(levels, np.broadcast_to(spreads, len(levels)), strict=True)):
        plane = made_plane(level, spread)
        path = None if out is None else {KEY: out / "overlays" / f"w{number:02d}.png"}
        rating = made_rating(f"plate 1/w{number:02d}.tif", plane, provenance=MODEL)
        page.add(rating, {KEY: picture_of(plane, number)} if pictures else None, path)
    return page


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    return json.loads(found[1])


def opened(browser: Any, page: Path) -> Any:
    browser.set_window_size(1280, 900)
    browser.get(page.as_uri())
    return browser


def texts(browser: Any, selector: str) -> list[str]:
    return [item.text for item in browser.find_elements("css selector", selector)]


def column(browser: Any, table: str, number: int) -> list[str]:
    """Return the cells of a column, counted from 1."""
    script = "return [...document.querySelectorAll(arguments[0])].map(cell => cell.textContent)"
    return browser.execute_script(script, f"[data-table={table}] td:nth-child({number})")


def heading(browser: Any, title: str) -> Any:
    buttons = browser.find_elements("css selector", "[data-table=images] button.sort")
    return next(button for button in buttons if button.text.startswith(title))


def shown_names(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#montage .file')].map(item => item.textContent)"
    return browser.execute_script(script)


def test_the_page_opens_without_errors_and_asks_the_network_for_nothing(browser: Any, tmp_path: Path) -> None:
    path = collected([0, 1, 8]).write(tmp_path / "report.html")
    opened(browser, path)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"] == path.as_uri()
    }
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert texts(browser, "h1") == ["Focus of plate 1"]
    [footer] = texts(browser, "footer")
    for text in ("Research use only.", f"lincei {__version__}", "focus-fluorescence 2026-01-02", "Python 3."):
        assert text in footer


def test_the_overview_counts_in_words_and_numbers(browser: Any, tmp_path: Path) -> None:
    page = collected([0, 1, 1, 8, 5], [0.5, 0.5, 0.5, 0.5, 100])
    page.add_failure("plate 1/broken.tif", "plate 1/broken.tif: the file ends early. Copy it again.")
    opened(browser, page.write(tmp_path / "report.html"))
    assert texts(browser, ".lead") == [
        "5 images rated: 3 in focus, 1 out of focus, 1 uncertain. 1 file could not be rated."
    ]
    assert [share.split("\n")[0] for share in texts(browser, ".share")] == ["3", "1", "1", "1"]
    body = browser.find_element("css selector", "body").text
    assert "The median of the expected levels is 1.0" in body
    assert "All files are in plate 1/" in body
    assert column(browser, "failures", 1) == ["broken.tif"]
    assert column(browser, "failures", 2) == ["the file ends early. Copy it again."]


def test_histograms_count_every_image_in_the_colors_of_the_overlays(tmp_path: Path) -> None:
    html = collected([0, 0, 0, 7, 10], 0.3).write(tmp_path / "report.html").read_text("utf-8")
    predicted, expected, certain = re.findall(r"<svg.*?</svg>", html, re.S)[:3]
    bars = dict(re.findall(r'fill="(#\w+)"><title>(level \d+: \d+)</title>', predicted))
    assert bars == {
        "#{:02x}{:02x}{:02x}".format(*level_color(level, 1)): f"level {level}: {count}"
        for level, count in ((0, 3), (7, 1), (10, 1))
    }
    for histogram in (expected, certain):
        assert sum(map(int, re.findall(r"<title>from .*?: (\d+)</title>", histogram))) == 5


def test_what_to_leave_out_is_listed_with_reasons_and_only_telling_columns(
    browser: Any, tmp_path: Path
) -> None:
    excluded = [
        {"file": f"plate 1/w0{i}.tif", "time": "0", "channel": "0", "z": str(i), "reason": reason}
        for i, reason in enumerate(("out of focus: level 8", "uncertain: nothing to see"))
    ]
    opened(browser, collected([8, 5]).write(tmp_path / "report.html", excluded))
    assert [title.split("\xa0")[0] for title in texts(browser, "[data-table=excluded] th")] == [
        "file",
        "z",
        "reason",
    ]
    assert column(browser, "excluded", 1) == ["w00.tif", "w01.tif"]
    assert column(browser, "excluded", 3) == ["out of focus: level 8", "uncertain: nothing to see"]


def test_a_click_on_a_heading_sorts_by_number_and_another_turns_it_around(
    browser: Any, tmp_path: Path
) -> None:
    levels = [3, 10, 0.5, 7, 2]
    opened(browser, collected(levels).write(tmp_path / "report.html"))
    titles = [title.split("\xa0")[0].strip() for title in texts(browser, "[data-table=images] th")]
    expected = titles.index("expected level") + 1
    button = heading(browser, "expected level")
    button.click()
    values = list(map(float, column(browser, "images", expected)))
    assert values == sorted(values)
    assert len(values) == 5
    assert column(browser, "images", 1)[0] == "w02.tif"
    header = button.find_element("xpath", "..")
    assert header.get_attribute("aria-sort") == "ascending"
    button.click()
    assert list(map(float, column(browser, "images", expected))) == values[::-1]
    assert header.get_attribute("aria-sort") == "descending"
    heading(browser, "file").click()
    assert column(browser, "images", 1) == [f"w0{i}.tif" for i in range(5)]
    assert header.get_attribute("aria-sort") is None


def test_ten_thousand_rows_are_sorted_and_searched_with_few_elements(browser: Any, tmp_path: Path) -> None:
    page = PageCollector("many")
    planes = [made_plane(level, size_px=(84, 84)) for level in np.linspace(0, 10, 97)]
    for number in range(10_000):
        plane = planes[number * 31 % len(planes)]
        page.add(made_rating(f"well{number:05d}.tif", plane, size_px=(84, 84)), None, None)
    path = page.write(tmp_path / "report.html")
    assert path.stat().st_size < 2_000_000
    opened(browser, path)
    rows = "[data-table=images] tbody tr"
    assert len(browser.find_elements("css selector", rows)) == 100
    assert "1 to 100 of 10,000" in texts(browser, "[data-table=images] .count")
    heading(browser, "file").click()
    heading(browser, "file").click()
    assert column(browser, "images", 1)[0] == "well09999.tif"
    following = browser.find_elements("css selector", "[data-table=images] .tools button")[1]
    following.click()
    assert column(browser, "images", 1)[0] == "well09899.tif"
    browser.find_element("css selector", "[data-table=images] input").send_keys("WELL0123")
    assert column(browser, "images", 1) == [f"well{number:05d}.tif" for number in range(1239, 1229, -1)]
    assert len(browser.find_elements("css selector", "#pictures")) == 0


def test_a_picture_opens_large_and_closes_by_key_and_by_click(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    opened(browser, collected([4, 1, 9], out=tmp_path).write(tmp_path / "report.html"))
    cards = browser.find_elements("css selector", "#montage button")
    box = browser.find_element("css selector", "#lightbox")
    assert not box.is_displayed()
    cards[0].click()
    assert box.is_displayed()
    large, small = box.find_element("css selector", "img"), cards[0].find_element("css selector", "img")
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.size["width"] > 1.5 * small.size["width"]
    assert "plate 1/w01.tif" not in box.text
    assert "w01.tif" in box.text
    assert "level 1.0" in box.text
    link = box.find_element("css selector", "a")
    assert link.get_attribute("href") == (tmp_path / "overlays" / "w01.png").as_uri()
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert "w00.tif" in box.text
    ActionChains(browser).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT).perform()
    assert "w02.tif" in box.text
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not box.is_displayed()
    # The browser tells the page that the dialog was closed a moment later.
    WebDriverWait(browser, 60).until(lambda driver: driver.switch_to.active_element == cards[2])
    # By keyboard alone: the picture that has the focus opens with Enter.
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert "w02.tif" in box.text
    ActionChains(browser).move_by_offset(5, 5).click().perform()
    assert not box.is_displayed()
    cards[1].click()
    box.find_element("css selector", ".close").click()
    assert not box.is_displayed()


def test_a_row_of_the_table_opens_its_picture_too(browser: Any, tmp_path: Path) -> None:
    opened(browser, collected([4, 1], out=tmp_path).write(tmp_path / "report.html"))
    browser.find_elements("css selector", "[data-table=images] td button")[0].click()
    box = browser.find_element("css selector", "#lightbox")
    assert "w00.tif" in box.text
    assert box.find_element("css selector", "img").size["width"] > 300


def test_pictures_are_ranked_by_focus_and_at_a_click_by_certainty(browser: Any, tmp_path: Path) -> None:
    path = collected([7, 0, 3], [2.0, 1.0, 0.3]).write(tmp_path / "report.html")
    opened(browser, path)
    assert shown_names(browser) == ["w01.tif", "w02.tif", "w00.tif"]
    browser.find_element("css selector", "input[value=certainty]").click()
    certainties = [
        float(found[1])
        for found in (re.search(r"certainty (\S+)", text) for text in texts(browser, "#montage .about"))
        if found
    ]
    assert certainties == sorted(certainties, reverse=True)
    assert shown_names(browser)[0] == "w02.tif"
    browser.find_element("css selector", "input[value=level]").click()
    assert shown_names(browser) == ["w01.tif", "w02.tif", "w00.tif"]


def test_pictures_show_the_image_without_the_key_and_are_small(tmp_path: Path) -> None:
    page = PageCollector("one")
    plane = made_plane(2, 0.2)
    large = np.repeat(np.repeat(picture_of(plane), 8, axis=0), 8, axis=1)
    page.add(made_rating("a.tif", plane), {KEY: large}, None)
    html = page.write(tmp_path / "report.html").read_text("utf-8")
    [encoded] = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    picture = imageio.v3.imread(io.BytesIO(base64.b64decode(encoded)))
    assert max(picture.shape) == 640
    assert picture.shape[0] / picture.shape[1] == pytest.approx(168 / 252, abs=0.005)
    # Red, green and blue of a border survive the compression.
    color = level_color(2, float(plane.patch_certainties[0, 0]))
    np.testing.assert_allclose(picture[3, 50:100].mean(axis=0), color, atol=12)


def test_of_many_images_the_extremes_and_an_even_choice_between_are_shown(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    levels = np.concatenate([random.permutation(np.linspace(0, 2, 380)), [4, 5.5, 7], np.full(17, 9.5)])
    levels = random.permutation(levels)
    spreads = random.permutation(np.linspace(0.3, 5, len(levels)))
    planes = [made_plane(*pair, size_px=(84, 84)) for pair in zip(levels, spreads, strict=True)]
    page = PageCollector("many")
    tiny = np.zeros((84, 84, 3), np.uint8)
    for number, plane in enumerate(planes):
        page.add(made_rating(f"{number}.tif", plane, size_px=(84, 84)), {KEY: tiny}, None)
    html = page.write(tmp_path / "report.html").read_text("utf-8")
    shown = [int(number) for number in re.findall(r'<button type="button" data-row="(\d+)"', html)]
    assert 40 <= len(shown) <= 60
    assert f"{len(shown)} of 400 are shown" in html
    expected = np.array([plane.expected_level for plane in planes])
    certain = np.array([plane.certainty_aggregate for plane in planes])
    assert set(np.argsort(expected)[:10]) <= set(shown)
    assert set(np.argsort(-expected)[:3]) <= set(shown)
    assert set(np.argsort(certain)[:10]) <= set(shown)
    between = np.sort(expected[shown])
    assert np.diff(between).max() < 3


def test_memory_does_not_grow_with_pictures_that_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    encode = focusqc.page._jpeg
    monkeypatch.setattr(focusqc.page, "_jpeg", lambda picture: drawn.append(1) or encode(picture))
    page = PageCollector("alike")
    plane = made_plane(1, size_px=(84, 84))
    for number in range(300):
        page.add(
            made_rating(f"{number}.tif", plane, size_px=(84, 84)), {KEY: np.zeros((84, 84, 3), np.uint8)}
        )
    # Images that are all alike: the first ones stay, and no later one is even encoded.
    assert len(drawn) <= 60
    random = np.random.default_rng(6)
    for number in range(300):
        plane = made_plane(random.uniform(0, 10), random.uniform(0.3, 9), size_px=(84, 84))
        page.add(
            made_rating(f"x{number}.tif", plane, size_px=(84, 84)), {KEY: np.zeros((84, 84, 3), np.uint8)}
        )
    held = {id(item): item for group in page._groups for item in group.kept()}
    assert len(held) <= 60


def focal_series(levels: Any, spread: float = 0.5) -> Any:
    planes = [made_plane(level, spread, z=z) for z, level in enumerate(levels)]
    return made_rating("plate 1/stack.tif", *planes), planes


def test_a_focal_series_has_a_curve_with_its_sharpest_plane_marked(browser: Any, tmp_path: Path) -> None:
    page = collected([2])
    rating, planes = focal_series([9, 6, 3, 1, 4, 8])
    page.add(rating, {(0, 0, 3): picture_of(planes[3])}, {(0, 0, 3): tmp_path / "stack.png"})
    opened(browser, page.write(tmp_path / "report.html"))
    assert len(browser.find_elements("css selector", "#series figure")) == 1
    assert len(browser.find_elements("css selector", "#series circle")) == 6
    [best] = browser.find_elements("css selector", "#series circle.sharpest")
    assert (
        best.find_element("css selector", "title").get_attribute("textContent").startswith("z 3: level 1.0")
    )
    heights = browser.execute_script(
        "return [...document.querySelectorAll('#series circle')].map(dot => dot.cy.baseVal.value)"
    )
    assert int(np.argmax(heights)) == 3
    assert "sharpest: z 3" in texts(browser, "#series figcaption")[0]
    # One verdict for the series, that of its sharpest plane; the table has all planes.
    assert texts(browser, ".lead") == ["2 images rated: 2 in focus."]
    assert column(browser, "images", 1) == ["w00.tif", *["stack.tif"] * 6]
    assert shown_names(browser) == ["stack.tif, z 3", "w00.tif"]


def test_a_series_that_says_nothing_names_no_sharpest_plane(browser: Any, tmp_path: Path) -> None:
    page = PageCollector("dark")
    page.add(focal_series([5, 5, 5], 100)[0])
    opened(browser, page.write(tmp_path / "report.html"))
    assert browser.find_elements("css selector", "#series circle.sharpest") == []
    assert "no plane is certain enough" in texts(browser, "#series figcaption")[0]
    assert texts(browser, ".lead") == ["1 image rated: 1 uncertain."]


def test_of_many_series_the_first_are_drawn_and_the_others_at_a_click(browser: Any, tmp_path: Path) -> None:
    page = PageCollector("many")
    rating, _ = focal_series([3, 1, 4])
    for _ in range(30):
        page.add(rating)
    opened(browser, page.write(tmp_path / "report.html"))
    assert len(browser.find_elements("css selector", "#series figure")) == 24
    more = browser.find_element("css selector", "#more-series")
    more.click()
    assert len(browser.find_elements("css selector", "#series figure")) == 30
    assert not more.is_displayed()


def test_channels_and_times_are_counted_and_named_one_by_one(tmp_path: Path) -> None:
    page = PageCollector("two channels")
    planes = [
        made_plane(level, 0.5, time=t, channel=c, channel_name=name)
        for (t, c, name), level in zip(
            ((0, 0, "DAPI"), (0, 1, "GFP"), (1, 0, "DAPI"), (1, 1, "GFP")), (1, 8, 1, 9), strict=True
        )
    ]
    overlays = {(plane.time, plane.channel, 0): picture_of(plane) for plane in planes}
    page.add(made_rating("a.tif", *planes), overlays, None)
    html = page.write(tmp_path / "report.html").read_text("utf-8")
    assert "1 image (4 time points and channels) rated: 2 in focus, 2 out of focus." in html
    assert 'data-name="a.tif, GFP, time 1"' in html
    titles = [title for title, _ in data_of(html)["images"]["columns"]]
    assert titles[:3] == ["file", "time", "channel"]
    assert "z" not in titles


def test_names_and_reasons_cannot_break_out_of_the_page(browser: Any, tmp_path: Path) -> None:
    nasty = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>.tif"
    page = PageCollector("<b>title</b>")
    plane = made_plane(1, notes=("<i>note</i>",))
    page.add(made_rating(nasty, plane), {KEY: picture_of(plane)}, {KEY: tmp_path / "overlays" / "a #1 ü.png"})
    page.add_failure(nasty, "<u>reason</u>")
    row = {"file": nasty, "time": "0", "channel": "0", "z": "0", "reason": "<s>why</s>"}
    opened(browser, page.write(tmp_path / "report.html", [row]))
    assert browser.title == "<b>title</b>"
    assert browser.get_log("browser") == []
    assert browser.find_elements("css selector", "i:not([style]), u, s, img[src=x]") == []
    assert column(browser, "excluded", 1)[0].endswith("onerror=alert(1)>.tif")
    [link] = browser.find_elements("css selector", "[data-table=images] td a")
    assert link.get_attribute("href") == (tmp_path / "overlays" / "a #1 ü.png").as_uri()


def test_defocus_and_notes_have_columns_where_there_are_any(tmp_path: Path) -> None:
    from focusqc.levels import Optics

    plain = collected([1, 2]).write(tmp_path / "plain.html").read_text("utf-8")
    titles = [title for title, _ in data_of(plain)["images"]["columns"]]
    assert titles == [
        "file",
        "level",
        "expected level",
        "certainty",
        "mean certainty of patches",
        "in focus",
        "overlay",
    ]
    page = PageCollector("known optics")
    page.add(made_rating("a.tif", made_plane(3, notes=("all saturated",)), optics=Optics(0.65, 0.5)))
    table = data_of(page.write(tmp_path / "full.html").read_text("utf-8"))["images"]
    row = dict(zip([title for title, _ in table["columns"]], table["rows"][0], strict=False))
    assert row["note"] == "all saturated"
    assert row["defocus (um)"] == pytest.approx(6.0, abs=0.6)


def test_a_page_without_any_rating_says_so(browser: Any, tmp_path: Path) -> None:
    page = PageCollector("nothing")
    page.add_failure("a.tif", "this is no image. Choose another file.")
    opened(browser, page.write(tmp_path / "report.html"))
    assert browser.get_log("browser") == []
    assert texts(browser, ".lead") == ["No image was rated."]
    assert column(browser, "failures", 1) == ["a.tif"]


@pytest.mark.parametrize("width", [390, 600])
def test_on_a_narrow_screen_nothing_sticks_out(browser: Any, tmp_path: Path, width: int) -> None:
    page = collected([0, 4, 9], out=tmp_path)
    page.add(focal_series([4, 1, 5])[0])
    page.add_failure("a_very_long_name_" * 8 + ".tif", "unreadable. " * 20)
    path = page.write(tmp_path / "report.html")
    phone = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_script("document.querySelector('#montage button').click()")
    box = browser.find_element("css selector", "#lightbox")
    assert box.is_displayed()
    assert box.size["width"] <= width


def test_the_page_follows_the_readers_dark_mode(browser: Any, tmp_path: Path) -> None:
    path = collected([0, 4]).write(tmp_path / "report.html")
    brightness = {}
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(path.as_uri())
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness[mode] = sum(map(int, re.findall(r"\d+", color)[:3]))
    assert brightness["light"] > 700
    assert brightness["dark"] < 100


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = collected([1]).write(tmp_path / "report.html")
    before = path.read_bytes()

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LinceiError):
        collected([2]).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_section_of_a_report_ranks_overlays_from_sharp_to_blurred() -> None:
    planes = {"c": made_plane(6), "a": made_plane(0), "b": made_plane(3)}
    section = rating_section(
        "Rated", ("Text.",), [(name, picture_of(plane), plane) for name, plane in planes.items()]
    )
    assert [figure.caption[:1] for figure in section.figures] == ["a", "b", "c"]
    assert [row[:2] for row in section.tables[0].rows] == [("a", 0), ("b", 3), ("c", 6)]


def test_the_curve_of_a_report_marks_the_sharpest_plane() -> None:
    marked = curve_figure(focal_series([8, 2, 7])[0], "A curve").image_rgb
    unmarked = curve_figure(focal_series([8, 2, 7], 100)[0], "A curve").image_rgb

    # The dashed line over the second of three planes, in the middle of the plot.
    def dark_in_a_column(picture: Any) -> int:
        return int((picture.max(axis=2) < 120).sum(axis=0)[picture.shape[1] // 3 :].max())

    assert dark_in_a_column(marked) > dark_in_a_column(unmarked) + 100
