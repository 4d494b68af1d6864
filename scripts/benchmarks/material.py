"""What the rows measure on: phantom patients in a cache, and the demo's folder."""

import subprocess
from pathlib import Path

from results import ROOT, Asked

from medaug.data.cache import CacheSettings, SliceCache, prepare
from medaug.data.phantom import Phantom

PATIENTS = 8
SEED = 1


def phantom_cache(
    work: Path, patients: int = PATIENTS, seed: int = SEED, settings: CacheSettings | None = None
) -> SliceCache:
    """Slices of ``patients`` phantoms, written below ``work`` the first time."""
    folder = work / f"phantom-{patients}-{seed}"
    prepare(
        Phantom(folder / "people", patients, seed),
        folder / "cache",
        settings or CacheSettings(size=64),
    )
    return SliceCache.open(folder / "cache")


def demo_command(asked: Asked) -> list[str]:
    """The demo in the folder that the rows share, as a command line from the project's root."""
    folder = demo_folder(asked).relative_to(ROOT)
    little = ["--scratch", "--images", "600", "-n", "16"] if asked.quick else []
    return ["scripts/demo", "--out", str(folder), *little]


def demo_folder(asked: Asked) -> Path:
    """Where `demo_command` works."""
    return asked.work / "demo"


def run_demo(asked: Asked) -> None:
    """Run the demo, or what is left of it."""
    subprocess.run(demo_command(asked), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
