"""The applications behind `insilico.cli`; imported when one of them is run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from insilico.options import LabelOptions, TrainOptions
from lincei.command import options_command
from lincei.progress import CancelCheck, ProgressCallback


def label_app() -> typer.Typer:
    """Return the application of ``lincei label``."""

    def label(
        inputs: Annotated[
            list[str],
            typer.Argument(help="Files, folders, or patterns such as 'phase_z{z}.tif' (in quotes)."),
        ],
        out: Annotated[Path, typer.Option(help="Folder for the results; made when missing.")],
        *,
        options: LabelOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Predict fluorescence images from transmitted-light images. Research use only.

        A folder is a batch of images; a z-stack in several files is asked for: 'phase_z{z}.tif'. Each
        input gives OUT/<name>.ome.tif with one channel per label, and <name>.<statistic>.ome.tif for
        the other statistics. 0 is the background of the stained images the model learned from, 1 their
        bright end.
        """
        from insilico.label_files import label_files

        summary = label_files(inputs, out, options, progress=progress, cancelled=cancelled)
        if summary.failures and not (summary.done or summary.not_started or len(summary.failures) > 1):
            raise summary.failures[0].error  # of a single input there is nothing to sum up
        for path in (path for paths in summary.done for path in paths):
            print(path)
        # On stderr and after the paths: stdout holds only what was made, and failures are read last.
        print(summary.sentence(), file=sys.stderr)
        return summary.exit_code

    return options_command(LabelOptions, label)


def train_app() -> typer.Typer:
    """Return the application of ``lincei train``."""

    def train(
        inputs: Annotated[
            str,
            typer.Option(
                "--input", help="Pattern of the transmitted-light images, or isl:FOLDER.", metavar="PATTERN"
            ),
        ],
        out: Annotated[Path, typer.Option(help="Folder of the model; its last part is the model's name.")],
        label: Annotated[
            list[str],
            typer.Option(
                help="A label's name and the pattern of its stained images.", metavar="NAME=PATTERN"
            ),
        ] = [],  # noqa: B006 - Typer's way to say "none given"
        *,
        options: TrainOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Learn to predict labels from pairs of images, one pair or more. Research use only.

        Inputs and labels pair by equal {well}, {field}, {name} or * parts of their names. Three fields or
        more are split into train, tune and test by field; one or two are cut into strips. Stop with Ctrl-C,
        and go on with the same command and --resume.
        """
        from insilico.train_files import train_files

        model = train_files(inputs, label, out, options, progress=progress, cancelled=cancelled)
        print(model.file("README.md").read_text("utf-8"))
        print(f"The model is in {model.folder}. Use it with: lincei label INPUT --model {out} --out DIR")
        return 0

    return options_command(TrainOptions, train)
