"""``lincei doctor``: what is installed, which engines work, where things live, and what is in the way."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lincei import __version__
from lincei.cli import find_tools

if TYPE_CHECKING:
    import typer

# Import names that must be lincei's own: other distributions use some of them too.
OWN_NAMES = ("lincei", "insilico", "sample_data")

# What an extra brings, by import name; the light install has none of it.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("tensorflow", "keras", "tf2onnx"),
    "formats": ("bioio", "bioio_nd2", "bioio_czi", "bioio_lif", "openslide"),
}
OTHER_BACKENDS = ("jax", "torch")

GIB = 1024**3
OK, NOTE, BROKEN = "ok", "-", "BROKEN"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Parameters
    ----------
    group : str
        Its heading.
    name, text : str
        What was looked at, and what was found; for something broken, also what to do.
    state : str
        ``"ok"``, ``"-"`` (absent, and that is fine) or ``"BROKEN"``.
    """

    group: str
    name: str
    text: str
    state: str = OK


def examine() -> list[Finding]:
    """Return all findings; slow (seconds), because every engine's library is loaded."""
    return [*_program(), *_names(), *_tools(), *_engines(), *_extras(), *_machine(), *_places()]


def name_owner(name: str) -> Finding:
    """Say which distribution a top-level import name belongs to.

    Both what Python would import and what the installed distributions claim are looked at, since another
    package with the same name may hide lincei's or share its folder.
    """
    group = "Import names"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return Finding(group, name, "cannot be imported. Install lincei again.", BROKEN)
    location = _location(spec.origin, spec.submodule_search_locations)
    owners = sorted(set(importlib.metadata.packages_distributions().get(name, ())))
    strangers = [owner for owner in owners if owner.lower() != "lincei"]
    if strangers:
        who = ", ".join(strangers)
        return Finding(
            group,
            name,
            f"the package {who} has this name too (in use: {location}). "
            f"Remove it with: pip uninstall {' '.join(strangers)}; then install lincei again.",
            BROKEN,
        )
    home = Path(__file__).resolve().parents[1]
    if location.parent != home:
        return Finding(
            group,
            name,
            f"comes from {location}, not from lincei in {home}. Rename or remove that folder, "
            "or start lincei from another one.",
            BROKEN,
        )
    return Finding(group, name, f"lincei's ({location})")


def report_text(findings: list[Finding]) -> str:
    """Return findings as text, grouped, broken ones marked."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group] if lines else [group]
        lines.append(f"  {finding.state:<6}  {finding.name:<{width}}  {finding.text}".rstrip())
    broken = [finding.name for finding in findings if finding.state == BROKEN]
    lines += ["", f"Broken: {', '.join(broken)}." if broken else "Everything that is installed works."]
    return "\n".join(lines)


def app() -> typer.Typer:
    """Return the application of ``lincei doctor``."""
    from lincei.command import new_application

    application = new_application()

    @application.command()
    def doctor() -> int:
        """Say what is installed, which engines work, where models live and what is in the way.

        The exit status is 1 when something is broken.
        """
        findings = examine()
        print(report_text(findings))
        return int(any(finding.state == BROKEN for finding in findings))

    return application


def _program() -> Iterator[Finding]:
    yield Finding("Program", "lincei", __version__)
    yield Finding("Program", "Python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("Program", "system", platform.platform())


def _names() -> Iterator[Finding]:
    yield from map(name_owner, OWN_NAMES)


def _tools() -> Iterator[Finding]:
    for tool in find_tools():
        if tool.problem:
            text = f"{tool.problem} (of the package {tool.distribution}; reinstall or remove it)"
            yield Finding("Tools", tool.name, text, BROKEN)
        else:
            yield Finding("Tools", tool.name, f"{', '.join(tool.commands)} (of {tool.distribution})")


def _engines() -> Iterator[Finding]:
    from lincei.engine import engine_status

    statuses = engine_status()
    for status in statuses:
        if status.works:
            yield Finding("Engines", status.name, status.version)
        else:
            # An engine that was never installed is no fault; one that is installed and fails is.
            state = BROKEN if status.version else NOTE
            yield Finding("Engines", status.name, f"{status.version} {status.reason}".strip(), state)
    if not any(status.works for status in statuses):
        yield Finding("Engines", "none works", "Install one with: pip install openvino", BROKEN)


def _extras() -> Iterator[Finding]:
    for extra, names in EXTRAS.items():
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        for name in names:
            if name not in missing:
                yield Finding("Extras", name, _version_of(name))
        if missing:
            install = f"not installed; pip install 'lincei[{extra}]' brings it"
            yield from (Finding("Extras", name, install, NOTE) for name in missing)
    for name in OTHER_BACKENDS:
        if importlib.util.find_spec(name) is not None:
            yield Finding("Extras", name, f"{_version_of(name)} (Keras can train with it)")
        else:
            text = f"not installed; pip install {name}, if you train with KERAS_BACKEND={name}"
            yield Finding("Extras", name, text, NOTE)


def _machine() -> Iterator[Finding]:
    yield Finding("Machine", "processor cores", f"{usable_cores()} usable of {os.cpu_count()}")
    total = memory_bytes()
    yield Finding("Machine", "memory", f"{total / GIB:.1f} GiB" if total else "unknown")


def _places() -> Iterator[Finding]:
    import platformdirs

    from lincei.model import broken_models, list_models, models_folder

    yield Finding("Places", "models installed in", _place(models_folder()))
    for model in list_models():
        yield Finding("Places", f"model {model.name}", str(model.folder))
    for broken in broken_models():
        yield Finding("Places", f"model {broken.folder.name}", f"{broken.reason} ({broken.folder})", BROKEN)
    yield Finding("Places", "cache", _place(platformdirs.user_cache_path("lincei", appauthor=False)))
    yield Finding("Places", "error logs", _place(platformdirs.user_log_path("lincei", appauthor=False)))
    data = os.environ.get("LINCEI_DATA", "")
    if not data:
        yield Finding("Places", "LINCEI_DATA", "not set; sample data is looked for in the cache", NOTE)
    elif Path(data).is_dir():
        yield Finding("Places", "LINCEI_DATA", data)
    else:
        yield Finding("Places", "LINCEI_DATA", f"{data} is not a folder. Correct or unset it.", BROKEN)


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's memory in bytes, or 0 where it cannot be told."""
    if sys.platform == "win32":
        return _memory_bytes_windows()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _memory_bytes_windows() -> int:
    """Ask Windows (GetPhysicallyInstalledSystemMemory answers in KiB)."""
    import ctypes

    kib = ctypes.c_ulonglong()
    windll = getattr(ctypes, "windll", None)
    if windll is None or not windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kib)):
        return 0
    return kib.value * 1024


def _location(origin: str | None, folders: object) -> Path:
    """Return the folder (or file) that an import name stands for."""
    if origin is not None and Path(origin).name != "__init__.py":
        return Path(origin).resolve()
    if origin is not None:
        return Path(origin).resolve().parent
    # A namespace package: a folder without __init__.py, such as a stray one in the working directory.
    return Path(next(iter(folders))).resolve()  # type: ignore[call-overload]


def _version_of(import_name: str) -> str:
    """Return the version of the distribution that provides ``import_name``."""
    owners = importlib.metadata.packages_distributions().get(import_name, [import_name])
    try:
        return importlib.metadata.version(owners[0])
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def _place(folder: Path) -> str:
    """Return a folder with a remark when it is not there yet."""
    return str(folder) if folder.is_dir() else f"{folder} (made when needed)"
