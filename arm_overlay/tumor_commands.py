"""The application of ``lincei tumor``; imported when it is run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from arm_overlay.options import TumorOptions
from lincei.command import options_command
from lincei.progress import CancelCheck, ProgressCallback


def tumor_app() -> typer.Typer:
    """Return the application of ``lincei tumor``."""

    def tumor(
        inputs: Annotated[
            list[str],
            typer.Argument(help="Images of stained sections, or folders or patterns (in quotes) of them."),
        ],
        out: Annotated[Path, typer.Option(help="Folder for the results; made when missing.")],
        *,
        options: TumorOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Outline tumor in images of stained sections. Research use only.

        Of each image OUT gets its picture with the outlines (.outline.png), the probability of tumor in each
        pixel (.probability.tif), and the outlines for QuPath (.geojson) and for ImageJ's ROI Manager
        (.roi.zip); tumor.csv has a row for each image: percent of the tissue that is tumor, number of
        regions, the largest one's diameter in um.
        """
        from arm_overlay.tumor_files import files_of, tumor_files

        summary = tumor_files(inputs, out, options, progress=progress, cancelled=cancelled)
        if summary.failures and not (summary.done or summary.not_started or len(summary.failures) > 1):
            raise summary.failures[0].error  # of a single input there is nothing to sum up
        for path in files_of(out, summary):
            print(path)
        # On stderr and after the paths: stdout holds only what was made, and failures are read last.
        print(summary.sentence(), file=sys.stderr)
        return summary.exit_code

    return options_command(TumorOptions, tumor)
