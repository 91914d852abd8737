"""The application of ``lincei train-tumor``; imported when it is run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from arm_overlay.train_options import TrainTumorOptions
from lincei.command import options_command
from lincei.progress import CancelCheck, ProgressCallback


def train_tumor_app() -> typer.Typer:
    """Return the application of ``lincei train-tumor``."""

    def train_tumor(
        out: Annotated[Path, typer.Option(help="Folder of the model; its last part is the model's name.")],
        images: Annotated[
            list[str],
            typer.Option(
                help="Pattern of color images, or a folder of snapshots that `lincei arm` took and whose "
                "outlines were corrected; optionally with a name. May be given again: each is a set.",
                metavar="[NAME=]PATTERN",
            ),
        ] = [],  # noqa: B006 - Typer's way to say "none given"
        masks: Annotated[
            list[str],
            typer.Option(
                help="Pattern of their masks (white is tumor), QuPath outlines (.geojson) or ImageJ ROIs "
                "(.roi, .zip).",
                metavar="[NAME=]PATTERN",
            ),
        ] = [],  # noqa: B006
        sets: Annotated[
            Path | None,
            typer.Option(
                help="TOML file that lists several sets; in place of --images and --masks.", metavar="FILE"
            ),
        ] = None,
        split_by: Annotated[
            str,
            typer.Option(help="Placeholder whose values (slides) are held out together, such as 'name'."),
        ] = "",
        measure_on: Annotated[
            list[str],
            typer.Option(help="Name of a set that is only measured on.", metavar="NAME"),
        ] = [],  # noqa: B006
        *,
        options: TrainTumorOptions,
        progress: ProgressCallback,
        cancelled: CancelCheck,
    ) -> int:
        """Learn to find tumor, or another region, from your own outlined images. Research use only.

        Images and masks pair by equal {name}, {field} or * parts of their names. Three images and more
        (or slides, with --split-by) are split into train, tune and test; one or two are cut into strips. Stop
        with Ctrl-C, and go on with the same command and --resume.
        """
        from arm_overlay.train_files import named_sets, open_sets, train_files
        from lincei.errors import UsageError

        if sets is not None and (images or masks or split_by):
            raise UsageError(
                "--sets is given together with --images, --masks or --split-by",
                "",
                "Write all of them into the file of the sets.",
            )
        listed, folds = (
            open_sets(sets) if sets is not None else (named_sets(images, masks, split_by=split_by), None)
        )
        model = train_files(
            listed,
            out,
            options,
            measure_on=measure_on,
            folds=folds,
            progress=progress,
            cancelled=cancelled,
        )
        print(model.file("README.md").read_text("utf-8"))
        named = shlex.quote(str(out))
        print(f"The model is in {model.folder}. Use it with: lincei tumor IMAGE --model {named} --out DIR")
        return 0

    return options_command(TrainTumorOptions, train_tumor)
