"""Locations for an event log: a file, and a PostgreSQL server if there is one."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

VARIABLE = "MEDSSL_TEST_POSTGRES"
NUMBERS = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    """Where a store can be opened: a file that is not there yet, or the URL of an empty database."""
    if request.param == "sqlite":
        yield tmp_path / "review.sqlite"
        return
    server = make_url(request.getfixturevalue("postgresql"))
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    name = f"medssl_test_{os.getpid()}_{next(NUMBERS)}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a server: the one that the environment names, or one that runs as long as the tests."""
    if VARIABLE in os.environ:
        yield os.environ[VARIABLE]
        return
    pytest.importorskip("psycopg", reason="needs psycopg (the `postgres` extra)")
    paths = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    initdb, postgres = (shutil.which(name, path=os.pathsep.join(paths)) for name in ("initdb", "postgres"))
    if not (initdb and postgres):
        pytest.skip(f"needs a PostgreSQL server (`apt-get install postgresql`, or its URL in {VARIABLE})")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, _running(initdb, postgres, Path(folder)) as url:
        yield url


@contextmanager
def _running(initdb: str, postgres: str, folder: Path):
    user = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}  # it refuses to run as root
    if user:
        shutil.chown(folder, *user.values())
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [initdb, "--no-sync", "--auth", "trust", "--username", "medssl", "-D", str(folder / "data")]
    subprocess.run(command, check=True, timeout=120, **output, **user)
    flags = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    with subprocess.Popen([postgres, "-D", str(folder / "data"), *flags], **output, **user) as server:
        url = f"postgresql+psycopg://medssl@/postgres?host={folder}"
        try:
            _wait_for(url)
            yield url
        finally:
            server.terminate()


def _wait_for(url: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            with create_engine(url, poolclass=NullPool).connect():
                return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
