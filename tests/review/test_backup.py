"""The commands of docs/how-to/deploy.md copy a database of verdicts while it is open, and the copy verifies."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from medssl import cli
from medssl.review.event import Act
from medssl.review.event_store import EventStore

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/deploy.md").read_text()


def act(number: int) -> Act:
    return Act(session="s", number=number, case="case-1", reviewer="ana", role="reader", action="accept", finding="f1")


def run(command: str, folder: Path) -> None:
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True, timeout=60)


def read_commands(kind: str) -> list[str]:
    """The commands in the row of the table, in their order."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {kind} "))
    return [command for command in re.findall(r"`([^`]+)`", row) if " " in command]


def test_a_copy_of_a_file_verifies_while_a_reader_goes_on(tmp_path, capsys):
    if not shutil.which("sqlite3"):
        pytest.skip("needs sqlite3 (apt-get install sqlite3)")
    store = EventStore(tmp_path / "review.sqlite")
    store.record(act(1))
    run(read_commands("SQLite")[0], tmp_path)
    store.record(act(2))
    assert cli.run("audit", ["verify", str(tmp_path / "copy.sqlite")]) == 0
    assert capsys.readouterr().out.startswith("1 events, chain unbroken")


def test_a_copy_of_a_server_is_restored_with_its_guards(postgresql, tmp_path, capsys, monkeypatch):
    if not shutil.which("pg_dump"):
        pytest.skip("needs pg_dump (apt-get install postgresql-client)")
    server = make_url(postgresql)
    monkeypatch.setenv("PGHOST", server.query["host"])
    monkeypatch.setenv("PGUSER", server.username)
    run("createdb medssl", tmp_path)
    store = EventStore(server.set(database="medssl").render_as_string(hide_password=False))
    store.record(act(1))
    for command in read_commands("PostgreSQL"):
        run(command, tmp_path)
    copy = server.set(database="medssl2").render_as_string(hide_password=False)
    assert cli.run("audit", ["verify", copy]) == 0
    assert capsys.readouterr().out.startswith("1 events, chain unbroken")
    with pytest.raises(Exception, match="append-only"), create_engine(copy, poolclass=NullPool).begin() as connection:
        connection.execute(text("DELETE FROM event"))
