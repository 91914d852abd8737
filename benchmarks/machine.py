"""The machine that a benchmark runs on: what it is, which cores are used, how much memory a process took.

Run as a script it prints the machine: ``python benchmarks/machine.py``.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

ResultT = TypeVar("ResultT")

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


def use_cores(count: int) -> int:
    """Keep this process, and those that it starts, to ``count`` cores where the system allows it.

    Returns
    -------
    int
        How many cores are used.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
        return len(os.sched_getaffinity(0))
    return min(count, os.cpu_count() or 1)


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def about(packages: Sequence[str], cores: int | None = None) -> str:
    """Return the machine, the versions and the command as a Markdown list.

    Parameters
    ----------
    packages : sequence of str
        Distributions whose versions matter.
    cores : int, optional
        How many cores were used; all when left out.
    """
    total = os.cpu_count() or 1
    command = " ".join([f"python {Path(sys.argv[0]).parent.name}/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    versions = ", ".join(f"{name} {_version(name)}" for name in ("lincei", *packages))
    return "\n".join(
        [
            f"- Command: `{command}`",
            f"- Date: {date.today().isoformat()}",
            f"- Machine: {processor()}, {cores or total} of {total} cores used, {platform.system()} "
            f"{platform.machine()}{_fast_arithmetic()}",
            *_load(),
            f"- Versions: Python {platform.python_version()}, {versions}",
        ]
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# Read before a benchmark itself is a load.
_LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _load() -> list[str]:
    """Say how busy the machine was in the minute before: figures from a busy one are worth little."""
    return [] if _LOAD_AT_START is None else [f"- Load in the minute before: {_LOAD_AT_START:.1f}"]


def _fast_arithmetic() -> str:
    """Name the processor's wide instructions, on which speed depends more than on its clock."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text("utf-8").split()) if info.exists() else set()
    present = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f" ({', '.join(present)})" if present else ""


def peak_memory_mib() -> float:
    """Return the most memory that this process has held at a time, in MiB; NaN where it cannot be told."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def memory_mib() -> float:
    """Return the memory that this process holds now, in MiB; NaN where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return float("nan")
    import resource

    return int(statm.read_text("ascii").split()[1]) * resource.getpagesize() / MIB


def in_fresh_process(function: Callable[..., ResultT], *arguments: object) -> ResultT:
    """Call a module's function in a new process, so that nothing else counts in its time and memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def spread(seconds: Sequence[float]) -> str:
    """Return the median of times and the range that they lie in, in words."""
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_results(out: Path, name: str, text: str) -> None:
    """Print a result and write it as ``out/name.md``."""
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print(f"\nWritten to {out / f'{name}.md'}", file=sys.stderr)


if __name__ == "__main__":
    print(about(["numpy", "openvino", "onnxruntime"]))
