"""The rows of finished samples: where they stand, in what order, and what they cost in memory."""

import tracemalloc
from pathlib import Path

import pytest

from medaug.synthesis import journal
from medaug.synthesis.manifest import COLUMNS, case_name, files_crc32, signed_line
from medaug.synthesis.request import job_for
from tests.support.toy import Toy

JOURNAL = ".journal-0-of-1"


def line(number: int, **cells: str) -> bytes:
    row = dict.fromkeys(COLUMNS, "")
    row |= {"index": str(number), "case": case_name(number), "origin": "synthetic", **cells}
    return signed_line(list(row.values())[:-1])


def real(name: str) -> bytes:
    return line(0, index="", case=name, origin="real", patient="p")


HEADER = (",".join(COLUMNS) + "\n").encode()


def test_a_journal_overrules_the_manifest_and_both_come_in_order(tmp_path: Path) -> None:
    (tmp_path / journal.MANIFEST).write_bytes(HEADER + line(5) + line(2, seed="1") + real("a_z1"))
    (tmp_path / JOURNAL).write_bytes(line(9) + line(2, seed="7") + real("b_z1") + line(4)[:-1])
    rows = journal.read(tmp_path)
    assert list(rows) == rows.indices.tolist() == [2, 5, 9]
    assert (rows[2]["seed"], rows[5]["seed"], len(rows)) == ("7", "", 3)
    assert list(rows.real) == ["a_z1", "b_z1"]
    assert 4 not in rows
    assert rows.get(3) is None
    log, entered = journal.enter(tmp_path, (0, 1), 16)
    log.close()
    assert dict(entered) == dict(rows)
    merged = (tmp_path / journal.MANIFEST).read_bytes()
    wanted = [HEADER, line(2, seed="7"), line(5), line(9), real("a_z1"), real("b_z1")]
    assert merged == b"".join(wanted)


def test_rows_outlive_their_files(tmp_path: Path) -> None:
    (tmp_path / journal.MANIFEST).write_bytes(HEADER + line(1, seed="3"))
    rows = journal.read(tmp_path)
    (tmp_path / journal.MANIFEST).unlink()
    assert rows[1]["seed"] == "3"
    assert list(journal.read(tmp_path)) == []


def test_a_manifest_without_news_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / journal.MANIFEST).write_bytes(HEADER + line(1))
    before = (tmp_path / journal.MANIFEST).stat().st_ino
    for content, same in ((b"", True), (line(3), False)):
        (tmp_path / JOURNAL).write_bytes(content)
        log, _ = journal.enter(tmp_path, (0, 1), 16)
        log.close()
        assert ((tmp_path / journal.MANIFEST).stat().st_ino == before) == same


@pytest.mark.parametrize("shard", [(0, 1), (0, 3), (2, 3)])
def test_a_sample_is_missing_without_its_row_or_a_file_as_it_was(
    tmp_path: Path, shard: tuple[int, int]
) -> None:
    (tmp_path / "images").mkdir()
    lines = []
    for index in range(70):
        name = f"images/{index}.png"
        if index % 7:
            (tmp_path / name).touch()
        if index % 5:
            lines.append(line(index, image=name, files_crc32=files_crc32([b""])))
    (tmp_path / journal.MANIFEST).write_bytes(HEADER + b"".join(lines))
    job = job_for(Toy(), 100, tmp_path, {"shard": shard})
    mine = [i for i in range(100) if i // Toy.block_size % shard[1] == shard[0]]
    assert job.indices().tolist() == mine
    (tmp_path / "images" / "11.png").write_bytes(b"damaged")
    gone = [i for i in mine if i >= 70 or not i % 5 or not i % 7 or i == 11]
    assert job.missing(journal.read(tmp_path)).tolist() == gone


def test_memory_for_a_sample_is_small(tmp_path: Path) -> None:
    """Resuming a folder of a million samples is to take a laptop's memory."""
    names = {role: f"{role}/case" for role in ("image", "label", "std", "entropy")}
    table = HEADER + b"".join(line(i, **names) for i in range(20_000))
    (tmp_path / journal.MANIFEST).write_bytes(table)
    job = job_for(Toy(), 20_000, tmp_path, {})
    tracemalloc.start()
    rows = journal.read(tmp_path)
    kept, _ = tracemalloc.get_traced_memory()
    assert len(job.missing(rows)) == 20_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / 20_000 < 50
    assert most / 20_000 < 400
