"""How long ``medaug --help`` takes, and which heavy packages ``import medaug`` loads."""

import subprocess
import sys
import time

from results import ROOT, Claim, asked, report

REPEATS = 5
HEAVY = ("torch", "monai", "torchio")


def measure(repeats: int) -> list[float]:
    """Wall times of the command, after one run to warm the page cache."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(
            [ROOT / ".venv" / "bin" / "medaug", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        times.append(time.perf_counter() - started)
    return times[1:]


def loaded() -> list[str]:
    """The top-level packages that ``import medaug`` loads."""
    code = "import sys, medaug; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return sorted({name.partition(".")[0] for name in done.stdout.decode().split()})


def claims(times: list[float], packages: list[str]) -> list[Claim]:
    """The best time, and how many heavy packages were loaded."""
    heavy = len(set(HEAVY) & set(packages))
    return [
        Claim(f"medaug --help, best of {len(times)}", min(times), "<", 0.4, "s"),
        Claim(f"of {', '.join(HEAVY)} loaded by import medaug", heavy, "<=", 0),
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    times, packages = measure(2 if how.quick else REPEATS), loaded()
    figures = {
        "help_seconds": times,
        "heavy_packages_loaded": sorted(set(HEAVY) & set(packages)),
        "packages_loaded": len(packages),
    }
    return report(how, "startup", claims(times, packages), figures, n=len(times), seed=None)


if __name__ == "__main__":
    sys.exit(main())
