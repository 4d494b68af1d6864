"""prepare and synthesize in shares: the same bytes as one process, whatever the order."""

import re
import subprocess
import threading
from pathlib import Path

import pytest

from medaug.cli.options import parse_shard
from medaug.core.errors import ConfigError, OutputError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, PrepareReport, SliceCache, prepare
from medaug.data.cache.shards import sharing, wait
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize

SETTINGS = CacheSettings(size=32, holdout=0.25)
EXAMPLES = Path(__file__).parents[2] / "examples"


def content(folder: Path) -> dict[str, bytes]:
    """Every file by name; what a source was, with its times, is not of the cache's content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "source.json")
    }


def cut(root: Path, cache: Path, part: tuple[int, int]) -> PrepareReport:
    return prepare(open_source(str(root)), cache, SETTINGS, 0, (), part)


def test_shares_of_a_cache_are_the_whole_cache(phantom_root: Path, tmp_path: Path) -> None:
    cut(phantom_root, tmp_path / "whole", (0, 1))
    cache = tmp_path / "shared"
    reports = [cut(phantom_root, cache, (number, 3)) for number in (2, 0, 1)]
    assert [report.complete for report in reports] == [False, False, True]
    assert sorted(len(report.done) for report in reports) == [1, 1, 2]
    assert content(cache) == content(tmp_path / "whole")
    again = cut(phantom_root, cache, (1, 3))
    assert again.complete
    assert not again.done


def test_what_a_kill_after_the_end_leaves_goes_with_the_next_call(
    phantom_root: Path, tmp_path: Path
) -> None:
    cut(phantom_root, tmp_path / "whole", (0, 1))
    wanted = content(tmp_path / "whole")
    for name in (".turn", ".share-0-of-2.json"):
        (tmp_path / "whole" / name).touch()
    assert content(tmp_path / "whole") != wanted
    assert cut(phantom_root, tmp_path / "whole", (0, 1)).complete
    assert content(tmp_path / "whole") == wanted


def test_shares_at_once_wait_for_each_other(phantom_root: Path, tmp_path: Path) -> None:
    cut(phantom_root, tmp_path / "whole", (0, 1))
    cache, opened = tmp_path / "shared", []

    def take(number: int) -> None:
        cut(phantom_root, cache, (number, 2))
        wait(cache)
        opened.append(SliceCache.open(cache).fingerprint)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == 2 * [SliceCache.open(tmp_path / "whole").fingerprint]
    assert content(cache) == content(tmp_path / "whole")


def test_a_scan_that_fails_in_one_share_is_told_once(phantom_root: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "phantom"
    shutil.copytree(phantom_root, root)
    label = sorted(root.rglob("label*.nii.gz"))[1]
    label.write_bytes(label.read_bytes()[:200])
    cut(root, tmp_path / "whole", (0, 1))
    cache = tmp_path / "shared"
    reports = [cut(root, cache, (number, 2)) for number in range(2)]
    assert sorted(len(report.failed) for report in reports) == [0, 1]
    assert content(cache) == content(tmp_path / "whole")
    again = [cut(root, cache, (number, 2)) for number in range(2)]
    assert all(report.complete for report in again)
    assert sorted(len(report.failed) for report in again) == [0, 1]


def test_a_share_and_a_whole_keep_apart(phantom_root: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medaug.runtime.files.PATIENCE_S", 0.1)
        with sharing(tmp_path, (0, 2)), sharing(tmp_path, (1, 2)):
            for part in ((0, 1), (0, 2)):
                with (
                    pytest.raises(OutputError, match="another process is working in it"),
                    sharing(tmp_path, part),
                ):
                    pass


def test_waiting_for_the_dead_ends(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the other shares ended before they were done"):
        wait(tmp_path, 0.3)


def test_samples_are_shared_by_the_environment(tiny_run: Path, tmp_path: Path) -> None:
    generator = Generator.from_pretrained(tiny_run, "cpu")
    synthesize(generator, 20, tmp_path / "whole", uncertainty=1)
    for number in (1, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RANK", str(number))
            patch.setenv("WORLD_SIZE", "2")
            part = parse_shard(None)
        assert part == (number, 2)
        synthesize(generator, 20, tmp_path / "shared", uncertainty=1, shard=part)
    assert content(tmp_path / "shared") == content(tmp_path / "whole")


def test_a_shard_that_is_none_is_refused(phantom_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shard 2/2: the first number counts from 0 to 2 - 1"):
        cut(phantom_root, tmp_path / "cache", (2, 2))


@pytest.mark.parametrize("name", ["slurm_train.sh", "slurm_synthesize.sh"])
def test_a_slurm_script_is_sound_and_its_command_is_known(name: str) -> None:
    from typer.main import get_command

    from medaug.cli import app

    script = EXAMPLES / name
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "--requeue" in text
    assert "--signal=TERM@" in text
    assert "-eq 75" in text
    (line,) = re.findall(r"^ +medaug (.+?) &$", text, re.MULTILINE)
    values = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
    values |= dict(re.findall(r"^(\w+)=\$\{\w+:-(.+)\}$", text, re.MULTILINE))
    words = re.sub(r"\$(\w+)", lambda found: values[found[1]], line.replace('"', "")).split()
    group = get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    assert command.make_context(words[0], words[1:]).params
