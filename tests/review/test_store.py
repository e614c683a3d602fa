"""The store: nothing acknowledged is lost, nothing is stored twice, nothing can be changed unnoticed."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from medssl.errors import BadInput
from medssl.review.event import Act
from medssl.review.state import Refusal
from medssl.review.store import Store


def act(number: int, **more) -> Act:
    said = {"case": "case-1", "reviewer": "ana", "role": "reader", "action": "accept", "finding": "f1"}
    return Act(**({"session": "s", "number": number} | said | more))


def tamper(path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for trigger in ("no_update", "no_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(statement)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "review.sqlite")


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
        for n in range(12):
            store.record(act(n, session=f"s{thread}", reviewer=f"r{thread}", finding=f"f{n}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(click, range(8)))
    events = store.events()
    assert {(e.session, e.number) for e in events} == {(f"s{t}", n) for t in range(8) for n in range(12)}
    assert store.faults() == []


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path):
    script = """
import sys
from medssl.review.event import Act
from medssl.review.store import Store
store = Store(sys.argv[1])
for n in range(10_000):
    store.record(Act(session="s", number=n, case="c", reviewer="ana", role="reader", action="accept", finding=f"f{n}"))
    print(n, flush=True)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "review.sqlite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    store = Store(tmp_path / "review.sqlite")
    assert set(said) <= {e.number for e in store.events()}
    assert store.faults() == []


@pytest.mark.parametrize("statement", ["UPDATE event SET note = 'x'", "DELETE FROM event"])
def test_the_database_itself_refuses_changes(store, statement):
    store.record(act(1))
    with closing(sqlite3.connect(store.path)) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(statement)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE event SET action = 'reject' WHERE id = 2", "event 2: changed"),
        ("UPDATE event SET mask = X'00' WHERE id = 3", "event 3: changed"),
        ("UPDATE event SET at = '2020-01-01T00:00:00' WHERE id = 1", "event 1: changed"),
        ("DELETE FROM event WHERE id = 2", "event 2: removed"),
        ("DELETE FROM event WHERE id = 1", "event 1: removed"),
        ("UPDATE event SET id = CASE id WHEN 2 THEN -3 ELSE -2 END WHERE id IN (2, 3)", None),
    ],
)
def test_tampering_behind_its_back_is_found(store, statement, said):
    for n in range(4):
        store.record(act(n, mask=b"runs"))
    tamper(store.path, statement, "UPDATE event SET id = -id WHERE id < 0")
    assert any((said or "changed") in fault for fault in store.faults())


def test_a_cut_tail_is_found_with_a_head_noted_elsewhere(store):
    head = [store.record(act(n)).hash for n in range(3)][-1]
    assert store.faults(head) == []
    tamper(store.path, "DELETE FROM event WHERE id = 3")
    assert store.faults() == []
    assert "cut" in store.faults(head)[0]


def test_an_act_nobody_understands_is_refused():
    with pytest.raises(ValueError, match="known: accept"):
        Act.model_validate(act(1).model_dump() | {"action": "maybe"})
    with pytest.raises(ValueError, match="known: reader"):
        Act.model_validate(act(1).model_dump() | {"role": "king"})


def test_a_missing_folder_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        Store(tmp_path / "none" / "review.sqlite")


def test_what_was_refused_leaves_no_trace(store):
    store.record(act(1))
    store.record(act(2, action="sign", finding=""))
    with pytest.raises(Refusal, match="signed"):
        store.record(act(3, action="reject"))
    assert [e.action for e in store.events()] == ["accept", "sign"]


def test_two_events_of_one_number_cannot_stand_in_the_database(store):
    first = store.record(act(1))
    with closing(sqlite3.connect(store.path)) as db, pytest.raises(sqlite3.IntegrityError, match="session"):
        names = [f'"{row[1]}"' for row in db.execute("PRAGMA table_info(event)")]
        values = ", ".join("id + 1" if name == '"id"' else name for name in names)
        db.execute(f"INSERT INTO event ({', '.join(names)}) SELECT {values} FROM event WHERE id = {first.id}")
