"""The store: nothing acknowledged is lost, nothing is stored twice, nothing can be changed unnoticed."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from medssl.errors import BadInput
from medssl.review.database import is_url
from medssl.review.event import Act, Event
from medssl.review.event_store import Store
from medssl.review.reading import Refusal

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


def act(number: int, **more) -> Act:
    said = {"case": "case-1", "reviewer": "ana", "role": "reader", "action": "accept", "finding": "f1"}
    return Act(**({"session": "s", "number": number} | said | more))


def engine_of(place):
    return create_engine(place if is_url(place) else f"sqlite:///{place}", poolclass=NullPool)


def behind(place, *statements: str, **values) -> None:
    """Writes past the store, as somebody with the password of the database could."""
    with engine_of(place).begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def tamper(place, *statements: str, **values) -> None:
    """The same by somebody who takes the guards off first."""
    off = (
        ["ALTER TABLE event DISABLE TRIGGER USER"]
        if is_url(place)
        else ["DROP TRIGGER no_update", "DROP TRIGGER no_delete"]
    )
    behind(place, *off, *statements, **values)


@pytest.fixture
def store(place):
    return Store(place)


def test_events_come_back_in_order_and_unbroken(store):
    stored = [store.record(act(n, finding=f"f{n}", mask=b"m" if n == 2 else None)) for n in range(5)]
    assert store.events() == stored
    assert [e.id for e in stored] == [1, 2, 3, 4, 5]
    assert store.faults() == []


def test_delivering_an_act_again_stores_it_once(store):
    first = store.record(act(1))
    assert store.record(act(1)).id == first.id
    assert len(store.events()) == 1


def test_a_number_used_for_another_act_is_refused(store):
    store.record(act(1))
    with pytest.raises(Refusal, match="something else"):
        store.record(act(1, finding="f2"))


def test_eight_threads_lose_nothing(store):
    def click(thread: int) -> None:
        for n in range(6):
            store.record(act(n, session=f"s{thread}", reviewer=f"r{thread}", finding=f"f{n}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(click, range(8)))
    events = store.events()
    assert {(e.session, e.number) for e in events} == {(f"s{t}", n) for t in range(8) for n in range(6)}
    assert store.faults() == []


def test_eight_servers_that_start_at_once_make_one_schema(place):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store(place), range(8)))
    stores[0].record(act(1))
    assert len(stores[7].events()) == 1


def test_a_killed_process_loses_nothing_it_acknowledged(place):
    script = """
import sys
from medssl.review.event import Act
from medssl.review.event_store import Store
store = Store(sys.argv[1])
for n in range(10_000):
    store.record(Act(session="s", number=n, case="c", reviewer="ana", role="reader", action="accept", finding=f"f{n}"))
    print(n, flush=True)
"""
    command = [sys.executable, "-c", script, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    store = Store(place)
    assert set(said) <= {e.number for e in store.events()}
    assert store.faults() == []


@pytest.mark.parametrize("statement", ["UPDATE event SET note = 'x'", "DELETE FROM event"])
def test_the_database_itself_refuses_changes(store, place, statement):
    store.record(act(1))
    with pytest.raises(DBAPIError, match="append-only"):
        behind(place, statement)


def test_two_events_of_one_number_cannot_stand_in_the_database(store, place):
    store.record(act(1))
    names = [f'"{column.name}"' for column in SQLModel.metadata.tables["event"].columns]
    values = ", ".join("id + 1" if name == '"id"' else name for name in names)
    with pytest.raises(DBAPIError, match="session"):
        behind(place, f"INSERT INTO event ({', '.join(names)}) SELECT {values} FROM event")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM event WHERE id = 2", "event 2: removed"),
        ("DELETE FROM event WHERE id = 1", "event 1: removed"),
        ("UPDATE event SET id = CASE id WHEN 2 THEN -3 ELSE -2 END WHERE id IN (2, 3)", "event 2: changed"),
        ("UPDATE event SET id = id + 1 WHERE id = 4", "event 4: removed"),
    ],
)
def test_what_was_removed_or_moved_is_found(store, place, statement, said):
    for n in range(4):
        store.record(act(n, mask=b"runs"))
    tamper(place, statement, "UPDATE event SET id = -id WHERE id < 0")
    assert any(said in fault for fault in store.faults())


def test_a_change_of_any_column_is_found(store, place):
    """Each column of the table in turn, on one event of three; then put back, and the chain is whole again."""
    stored = [store.record(act(n, mask=b"runs", label=1, target=1)) for n in range(3)][1]
    tamper(place, "SELECT 1")
    for column in SQLModel.metadata.tables["event"].columns:
        if column.name == "id":
            continue
        before = getattr(stored, column.name)
        after = before + 7 if isinstance(before, int) else before + b"x" if isinstance(before, bytes) else f"{before}x"
        for value in [after, *([None] if column.nullable else [])]:
            behind(place, f'UPDATE event SET "{column.name}" = :value WHERE id = 2', value=value)
            assert store.faults(), f"{column.name} was changed to {value!r} and nobody saw it"
        behind(place, f'UPDATE event SET "{column.name}" = :value WHERE id = 2', value=before)
        assert store.faults() == []


def test_a_cut_tail_is_found_with_a_head_noted_elsewhere(store, place):
    head = [store.record(act(n)).hash for n in range(3)][-1]
    assert store.faults([head]) == []
    tamper(place, "DELETE FROM event WHERE id = 3")
    assert store.faults() == []
    assert "cut" in store.faults([head])[0]


def test_an_act_nobody_understands_is_refused():
    with pytest.raises(ValueError, match="known: accept"):
        Act.model_validate(act(1).model_dump() | {"action": "maybe"})
    with pytest.raises(ValueError, match="known: reader"):
        Act.model_validate(act(1).model_dump() | {"role": "king"})


def test_what_was_refused_leaves_no_trace(store):
    store.record(act(1))
    store.record(act(2, action="sign", finding=""))
    with pytest.raises(Refusal, match="signed"):
        store.record(act(3, action="reject"))
    assert [e.action for e in store.events()] == ["accept", "sign"]


def test_a_store_from_before_there_were_migrations_is_brought_up_to_date(tmp_path):
    path, first = tmp_path / "old.sqlite", Event.after(None, act(1, mask=b"runs"))
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(FIRST)
        told = first.model_dump()
        names = ", ".join(f'"{name}"' for name in told)
        db.execute(f"INSERT INTO event ({names}) VALUES ({', '.join('?' * len(told))})", list(told.values()))
    for _ in range(2):
        store = Store(path)
        assert store.events()[0] == first and store.faults() == []
    assert store.record(act(2)).prev_hash == first.hash
    up_to_date(path)


def test_the_migrations_lead_to_the_schema_of_the_code(store, place):
    up_to_date(place)


def up_to_date(place) -> None:
    with engine_of(place).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_a_store_of_a_newer_medssl_is_refused_and_left_alone(store, place):
    store.record(act(1))
    behind(place, "UPDATE alembic_version SET version_num = 'from the future'")
    with pytest.raises(BadInput, match="newer medssl"):
        Store(place)
    assert len(store.events()) == 1


def test_a_missing_folder_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        Store(tmp_path / "none" / "review.sqlite")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("postgresql+psycopg://ana:secret@127.0.0.1:1/review", "cannot keep verdicts"),
        ("mysql://ana@site/review", "no database of ours"),
        ("://review", "not the URL"),
    ],
)
def test_a_database_that_is_not_there_is_bad_input_without_its_password(place, said):
    with pytest.raises(BadInput, match=said) as refused:
        Store(place)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_store_is_bad_input(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough to look like one" * 9)
    with pytest.raises(BadInput, match="cannot keep verdicts"):
        Store.existing(tmp_path / "notes.txt")
