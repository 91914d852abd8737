"""The commands of ``lincei models``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lincei.command import new_application, options_command
from lincei.errors import LinceiError

if TYPE_CHECKING:
    from lincei.model import Model
    from lincei.model_import import ImportOptions

_NAME = typer.Argument(help="A model's name, or its folder.", show_default=False)


def app() -> typer.Typer:
    """Return the application of ``lincei models``."""
    from lincei.model_import import ImportOptions

    application = new_application("List, show, check, install, import and export models.", many=True)
    application.command("list")(list_command)
    application.command("show")(show_command)
    application.command("check")(check_command)
    application.command("install")(install_command)
    application.command("remove")(remove_command)
    (importing,) = options_command(ImportOptions, import_command).registered_commands
    importing.name = "import"
    application.registered_commands.append(importing)
    application.command("export")(export_command)
    application.command("finish")(finish_command)
    return application


def list_command(
    task: Annotated[
        str | None, typer.Option(help="Only models for this task: label, focus or tumor.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the models that can be used by name, and the broken ones with the reason."""
    from lincei.model import broken_models, check_task, list_models, models_folder

    check_task(task)
    models = list_models(task)
    broken = broken_models()
    if json:
        import json as json_module

        found = [_row(model) | {"hash": model.hash} for model in models]
        bad = [{"folder": str(entry.folder), "reason": entry.reason} for entry in broken]
        typer.echo(json_module.dumps({"models": found, "broken": bad}, indent=1))
        return
    if models:
        _print_table([_row(model) for model in models])
    else:
        what = f"no model for the task {task}" if task else "no model"
        typer.echo(f"There is {what}. They are installed in {models_folder()}.")
    for entry in broken:
        typer.echo(f"cannot be used: {entry.folder}: {entry.reason}")


def show_command(name: Annotated[str, _NAME]) -> None:
    """Show a model's card: what it expects, what it predicts, and how good it is."""
    from lincei.model import Model, find_model

    # An unfinished model is no use to others, and still has a card.
    model = Model.from_folder(name) if Path(name).is_dir() else find_model(name)
    typer.echo(model.card.summary())
    typer.echo(f"{'Folder:':<22} {model.folder}")
    if model.card.finished:
        typer.echo(f"{'Hash:':<22} {model.hash}")


def check_command(
    name: Annotated[str, _NAME],
    engine: Annotated[str | None, typer.Option(help="Only this engine.", show_default=False)] = None,
) -> int:
    """Check a model's files and card, and run its test input on every engine that works here."""
    from lincei.model import find_model
    from lincei.model_check import check_model, check_on_all_engines

    model = find_model(name)
    reports = {engine: check_model(model, engine)} if engine else check_on_all_engines(model)
    if not reports:
        raise LinceiError(
            "no engine works here", f"model {model.name}", "Run `lincei doctor`, which says why."
        )
    for report_name, report in reports.items():
        typer.echo(
            f"{'passed' if report.passed else 'FAILED'}  {report.engine or report_name}: {report.describe()}"
        )
    return 0 if all(report.passed for report in reports.values()) else 1


def install_command(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A zip archive or a folder.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="Another name for it.", show_default=False)] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the installed model of that name.")
    ] = False,
) -> None:
    """Install a model from a file; afterwards it is found by its name."""
    from lincei.model import install_model

    _say_installed(install_model(source, name=name, replace=replace))


def remove_command(
    name: Annotated[str, typer.Argument(help="The name of an installed model.", show_default=False)],
) -> None:
    """Delete an installed model; those that came with the program stay."""
    from lincei.model import remove_model

    typer.echo(f"Removed {remove_model(name)}.")


def import_command(
    file: Annotated[
        Path, typer.Argument(help="A .onnx file, a .keras file or a SavedModel folder.", show_default=False)
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the installed model of that name.")
    ] = False,
    *,
    options: ImportOptions,
) -> None:
    """Install a bare network from elsewhere; --name, --task, --modality and more describe it."""
    from lincei.model_import import import_model

    _say_installed(import_model(file, options, replace=replace))


def export_command(
    name: Annotated[str, _NAME],
    out: Annotated[Path, typer.Option(help="The file or folder to write.", show_default=False)],
    format: Annotated[
        str, typer.Option(help="bioimageio (a zip archive), savedmodel or onnx.")
    ] = "bioimageio",
) -> None:
    """Write a model for other programs."""
    from lincei.model import find_model
    from lincei.model_exchange import export_model

    typer.echo(f"Wrote {export_model(find_model(name), out, format)}.")


def finish_command(
    folder: Annotated[Path, typer.Argument(help="The folder of an unfinished model.", show_default=False)],
) -> None:
    """Export the network of a model that was trained without TensorFlow; needs TensorFlow."""
    from lincei.model_exchange import finish_model

    model = finish_model(folder)
    typer.echo(f"The model {model.name} is finished: {model.folder}")


def _row(model: Model) -> dict[str, Any]:
    """Return what the list says about one model."""
    card = model.card
    return {
        "name": model.name,
        "task": card.task,
        "labels": [label.name for label in card.labels],
        "modality": card.modality,
        "z_planes": card.z_planes,
        "pixel_size_um": card.pixel_size_um,
        "size_mb": round(model.size_bytes / 1e6, 1),
        "folder": str(model.folder),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print the models as a table; the folder in full, so that it can be copied."""
    titles = ("name", "task", "labels", "modality", "planes", "pixel size", "size", "where")
    cells = [
        (
            row["name"],
            row["task"],
            ", ".join(row["labels"]) or "-",
            row["modality"],
            str(row["z_planes"]),
            "unknown" if row["pixel_size_um"] is None else f"{row['pixel_size_um']:g} um",
            f"{row['size_mb']:g} MB",
            row["folder"],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (titles, *cells)) for column in range(len(titles))]
    for line in (titles, *cells):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _say_installed(model: Model) -> None:
    typer.echo(f"Installed {model.name} in {model.folder}; use it with --model {model.name}.")
