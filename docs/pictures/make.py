"""Make the pictures of the documents: ``LINCEI_DATA=... python docs/pictures/make.py [NAME...]``.

Names are those of files, without their suffix, or how they begin: ``arm`` makes all of ``arm_*``.
"""

from __future__ import annotations

import base64
import io
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

import arm_overlay
import focusqc
import insilico
from arm_overlay.display_alignment import manual_matrix
from arm_overlay.fiducials import Charuco
from arm_overlay.frames import Frame
from arm_overlay.live import LiveOutline
from arm_overlay.overlay import Overlay
from arm_overlay.rendering import Style, draw, drawn_over
from arm_overlay.tumor_files import tumor_files
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
# The field that the pictures of the augmented-reality microscope show, and the size of its pixels.
BREAST, BREAST_UM = "he_breast_40x", 0.25
# Whole windows: text stays readable, and most files below 150 kB.
NAPARI_QUALITY = 65
FRAME_PX, DISPLAY_PX = (1920, 1200), (1280, 720)
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


def light_path_picture() -> Picture.Image:
    """Return a drawing of the light path: slide, objective, beam splitter, eye, camera, display, computer."""
    orange, green, gray = "#d9822b", "#2e9e4f", "#5a6470"
    matplotlib.rcParams["font.family"] = "DejaVu Sans"
    figure, axes = plt.subplots(figsize=(9.2, 5.6), dpi=110)
    axes.set(xlim=(0, 92), ylim=(0, 56), aspect="equal")
    axes.axis("off")

    def box(x: float, y: float, wide: float, high: float, text: str, fill: str = "#eef1f4") -> None:
        axes.add_patch(FancyBboxPatch((x, y), wide, high, boxstyle="round,pad=0.3", fc=fill, ec=gray, lw=1.2))
        axes.text(x + wide / 2, y + high / 2, text, ha="center", va="center", fontsize=9)

    def ray(*places: tuple[float, float], color: str, head: bool = True, shift: float = 0.0) -> None:
        for number, (start, end) in enumerate(pairwise(places)):
            style = "-|>" if head and number == len(places) - 2 else "-"
            moved = [(x + shift, y) for x, y in (start, end)]
            axes.add_patch(
                FancyArrowPatch(
                    *moved, arrowstyle=style, color=color, lw=2.2, shrinkA=0, shrinkB=0, mutation_scale=14
                )
            )

    def cable(
        start: tuple[float, float], end: tuple[float, float], text: str, at: tuple[float, float]
    ) -> None:
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                color=gray,
                lw=1.3,
                ls=(0, (4, 2)),
                shrinkA=0,
                shrinkB=0,
                mutation_scale=11,
            )
        )
        axes.text(*at, text, fontsize=8, color=gray, ha="center", va="center")

    column = 24.0
    box(column - 9, 1, 18, 4.4, "lamp, condenser")
    axes.add_patch(
        Polygon(
            [(column - 11, 8.6), (column + 11, 8.6), (column + 11, 9.4), (column - 11, 9.4)],
            fc="#e6c7d8",
            ec=gray,
        )
    )
    axes.text(column + 12, 9, "slide", fontsize=9, va="center")
    axes.add_patch(
        Polygon(
            [(column - 3.5, 18), (column + 3.5, 18), (column + 1.6, 11.5), (column - 1.6, 11.5)],
            fc="#dfe5ea",
            ec=gray,
        )
    )
    axes.text(column + 5, 15, "objective", fontsize=9, va="center")
    for y in (25.0, 35.0):
        axes.add_patch(
            Polygon(
                [(column - 4, y - 4), (column + 4, y - 4), (column + 4, y + 4), (column - 4, y + 4)],
                fc="#f3f7fa",
                ec=gray,
            )
        )
        axes.plot(
            [column - 4, column + 4], [y + (4 if y > 30 else -4), y - (4 if y > 30 else -4)], color=gray
        )
    axes.text(column - 5, 25, "beam splitter\nfor the camera", fontsize=9, va="center", ha="right")
    axes.text(column - 5, 35, "beam splitter\nfor the display", fontsize=9, va="center", ha="right")
    box(column - 5.5, 43.5, 11, 4.2, "eyepieces")
    axes.text(column - 8, 52.5, "eye: tissue and outline in one view", fontsize=9, ha="left")
    ray((column, 5.6), (column, 43.2), color=orange, shift=-0.7)
    ray((column - 0.7, 25), (45.6, 25), color=orange)
    ray((46.8, 35), (column + 0.7, 35), (column + 0.7, 43.2), color=green)
    ray((column - 0.7, 48.1), (column - 0.7, 51.6), color=orange)
    ray((column + 0.7, 48.1), (column + 0.7, 51.6), color=green)
    box(46.5, 22.6, 12, 4.8, "camera")
    axes.add_patch(Ellipse((41, 35), 1.6, 6.4, fc="#dfe9f3", ec=gray))
    axes.text(41, 39.6, "lens", fontsize=9, ha="center")
    box(47.5, 32.6, 13, 4.8, "microdisplay:\nlines on black", "#20252a")
    axes.texts[-1].set_color("white")
    box(
        71,
        21,
        18,
        18,
        "computer\n\n1  newest frame\n2  in focus? moving?\n3  network\n4  outline\n5  warp",
        "#f8f4ea",
    )
    cable((59.2, 25), (70.4, 25), "USB or\nnetwork", (64.8, 27.6))
    cable((70.4, 35), (61.2, 35), "HDMI", (65.8, 36.4))
    box(70, 44, 20, 4.6, "operator's own screen")
    cable((80, 39.6), (80, 43.4), "", (0, 0))
    box(70, 11, 20, 4.6, "keyboard or foot switch")
    cable((80, 16), (80, 20.4), "", (0, 0))
    axes.plot([44, 47], [5, 5], color=orange, lw=2.2)
    axes.text(48, 5, "light of the tissue", fontsize=9, va="center")
    axes.plot([44, 47], [2, 2], color=green, lw=2.2)
    axes.text(48, 2, "light of the display, added to it", fontsize=9, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)
    return Picture.open(buffer).convert("RGB")


def slide_views(count: int) -> tuple[list[NDArray[np.uint8]], float]:
    """Return views of a real section that moves to the right, as a camera's frames, and their pixel size."""
    field = cv2.cvtColor(cv2.imread(str(folder_of(BREAST) / "images" / "1008.jpg")), cv2.COLOR_BGR2RGB)
    scale = BREAST_UM * 2880 / FRAME_PX[0]
    views = []
    for number in range(count):
        left = 40 + number * (field.shape[1] - 2880 - 80) // max(1, count - 1)
        view = field[400:2200, left : left + 2880]
        views.append(cv2.resize(view, FRAME_PX, interpolation=cv2.INTER_AREA))
    return views, scale


def overlay_of(views: Sequence[NDArray[np.uint8]], pixel_size_um: float, mode: str) -> Overlay:
    """Return what belongs over the last of some views, seen one after the other."""
    with LiveOutline(
        model="tumor-breast",
        objective="20x",
        pixel_size_um=pixel_size_um,
        mode=mode,
        focus_gate=False,
        patience_s=math.inf,
    ) as live:
        for number, view in enumerate(views):
            overlay = live.step(Frame(view, number / 4, number))
    if overlay.blank_reason:
        raise SystemExit(f"Nothing is shown: {overlay.blank_reason}.")
    return overlay


def modes_picture() -> Picture.Image:
    """Return what the camera sees, what the microdisplay adds, and the modes."""
    views, pixel_size_um = slide_views(9)
    size = (480, 300)
    small = cv2.resize(views[-1], size, interpolation=cv2.INTER_AREA)
    bold = Style(line_width_px=2)
    found = {
        mode: overlay_of(views, pixel_size_um, mode) for mode in ("outline", "heatmap", "text", "arrows")
    }
    panels = {
        "what the camera sees": small,
        "what the microdisplay adds": draw(found["outline"], size, style=bold),
        "in the eyepiece: outline": drawn_over(small, found["outline"], bold),
        "heatmap": drawn_over(small, found["heatmap"], bold),
        "text": drawn_over(small, found["text"], bold),
        "arrows": drawn_over(small, found["arrows"], bold),
    }
    return grid(panels, columns=3)


def windows() -> dict[str, Picture.Image]:
    """Return pictures of the operator's windows, made in a process without TensorFlow."""
    views, pixel_size_um = slide_views(20)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        frames.mkdir()
        # To the right and back, so that the slide never jumps.
        for number, view in enumerate([*views, *views[-2:0:-1]]):
            # Small, so that reading them takes less time than a camera's frames do.
            small = Picture.fromarray(view).reduce(2)
            small.save(frames / f"frame_{number:02d}.png", compress_level=1)
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "LINCEI_ARM": str(Path(folder) / "arm")}
        script = str(HERE / "arm_windows.py")
        subprocess.run(
            [sys.executable, script, str(frames), str(2 * pixel_size_um), folder], env=environment, check=True
        )
        return {
            name: Picture.open(Path(folder) / f"{name}.png").convert("RGB")
            for name in ("operator", "landmarks", "by_hand")
        }


def align_picture(landmarks: Picture.Image, by_hand: Picture.Image) -> Picture.Image:
    """Return the fiducials on the display, how the camera sees them, and the windows of the other ways."""
    tissue = slide_views(1)[0][0]
    fiducial = Charuco(DISPLAY_PX).pairs[0][0]
    matrix = manual_matrix(FRAME_PX, DISPLAY_PX, rotation_deg=4, scale=0.95, mirrored=True)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    light = cv2.warpPerspective(fiducial, matrix, FRAME_PX, flags=flags)[..., None]
    seen = np.clip(0.6 * tissue + 0.25 * light, 0, 255).astype(np.uint8)
    width, height = 620, 350
    panels = {
        "automatic: what the display shows": Picture.fromarray(fiducial).convert("RGB"),
        "automatic: what the camera sees then (computed)": Picture.fromarray(seen),
        "landmarks: the operator's window": landmarks,
        "manual: the operator's window": by_hand,
    }
    laid = {}
    for name, panel in panels.items():
        panel.thumbnail((width, height), Picture.Resampling.LANCZOS)
        whole = Picture.new("RGB", (width, height), "white")
        whole.paste(panel, ((width - panel.width) // 2, (height - panel.height) // 2))
        laid[name] = np.asarray(whole)
    return grid(laid, columns=2)


def tumor_picture() -> Picture.Image:
    """Return a tile of lymph node with what ``lincei tumor`` writes of it."""
    path = folder_of("he_lymph_node_10x") / "images" / "10072.png"
    colors = np.asarray(Picture.open(path).convert("RGB"))
    with tempfile.TemporaryDirectory() as folder:
        tumor_files([str(path)], folder, arm_overlay.TumorOptions(pixel_size_um=1.0))
        drawn = np.asarray(Picture.open(Path(folder) / "10072.outline.png").convert("RGB"))
        probability = open_image(Path(folder) / "10072.probability.tif").read()[0, 0, 0]
    panels = {
        "the image": colors,
        "10072.outline.png": drawn,
        "10072.probability.tif": map_to_rgb(probability, 0, 1),
    }
    return grid(panels, columns=3)


def save_windows() -> None:
    """Make the pictures in which there are windows."""
    pictures = windows()
    pictures["operator"].save(HERE / "arm_operator.webp", quality=75, method=6)
    align_picture(pictures["landmarks"], pictures["by_hand"]).save(
        HERE / "arm_align.webp", quality=75, method=6
    )


def save_napari() -> None:
    """Make the pictures of napari, on a screen of their own, in a process without TensorFlow."""
    server = shutil.which("Xvfb")
    if server is None:
        raise SystemExit("There is no Xvfb: `make system-packages` installs it.")
    read_end, write_end = os.pipe()
    size = ("-screen", "0", "1600x1000x24", "-nolisten", "tcp")
    screen = subprocess.Popen([server, "-displayfd", str(write_end), *size], pass_fds=(write_end,))
    try:
        os.close(write_end)
        with os.fdopen(read_end) as answer, tempfile.TemporaryDirectory() as folder:
            # The user's settings and models stay out of the pictures, and as they are.
            own = {
                "NAPARI_CONFIG": "napari.yaml",
                "LINCEI_MODELS": "models",
                "LINCEI_ARM": "arm",
                "XDG_CONFIG_HOME": "config",
            }
            environment = {
                **os.environ,
                **{name: str(Path(folder) / path) for name, path in own.items()},
                "DISPLAY": f":{answer.readline().strip()}",
            }
            environment.pop("QT_QPA_PLATFORM", None)
            script = str(HERE / "napari_windows.py")
            subprocess.run([sys.executable, script, folder], env=environment, check=True)
            for path in sorted(Path(folder).glob("napari_*.png")):
                whole = Picture.open(path).convert("RGB")
                whole.save(HERE / f"{path.stem}.webp", quality=NAPARI_QUALITY, method=6)
    finally:
        screen.kill()
        screen.wait()


def save_report() -> None:
    """Make the picture of the page of ratings."""
    # Median cut would give the many gray values of the thumbnails the colors of the levels.
    report = report_picture().quantize(256, method=Picture.Quantize.FASTOCTREE)
    report.save(HERE / "focus_report.png", optimize=True)


def save_as(name: str, picture: Callable[[], Picture.Image], *, colors: int = 256) -> Callable[[], None]:
    """Return what makes a picture and saves it as PNG of so many colors (0: all), or as WebP."""

    def save() -> None:
        made = picture()
        if name.endswith(".webp"):
            made.save(HERE / name, quality=75, method=6)
        else:
            (made.quantize(colors) if colors else made).save(HERE / name, optimize=True)

    return save


MAKERS = {
    "statistics": save_as("statistics.png", statistics_picture),
    "evaluation": save_as("evaluation.png", evaluation_picture),
    "focus_levels": save_as("focus_levels.png", levels_picture),
    "focus_overlay": save_as("focus_overlay.png", overlay_picture, colors=0),
    "focus_beads": save_as("focus_beads.png", beads_picture),
    "focus_report": save_report,
    "arm_light_path": save_as("arm_light_path.png", light_path_picture, colors=64),
    "arm_modes": save_as("arm_modes.webp", modes_picture),
    "arm_tumor": save_as("arm_tumor.webp", tumor_picture),
    "arm_windows": save_windows,
    "napari": save_napari,
}

if __name__ == "__main__":
    wanted = tuple(sys.argv[1:])
    for name, make in MAKERS.items():
        if not wanted or name.startswith(wanted):
            make()
