"""The five commands that are tortured, in the smallest form that takes all of their steps.

And what became of each attempt, and the count of many.
"""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from process import Command, End, run
from web import LABELS, Nbia, nbia, serving

SHAPE, SPACING_MM = (64, 64, 20), (6.0, 6.0, 9.5)
PATIENTS = 4
WORDS = {
    "prepare": "pancreas --root {scans} --cache out --size 32 --holdout 0.25 --workers 2",
    "train": "--data {cache} --run out --images 160 --device cpu",
    "synthesize": "-n 48 --out out --run {run} --uncertainty 2 --format nifti --device cpu "
    "--no-filter",
    "evaluate": "--run {run} -n 24 --out out --uncertainty 2 --device cpu "
    "--families fidelity,uncertainty",
    "download": "pancreas --root out --yes",
}
"""Options of each command; those of a config follow."""
VICTIMS = tuple(WORDS)
ENCODER_IMAGES = 160
"""Slices that the encoder of an evaluation sees here; no setting, so its default is changed."""
PAUSE_S = 0.001
"""Between blocks of 4 kB from the server, so that a download takes a moment."""

TINY = {
    "model.width": 8,
    "model.prior.width": 16,
    "model.prior.steps": 4,
    "model.phases": [0.4, 0.7],
    "train.batch": 8,
    "train.snapshot_every": 40,
    "train.precision": "float32",
}
COUNTS = ("tried", "survived", "lost", "hung", "tracebacks")
LOSSES = 20
"""Losses that are described."""


@dataclass(frozen=True)
class Trial:
    """One attempt to harm a command.

    Attributes:
        group: what was hit, a row of the table.
        what: how it was hit, for those who look into a loss.
        lost: what is wrong with the outcome; empty where it survived.
        ends: of all commands that ran.
        note: how it went, counted beside the verdict: ``midway``, ``refused``, ``recovered``.
    """

    group: str
    what: str
    lost: str
    ends: Sequence[End]
    note: str = ""

    @property
    def survived(self) -> bool:
        """Nothing lost, no hang, no traceback."""
        return not (self.lost or any(end.hung or end.traceback for end in self.ends))


def counted(trials: Iterable[Trial]) -> dict[str, Any]:
    """Make the attempts: ``groups`` with their counts and notes, and the first ``losses``."""
    groups: dict[str, dict[str, Any]] = {}
    losses: list[dict[str, Any]] = []
    for trial in trials:
        group = groups.setdefault(trial.group, {**dict.fromkeys(COUNTS, 0), "notes": {}})
        hung = sum(end.hung for end in trial.ends)
        tracebacks = sum(end.traceback for end in trial.ends)
        more = (1, int(trial.survived), int(bool(trial.lost)), hung, tracebacks)
        group |= {key: group[key] + count for key, count in zip(COUNTS, more, strict=True)}
        if trial.note:
            group["notes"][trial.note] = group["notes"].get(trial.note, 0) + 1
        if not trial.survived and len(losses) < LOSSES:
            ends = {
                "codes": [end.code for end in trial.ends],
                "said": [end.said[-2000:] for end in trial.ends],
            }
            about = {"group": trial.group, "what": trial.what, "lost": trial.lost}
            losses.append(about | ends)
    return {"groups": groups, "losses": losses}


def difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    """In words how two folders differ; empty where they do not."""
    names = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    state = {name: "missing" if name not in found else "differs" if name in wanted else "left over"
             for name in names}  # fmt: skip
    return "; ".join(f"{name} {state[name]}" for name in names[:5])


@dataclass(frozen=True)
class Victim:
    """A command that leaves its result in the folder ``out``.

    Attributes:
        name: of the command.
        words: after ``medaug``; run in the folder whose content is compared.
        ignored: fields that say how long something took, by file; nothing depends on them.
    """

    name: str
    words: Sequence[str]
    ignored: Mapping[str, Sequence[str]]

    def command(self, **more: object) -> Command:
        """The command, under limits if asked."""
        return Command(self.words, **more)  # type: ignore[arg-type]

    def contents(self, folder: Path) -> dict[str, str]:
        """SHA-256 of every file below ``folder``, hidden ones too, without what is ignored."""
        return {
            str(path.relative_to(folder)): self._digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    def _digest(self, path: Path) -> str:
        content = path.read_bytes()
        fields = self.ignored.get(path.name)
        if fields:
            rows = [json.loads(line) for line in content.splitlines()]
            kept = [{k: v for k, v in row.items() if k not in fields} for row in rows]
            content = json.dumps(kept).encode()
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class World:
    """What the commands work on, made once.

    Attributes:
        folder: where all of it is.
        scans: phantom patients in the layout of Pancreas-CT.
        cache: their slices.
        run: a model trained on them.
        url: of the server that offers the scans.
        digest: SHA-256 of the label archive there.
        known: what `undisturbed` has found.
        victims: the commands that are harmed.
    """

    folder: Path
    scans: Path
    cache: Path
    run: Path
    url: str
    digest: str
    known: dict[str, tuple[Victim, dict[str, str], float]] = field(default_factory=dict)
    victims: Sequence[str] = VICTIMS

    def undisturbed(self, name: str) -> tuple[Victim, dict[str, str], float]:
        """A command, what it leaves where nothing happens, and the least seconds that it takes.

        Raises:
            RuntimeError: it does not leave the same twice.
        """
        if name not in self.known:
            victim, found, seconds = self.victim(name), [], []
            for _ in range(3):
                folder = self.folder / "undisturbed" / name
                shutil.rmtree(folder, ignore_errors=True)
                end = run(victim.command(), folder)
                if end.code:
                    raise RuntimeError(f"{name} does not even work undisturbed: {end.said}")
                found.append(victim.contents(folder))
                seconds.append(end.seconds)
            for other in found[1:]:
                if different := difference(found[0], other):
                    raise RuntimeError(f"{name} does not leave the same twice: {different}")
            self.known[name] = victim, found[0], min(seconds)
        return self.known[name]

    def again(
        self, name: str, folder: Path, lost: str = "", command: Command | None = None
    ) -> tuple[End, str]:
        """Run a command again where it was harmed, which must leave what an undisturbed run does.

        Args:
            name: of the command.
            folder: where it was harmed.
            lost: what is lost already.
            command: what is run; by default the command as it is.

        Returns:
            Its end, and what is lost.
        """
        victim, wanted, _ = self.undisturbed(name)
        end = run(command or victim.command(), folder)
        if end.code:
            return end, lost or f"the same command ended with {end.code}"
        return end, lost or difference(wanted, victim.contents(folder))

    def victim(self, name: str) -> Victim:
        """The command called ``name``."""
        settings = TINY if name == "train" else self._server() if name == "download" else {}
        places = {"scans": self.scans, "cache": self.cache, "run": self.run}
        words = [word.format(**places) for word in WORDS[name].split()]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        times = {"metrics.jsonl": ["images_per_s"]} if name == "train" else {}
        return Victim(name, [name, *words], times)

    def _server(self) -> dict[str, object]:
        """Settings by which a download asks the server of this world."""
        return {
            "download.pancreas": f"{self.url}/v4",
            "download.pancreas_labels": f"{self.url}{LABELS}",
            "download.checksums": {"pancreas_labels": self.digest},
            "download.timeout_s": 5.0,
            "download.attempts": 3,
            "download.pause_s": 0.0,
        }


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Make or find what the commands work on, and serve it while the block lasts."""
    from medaug.data.sources.phantom import source
    from medaug.evaluation.features.spaces import spaces_of

    scans = folder / "scans"
    if not scans.exists():
        part = folder / "scans.part"
        source.write(part, PATIENTS, 7, SHAPE, SPACING_MM)
        part.rename(scans)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    defaults = spaces_of.__kwdefaults__
    assert defaults is not None
    defaults["encoder_images"] = ENCODER_IMAGES
    offered = nbia(scans)
    with served(offered) as url:
        digest = hashlib.sha256(offered.files[LABELS]).hexdigest()
        made = World(folder, scans, folder / "cache" / "out", folder / "run" / "out", url, digest)
        for name, place in (("prepare", made.cache), ("train", made.run)):
            end = run(made.victim(name).command(), place.parent)
            if end.code:
                raise RuntimeError(f"{name} does not even work undisturbed: {end.said}")
        yield made


@contextmanager
def served(offered: Nbia) -> Iterator[str]:
    """The address of a server in a process of its own, so that no threads are forked."""
    ours, theirs = Pipe()
    server = get_context("fork").Process(target=_serve, args=(offered, theirs), daemon=True)
    server.start()
    try:
        yield ours.recv()
    finally:
        server.kill()
        server.join()


def _serve(offered: Nbia, address: Connection) -> None:
    web = offered.web()
    web.pause_s = PAUSE_S
    with serving(web):
        address.send(web.url)
        signal.pause()
