"""Archives of unknown origin: good ones install, hostile ones write and run nothing."""

from __future__ import annotations

import io
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy_models import convolution_onnx, write_toy

from lincei import model_archive
from lincei.errors import LinceiError
from lincei.model import Model, install_model
from lincei.model_archive import pack_model, unpack_model
from lincei.model_card import sha256_of

Edit = Callable[[zipfile.ZipFile], None]


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return write_toy(tmp_path / "source")


def with_entry(model: Model, archive: Path, name: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    """Pack a good model and add one entry."""
    pack_model(model, archive)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(name, content)
    return archive


def with_file(model: Model, archive: Path, name: str, content: bytes) -> Path:
    """Pack a model one of whose files was exchanged, with a card whose SHA-256 fits."""
    (model.folder / name).write_bytes(content)
    rdf_path = model.folder / "rdf.yaml"
    rdf = yaml.safe_load(rdf_path.read_text(encoding="utf-8"))
    entries = [*rdf["attachments"], rdf["weights"]["onnx"]]
    entries += [tensor["test_tensor"] for tensor in (*rdf["inputs"], *rdf["outputs"])]
    for entry in entries:
        if entry["source"] == name:
            entry["sha256"] = sha256_of(model.folder / name)
    rdf_path.write_text(yaml.safe_dump(rdf), encoding="utf-8")
    return pack_model(Model.from_folder(model.folder), archive)


def test_a_packed_model_installs_as_it_was(model: Model, models: Path, tmp_path: Path) -> None:
    archive = pack_model(model, tmp_path / "toy.zip")
    installed = install_model(archive)
    assert installed.folder == models / "toy-cells"
    assert installed.card == model.card
    assert installed.onnx_path.read_bytes() == model.onnx_path.read_bytes()
    assert [path.name for path in models.iterdir()] == ["toy-cells"]


def test_a_model_in_a_folder_of_an_archive_with_the_newer_card_name_is_found(
    model: Model, models: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "toy.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.mkdir("download")
        for path in model.folder.iterdir():
            name = "bioimageio.yaml" if path.name == "rdf.yaml" else path.name
            opened.write(path, f"download/{name}")
    assert install_model(archive).card == model.card


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "a/../../evil.txt",
        "/tmp/evil.txt",
        "C:/evil.txt",
        "C:evil.txt",
        "..\\evil.txt",
        "\\\\server\\share\\evil.txt",
        "a/./b.txt",
        "a//b.txt",
        "aux.txt",
        "evil.txt.",
        "evil.txt\0.npy",
        "e\nvil.txt",
    ],
)
def test_an_entry_that_leaves_the_folder_is_refused(
    model: Model, models: Path, tmp_path: Path, name: str
) -> None:
    entry = zipfile.ZipInfo("placeholder.txt")
    entry.filename = entry.orig_filename = name  # ZipInfo would mend some of them
    archive = with_entry(model, tmp_path / "evil.zip", entry)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LinceiError, match="does not stay in the model's folder"):
        install_model(archive)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(model: Model, models: Path, tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("notes.txt")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    archive = with_entry(model, tmp_path / "evil.zip", entry, b"/etc/passwd")
    with pytest.raises(LinceiError, match="link or a device"):
        install_model(archive)
    assert not models.exists()


def test_a_link_in_a_folder_is_refused(model: Model, models: Path, tmp_path: Path) -> None:
    secret = tmp_path / "outside" / "README.md"
    secret.parent.mkdir()
    secret.write_text("secret", encoding="utf-8")
    (model.folder / "README.md").unlink()
    try:
        (model.folder / "README.md").symlink_to(secret)
    except OSError:
        pytest.skip("this system lets no user make links")
    with pytest.raises(LinceiError, match="is a link"):
        install_model(model.folder)
    assert not models.exists()


@pytest.mark.parametrize(
    "name",
    [
        "weights.pkl",
        "weights.pt",
        "WEIGHTS.PTH",
        "model.keras",
        "a/b/setup.py",
        "run.sh",
        "x.so",
        "w.npz",
        "m.joblib",
    ],
)
def test_files_that_can_run_code_are_refused(model: Model, models: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "ran"
    archive = with_entry(model, tmp_path / "evil.zip", name, pickle.dumps(Bomb(target)))
    with pytest.raises(LinceiError, match="can run code"):
        install_model(archive)
    assert not target.exists()
    assert not models.exists()


def test_files_that_no_model_has_are_refused(model: Model, models: Path, tmp_path: Path) -> None:
    for name, told in (
        ("data.xyz", "of a kind that no model has"),
        ("weights.onnx.data", "apart from the network"),
    ):
        with pytest.raises(LinceiError, match=told):
            install_model(with_entry(model, tmp_path / f"{name}.zip", name))


def test_an_array_of_pickled_objects_is_refused(model: Model, models: Path, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb(target)], dtype=object), allow_pickle=True)
    archive = with_file(model, tmp_path / "evil.zip", "test_input.npy", stream.getvalue())
    with pytest.raises(LinceiError, match="pickled objects"):
        install_model(archive)
    with pytest.raises(LinceiError, match="cannot be read"):
        Model.from_folder(model.folder).test_input()
    # A header that promises more than memory holds is found without allocating it.
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)})
    archive = with_file(model, tmp_path / "evil.zip", "test_input.npy", stream.getvalue())
    with pytest.raises(LinceiError, match="damaged"):
        install_model(archive)
    # A bare pickle under that name is no array either.
    archive = with_file(model, tmp_path / "evil.zip", "test_input.npy", pickle.dumps(Bomb(target)))
    with pytest.raises(LinceiError, match="pickled objects"):
        install_model(archive)
    assert not target.exists()


def external(network: Any) -> Any:
    """Return the first weight, emptied and pointed to another file."""
    import onnx

    tensor = network.graph.initializer[0]
    tensor.ClearField("raw_data")
    point_outside(tensor, onnx)
    return network


def point_outside(tensor: Any, onnx: Any) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def in_a_constant(network: Any) -> Any:
    import onnx

    node = onnx.helper.make_node("Constant", [], ["unused"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.data_type = 1
    point_outside(node.attribute[0].t, onnx)
    network.graph.node.append(node)
    return network


def in_a_branch(network: Any) -> Any:
    import onnx

    inner = onnx.helper.make_graph([], "inner", [], [])
    point_outside(inner.initializer.add(data_type=1, name="w"), onnx)
    node = onnx.helper.make_node("If", ["c"], ["unused"], then_branch=inner, else_branch=inner)
    network.graph.node.append(node)
    return network


def in_a_function(network: Any) -> Any:
    import onnx

    node = onnx.helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.data_type = 1
    point_outside(node.attribute[0].t, onnx)
    network.functions.append(
        onnx.helper.make_function("custom", "f", [], ["y"], [node], [onnx.helper.make_opsetid("", 18)])
    )
    return network


@pytest.mark.parametrize("hide", [external, in_a_constant, in_a_branch, in_a_function])
def test_a_network_that_names_another_file_is_refused_wherever_it_hides_it(
    model: Model, models: Path, tmp_path: Path, hide: Callable[[Any], Any]
) -> None:
    import onnx

    network = hide(onnx.load_model_from_string(convolution_onnx()))
    archive = with_file(model, tmp_path / "evil.zip", "weights.onnx", network.SerializeToString())
    with pytest.raises(LinceiError, match=r"reads its weights from another file \('/etc/passwd'\)"):
        install_model(archive)
    assert not models.exists()


def test_an_archive_that_grows_without_end_is_refused(model: Model, models: Path, tmp_path: Path) -> None:
    archive = pack_model(model, tmp_path / "bomb.zip")
    with (
        zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as opened,
        opened.open("zeros.txt", "w", force_zip64=True) as entry,
    ):
        for _ in range(100):
            entry.write(bytes(2**20))
    assert archive.stat().st_size < 2**20
    with pytest.raises(LinceiError, match="would grow to 100 MiB"):
        install_model(archive)


def test_an_archive_with_too_many_bytes_or_entries_is_refused(
    model: Model, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack_model(model, tmp_path / "toy.zip")
    monkeypatch.setattr(model_archive, "BYTES_MAX", 1000)
    with pytest.raises(LinceiError, match="would grow"):
        install_model(archive)
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as opened:
        for index in range(201):
            opened.writestr(f"{index}.txt", b"")
    with pytest.raises(LinceiError, match="201 entries"):
        unpack_model(tmp_path / "many.zip", tmp_path / "out")


def test_an_entry_larger_than_announced_is_stopped(model: Model, tmp_path: Path) -> None:
    archive = tmp_path / "liar.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("rdf.yaml", b"type: model\n" * 1000)
    content = bytearray(archive.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 10)
    archive.write_bytes(bytes(content))
    (tmp_path / "out").mkdir()
    with pytest.raises(LinceiError, match=r"damaged|larger than it says"):
        unpack_model(archive, tmp_path / "out")
    assert all(path.stat().st_size <= 10 for path in (tmp_path / "out").iterdir())


def test_two_entries_of_one_name_are_refused(model: Model, tmp_path: Path) -> None:
    # On file systems that ignore case, the second would replace the first after it was checked.
    archive = with_entry(model, tmp_path / "twice.zip", "Weights.ONNX")
    with pytest.raises(LinceiError, match="twice"):
        unpack_model(archive, tmp_path / "out")


def test_a_file_that_is_not_the_one_in_the_card_is_refused(
    model: Model, models: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "swapped.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in model.folder.iterdir():
            content = convolution_onnx(seed=5) if path.name == "weights.onnx" else path.read_bytes()
            opened.writestr(path.name, content)
    with pytest.raises(LinceiError, match="SHA-256"):
        install_model(archive)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"plain text"])
def test_what_is_no_zip_is_told(tmp_path: Path, models: Path, content: bytes) -> None:
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(LinceiError, match="not a zip archive"):
        install_model(tmp_path / "model.zip")


def test_a_damaged_archive_is_told(model: Model, models: Path, tmp_path: Path) -> None:
    archive = pack_model(model, tmp_path / "toy.zip")
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo("weights.onnx").header_offset
    content = bytearray(archive.read_bytes())
    content[start + 60 : start + 70] = bytes(10)
    archive.write_bytes(bytes(content))
    with pytest.raises(LinceiError, match=r"damaged|cannot be unpacked"):
        install_model(archive)
    assert not models.exists()


def test_an_encrypted_archive_is_told(model: Model, tmp_path: Path) -> None:
    archive = with_entry(model, tmp_path / "secret.zip", "notes.txt")
    content = bytearray(archive.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 8] |= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(LinceiError, match="encrypted"):
        unpack_model(archive, tmp_path / "out")


def test_an_archive_without_a_card_or_with_a_missing_file_is_told(
    model: Model, models: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as opened:
        opened.writestr("README.md", "hello")
    with pytest.raises(LinceiError, match=r"holds no rdf\.yaml"):
        install_model(tmp_path / "empty.zip")
    with zipfile.ZipFile(tmp_path / "card.zip", "w") as opened:
        opened.write(model.folder / "rdf.yaml", "rdf.yaml")
    with pytest.raises(LinceiError, match="the file is missing"):
        install_model(tmp_path / "card.zip")
    with pytest.raises(LinceiError, match="no such file"):
        install_model(tmp_path / "nothing.zip")


def test_packing_to_a_place_that_cannot_be_written_is_told(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(LinceiError, match="cannot be written"):
        pack_model(model, tmp_path / "file" / "toy.zip")
