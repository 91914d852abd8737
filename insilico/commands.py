"""The applications behind `insilico.cli`; imported when one of them is run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from insilico.options import EvaluateOptions, LabelOptions, TrainOptions
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
        bright end. Stop with Ctrl-C, and go on with the same command and --resume.
        """
        from insilico.label_files import label_files

        summary = label_files(inputs, out, options, progress=progress, cancelled=cancelled)
        if summary.failures and not (summary.done or summary.not_started or len(summary.failures) > 1):
            for note in summary.notes:
                print(note, file=sys.stderr)
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
        out: Annotated[Path, typer.Option(help="Folder of the model; its last part is the model's name.")],
        inputs: Annotated[
            str,
            typer.Option(
                "--input", help="Pattern of the transmitted-light images, or isl:FOLDER.", metavar="PATTERN"
            ),
        ] = "",
        label: Annotated[
            list[str],
            typer.Option(
                help="A label's name and the pattern of its stained images.", metavar="NAME=PATTERN"
            ),
        ] = [],  # noqa: B006 - Typer's way to say "none given"
        sets: Annotated[
            Path | None,
            typer.Option(
                help="TOML file that lists several sets of pairs; in place of --input.", metavar="FILE"
            ),
        ] = None,
        split_by: Annotated[
            str,
            typer.Option(
                help="Placeholder whose values (strains, slides, experiments) stay together, such as 'name'."
            ),
        ] = "",
        tune_on: Annotated[
            list[str],
            typer.Option(help="Value of that placeholder, or name of an image, to tune on."),
        ] = [],  # noqa: B006
        test_on: Annotated[
            list[str],
            typer.Option(help="Value of that placeholder, or name of an image, to keep for the test."),
        ] = [],  # noqa: B006
        label_scaling: Annotated[
            str,
            typer.Option(
                help="Scale each stained image by its own percentiles ('image'), or all of a group ('group') "
                "or of a label ('all') together, where they were taken with one exposure."
            ),
        ] = "image",
        label_curve: Annotated[
            str,
            typer.Option(
                help="Curve of the labels' scale: 'linear', or 'asinh' (nearly logarithmic) where the level "
                "of a stain differs much from cell to cell, which transmitted light cannot show."
            ),
        ] = "linear",
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
        from insilico.pair_files import open_pairs, open_sets
        from insilico.train_files import train_files
        from lincei.errors import UsageError

        if sets is not None and (inputs or label or split_by or tune_on or test_on):
            raise UsageError(
                "--sets is given together with --input, --label, --split-by, --tune-on or --test-on",
                "",
                "Write all of them into the file of the sets.",
            )
        if sets is None and not inputs:
            raise UsageError("no input is given", "", "Add --input PATTERN and --label NAME=PATTERN.")
        pairs = (
            open_sets(sets)
            if sets
            else open_pairs(
                inputs,
                label,
                split_by=split_by,
                tune_on=tune_on,
                test_on=test_on,
                label_scaling=label_scaling,
                label_curve=label_curve,
            )
        )
        model = train_files(pairs, out, options, progress=progress, cancelled=cancelled)
        print(model.file("README.md").read_text("utf-8"))
        print(f"The model is in {model.folder}. Use it with: lincei label INPUT --model {out} --out DIR")
        return 0

    return options_command(TrainOptions, train)


def evaluate_app() -> typer.Typer:
    """Return the application of ``lincei evaluate``."""

    def evaluate(
        inputs: Annotated[
            str,
            typer.Option(
                "--input", help="Pattern of the transmitted-light images, or isl:FOLDER.", metavar="PATTERN"
            ),
        ],
        out: Annotated[Path, typer.Option(help="Folder for the figures and the page; made when missing.")],
        label: Annotated[
            list[str],
            typer.Option(
                help="A label of the model's and the pattern of its stained images.", metavar="NAME=PATTERN"
            ),
        ] = [],  # noqa: B006 - Typer's way to say "none given"
        label_scaling: Annotated[
            str,
            typer.Option(
                help="Scale each stained image by its own percentiles ('image'), or together all of a group "
                "('group', see --split-by) or all of a label ('all'), where they had one exposure."
            ),
        ] = "image",
        split_by: Annotated[
            str,
            typer.Option(help="Placeholder whose values (strains, slides) are the groups, such as 'name'."),
        ] = "",
        *,
        options: EvaluateOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Compare a model's predictions with stained images of the same fields. Research use only.

        Inputs and labels pair as for `lincei train`. OUT gets report.html (open it in a browser),
        metrics.json and metrics.csv. Evaluate on images that the model has never seen, or the figures say
        nothing about new ones.
        """
        from insilico.evaluation import evaluate as evaluate_pairs
        from insilico.evaluation_page import files_of, means_as_text
        from insilico.pair_files import ISL_PRESET, find_pairs
        from lincei.model import find_model

        model = find_model(options.model, task="label")
        if inputs.startswith(ISL_PRESET) and not label:
            label = [item.name for item in model.card.labels]
        pairs = find_pairs(inputs, label, split_by=split_by, label_scaling=label_scaling)
        evaluation = evaluate_pairs(pairs, model, options, out=out, progress=progress, cancelled=cancelled)
        batch = evaluation.batch
        if batch.failures and len(pairs) == 1:
            raise batch.failures[0].error  # of a single input there is nothing to sum up
        if batch.done:
            print(means_as_text(evaluation))
            for path in files_of(out):
                print(path)
        print(batch.sentence(), file=sys.stderr)
        return batch.exit_code

    return options_command(EvaluateOptions, evaluate)
