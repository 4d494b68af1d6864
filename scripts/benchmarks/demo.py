"""How long ``scripts/demo`` takes once medaug is installed; its preview and report are kept."""

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from material import demo_command, demo_folder, run_demo
from results import Asked, Claim, asked, report


def measure(asked: Asked) -> float:
    """Seconds from nothing to the preview."""
    shutil.rmtree(demo_folder(asked), ignore_errors=True)
    started = time.perf_counter()
    run_demo(asked)
    return time.perf_counter() - started


def read(folder: Path) -> dict[str, Any]:
    """The demo's own figures."""
    figures: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return figures


def claims(seconds: float) -> list[Claim]:
    """The demo's time against its bound."""
    return [Claim("wall time after install", seconds, "<", 300, "s")]


def main() -> int:
    """Measure and report."""
    how = asked()
    seconds = measure(how)
    folder = demo_folder(how)
    how.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "synthetic" / "preview.png", how.results / "demo.png")
    figures = {
        "demo_command": " ".join(demo_command(how)),
        "peak_gb_of_a_process": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
        "report": read(folder),
        "seconds": seconds,
    }
    return report(how, "demo", claims(seconds), figures, n=1, seed=0, note="Picture: demo.png.")


if __name__ == "__main__":
    sys.exit(main())
