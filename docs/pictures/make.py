"""Make the pictures of the documents: ``LINCEI_DATA=... python docs/pictures/make.py``."""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

import focusqc
import insilico
from focusqc.defocusing import defocused
from focusqc.focus_files import focus_files
from focusqc.levels import LEVELS
from focusqc.overlay import key_rgb, level_color, overlay_rgb, plane_pixels
from focusqc.page import curve_figure
from focusqc.scenes import normalized_light
from insilico.evaluation_page import calibration_plot, density_plot, error_plot
from insilico.pair_files import open_pairs
from lincei.image import Image, open_image
from lincei.optics import exposed, with_offset, with_read_noise, with_shot_noise
from lincei.pattern import find_inputs
from lincei.report import gray_to_rgb, map_to_rgb
from sample_data.cells import write_fields
from sample_data.registry import locate

HERE = Path(__file__).parent
REGION = np.s_[300:560, 380:690]
STATISTICS = ("mean", "q05", "q95", "median", "mode", "sd", "entropy")


def folder_of(name: str) -> Path:
    """Return the folder of a set of real data."""
    folder = locate(name)
    if folder is None:
        raise SystemExit(f"The set {name} is not at hand: set LINCEI_DATA.")
    return folder


def statistics_picture() -> Picture.Image:
    """Return all statistics of one label in one region of the motor-neuron field."""
    folder = folder_of("isl_motor_neurons")
    stack = find_inputs([str(folder / "phase_z{z}.tif")])[0].open()
    result = insilico.label(stack, "motor-neurons", labels=("NFH",), statistics=STATISTICS)
    planes = {name: image.read()[0, 0, 0][REGION] for name, image in result.items()}
    panels = {"input (plane 7)": gray_to_rgb(stack.read({"Z": slice(6, 7)})[0, 0, 0][REGION])}
    for name, plane in planes.items():
        if name == "sd":
            panels[name] = map_to_rgb(plane, 0, 0.3)
        elif name == "entropy":
            panels[name] = map_to_rgb(plane, *np.percentile(plane, [1, 99]))
        else:
            panels[name] = gray_to_rgb(plane, limits=(0, 0.7))
    return grid(panels, columns=4)


def grid(panels: dict[str, np.ndarray], columns: int) -> Picture.Image:
    """Lay panels out with their names above them."""
    height, width = next(iter(panels.values())).shape[:2]
    font, line, gap = ImageFont.load_default(size=15), 20, 6
    rows = -(-len(panels) // columns)
    canvas = Picture.new("RGB", (columns * (width + gap) + gap, rows * (height + line + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (name, panel) in enumerate(panels.items()):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + line + gap)
        draw.text((x + 2, y), name, font=font, fill="black")
        canvas.paste(Picture.fromarray(panel), (x, y + line))
    return canvas


def evaluation_picture() -> Picture.Image:
    """Return the three curves of one label of simulated cells that the model never saw."""
    with tempfile.TemporaryDirectory() as folder:
        write_fields(folder, 4, seed=5000)
        pairs = open_pairs(f"{folder}/stack_{{field}}.ome.tif", [f"nuclei={folder}/nuclei_{{field}}.ome.tif"])
        curves = insilico.evaluate(pairs, "simulated-cells").curves["nuclei"]
    plots = [plot(curves) for plot in (calibration_plot, density_plot, error_plot)]
    whole = Picture.fromarray(np.hstack(plots))
    return whole.resize((whole.width // 2, whole.height // 2), Picture.Resampling.LANCZOS)


def sharp_light(path: Path) -> np.ndarray:
    """Return a sharp image as relative light: 0 is the background, 1 the bright end."""
    return normalized_light(open_image(path).read()[0, 0, 0], bright_field=False)


def levels_picture() -> Picture.Image:
    """Return one patch of nuclei at each level."""
    light, patch = sharp_light(folder_of("bbbc039_nuclei") / "IXMtest_A09_s1.tif"), np.s_[208:292, 300:384]
    limits = (0.0, float(np.percentile(light[patch], 99.5)))
    side, gap, line = 168, 6, 26
    canvas = Picture.new("RGB", (LEVELS * (side + gap) - gap, line + side), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=18)
    for k in range(LEVELS):
        x = k * (side + gap)
        draw.rectangle((x, 0, x + side - 1, line - 4), fill=level_color(k, 1.0))
        draw.text((x + side / 2, line / 2 - 2), str(k), font=font, fill="black", anchor="mm")
        panel = Picture.fromarray(gray_to_rgb(defocused(light, k)[patch], limits=limits))
        canvas.paste(panel.resize((side, side), Picture.Resampling.BILINEAR), (x, line))
    return canvas


def overlay_picture() -> Picture.Image:
    """Return overlays of a sharp field, of a defocused one, and of a slide that is tilted on purpose."""
    images = {
        "in focus": open_image(folder_of("bbbc006_focus") / "sharp_a05_s1.tif", modality="fluorescence"),
        "out of focus": open_image(
            folder_of("bbbc006_focus") / "defocused_a19_s2.tif", modality="fluorescence"
        ),
        "a tilted slide (computed)": tilted_slide(),
    }
    panels = {}
    for name, image in images.items():
        plane = focusqc.focus(image, "focus-fluorescence").plane()
        overlay = Picture.fromarray(overlay_rgb(plane_pixels(image, plane), plane, key=False, border_px=5))
        panels[name] = np.asarray(overlay.reduce(2))
    fields = grid(panels, columns=3)
    key = Picture.fromarray(key_rgb(fields.width * 3 // 4))
    canvas = Picture.new("RGB", (fields.width, fields.height + key.height), "white")
    canvas.paste(fields)
    canvas.paste(key, ((fields.width - key.width) // 2, fields.height))
    return canvas


def tilted_slide() -> Image:
    """Return a sharp field of nuclei, blurred more and more from left to right."""
    light = sharp_light(folder_of("bbbc039_nuclei") / "IXMtest_E12_s9.tif")
    tilt = np.linspace(-0.5, LEVELS - 0.5, light.shape[1]).clip(0, LEVELS - 1)
    stack = np.stack([defocused(light, k) for k in range(LEVELS)])
    low = np.minimum(tilt.astype(int), LEVELS - 2)
    columns = np.arange(light.shape[1])
    blurred = (
        stack[low, :, columns] * (low + 1 - tilt)[:, None]
        + stack[low + 1, :, columns] * (tilt - low)[:, None]
    )
    random = np.random.default_rng(1)
    counts = with_shot_noise(exposed(blurred.T + 0.05, 1000.0), random)
    return Image.from_array(
        with_offset(with_read_noise(counts, 3.0, random), 2.0, 100.0), name="tilted", modality="fluorescence"
    )


def beads_picture() -> Picture.Image:
    """Return the expected level along z of a real focal series, and three of its planes."""
    pattern = str(folder_of("beads_zstack") / "E08_s1_w1_step??_Z{z}um.tif")
    stack = find_inputs([pattern])[0].open(modality="fluorescence")
    rating = focusqc.focus(stack, "focus-fluorescence")
    best = rating.sharpest[0, 0]
    curve = Picture.fromarray(curve_figure(rating, "Expected level of each plane.").image_rgb)
    panels = {}
    for z in (0, best, len(rating.planes) - 1):
        panels[f"z = {z}"] = rating.overlay(z=z)[84:336, 84:336]
    planes = grid(panels, columns=3)
    curve = curve.resize((planes.height, planes.height), Picture.Resampling.LANCZOS)
    canvas = Picture.new("RGB", (curve.width + planes.width, planes.height), "white")
    canvas.paste(curve)
    canvas.paste(planes, (curve.width, 0))
    return canvas


def report_picture() -> Picture.Image:
    """Return two parts of the page of real fields and focal series, as a browser shows them."""
    from selenium import webdriver

    browser, driver_path = (
        shutil.which("chromium") or shutil.which("google-chrome"),
        shutil.which("chromedriver"),
    )
    if browser is None or driver_path is None:
        raise SystemExit("There is no Chromium with its driver: `make system-packages` installs them.")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    inputs = [
        str(folder_of("bbbc006_focus")),
        str(folder_of("beads_zstack") / "{name}_w1_step??_Z{z}um.tif"),
    ]
    width, parts = 960, []
    with tempfile.TemporaryDirectory() as folder:
        focus_files(inputs, folder, focusqc.FocusOptions(modality="fluorescence"))
        for flag in ("--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
        try:
            size = {"width": width, "height": width, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get((Path(folder) / "report.html").as_uri())
            # From the top to the end of the overview; then three rows of pictures.
            for first, after, gap in (
                ("body", "#leave-out", 46),
                ("#pictures", "#montage li:nth-child(13)", 8),
            ):
                top, bottom = (
                    driver.execute_script(
                        f"return document.querySelector('{part}').getBoundingClientRect().top"
                    )
                    for part in (first, after)
                )
                top = max(0, top - 22)
                clip = {"x": 0, "y": top, "width": width, "height": bottom - gap - top, "scale": 1}
                shot = driver.execute_cdp_cmd(
                    "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
                )
                parts.append(Picture.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))
        finally:
            driver.quit()
    canvas = Picture.new("RGB", (width, sum(part.height for part in parts)), "white")
    canvas.paste(parts[0])
    canvas.paste(parts[1], (0, parts[0].height))
    return canvas


if __name__ == "__main__":
    statistics_picture().quantize(256).save(HERE / "statistics.png", optimize=True)
    evaluation_picture().quantize(256).save(HERE / "evaluation.png", optimize=True)
    levels_picture().quantize(256).save(HERE / "focus_levels.png", optimize=True)
    overlay_picture().save(HERE / "focus_overlay.png", optimize=True)
    beads_picture().quantize(256).save(HERE / "focus_beads.png", optimize=True)
    # Median cut would give the many gray values of the thumbnails the colors of the levels.
    report = report_picture().quantize(256, method=Picture.Quantize.FASTOCTREE)
    report.save(HERE / "focus_report.png", optimize=True)
