"""The card of a model: a typed, checked view of its BioImage.IO description (``rdf.yaml``)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lincei.errors import LinceiError

FORMAT_VERSION = 1
TASKS = ("label", "focus", "tumor")
Z_OUTPUTS = ("projected", "kept")
CARD_FILE = "rdf.yaml"
README_FILE = "README.md"
COVER_FILE = "cover.png"
ONNX_FILE = "weights.onnx"
KERAS_FILE = "weights.weights.h5"
NETWORK_FILE = "network.json"
METRICS_FILE = "metrics.json"
TEST_INPUT_FILE = "test_input.npy"

# Readable by every release of bioimageio.spec 0.5 that other programs ship today.
_RDF_FORMAT_VERSION = "0.5.4"
_CARD_BYTES_MAX = 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")
_TENSOR_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Label:
    """One stain that a model predicts.

    Parameters
    ----------
    name : str
        What the user calls it, such as ``"DAPI"``.
    color : str
        Display color, ``"#RRGGBB"``.
    background_percentile, bright_percentile : float or None
        The percentiles (0 to 100) of a truth image that are 0 and 1 on the normalized scale.
    curve : str
        How the scale runs between them: ``"linear"``, or a tool's own name of another curve.
    """

    name: str
    color: str = "#FFFFFF"
    background_percentile: float | None = None
    bright_percentile: float | None = None
    curve: str = "linear"


@dataclass(frozen=True)
class Tensor:
    """One input or output of the network, NCHW (or NC), float32.

    Parameters
    ----------
    name : str
        Its name in the ONNX file: lower-case letters, digits and underscores.
    channels : tuple of str
        One name per channel.
    description : str
        At most 128 characters.
    downsampling : int or None
        How many input pixels one pixel of this output spans along y and x; None for an output
        without y and x. Always 1 for the input.
    test_file : str or None
        The array that belongs to the model's test, relative to its folder.
    """

    name: str
    channels: tuple[str, ...]
    description: str = ""
    downsampling: int | None = 1
    test_file: str | None = None


@dataclass(frozen=True)
class Card:
    """What a model is, what it expects, and how good it is.

    A card is made by a training (`lincei.model.write_model` adds the files) or read with `from_folder`.

    Parameters
    ----------
    name : str
        What ``--model`` takes: letters, digits, ``_``, ``+`` and ``-``.
    task : str
        One of ``TASKS``.
    description : str
        One or two sentences for a person.
    modality : str
        The modality of the input, one of `lincei.image.MODALITIES`.
    input : Tensor
        The network's only input. Its channels are the z planes of a gray stack, or red, green, blue.
    outputs : tuple of Tensor
        The network's outputs; the first is what other BioImage.IO programs show.
    total_stride : int
        Height and width of an input are multiples of it, and so are origins of tiles, in pixels.
    halo_px : int
        Input pixels at a tile's border whose output depends on what lies outside the tile.
    min_size_px : int or None
        The smallest height and width other programs should use. By default the smallest multiple of
        ``total_stride`` that the halo leaves something of.
    labels : tuple of Label
        What is predicted (``task`` "label").
    z_planes : int
        How many z planes one input has.
    z_step_um : float or None
        Distance of these planes in micrometers; None where it is unknown.
    z_output : str
        ``"projected"`` (one plane out) or ``"kept"``.
    pixel_size_um : float or None
        Pixel size of the input in micrometers; None where it is unknown (nothing is resampled then).
    distribution, recalibration, out_of_distribution, settings, training, figures : mapping
        JSON-able sections: the predictive distribution (``kind`` and its components), its
        recalibration, what the images look like that it was trained on (so that others are recognized;
        empty where that was not measured), what else the tool needs to use the network, how it was
        trained (command, data, split, license of the data, date, backend), and what was measured on test.
    license : str
        SPDX identifier of the license of the weights; empty where it is unknown.
    authors : tuple of str
        Names.
    citations : tuple of (str, str)
        Text and DOI of the works to cite.
    created : str
        Date and time, ISO 8601; filled in when the model is written.
    lincei_version : str
        The version that wrote the model.
    onnx_file : str or None
        The exported network, relative to the folder; None while a training done without TensorFlow is
        unfinished.
    opset : int
        ONNX operator set of the exported network.
    files : mapping of str to (str or None)
        Every file that belongs to the model and its SHA-256 (None for the documentation).

    Raises
    ------
    LinceiError
        When a field has no meaning; it names the field and what is allowed.
    """

    name: str
    task: str
    description: str
    modality: str
    input: Tensor
    outputs: tuple[Tensor, ...]
    total_stride: int
    halo_px: int
    min_size_px: int | None = None
    labels: tuple[Label, ...] = ()
    z_planes: int = 1
    z_step_um: float | None = None
    z_output: Literal["projected", "kept"] = "projected"
    pixel_size_um: float | None = None
    distribution: Mapping[str, Any] = field(default_factory=dict)
    recalibration: Mapping[str, Any] = field(default_factory=dict)
    out_of_distribution: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    license: str = "CC-BY-4.0"
    authors: tuple[str, ...] = ("The lincei developers",)
    citations: tuple[tuple[str, str], ...] = ()
    created: str = ""
    lincei_version: str = ""
    onnx_file: str | None = None
    opset: int = 18
    files: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # An int and a float of one value must not give two hashes.
        for name in ("pixel_size_um", "z_step_um"):
            if isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))
        for problem in self._problems():
            raise LinceiError(problem, f"card of model {self.name!r}", "Correct the card.")

    def _problems(self) -> Iterator[str]:
        """Yield what makes the card meaningless, the worst first."""
        from lincei.image import MODALITIES

        if not _NAME.fullmatch(self.name):
            yield "a name has 1 to 64 letters, digits, '_', '+' or '-' and begins with a letter or digit"
        for name, value, allowed in (
            ("task", self.task, TASKS),
            ("modality", self.modality, MODALITIES),
            ("z_output", self.z_output, Z_OUTPUTS),
        ):
            if value not in allowed:
                yield f"{name} is {value!r}, not one of: {', '.join(allowed)}"
        for name, number, least in (
            ("total_stride", self.total_stride, 1),
            ("halo_px", self.halo_px, 0),
            ("z_planes", self.z_planes, 1),
            ("min_size_px", self.min_size_px, 1),
        ):
            whole = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (whole and number >= least):
                yield f"{name} is {number!r}, not a whole number of at least {least}"
        if self.min_size_px is not None and self.min_size_px % self.total_stride:
            yield f"min_size_px ({self.min_size_px}) is not a multiple of total_stride ({self.total_stride})"
        for name, length in (("pixel_size_um", self.pixel_size_um), ("z_step_um", self.z_step_um)):
            if length is not None and not (math.isfinite(length) and length > 0):
                yield f"{name} is {length!r}, not a length above 0 (or null where it is unknown)"
        yield from self._tensor_problems()
        for label in self.labels:
            if not label.name or not _COLOR.fullmatch(label.color):
                yield f"label {label.name!r} needs a name and a color such as '#0000FF', not {label.color!r}"
            low, high = label.background_percentile, label.bright_percentile
            if (low is None) != (high is None) or (
                low is not None and high is not None and not 0 <= low < high <= 100
            ):
                yield f"the percentiles of label {label.name!r} are {low!r} and {high!r}"
        if len({label.name for label in self.labels}) != len(self.labels):
            yield "two labels have one name"
        if self.task == "label" and not self.labels:
            yield "a model that labels needs at least one label"
        if len(self.description) > 1024:
            yield "the description is longer than 1024 characters"
        sections = ("distribution", "recalibration", "out_of_distribution", "settings", "training", "figures")
        for name in sections:
            try:
                json.dumps(getattr(self, name), allow_nan=False)
            except (TypeError, ValueError) as error:
                yield f"the section {name} holds what JSON cannot ({error})"

    def _tensor_problems(self) -> Iterator[str]:
        """Yield what is wrong with the descriptions of input and outputs."""
        tensors = (self.input, *self.outputs)
        if not self.outputs:
            yield "the network has no output"
        if len({tensor.name for tensor in tensors}) != len(tensors):
            yield "two tensors have one name"
        if self.input.downsampling != 1:
            yield "the input's downsampling is always 1"
        for tensor in tensors:
            if not _TENSOR_NAME.fullmatch(tensor.name):
                yield f"the tensor name {tensor.name!r} is not made of lower-case letters, digits and '_'"
            if not tensor.channels or not all(tensor.channels):
                yield f"the tensor {tensor.name!r} needs a name for each of its channels"
            if tensor.downsampling is not None and tensor.downsampling < 1:
                yield f"the downsampling of {tensor.name!r} is {tensor.downsampling!r}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities of the input that the model learned from; `modality` is the first."""
        return (self.modality, *(str(name) for name in self.settings.get("other_modalities", ())))

    @property
    def finished(self) -> bool:
        """Whether the network has been exported, so that an engine can run it."""
        return self.onnx_file is not None

    @property
    def smallest_size_px(self) -> int:
        """Smallest height and width that the description offers to other programs, in pixels."""
        if self.min_size_px is not None:
            return self.min_size_px
        return self.total_stride * (2 * self.halo_px // self.total_stride + 1)

    def output(self, name: str) -> Tensor:
        """Return the output called ``name``.

        Raises
        ------
        LinceiError
            When the network has no such output; it lists those that there are.
        """
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor
        names = ", ".join(tensor.name for tensor in self.outputs)
        raise LinceiError(f"the network has no output {name!r}", f"model {self.name}", f"There are: {names}.")

    def hash(self) -> str:
        """Return a SHA-256 of all that changes the numbers: the network and the fields used with it.

        Raises
        ------
        LinceiError
            When the network is not exported yet.
        """
        if self.onnx_file is None:
            raise unfinished(self.name)
        parts = {
            "onnx_sha256": self.files[self.onnx_file],
            "task": self.task,
            "input": [self.input.name, list(self.input.channels)],
            "outputs": [[t.name, list(t.channels), t.downsampling] for t in self.outputs],
            "labels": [
                [label.name, *(None if p is None else float(p) for p in _percentiles(label))]
                for label in self.labels
            ],
            "total_stride": self.total_stride,
            "halo_px": self.halo_px,
            "z": [self.z_planes, self.z_step_um, self.z_output],
            "pixel_size_um": self.pixel_size_um,
            "distribution": self.distribution,
            "recalibration": self.recalibration,
            "settings": self.settings,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def summary(self) -> str:
        """Return the card as lines for a person."""
        pixel = "unknown" if self.pixel_size_um is None else f"{self.pixel_size_um:g} um"
        planes = f"{self.z_planes} z plane{'s' if self.z_planes > 1 else ''}"
        if self.z_planes > 1:
            step = "unknown" if self.z_step_um is None else f"{self.z_step_um:g} um"
            planes += f", z step {step}, z {self.z_output} in the output"
        rows = [
            ("Model", f"{self.name} ({self.task})"),
            ("Description", self.description),
            ("Input", f"{' or '.join(self.modalities)}, {planes}, pixel size {pixel}"),
            ("Outputs", ", ".join(f"{t.name} ({len(t.channels)})" for t in self.outputs)),
            ("Labels", ", ".join(label.name for label in self.labels)),
            ("Distribution", str(self.distribution.get("kind", ""))),
            *((f"Trained: {key}", _plain(value)) for key, value in self.training.items()),
            *((f"Measured: {key}", _plain(value)) for key, value in self.figures.items()),
            ("License", self.license),
            ("Cite", "; ".join(f"{text} (doi:{doi})" for text, doi in self.citations)),
            ("Written", f"{self.created} by lincei {self.lincei_version}" if self.created else ""),
            ("State", "" if self.finished else "unfinished: the network is not exported yet"),
            ("Use", "Research use only."),
        ]
        return "\n".join(f"{title + ':':<22} {text}" for title, text in rows if text)

    def to_rdf(self) -> dict[str, Any]:
        """Return the card as the content of ``rdf.yaml`` (BioImage.IO model description 0.5)."""
        config = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "task": self.task,
            "modality": self.modality,
            "labels": [dataclasses.asdict(label) for label in self.labels],
            "z_planes": self.z_planes,
            "z_step_um": self.z_step_um,
            "z_output": self.z_output,
            "pixel_size_um": self.pixel_size_um,
            "total_stride": self.total_stride,
            "halo_px": self.halo_px,
            "min_size_px": self.min_size_px,
            "distribution": _copied(self.distribution),
            "recalibration": _copied(self.recalibration),
            "out_of_distribution": _copied(self.out_of_distribution),
            "settings": _copied(self.settings),
            "training": _copied(self.training),
            "figures": _copied(self.figures),
            "lincei_version": self.lincei_version,
        }
        tensor_files = {tensor.test_file for tensor in (self.input, *self.outputs)}
        attachments = [
            {"source": name, "sha256": sha256}
            for name, sha256 in self.files.items()
            if name != self.onnx_file and name not in tensor_files and sha256 is not None
        ]
        weights = {}
        if self.onnx_file is not None:
            weights["onnx"] = {
                "source": self.onnx_file,
                "sha256": self.files[self.onnx_file],
                "opset_version": self.opset,
            }
        rdf: dict[str, Any] = {
            "type": "model",
            "format_version": _RDF_FORMAT_VERSION,
            # BioImage.IO asks for at least five characters, a user may be shorter.
            "name": self.name if len(self.name) >= 5 else f"model {self.name}",
            "description": self.description,
            "authors": [{"name": name} for name in self.authors],
            "tags": [self.task, self.modality, *(label.name for label in self.labels)],
            "cite": [{"text": text, "doi": doi} for text, doi in self.citations],
            "inputs": [self._tensor_rdf(self.input, is_input=True)],
            "outputs": [self._tensor_rdf(tensor, is_input=False) for tensor in self.outputs],
            "weights": weights,
            "attachments": attachments,
            "config": {"lincei": config},
        }
        if README_FILE in self.files:
            rdf["documentation"] = README_FILE
        if COVER_FILE in self.files:
            rdf["covers"] = [COVER_FILE]
        if self.license:
            rdf["license"] = self.license
        if self.created:
            rdf["timestamp"] = self.created
        return rdf

    def _tensor_rdf(self, tensor: Tensor, *, is_input: bool) -> dict[str, Any]:
        """Describe one tensor; the pixel size goes into the scale of y and x."""
        axes: list[dict[str, Any]] = [
            {"type": "batch"},
            {"type": "channel", "id": "channel", "channel_names": list(tensor.channels)},
        ]
        # Other programs crop the halo from their tiles, so it must leave something of the smallest one.
        halo_px = min(self.halo_px, (self.smallest_size_px - 1) // 2)
        scale = self.pixel_size_um or 1.0
        # The specification computes the input's halo back from these two and wants it whole to the last bit.
        while not (halo_px * scale / scale).is_integer():
            halo_px -= 1
        for axis in ("y", "x") if tensor.downsampling is not None else ():
            downsampling = tensor.downsampling or 1
            entry: dict[str, Any] = {"type": "space", "id": axis}
            if is_input:
                entry["size"] = {"min": self.smallest_size_px, "step": self.total_stride}
            else:
                entry["size"] = {"tensor_id": self.input.name, "axis_id": axis}
                if downsampling == 1 and halo_px:
                    entry["halo"] = halo_px
            if self.pixel_size_um is not None:
                entry["unit"] = "micrometer"
            entry["scale"] = float(scale * downsampling)
            axes.append(entry)
        rdf: dict[str, Any] = {
            "id": tensor.name,
            "description": tensor.description,
            "axes": axes,
            "data": {"type": "float32"},
        }
        if tensor.test_file is not None:
            rdf["test_tensor"] = {"source": tensor.test_file, "sha256": self.files.get(tensor.test_file)}
        return rdf

    @classmethod
    def from_folder(cls, folder: str | Path) -> Card:
        """Read and check the card of a model folder; no file but ``rdf.yaml`` is opened.

        Raises
        ------
        LinceiError
            When there is no ``rdf.yaml``, it cannot be read, is not a lincei model, or refers to a file
            out of the folder or without its SHA-256.
        """
        path = Path(folder) / CARD_FILE
        rdf = read_rdf(path)
        config = rdf.get("config", {}).get("lincei") if isinstance(rdf.get("config"), dict) else None
        if rdf.get("type") != "model" or not isinstance(config, dict):
            raise LinceiError(
                "this is a BioImage.IO description without a lincei section",
                str(path),
                "Bring its network in with `lincei models import`, which asks for what is missing.",
            )
        if config.get("format") != FORMAT_VERSION:
            raise LinceiError(
                f"the model has format {config.get('format')!r}, this lincei reads {FORMAT_VERSION}",
                str(path),
                "Update lincei, or ask for the model in this format.",
            )
        try:
            return _card_from_rdf(rdf, config)
        except LinceiError as error:
            raise LinceiError(error.what, str(path), error.what_to_do) from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise LinceiError(
                f"the card is damaged ({what})", str(path), "Get the model again from where it came."
            ) from error


def unfinished(name: str) -> LinceiError:
    """Return the error for a model whose network is not exported yet."""
    return LinceiError(
        "the network is not exported yet (it was trained without TensorFlow)",
        f"model {name}",
        "Finish it where TensorFlow is installed: lincei models finish FOLDER.",
    )


def read_rdf(path: Path) -> dict[str, Any]:
    """Read a description without building any Python object that YAML tags could name.

    Aliases are refused too: a short file of nested ones grows without end when it is walked.

    Raises
    ------
    LinceiError
        When the file is missing, too large, not UTF-8, not YAML, or not a mapping.
    """
    import yaml

    # The compiled one is ten times as fast, and every search for a model reads all cards.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    hint = "Get the model again from where it came."
    try:
        if path.stat().st_size > _CARD_BYTES_MAX:
            raise LinceiError("the description is larger than 1 MiB", str(path), hint)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LinceiError(
            f"there is no {path.name}", str(path.parent), "A model is a folder with an rdf.yaml."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise LinceiError(f"the description cannot be read ({error})", str(path), hint) from error
    try:
        if any(isinstance(event, yaml.events.AliasEvent) for event in yaml.parse(text, loader)):
            raise LinceiError("the description has YAML aliases, which a model never needs", str(path), hint)
        rdf = yaml.load(text, loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LinceiError(f"the description is not valid YAML ({first})", str(path), hint) from error
    if not isinstance(rdf, dict):
        raise LinceiError("the description is not a mapping", str(path), hint)
    return rdf


def spec_problems(rdf: Mapping[str, Any]) -> list[str]:
    """Return what the BioImage.IO specification finds wrong, as sentences; empty when it is valid.

    Only the format is checked, nothing is downloaded and no address is asked for.
    """
    from bioimageio.spec import ValidationContext, validate_format

    context = ValidationContext(perform_io_checks=False, log_warnings=False, progressbar=False)
    summary = validate_format(json.loads(json.dumps(rdf)), context=context)
    return [
        f"{'.'.join(str(part) for part in error.loc)}: {error.msg}"
        for detail in summary.details
        for error in detail.errors
    ]


def checked_reference(name: Any, where: str = "") -> str:
    """Return a file's name when it is a plain relative path that stays in the model's folder.

    Raises
    ------
    LinceiError
        For absolute paths, parent folders, drive letters, addresses, backslashes, and names that some
        operating system treats in a special way.
    """
    text = name if isinstance(name, str) else ""
    parts = PurePosixPath(text).parts
    bad = (
        not parts
        or text.startswith(("/", "~"))
        or any(character in text for character in '\\:*?"<>|')
        or any(ord(character) < 32 for character in text)
        or any(part in ("..", ".") or part != part.strip(" ").rstrip(".") for part in text.split("/"))
        or "" in text.split("/")
        or any(_is_device_name(part) for part in parts)
    )
    if bad:
        raise LinceiError(
            f"the file name {name!r} does not stay in the model's folder",
            where,
            "Do not use this model; ask who made it.",
        )
    return text


def _is_device_name(part: str) -> bool:
    """Whether Windows would open a device instead of a file."""
    stem = part.split(".")[0].upper()
    return stem in {"CON", "PRN", "AUX", "NUL"} or bool(re.fullmatch(r"(COM|LPT)[0-9]", stem))


def _card_from_rdf(rdf: Mapping[str, Any], config: Mapping[str, Any]) -> Card:
    """Build the card; the caller turns what is missing into one sentence."""
    files: dict[str, str | None] = {}
    if rdf.get("documentation") is not None:
        documentation = rdf["documentation"]
        source = documentation["source"] if isinstance(documentation, dict) else documentation
        files[checked_reference(source)] = None

    def reference(entry: Mapping[str, Any]) -> str:
        name = checked_reference(entry["source"])
        sha256 = entry.get("sha256")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"the file {name} has no valid sha256")
        files[name] = sha256
        return name

    inputs: Sequence[Any] = rdf["inputs"]
    if len(inputs) != 1:
        raise ValueError(f"the network has {len(inputs)} inputs, not one")
    stack = _tensor_from_rdf(inputs[0], None, reference)
    outputs = tuple(_tensor_from_rdf(entry, inputs[0], reference) for entry in rdf["outputs"])
    onnx = (rdf.get("weights") or {}).get("onnx")
    if onnx is not None and onnx.get("external_data") is not None:
        raise ValueError("the network keeps its weights in another file")
    onnx_file = reference(onnx) if onnx is not None else None
    for key in ("attachments", "covers"):
        for entry in rdf.get(key) or []:
            if isinstance(entry, dict):
                reference(entry)
            else:
                files[checked_reference(entry)] = None
    pixel_size_um = config["pixel_size_um"]
    return Card(
        name=config["name"],
        task=config["task"],
        description=str(rdf.get("description", "")),
        modality=config["modality"],
        input=stack,
        outputs=outputs,
        total_stride=config["total_stride"],
        halo_px=config["halo_px"],
        min_size_px=config.get("min_size_px"),
        labels=tuple(
            Label(
                str(label["name"]),
                str(label["color"]),
                _number(label.get("background_percentile")),
                _number(label.get("bright_percentile")),
                str(label.get("curve", "linear")),
            )
            for label in config["labels"]
        ),
        z_planes=config["z_planes"],
        z_step_um=_number(config["z_step_um"]),
        z_output=config["z_output"],
        pixel_size_um=_number(pixel_size_um),
        distribution=dict(config.get("distribution") or {}),
        recalibration=dict(config.get("recalibration") or {}),
        out_of_distribution=dict(config.get("out_of_distribution") or {}),
        settings=dict(config.get("settings") or {}),
        training=dict(config.get("training") or {}),
        figures=dict(config.get("figures") or {}),
        license=str(rdf.get("license", "")),
        authors=tuple(str(author["name"]) for author in rdf.get("authors") or []),
        citations=tuple((str(c["text"]), str(c.get("doi", ""))) for c in rdf.get("cite") or []),
        created=str(rdf.get("timestamp", "")),
        lincei_version=str(config.get("lincei_version", "")),
        onnx_file=onnx_file,
        opset=int(onnx["opset_version"]) if onnx is not None else Card.opset,
        files=files,
    )


def _tensor_from_rdf(
    entry: Mapping[str, Any],
    reference_input: Mapping[str, Any] | None,
    reference: Callable[[Mapping[str, Any]], str],
) -> Tensor:
    """Read one tensor; the downsampling of an output is the ratio of its scale to the input's."""
    axes = {axis.get("id", axis["type"]): axis for axis in entry["axes"]}
    downsampling: int | None = None
    if "y" in axes and "x" in axes:
        downsampling = 1
        if reference_input is not None:
            scales = {axis.get("id"): axis.get("scale", 1.0) for axis in reference_input["axes"]}
            downsampling = round(axes["y"].get("scale", 1.0) / scales["y"])
    if list(axes) != ["batch", "channel"] + (["y", "x"] if downsampling is not None else []):
        raise ValueError(f"the axes of {entry['id']!r} are {list(axes)}, not batch, channel, y, x")
    test = entry.get("test_tensor")
    return Tensor(
        name=str(entry["id"]),
        channels=tuple(str(name) for name in axes["channel"]["channel_names"]),
        description=str(entry.get("description", "")),
        downsampling=downsampling,
        test_file=reference(test) if test is not None else None,
    )


def _percentiles(label: Label) -> tuple[float | None, float | None]:
    return label.background_percentile, label.bright_percentile


def _number(value: Any) -> float | None:
    """Return a float, or None for null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _copied(section: Mapping[str, Any]) -> Any:
    """Return a deep copy of plain JSON types: YAML would write shared parts as aliases."""
    return json.loads(json.dumps(section))


def _plain(value: Any) -> str:
    """Return a section's value as short text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_size(card: Card, shape: Sequence[int]) -> None:
    """Check that an input's shape suits the network.

    Parameters
    ----------
    card : Card
        The card of the network.
    shape : sequence of int
        (N, C, Y, X).

    Raises
    ------
    LinceiError
        When the number of dimensions or channels differs, or Y or X is no multiple of the stride.
    """
    where = f"model {card.name}"
    if len(shape) != 4 or shape[1] != len(card.input.channels):
        raise LinceiError(
            f"the network takes arrays of shape (N, {len(card.input.channels)}, Y, X), not {tuple(shape)}",
            where,
        )
    if shape[2] % card.total_stride or shape[3] % card.total_stride or 0 in shape:
        raise LinceiError(
            f"height and width must be multiples of the network's stride, {card.total_stride} pixels, "
            f"not {shape[2]} x {shape[3]}",
            where,
            "Pad the image, or cut it into tiles that are multiples of the stride.",
        )
