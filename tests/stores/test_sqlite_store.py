"""What the embedded store does beyond what every store does: its file, and what can be wrong with it."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from store_documents import chunk_of, fill, job, read_outcomes, write_until_killed

from glint.adapters import sqlite_file, sqlite_store
from glint.adapters.sqlite_store import SqliteStore
from glint.core.errors import GlintError
from glint.core.stores import Bridge

PAGE = Path(__file__).parents[2] / "docs" / "store.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def refused(bridge: Bridge, store: SqliteStore, reason: str) -> None:
    with pytest.raises(GlintError) as raised:
        bridge.run(store.jobs())
    message = str(raised.value)
    assert "GLINT_STORE" in message
    assert str(store.path) in message
    assert reason in message
    assert "\n" not in message


def test_making_a_store_touches_no_file(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "not" / "yet" / "results.db")
    assert list(tmp_path.iterdir()) == []


def test_first_use_makes_the_file_and_its_folder(tmp_path: Path, bridge: Bridge) -> None:
    store = SqliteStore(tmp_path / "not" / "yet" / "results.db")
    assert bridge.run(store.jobs()) == []
    bridge.run(store.close())
    assert [found.name for found in store.path.parent.iterdir()] == ["results.db"]


def test_a_relative_path_stays_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bridge: Bridge
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(Path("results.db"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    bridge.run(store.jobs())
    bridge.run(store.close())
    assert (tmp_path / "results.db").is_file()


def test_a_store_serves_one_event_loop_after_another(path: Path) -> None:
    store = SqliteStore(path)
    asyncio.run(store.put_job(job("j1")))
    assert asyncio.run(store.get_job("j1")) is not None
    asyncio.run(store.close())


def test_more_chunks_than_are_read_at_once_come_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, bridge: Bridge
) -> None:
    monkeypatch.setattr(sqlite_store, "CHUNKS_AT_ONCE", 3)
    store = SqliteStore(path)
    for num_chunks in (2, 3, 6, 7):
        fill(bridge, store, f"j{num_chunks}", num_chunks, size=1)
        assert len(bridge.collect(store.chunks(f"j{num_chunks}"))) == num_chunks
    bridge.run(store.close())


def test_a_chunk_that_fails_half_way_leaves_nothing_of_itself(path: Path, bridge: Bridge) -> None:
    store = SqliteStore(path)
    fill(bridge, store, "j1", num_chunks=1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON chunks WHEN new.chunk = 1 BEGIN SELECT raise(ABORT, 'stopped'); END"
        )
        connection.commit()
    with pytest.raises(sqlite3.IntegrityError, match="stopped"):
        bridge.run(store.put_chunk(*chunk_of("j1", 1)))
    assert len(read_outcomes(bridge, store, "j1")) == 5
    bridge.run(store.put_chunk(*chunk_of("j1", 2)))
    assert len(read_outcomes(bridge, store, "j1")) == 10
    bridge.run(store.close())


def test_a_killed_writer_leaves_whole_chunks(path: Path, bridge: Bridge) -> None:
    store = SqliteStore(path)
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    worker = spawn.Process(target=write_until_killed, args=(store, "j1", writer))
    worker.start()
    told = [reader.recv() for _ in range(10)]
    worker.kill()
    worker.join()
    chunks = bridge.collect(store.chunks("j1"))
    outcomes = read_outcomes(bridge, store, "j1")
    assert {chunk.chunk for chunk in chunks} >= set(told)
    assert sum(chunk.num_images for chunk in chunks) == len(outcomes)
    assert sum((Counter(chunk.statuses) for chunk in chunks), Counter()) == Counter(row.status for row in outcomes)
    bridge.run(store.close())


# What can be wrong with the file


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, bridge: Bridge) -> None:
    path.write_bytes(b"uri,label\n" * 500)
    refused(bridge, SqliteStore(path), "not a database")
    assert path.read_bytes() == b"uri,label\n" * 500


def test_a_damaged_database_is_named(path: Path, bridge: Bridge) -> None:
    store = SqliteStore(path)
    bridge.run(store.put_job(job("j1")))
    bridge.run(store.close())
    content = path.read_bytes()
    damaged = content[:4096] + b"\xff" * (len(content) - 4096)
    path.write_bytes(damaged)
    refused(bridge, store, "malformed")
    bridge.run(store.close())
    assert path.read_bytes() == damaged, "what may be rescued is left alone"


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path, bridge: Bridge) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (id INTEGER)")
    content = path.read_bytes()
    refused(bridge, SqliteStore(path), "another program")
    assert path.read_bytes() == content


def test_the_database_of_a_newer_glint_is_refused(path: Path, bridge: Bridge) -> None:
    store = SqliteStore(path)
    bridge.run(store.jobs())
    bridge.run(store.close())
    newer = sqlite_file.SCHEMA_VERSION + 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    content = path.read_bytes()
    refused(bridge, store, f"schema version {newer}, made by a newer glint")
    assert path.read_bytes() == content


def test_another_number_of_partitions_is_refused(path: Path, bridge: Bridge) -> None:
    store = SqliteStore(path, num_partitions=2)
    written = fill(bridge, store, "j1", num_chunks=5)
    assert [row.id for row in read_outcomes(bridge, store, "j1")] == sorted(written)
    bridge.run(store.close())
    refused(bridge, SqliteStore(path, num_partitions=4), "num_partitions 2, got 4")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path, bridge: Bridge) -> None:
    refused(bridge, SqliteStore(tmp_path), "unable to open database file")
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_is_refused(path: Path, bridge: Bridge) -> None:
    path.write_text("")
    refused(bridge, SqliteStore(path / "results.db"), "cannot be opened")
    assert path.read_text() == ""


def test_a_store_mends_when_the_path_does(path: Path, bridge: Bridge) -> None:
    path.mkdir()
    store = SqliteStore(path)
    refused(bridge, store, "unable to open database file")
    path.rmdir()
    assert bridge.run(store.jobs()) == []
    bridge.run(store.close())


def test_a_lock_that_another_program_never_gives_back_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, bridge: Bridge
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.01)
    store = SqliteStore(path)
    bridge.run(store.jobs())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(GlintError, match=f"GLINT_STORE sqlite:///{re.escape(str(path))} .*locked"):
            bridge.run(store.put_job(job("j1")))
        connection.execute("ROLLBACK")
    bridge.run(store.put_job(job("j1")))
    bridge.run(store.close())


# What the documentation says that one can ask it


def test_the_queries_in_the_documentation_answer(path: Path, bridge: Bridge) -> None:
    store = SqliteStore(path)
    bridge.run(store.put_job(job("JOB")))
    outcomes = list(fill(bridge, store, "JOB", num_chunks=6).values())
    fill(bridge, store, "JOB2", num_chunks=2)
    bridge.run(store.close())
    queries = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        answers = [connection.execute(query).fetchall() for query in queries]
    assert all(answers)
    assert dict(answers[0]) == Counter(row.status for row in outcomes)
    assert answers[1] == [(len(outcomes), 6)]
