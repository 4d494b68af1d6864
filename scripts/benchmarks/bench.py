"""Run benchmark rows, each as a process of its own; the exit status says whether all are reached.

0: every claim is reached.  1: one falls short.  2: a row could not be measured.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RIVALS = HERE.parents[1] / "build" / "rivals"
"""Where packages of the rivals may lie; MONAI looks for ignite when it is first loaded."""
SHORT = 3
"""The exit status of a row that falls short, so that a crash, which is 1, is not taken for one."""

ROWS = {
    "demo": "scripts/demo, installed already: wall time",
    "prepare": "a real scan into the cache against SimpleITK reading it; a worker's memory",
    "preparing": "prepare as scans are added: time and memory; killed at random moments",
    "growth": "training sets, sample folders and collections as they grow; 35 minutes",
    "access": "random slices from the cache against MONAI's data sets, on the real scans",
    "wait": "share of training time spent waiting for data",
    "train": "training speed against a bare loop of the same networks, losses and batch",
    "ranks": "two gloo processes against one, update by update; what scaling out costs",
    "cpu": "64 px VAE/GAN on two cores against the peers' trainers, on the same networks",
    "gpu": "training on one GPU: its peaks, its idle share, and the peers; left out without one",
    "synthesize": "what writing adds to generating; memory as n grows",
    "compiled": "drawing by torch.compile against the networks as written, and when it pays back",
    "threads": "training and drawing by torch's own number of threads against others",
    "writing": "generating and writing at once against the slower of the two alone",
    "pipeline": "a torchio pipeline with synthetic slices from a folder against one without",
    "startup": "medaug --help, and what import medaug loads",
    "phantom": "the demo's masks against unseen phantom patients",
    "layout": "images for given masks: HU under each label, and a segmenter's Dice",
    "filter": "planted bad samples and unseen real slices, judged by the filter",
    "defects": "planted defects: which parts of a report fail",
    "copies": "planted copies of training slices: which are listed, and how many slices wrongly",
    "metrics": "the figures of 5000 synthetic slices against 5000 real ones: time and memory",
    "real": "the two real scans: a short run, 200 samples, read back by SimpleITK",
}
FILES = {
    **dict.fromkeys(("startup", "phantom"), "demo"),
    **dict.fromkeys(("wait", "train", "threads"), "training"),
    **dict.fromkeys(("synthesize", "writing", "compiled", "pipeline"), "drawing"),
    **dict.fromkeys(("filter", "defects", "copies"), "planted"),
    **dict.fromkeys(("prepare", "preparing", "access", "real"), "scans"),
    **dict.fromkeys(("cpu", "gpu"), "peers"),
    "ranks": "scaling",
}
"""Files of rows that have none of their name; the function ``measure_ROW`` measures a row."""


def main() -> int:
    """Parse the command line and run the chosen rows."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(ROWS))
    parser.add_argument("--list", action="store_true", help="name the rows and leave")
    parser.add_argument("--quick", action="store_true", help="little of each; results in build/")
    options = parser.parse_args()
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"no row {unknown[0]!r} (rows: {', '.join(ROWS)})")
    if options.list:
        print("\n".join(f"{row:11} {what}" for row, what in ROWS.items()))
        return 0
    return max(run(row, options.quick) for row in options.rows or ROWS)


def run(row: str, quick: bool) -> int:
    """Measure ``row`` in a fresh process; 0 if reached, 1 if it falls short, 2 if it failed."""
    print(f"measuring {row}: {ROWS[row]}", file=sys.stderr)
    code = f"import results, sys; sys.exit(results.measure({row!r}, {quick}))"
    places = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH"), str(RIVALS)]))
    environment = {**os.environ, "PYTHONPATH": places}
    status = subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode
    if status not in (0, SHORT):
        print(f"{row}: could not be measured (exit status {status})", file=sys.stderr)
        return 2
    return 1 if status == SHORT else 0


if __name__ == "__main__":
    sys.exit(main())
