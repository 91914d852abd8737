"""``lincei demo``: every tool's own demonstration, one page that shows them all.

A tool takes part with ``DEMO = "module:function"`` beside its ``COMMANDS``; the function is
``run(out: Path, *, progress, cancelled) -> list[lincei.report.Section]`` and writes its files under ``out``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from lincei.cli import find_tools
from lincei.command import console_progress, new_application, stoppable
from lincei.errors import LinceiError, LinceiWarning
from lincei.progress import CancelCheck, ProgressCallback, stop_if_cancelled
from lincei.report import Page, Section, write_page

DemoFunction = Callable[..., list[Section]]


def app() -> typer.Typer:
    """Return the application of ``lincei demo``."""
    application = new_application()

    @application.command()
    def demo(
        out: Annotated[Path, typer.Option(help="Folder for the page and the files it shows.")] = Path("demo"),
        napari: Annotated[
            bool,
            typer.Option("--napari", help="Open the napari viewer with a sample and the widgets instead."),
        ] = False,
    ) -> None:
        """Run everything once on sample data and write a page that shows it.

        Real data is used when it is at hand (LINCEI_DATA, the cache or a download), simulated data
        otherwise; the page says which.
        """
        if napari:
            open_viewer()
            return
        with stoppable() as cancelled, console_progress() as progress:
            page = run_demos(out, progress=progress, cancelled=cancelled)
        print(f"Open {page.resolve()} in a browser.")

    return application


def open_viewer() -> None:
    """Open napari with a sample and the widgets; return when its window is closed.

    Raises
    ------
    LinceiError
        When napari, or lincei's plugin for it, is not installed.
    """
    try:
        # By its name: what the tools share imports no front end.
        viewer_demo = import_module("napari_plugin.demo")
    except ImportError as error:
        raise LinceiError(
            f"napari cannot be used here ({error})",
            "",
            "Install it: pip install 'napari[all]' 'lincei[napari]'",
        ) from error
    viewer_demo.run()


def run_demos(
    out: Path, *, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
) -> Path:
    """Run the demonstration of every working tool and write ``out/index.html``.

    Parameters
    ----------
    out : Path
        Folder to write to; made when missing.
    progress, cancelled : callable, optional
        As in every job.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    LinceiError
        When a demonstration fails, in the tool's words, or there is none.

    Warns
    -----
    LinceiWarning
        For each tool that is broken; the others are shown.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections: list[Section] = []
    for tool in find_tools():
        if tool.module is None:
            message = f"the tool {tool.name!r} is left out, it cannot be used: {tool.problem}"
            warnings.warn(message, LinceiWarning, stacklevel=2)
        target = str(getattr(tool.module, "DEMO", ""))
        if not target:
            continue
        stop_if_cancelled(cancelled)
        module_name, _, function_name = target.partition(":")
        function: DemoFunction = getattr(import_module(module_name), function_name)
        sections += function(out, progress=progress, cancelled=cancelled)
    if not sections:
        raise LinceiError(
            "no installed tool has a demonstration to show", "", "See `lincei doctor` for what is broken."
        )
    page = Page(
        title="lincei demo",
        lead="What the tools make of sample images. Predictions were made just now; what a training measured "
        "is shown from the model's card.",
        sections=tuple(sections),
    )
    return write_page(page, out / "index.html")
