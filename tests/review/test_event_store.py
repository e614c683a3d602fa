"""An acknowledged act is never lost, never stored twice, and no change of the event log stays unnoticed."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from medssl.errors import BadInput
from medssl.review import event
from medssl.review.database import is_url
from medssl.review.event import Act, Event
from medssl.review.event_store import EventStore
from medssl.review.reading import ActRejected

# The schema of stores that were made before there were migrations.
FIRST = """
CREATE TABLE event (
 session VARCHAR NOT NULL, number INTEGER NOT NULL, "case" VARCHAR NOT NULL, reviewer VARCHAR NOT NULL,
 role VARCHAR NOT NULL, action VARCHAR NOT NULL, finding VARCHAR NOT NULL, label INTEGER, reason VARCHAR NOT NULL,
 note VARCHAR NOT NULL, target INTEGER, details VARCHAR NOT NULL, mask BLOB, model VARCHAR NOT NULL,
 dwell_ms INTEGER NOT NULL, id INTEGER NOT NULL, at VARCHAR NOT NULL, version VARCHAR NOT NULL,
 prev_hash VARCHAR NOT NULL, hash VARCHAR NOT NULL, PRIMARY KEY (id), UNIQUE (session, number));
CREATE TRIGGER no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
"""


def act(number: int, **changes) -> Act:
    fields = {"case": "case-1", "reviewer": "ana", "role": "reader", "action": "accept", "finding": "f1"}
    return Act(**({"session": "s", "number": number} | fields | changes))


def engine_of(location):
    return create_engine(location if is_url(location) else f"sqlite:///{location}", poolclass=NullPool)


def behind(location, *statements: str, **values) -> None:
    """Writes without the store, as a person with the password of the database could."""
    with engine_of(location).begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def tamper(location, *statements: str, **values) -> None:
    """Does the same after removing the guards."""
    off = (
        ["ALTER TABLE event DISABLE TRIGGER USER"]
        if is_url(location)
        else ["DROP TRIGGER no_update", "DROP TRIGGER no_delete"]
    )
    behind(location, *off, *statements, **values)


@pytest.fixture
def store(location):
    return EventStore(location)


def test_events_come_back_in_order_and_unbroken(store):
    stored = [store.record(act(n, finding=f"f{n}", mask=b"m" if n == 2 else None)) for n in range(5)]
    assert store.read_events() == stored
    assert [e.id for e in stored] == [1, 2, 3, 4, 5]
    assert store.find_faults() == []


def test_an_act_that_is_sent_twice_is_stored_once(store):
    first = store.record(act(1))
    assert store.record(act(1)).id == first.id
    assert len(store.read_events()) == 1


def test_a_number_used_for_another_act_is_refused(store):
    store.record(act(1))
    with pytest.raises(ActRejected, match="something else"):
        store.record(act(1, finding="f2"))


def test_eight_threads_lose_nothing(store):
    def click(thread: int) -> None:
        for n in range(6):
            store.record(act(n, session=f"s{thread}", reviewer=f"r{thread}", finding=f"f{n}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(click, range(8)))
    events = store.read_events()
    assert {(e.session, e.number) for e in events} == {(f"s{t}", n) for t in range(8) for n in range(6)}
    assert store.find_faults() == []


def test_eight_servers_that_start_at_once_make_one_schema(location):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: EventStore(location), range(8)))
    stores[0].record(act(1))
    assert len(stores[7].read_events()) == 1


def test_a_killed_process_loses_nothing_it_acknowledged(location):
    script = """
import sys
from medssl.review.event import Act
from medssl.review.event_store import EventStore
store = EventStore(sys.argv[1])
for n in range(10_000):
    store.record(Act(session="s", number=n, case="c", reviewer="ana", role="reader", action="accept", finding=f"f{n}"))
    print(n, flush=True)
"""
    command = [sys.executable, "-c", script, str(location)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        numbers = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        numbers += [int(line) for line in process.stdout if line.endswith("\n")]
    store = EventStore(location)
    assert set(numbers) <= {e.number for e in store.read_events()}
    assert store.find_faults() == []


@pytest.mark.parametrize("statement", ["UPDATE event SET note = 'x'", "DELETE FROM event"])
def test_the_database_itself_refuses_changes(store, location, statement):
    store.record(act(1))
    with pytest.raises(DBAPIError, match="append-only"):
        behind(location, statement)


COLUMNS = [column.name for column in SQLModel.metadata.tables["event"].columns]
QUOTED = ", ".join(f'"{name}"' for name in COLUMNS)


@pytest.mark.parametrize("statement", ["INSERT OR REPLACE INTO", "REPLACE INTO", "INSERT OR IGNORE INTO"])
@pytest.mark.parametrize("pair", ["same id", "same session and number"])
def test_no_insert_replaces_an_event(tmp_path, statement, pair):
    """The forged row carries a correct hash, so that only the database can refuse it."""
    store = EventStore(tmp_path / "review.sqlite")
    first, last = store.record(act(1)), store.record(act(2, action="reject"))
    forged = Event.create_after(first if pair == "same id" else last, act(2, action="accept", reviewer="eve"))
    values = ", ".join(f":{name}" for name in COLUMNS)
    with pytest.raises(DBAPIError, match="append-only"):
        behind(tmp_path / "review.sqlite", f"{statement} event ({QUOTED}) VALUES ({values})", **forged.model_dump())
    assert store.read_events() == [first, last]


@pytest.mark.parametrize("place", [{"id": 7}, {"prev_hash": "0" * 64}])
def test_an_insert_has_to_follow_the_last_event(tmp_path, place):
    store = EventStore(tmp_path / "review.sqlite")
    forged = Event.create_after(store.record(act(1)), act(2)).model_dump() | place
    values = ", ".join(f":{name}" for name in COLUMNS)
    with pytest.raises(DBAPIError, match="append-only"):
        behind(tmp_path / "review.sqlite", f"INSERT INTO event ({QUOTED}) VALUES ({values})", **forged)


def test_a_conflicting_insert_cannot_update_an_event(store, location):
    event = store.record(act(1))
    values = ", ".join(f":{name}" for name in COLUMNS)
    conflict = f"INSERT INTO event ({QUOTED}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET note = 'x'"
    with pytest.raises(DBAPIError, match="append-only"):
        behind(location, conflict, **event.model_dump())


@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_other_users_cannot_read_a_store(tmp_path, mask):
    path, before = tmp_path / "review.sqlite", os.umask(mask)
    try:
        with EventStore(path)._database.write():  # its further files exist while it is open
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600} and len(modes) == 3
    path.chmod(0o644)
    EventStore(path)
    assert path.stat().st_mode & 0o007 == 0


def test_a_clock_that_ran_backwards_is_reported_and_breaks_no_chain(store, monkeypatch):
    store.record(act(1))
    now = datetime.now(UTC)
    monkeypatch.setattr(event, "datetime", SimpleNamespace(now=lambda _: now - timedelta(hours=26)))
    store.record(act(2, action="sign", finding=""))
    monkeypatch.undo()
    assert store.find_faults() == []
    (fault,) = event.find_clock_faults(store.read_events())
    assert fault.startswith("event 2: stored at") and "26.0 h before event 1" in fault


def test_two_events_of_one_number_cannot_stand_in_the_database(store, location):
    store.record(act(1))
    values = QUOTED.replace('"id"', "id + 1")
    with pytest.raises(DBAPIError, match="session"):
        behind(location, f"INSERT INTO event ({QUOTED}) SELECT {values} FROM event")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM event WHERE id = 2", "event 2: removed"),
        ("DELETE FROM event WHERE id = 1", "event 1: removed"),
        ("UPDATE event SET id = CASE id WHEN 2 THEN -3 ELSE -2 END WHERE id IN (2, 3)", "event 2: changed"),
        ("UPDATE event SET id = id + 1 WHERE id = 4", "event 4: removed"),
    ],
)
def test_removed_and_moved_events_are_found(store, location, statement, message):
    for n in range(4):
        store.record(act(n, mask=b"runs"))
    tamper(location, statement, "UPDATE event SET id = -id WHERE id < 0")
    assert any(message in fault for fault in store.find_faults())


def test_a_change_of_any_column_is_found(store, location):
    """Each column of the table in turn, on one event of three; then put back, and the chain is whole again."""
    stored = [store.record(act(n, mask=b"runs", label=1, target=1)) for n in range(3)][1]
    tamper(location, "SELECT 1")
    for column in SQLModel.metadata.tables["event"].columns:
        if column.name == "id":
            continue
        before = getattr(stored, column.name)
        after = before + 7 if isinstance(before, int) else before + b"x" if isinstance(before, bytes) else f"{before}x"
        for value in [after, *([None] if column.nullable else [])]:
            behind(location, f'UPDATE event SET "{column.name}" = :value WHERE id = 2', value=value)
            assert store.find_faults(), f"{column.name} was changed to {value!r} and nobody saw it"
        behind(location, f'UPDATE event SET "{column.name}" = :value WHERE id = 2', value=before)
        assert store.find_faults() == []


def test_a_cut_tail_is_found_with_an_anchor(store, location):
    head = [store.record(act(n)).hash for n in range(3)][-1]
    assert store.find_faults([head]) == []
    tamper(location, "DELETE FROM event WHERE id = 3")
    assert store.find_faults() == []
    assert "cut" in store.find_faults([head])[0]


def test_an_unknown_action_or_role_is_rejected():
    with pytest.raises(ValueError, match="known: accept"):
        Act.model_validate(act(1).model_dump() | {"action": "maybe"})
    with pytest.raises(ValueError, match="known: reader"):
        Act.model_validate(act(1).model_dump() | {"role": "king"})


def test_a_rejected_act_is_not_stored(store):
    store.record(act(1))
    store.record(act(2, action="sign", finding=""))
    with pytest.raises(ActRejected, match="signed"):
        store.record(act(3, action="reject"))
    assert [e.action for e in store.read_events()] == ["accept", "sign"]


def test_a_store_from_before_migrations_is_upgraded(tmp_path):
    path, first = tmp_path / "old.sqlite", Event.create_after(None, act(1, mask=b"runs"))
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(FIRST)
        fields = first.model_dump(exclude={"evidence"})
        names = ", ".join(f'"{name}"' for name in fields)
        db.execute(f"INSERT INTO event ({names}) VALUES ({', '.join('?' * len(fields))})", list(fields.values()))
    for _ in range(2):
        store = EventStore(path)
        assert store.read_events()[0] == first and store.find_faults() == []
    assert store.record(act(2)).prev_hash == first.hash
    up_to_date(path)


def test_the_migrations_lead_to_the_schema_of_the_code(store, location):
    up_to_date(location)


def up_to_date(location) -> None:
    with engine_of(location).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_a_database_of_a_newer_medssl_is_rejected_and_unchanged(store, location):
    store.record(act(1))
    behind(location, "UPDATE alembic_version SET version_num = 'from the future'")
    with pytest.raises(BadInput, match="newer medssl"):
        EventStore(location)
    assert len(store.read_events()) == 1


def test_a_missing_folder_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        EventStore(tmp_path / "none" / "review.sqlite")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("postgresql+psycopg://ana:secret@127.0.0.1:1/review", "cannot store verdicts"),
        ("mysql://ana@site/review", "not a supported database"),
        ("://review", "not the URL"),
    ],
)
def test_a_database_that_is_not_there_is_bad_input_without_its_password(location, message):
    with pytest.raises(BadInput, match=message) as error:
        EventStore(location)
    assert "secret" not in str(error.value)


def test_a_file_that_is_not_a_database_is_bad_input(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough to look like one" * 9)
    with pytest.raises(BadInput, match="cannot store verdicts"):
        EventStore.open_existing(tmp_path / "notes.txt")
