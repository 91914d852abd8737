"""A model: a folder with a card and a network; the zoo that finds, writes, installs and removes models."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lincei
from lincei.errors import LinceiError, UsageError
from lincei.model_card import (
    CARD_FILE,
    COVER_FILE,
    KERAS_FILE,
    METRICS_FILE,
    NETWORK_FILE,
    ONNX_FILE,
    README_FILE,
    TASKS,
    TEST_INPUT_FILE,
    Card,
    Label,
    Tensor,
    check_size,
    sha256_of,
    spec_problems,
    unfinished,
)

__all__ = [
    "BrokenModel",
    "Card",
    "Label",
    "Model",
    "Tensor",
    "broken_models",
    "find_model",
    "install_model",
    "list_models",
    "models_folder",
    "remove_model",
    "write_model",
]

_DAMAGED = "The file was changed after the model was made; get the model again from where it came."


@dataclass(frozen=True)
class Model:
    """A model folder together with its card.

    Parameters
    ----------
    folder : Path
        Where ``rdf.yaml`` lies.
    card : Card
        Its parsed, checked view.
    """

    folder: Path
    card: Card

    @classmethod
    def from_folder(cls, folder: str | Path) -> Model:
        """Read the model in ``folder``; only its card is opened.

        Raises
        ------
        LinceiError
            As `Card.from_folder` does.
        """
        return cls(Path(folder).absolute(), Card.from_folder(folder))

    @property
    def name(self) -> str:
        """What ``--model`` takes."""
        return self.card.name

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all that changes the numbers; see `Card.hash`."""
        return self.card.hash()

    @property
    def size_bytes(self) -> int:
        """Size of the model's files, in bytes."""
        paths = (self.folder / name for name in (CARD_FILE, *self.card.files))
        return sum(path.stat().st_size for path in paths if path.is_file())

    @property
    def onnx_path(self) -> Path:
        """The exported network.

        Raises
        ------
        LinceiError
            When it is not exported yet, is missing, or is not what the card says.
        """
        if self.card.onnx_file is None:
            raise unfinished(self.name)
        return self.file(self.card.onnx_file)

    def file(self, name: str) -> Path:
        """Return the path of a file of the model after checking that it is the one the card names.

        Parameters
        ----------
        name : str
            The file's name in the card.

        Raises
        ------
        LinceiError
            When the card has no such file, it is missing, lies outside the folder (by a link), or its
            SHA-256 is another.
        """
        if name not in self.card.files:
            raise LinceiError(f"the card names no file {name}", f"model {self.name}", _DAMAGED)
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise LinceiError("the file is a link out of the model's folder", str(path), _DAMAGED)
        if not path.is_file():
            raise LinceiError("the file is missing", str(path), _DAMAGED)
        expected = self.card.files[name]
        if expected is not None and sha256_of(path) != expected:
            raise LinceiError(
                "the file is not the one in the card (its SHA-256 differs)", str(path), _DAMAGED
            )
        return path

    def has_test(self) -> bool:
        """Whether the model brings a test input and at least one test output."""
        return self.card.input.test_file is not None and any(t.test_file for t in self.card.outputs)

    def has_keras(self) -> bool:
        """Whether the Keras network can be rebuilt and its weights read."""
        return NETWORK_FILE in self.card.files and KERAS_FILE in self.card.files

    def test_input(self) -> NDArray[np.float32]:
        """Return the test input, float32, shape (N, C, Y, X).

        Raises
        ------
        LinceiError
            When the model has none, or it is damaged.
        """
        if self.card.input.test_file is None:
            raise LinceiError("the model brings no test input", f"model {self.name}")
        return _load_array(self.file(self.card.input.test_file))

    def test_outputs(self) -> dict[str, NDArray[np.float32]]:
        """Return the expected outputs by name, float32; those the model brings.

        Raises
        ------
        LinceiError
            When a file is damaged.
        """
        return {
            tensor.name: _load_array(self.file(tensor.test_file))
            for tensor in self.card.outputs
            if tensor.test_file is not None
        }

    def network(self) -> dict[str, Any]:
        """Return the network configuration: ``{"builder": ..., "config": {...}}``.

        Raises
        ------
        LinceiError
            When the model has none (it came from elsewhere) or it is damaged.
        """
        if NETWORK_FILE not in self.card.files:
            raise LinceiError(
                "the model was not made by lincei, so its Keras network cannot be rebuilt",
                f"model {self.name}",
                "It can be used, but not trained further.",
            )
        path = self.file(NETWORK_FILE)
        try:
            network = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise LinceiError(f"this is not JSON ({error})", str(path), _DAMAGED) from error
        if not isinstance(network, dict) or not isinstance(network.get("config"), dict):
            raise LinceiError("the network configuration has no builder and config", str(path), _DAMAGED)
        return network

    def load_keras(self) -> Any:
        """Rebuild the Keras network from our own code and read its weights, in float32.

        Returns
        -------
        keras.Model
            NHWC in; its outputs are those of the card, in a dict by name or in the card's order.

        Raises
        ------
        LinceiError
            When Keras is not installed, the builder is not one that an installed tool declares, or the
            weights do not belong to the network.
        """
        from lincei.keras_network import keras_network

        network = self.network()
        if KERAS_FILE not in self.card.files:
            raise LinceiError("the model brings no Keras weights", f"model {self.name}")
        return keras_network(network, self.file(KERAS_FILE))


@dataclass(frozen=True)
class BrokenModel:
    """A folder that should be a model and is not.

    Parameters
    ----------
    folder : Path
        The folder.
    reason : str
        One sentence.
    """

    folder: Path
    reason: str


def models_folder() -> Path:
    """Return where models are installed: the first folder of ``LINCEI_MODELS``, or the user data folder."""
    return _user_folders()[0]


def list_models(task: str | None = None) -> list[Model]:
    """Return all models that can be found by name, in the order in which they are looked for.

    Looked for in ``LINCEI_MODELS`` (folders separated as in ``PATH``), the user data folder, and the
    weights that installed tools ship; of two with one name and task the earlier wins.

    Parameters
    ----------
    task : str, optional
        Only models of this task, one of `lincei.model_card.TASKS`.
    """
    return [model for model in models_and_broken()[0] if task in (None, model.card.task)]


def models_and_broken() -> tuple[list[Model], list[BrokenModel]]:
    """Return what `list_models` and `broken_models` do, from one reading of all cards."""
    found: dict[tuple[str, str], Model] = {}
    broken: list[BrokenModel] = []
    for entry in _scan():
        if isinstance(entry, BrokenModel):
            broken.append(entry)
        else:
            found.setdefault((entry.name, entry.card.task), entry)
    return list(found.values()), broken


def broken_models() -> list[BrokenModel]:
    """Return the folders on the search path that should be models and are not, with the reason."""
    return models_and_broken()[1]


def find_model(name_or_folder: str | Path, task: str | None = None) -> Model:
    """Return the model with this name, or in this folder.

    Parameters
    ----------
    name_or_folder : str or Path
        A name, or a path. A name wins over a folder of the same name; ``./name`` is always a folder.
    task : str, optional
        The task it must have, one of `lincei.model_card.TASKS`.

    Raises
    ------
    LinceiError
        When there is none, it is broken, or it has another task. It names what is near and what there is.
    """
    text = str(name_or_folder)
    models = list_models()
    named = [model for model in models if model.name == text]
    for model in named:
        if task in (None, model.card.task):
            return model
    if named:
        raise _wrong_task(named[0], task)
    path = Path(name_or_folder)
    if path.is_file():
        raise LinceiError(
            "this is a file, not a model folder", text, f"Install it first: lincei models install {text}"
        )
    if path.is_dir():
        model = Model.from_folder(path)
        if task not in (None, model.card.task):
            raise _wrong_task(model, task)
        return model
    for broken in broken_models():
        if broken.folder.name == text:
            raise LinceiError(f"the model is broken: {broken.reason}", str(broken.folder))
    names = [model.name for model in models if task in (None, model.card.task)]
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    there_are = f"There are: {', '.join(names)}." if names else "No model is installed yet."
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise LinceiError(f"there is no model {text!r}", "", hint + there_are)


def write_model(
    folder: str | Path,
    card: Card,
    *,
    onnx: bytes | Path | None = None,
    keras_weights: Path | None = None,
    network: Mapping[str, Any] | None = None,
    test_input: NDArray[Any] | None = None,
    test_outputs: Mapping[str, NDArray[Any]] | None = None,
    readme: str = "",
    cover: bytes | None = None,
    metrics: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Model:
    """Write a complete model folder; under its final name it is there as a whole or not at all.

    Parameters
    ----------
    folder : str or Path
        The model's folder. Its parent is made where it is missing.
    card : Card
        The card; its files, date, version and operator set are filled in here.
    onnx : bytes or Path, optional
        The exported network, NCHW. None leaves the model unfinished
        (`lincei.model_exchange.finish_model` exports it later).
    keras_weights : Path, optional
        Weights saved by ``keras.Model.save_weights`` (``.weights.h5``) from the network that the builder
        returns; copied.
    network : mapping, optional
        ``{"builder": "package.network:function", "config": {...}}``.
    test_input : ndarray, optional
        Shape (N, C, Y, X); Y and X are at least the card's smallest size.
    test_outputs : mapping of str to ndarray, optional
        What the network answers to it, by the outputs' names.
    readme : str
        The card in prose, Markdown, with a section "Validation"; made from the card when left empty.
    cover : bytes, optional
        A picture of what the model does, as a PNG file.
    metrics : mapping, optional
        Figures in machine-readable form; JSON-able.
    replace : bool
        Whether a model that lies there already is replaced.

    Returns
    -------
    Model
        The model as it was read back.

    Raises
    ------
    LinceiError
        When something else lies at ``folder``, the network's inputs and outputs are not those of the
        card, the test does not fit the card, or the BioImage.IO specification finds a problem.
    """
    folder = Path(folder).absolute()
    check_target(folder, replace=replace)
    with _staged(folder) as staging:
        files: dict[str, str | None] = {}
        onnx_file: str | None = None
        opset = card.opset
        if onnx is not None:
            from lincei.onnx_check import check_onnx

            content = onnx if isinstance(onnx, bytes) else onnx.read_bytes()
            opset = check_onnx(content, card, f"model {card.name}")
            (staging / ONNX_FILE).write_bytes(content)
            onnx_file = ONNX_FILE
        if keras_weights is not None:
            shutil.copyfile(keras_weights, staging / KERAS_FILE)
        if network is not None:
            _write_json(staging / NETWORK_FILE, network)
        if metrics is not None:
            _write_json(staging / METRICS_FILE, metrics)
        if cover is not None:
            (staging / COVER_FILE).write_bytes(cover)
        (staging / README_FILE).write_text(readme or default_readme(card), "utf-8")
        stack, outputs = _write_test(staging, card, test_input, test_outputs or {})
        for path in sorted(staging.iterdir()):
            files[path.name] = None if path.name == README_FILE else sha256_of(path)
        written = dataclasses.replace(
            card,
            input=stack,
            outputs=outputs,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            lincei_version=lincei.__version__,
            onnx_file=onnx_file,
            opset=opset,
            files=files,
        )
        write_card(staging, written)
        _put_in_place(staging, folder, replace=replace)
    return Model.from_folder(folder)


def install_model(source: str | Path, *, name: str | None = None, replace: bool = False) -> Model:
    """Install a model from a zip archive or a folder; afterwards it is found by its name.

    Only ``rdf.yaml`` and the files that it names are taken, each checked by its SHA-256.

    Parameters
    ----------
    source : str or Path
        A ``.zip`` or a model folder.
    name : str, optional
        Another name for it.
    replace : bool
        Whether an installed model of that name is replaced.

    Raises
    ------
    LinceiError
        When the archive is not safe to unpack, the model is damaged or invalid, or the name is taken.
    """
    from lincei.model_archive import check_files, unpack_model

    source = Path(source)
    with contextlib.ExitStack() as stack:
        if source.is_dir():
            model = Model.from_folder(source)
        elif source.is_file():
            unpacked = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lincei-model-")))
            model = Model.from_folder(unpack_model(source, unpacked))
        else:
            raise LinceiError("there is no such file or folder", str(source))
        check_files(model)
        card = model.card if name is None else dataclasses.replace(model.card, name=name)
        target = models_folder() / card.name
        check_target(target, replace=replace)
        with _staged(target) as staging:
            for file_name in card.files:
                copy = staging / file_name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model.file(file_name), copy)
            write_card(staging, card)
            _put_in_place(staging, target, replace=replace)
    return Model.from_folder(target)


def remove_model(name: str) -> Path:
    """Delete an installed model; shipped ones stay.

    Returns
    -------
    Path
        The folder that is gone.

    Raises
    ------
    LinceiError
        When there is no such model among those the user installed.
    """
    for root in _user_folders():
        for entry in _entries(root):
            entry_name = entry.name if isinstance(entry, Model) else entry.folder.name
            if entry_name == name and entry.folder != root:
                # Renamed first, so that an interruption leaves no half model under its name.
                gone = entry.folder.with_name(f".{entry.folder.name}.{uuid.uuid4().hex}.removed")
                try:
                    entry.folder.rename(gone)
                except OSError as error:
                    raise LinceiError(f"the model cannot be removed ({error})", str(entry.folder)) from error
                shutil.rmtree(gone, ignore_errors=True)
                return entry.folder
    shipped = [model for model in list_models() if model.name == name]
    if shipped:
        raise LinceiError(f"the model {name!r} came with the program and stays", str(shipped[0].folder))
    raise LinceiError(f"there is no installed model {name!r}", str(models_folder()))


def write_card(folder: Path, card: Card) -> None:
    """Write ``rdf.yaml`` into ``folder``, checked against the BioImage.IO specification.

    An unfinished model has no weights that the specification knows; it is checked when it is finished.

    Raises
    ------
    LinceiError
        When the specification finds a problem.
    """
    import yaml

    rdf = card.to_rdf()
    problems = spec_problems(rdf) if card.finished else []
    if problems:
        raise LinceiError(
            f"the card is no valid BioImage.IO description: {problems[0]}",
            f"model {card.name}",
            "Correct the card.",
        )
    text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=100)
    temporary = folder / f".{CARD_FILE}.partial"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / CARD_FILE)


def _user_folders() -> list[Path]:
    """Return the folders that belong to the user, the first of which takes new models."""
    import platformdirs

    named = [Path(part) for part in os.environ.get("LINCEI_MODELS", "").split(os.pathsep) if part]
    return [*named, platformdirs.user_data_path("lincei", appauthor=False) / "models"]


def _shipped_folders() -> list[Path]:
    """Return ``weights`` of each installed tool, found without importing the tool."""
    folders: list[Path] = []
    for entry_point in importlib.metadata.entry_points(group="lincei.tools"):
        package = entry_point.value.partition(":")[0].partition(".")[0]
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            continue
        locations = spec.submodule_search_locations if spec is not None else None
        folders.extend(Path(location) / "weights" for location in locations or ())
    return folders


def _scan() -> Iterator[Model | BrokenModel]:
    """Yield what lies on the search path, each folder once."""
    seen: set[Path] = set()
    for root in (*_user_folders(), *_shipped_folders()):
        if root.absolute() not in seen:
            seen.add(root.absolute())
            yield from _entries(root)


def _entries(root: Path) -> Iterator[Model | BrokenModel]:
    """Yield the models in one folder of the search path, which may be a model itself."""
    try:
        if (root / CARD_FILE).is_file():
            folders = [root]
        else:
            folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))
    except OSError:
        return
    for folder in folders:
        if not any((folder / name).is_file() for name in (CARD_FILE, ONNX_FILE, NETWORK_FILE)):
            continue
        try:
            model = Model.from_folder(folder)
            missing = [name for name in model.card.files if not (folder / name).is_file()]
            if missing:
                yield BrokenModel(folder, f"the file {missing[0]} is missing")
            elif not model.card.finished:
                yield BrokenModel(folder, f"unfinished; finish it with: lincei models finish {folder}")
            else:
                yield model
        except (LinceiError, OSError) as error:
            yield BrokenModel(folder, error.what if isinstance(error, LinceiError) else str(error))


def _wrong_task(model: Model, task: str | None) -> LinceiError:
    return LinceiError(
        f"the model {model.name!r} is for another task ({model.card.task}, not {task})",
        str(model.folder),
        f"`lincei models list --task {task}` shows those that fit.",
    )


def check_target(folder: Path, *, replace: bool) -> None:
    """Refuse to write a model over anything but a model, and over a model unless asked to.

    Raises
    ------
    LinceiError
        When something else lies at ``folder``, or a model that is not to be replaced.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and not folder.is_symlink():
        if not any(folder.iterdir()):
            return
        if not (folder / CARD_FILE).is_file():
            raise LinceiError(
                "the folder holds other files", str(folder), "Name a folder that does not exist yet."
            )
        if replace:
            return
        raise LinceiError(
            "there is a model already", str(folder), "Choose another name, or ask for it to be replaced."
        )
    raise LinceiError("this is not a folder", str(folder), "Name a folder that does not exist yet.")


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``, on the same file system, that goes away if left there."""
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise LinceiError(
            f"the folder cannot be written ({error.strerror})", str(folder.parent), "Choose another place."
        ) from error
    try:
        yield staging
    except OSError as error:
        raise LinceiError(
            f"the model cannot be written ({error.strerror or error})",
            str(folder),
            "Make room or choose another place.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, folder: Path, *, replace: bool) -> None:
    """Rename the finished folder; an old model is put aside first and comes back when that fails."""
    check_target(folder, replace=replace)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.replaced")
    moved = folder.exists()
    if moved:
        folder.rename(aside)
    try:
        staging.rename(folder)
    except OSError:
        if moved:
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write_test(
    staging: Path,
    card: Card,
    test_input: NDArray[Any] | None,
    test_outputs: Mapping[str, NDArray[Any]],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Write the test arrays and return the tensors with their files' names."""
    where = f"model {card.name}"
    if test_input is None:
        return (
            dataclasses.replace(card.input, test_file=None),
            tuple(dataclasses.replace(tensor, test_file=None) for tensor in card.outputs),
        )
    check_size(card, test_input.shape)
    if min(test_input.shape[2:]) < card.smallest_size_px:
        raise LinceiError(
            f"the test input is {test_input.shape[2]} x {test_input.shape[3]} pixels, smaller than the "
            f"smallest size that the card offers ({card.smallest_size_px})",
            where,
            "Give a larger test input or set min_size_px.",
        )
    for name in test_outputs:
        card.output(name)
    outputs = []
    for tensor in card.outputs:
        expected = test_outputs.get(tensor.name)
        if expected is not None:
            shape: tuple[int, ...] = (test_input.shape[0], len(tensor.channels))
            if tensor.downsampling is not None:
                shape += tuple(size // tensor.downsampling for size in test_input.shape[2:])
            if expected.shape != shape:
                raise LinceiError(
                    f"the test output {tensor.name!r} has shape {expected.shape}, not {shape}", where
                )
        file_name = f"test_output_{tensor.name}.npy" if expected is not None else None
        if expected is not None and file_name is not None:
            np.save(staging / file_name, np.ascontiguousarray(expected, dtype=np.float32), allow_pickle=False)
        outputs.append(dataclasses.replace(tensor, test_file=file_name))
    np.save(staging / TEST_INPUT_FILE, np.ascontiguousarray(test_input, dtype=np.float32), allow_pickle=False)
    return dataclasses.replace(card.input, test_file=TEST_INPUT_FILE), tuple(outputs)


def _load_array(path: Path) -> NDArray[np.float32]:
    """Load an array that holds numbers, never pickled objects."""
    try:
        # A map refuses pickled objects, and a header that promises more than the file holds.
        array = np.array(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise LinceiError(f"the array cannot be read ({error})", str(path), _DAMAGED) from error
    if array.dtype != np.float32:
        raise LinceiError(f"this is an array of {array.dtype}, not of float32", str(path), _DAMAGED)
    return array


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def default_readme(card: Card) -> str:
    """Return the documentation of a model for which nobody wrote any."""
    return f"# {card.name}\n\n{card.description}\n\n## Validation\n\n```\n{card.summary()}\n```\n"


def check_task(task: str | None) -> None:
    """Check the name of a task.

    Raises
    ------
    UsageError
        When there is no such task.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"there is no task {task!r}", "", f"Choose from: {', '.join(TASKS)}.")
