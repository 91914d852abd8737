"""The applications behind `focusqc.cli`; imported when one of them is run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from focusqc.options import FocusOptions, TrainFocusOptions
from lincei.command import options_command
from lincei.progress import CancelCheck, ProgressCallback


def focus_app() -> typer.Typer:
    """Return the application of ``lincei focus``."""

    def focus(
        inputs: Annotated[
            list[str],
            typer.Argument(help="Files, folders, or patterns such as 'cells_z{z}.tif' (in quotes)."),
        ],
        out: Annotated[Path, typer.Option(help="Folder for the results; made when missing.")],
        *,
        options: FocusOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Rate how well images are focused. Research use only.

        A folder is a batch of images; a z-stack in several files is asked for: 'cells_z{z}.tif'. Patches of
        84x84 pixels are rated on 11 levels, 0 sharp to 10 blurred, each with its certainty. OUT gets
        report.html (open it in a browser), images.csv, patches.csv, exclude.csv (what to leave out, and why)
        and a picture of each image with its patches.
        """
        from focusqc.focus_files import files_of, focus_files

        summary = focus_files(inputs, out, options, progress=progress, cancelled=cancelled)
        if summary.failures and not (summary.done or summary.not_started or len(summary.failures) > 1):
            raise summary.failures[0].error  # of a single input there is nothing to sum up
        for path in files_of(out, summary):
            print(path)
        # On stderr and after the paths: stdout holds only what was made, and failures are read last.
        print(summary.sentence(), file=sys.stderr)
        return summary.exit_code

    return options_command(FocusOptions, focus)


def train_focus_app() -> typer.Typer:
    """Return the application of ``lincei train-focus``."""

    def train_focus(
        inputs: Annotated[
            list[str],
            typer.Option(
                "--input",
                help="Pattern of sharp images, optionally with a name; may be given again: each is a set, "
                "and all sets count alike.",
                metavar="[NAME=]PATTERN",
            ),
        ],
        out: Annotated[Path, typer.Option(help="Folder of the model; its last part is the model's name.")],
        measure_on: Annotated[
            list[str],
            typer.Option(
                help="Name and pattern of other sharp images, to measure the model on.",
                metavar="NAME=PATTERN",
            ),
        ] = [],  # noqa: B006 - Typer's way to say "none given"
        split_by: Annotated[
            str,
            typer.Option(
                help="Placeholder whose values (wells, slides) are held out together, such as 'well'."
            ),
        ] = "",
        *,
        options: TrainFocusOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Learn to rate focus from sharp images, which are blurred for it. Research use only.

        Stop with Ctrl-C, and go on with the same command and --resume.
        """
        from focusqc.train_files import train_files

        model = train_files(
            inputs,
            out,
            options,
            split_by=split_by,
            measure_on=measure_on,
            progress=progress,
            cancelled=cancelled,
        )
        print(model.file("README.md").read_text("utf-8"))
        named = shlex.quote(str(out))
        print(f"The model is in {model.folder}. Use it with: lincei focus INPUT --model {named} --out DIR")
        return 0

    return options_command(TrainFocusOptions, train_focus)
