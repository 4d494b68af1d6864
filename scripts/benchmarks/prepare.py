"""What it costs to slice a real 512 x 512 x 240 scan, against SimpleITK reading the same files.

Both read from a warm page cache and in turns, best of three; ``prepare`` finds and checks the
scan, reads, resamples, writes and syncs.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import ROOT, Claim, asked, fresh, peak_bytes, report

CASE = "PANCREAS_0001"
REPEATS = 3


def pancreas_ct(row: str) -> Path:
    """The two real scans, packed; the ``row`` ends where there are none."""
    data = os.environ.get("MEDAUG_TEST_DATA")
    if not data:
        print(f"{row}: set MEDAUG_TEST_DATA to a folder that holds pancreas-ct/", file=sys.stderr)
        sys.exit(2)
    return Path(data) / "pancreas-ct"


def unpack(data: Path, root: Path) -> tuple[Path, Path]:
    """Both real scans below ``root``: a folder with one of them, and one with both."""
    one, both = root / "one", root / "both"
    for archive in sorted(data.glob("*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(both / archive.name.partition(".")[0], filter="data")
    for archive in data.glob("*.zip"):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(both / "labels")
    one.mkdir()
    (one / CASE).symlink_to(next(both.rglob(CASE)), target_is_directory=True)
    (one / "label0001.nii.gz").symlink_to(next(both.rglob("label0001.nii.gz")))
    return one, both


def read_with_simpleitk(one: Path) -> tuple[int, ...]:
    """Read series and label as SimpleITK's own example does; returns the size."""
    import SimpleITK as sitk

    series = next((one / CASE).rglob("*.dcm")).parent
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    label = sitk.ReadImage(str(one / "label0001.nii.gz"))
    assert image.GetSize() == label.GetSize()
    return tuple(image.GetSize())


def slice_it(source: Path, cache: Path) -> None:
    """Prepare the scans in ``source`` in this process, as the default config slices them."""
    from medaug.data import open_source
    from medaug.data.cache.prepare import CacheSettings, prepare

    done = prepare(open_source(str(source)), cache, CacheSettings(), workers=0)
    assert done.done
    assert not done.failed


def peak_of(source: str, cache: str) -> int:
    """The peak memory of a process that prepares ``source``."""
    slice_it(Path(source), Path(cache))
    return peak_bytes()


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(one: Path, both: Path, caches: Path, repeats: int) -> dict[str, Any]:
    """All times and the peak."""
    size = read_with_simpleitk(one)  # warms the page cache and SimpleITK
    slice_it(one, caches / "warm")
    reading, slicing = [], []
    for i in range(repeats):
        reading.append(seconds(lambda: read_with_simpleitk(one)))
        slicing.append(seconds(lambda i=i: slice_it(one, caches / f"one-{i}")))
    medaug = [str(ROOT / ".venv" / "bin" / "medaug"), "prepare", str(both), "--workers", "2"]
    medaug += ["--cache", str(caches / "both")]
    together = seconds(lambda: subprocess.run(medaug, check=True, stdout=subprocess.DEVNULL))
    return {
        "size": size,
        "simpleitk_seconds": reading,
        "prepare_seconds": slicing,
        "both_scans_two_workers_seconds_with_start": together,
        "peak_bytes": fresh("prepare", "peak_of", one, caches / "peak"),
    }


def claims(figures: dict[str, Any]) -> list[Claim]:
    """The ratio of the best times, and the peak."""
    ratio = min(figures["prepare_seconds"]) / min(figures["simpleitk_seconds"])
    return [
        Claim("time over SimpleITK reading series and label", ratio, "<", 5, "x"),
        Claim("peak memory of a worker", figures["peak_bytes"] / 1e9, "<", 1.5, "GB"),
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    data = pancreas_ct("prepare")
    with tempfile.TemporaryDirectory(dir=how.work) as folder:
        root = Path(folder)
        one, both = unpack(data, root)
        figures = measure(one, both, root / "caches", 1 if how.quick else REPEATS)
    note = (
        f"{CASE} of Pancreas-CT (Roth et al. 2016, doi 10.7937/K9/TCIA.2016.tNB1kqBU, CC BY 3.0), "
        "from $MEDAUG_TEST_DATA. The time of both scans includes starting Python and two workers."
    )
    return report(how, "prepare", claims(figures), figures, n=1, seed=None, note=note)


if __name__ == "__main__":
    sys.exit(main())
