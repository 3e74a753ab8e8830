"""Figures that are kept: one JSON file a measurement in bench/results/, with what it was measured on."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.rig import ROOT
from mta import VERSION

RESULTS = ROOT / "bench" / "results"


def processor() -> str:
    """What the CPU calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def save(name: str, rows: Sequence[msgspec.Struct], folder: Path = RESULTS) -> Path:
    """Writes NAME.json and returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = {
        "version": VERSION,
        "date": time.strftime("%Y-%m-%d"),
        "system": platform.system(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "rows": rows,
    }
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(saved)) + b"\n")
    return path
