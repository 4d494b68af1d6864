"""The five commands that are tortured, in the smallest form that takes all of their steps."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from process import Command, run
from trial import difference
from web import LABELS, Nbia, nbia, serving

SHAPE, SPACING_MM = (64, 64, 20), (6.0, 6.0, 9.5)
PATIENTS = 4
VICTIMS = ("prepare", "train", "synthesize", "evaluate", "download")
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


@dataclass(frozen=True)
class Victim:
    """A command and where its result is.

    Attributes:
        name: of the command.
        words: after ``medaug``; run in the folder whose content is compared.
        output: the folder below it that the command writes.
        ignored: fields that say how long something took, by file; nothing depends on them.
    """

    name: str
    words: Sequence[str]
    output: str
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

    def victim(self, name: str) -> Victim:
        """The command called ``name``."""
        words, output = getattr(self, f"_{name}")()
        times = {"metrics.jsonl": ["images_per_s"]} if name == "train" else {}
        return Victim(name, [name, *words], output, times)

    def _prepare(self) -> tuple[list[str], str]:
        return [
            "pancreas", "--root", str(self.scans), "--cache", "out", "--size", "32",
            "--holdout", "0.25", "--workers", "2",
        ], "out"  # fmt: skip

    def _train(self) -> tuple[list[str], str]:
        settings = [word for key, value in TINY.items() for word in _set(key, value)]
        return [
            "--data", str(self.cache), "--run", "out", "--images", "160", "--device", "cpu",
            *settings,
        ], "out"  # fmt: skip

    def _synthesize(self) -> tuple[list[str], str]:
        return [
            "-n", "48", "--out", "out", "--run", str(self.run), "--uncertainty", "2",
            "--format", "nifti", "--device", "cpu", "--no-filter",
        ], "out"  # fmt: skip

    def _evaluate(self) -> tuple[list[str], str]:
        return [
            "--run", str(self.run), "-n", "24", "--out", "out", "--uncertainty", "2",
            "--device", "cpu", "--families", "fidelity,uncertainty",
        ], "out"  # fmt: skip

    def _download(self) -> tuple[list[str], str]:
        asked = {
            "pancreas": f"{self.url}/v4",
            "pancreas_labels": f"{self.url}{LABELS}",
            "checksums": {"pancreas_labels": self.digest},
            "timeout_s": 5.0,
            "attempts": 3,
            "pause_s": 0.0,
        }
        settings = [word for key, value in asked.items() for word in _set(f"download.{key}", value)]
        return ["pancreas", "--root", "out", "--yes", *settings], "out"


def _set(key: str, value: object) -> tuple[str, str]:
    return "--set", f"{key}={json.dumps(value)}"


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
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            web = offered.web()
            web.pause_s = PAUSE_S
            with serving(web):
                os.write(writer, web.url.encode())
                signal.pause()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        url = os.read(stream.fileno(), 64).decode()
    try:
        yield url
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
