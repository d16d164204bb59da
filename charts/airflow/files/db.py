"""Asks Airflow's database what probes and init containers want to know, without importing Airflow.

Importing Airflow costs seconds of CPU, a probe every half minute would keep a small node busy with nothing else.

    db.py reachable           wait until the database answers
    db.py migrated            wait until its schema is the one that this image's Airflow expects
    db.py alive JOB SECONDS   is the process in this pod at work: was its last heartbeat less than SECONDS ago?
"""

import importlib.util
import os
import re
import socket
import sys
import time
from pathlib import Path

import psycopg

WAIT_SECONDS = 600


def ask(query, *values):
    """The rows of one query. Raises psycopg.Error when the database is away or lacks the table."""
    url = re.sub(r"^postgres\w*(\+\w+)?://", "postgresql://", os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    connection = psycopg.connect(url, connect_timeout=5)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()
    finally:
        connection.close()


def expected_revision():
    """The newest of Airflow's migrations: the one that no other names as the one before it."""
    folder = Path(importlib.util.find_spec("airflow").origin).parent / "migrations" / "versions"
    revisions, earlier = set(), set()
    for file in folder.glob("[0-9]*.py"):
        text = file.read_text()
        revisions.update(re.findall(r"^revision\b[^=]*=\s*[\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b[^=]*=(.*)$", text, re.MULTILINE):
            earlier.update(re.findall(r"[\"'](\w+)[\"']", line))
    newest = revisions - earlier
    if len(newest) != 1:
        sys.exit(f"{folder}: expected one newest migration, found {sorted(newest)}")
    return newest.pop()


def say(text):
    """One line of the container's log, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def wait(ready, what):
    """Until `ready()` is true; says once a reason changes why it is not yet."""
    said, end = "", time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        try:
            reason = ready()
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0]
        if not reason:
            say(f"{what}: yes")
            return
        if reason != said:
            say(f"{what}: not yet ({reason})")
            said = reason
        time.sleep(1)
    sys.exit(f"{what}: not after {WAIT_SECONDS} s. The Job of this release that migrates tells why (component=setup).")


def reachable():
    """Nothing when the database answers."""
    ask("SELECT 1")


def migrated(expected):
    """Why the schema is not the expected one; nothing when it is."""
    there = [row[0] for row in ask("SELECT version_num FROM alembic_version")]
    return "" if there == [expected] else f"schema is {', '.join(there) or 'empty'}, Airflow expects {expected}"


def alive(job_type, seconds):
    """Ends with 0 when this pod's process of this type had a heartbeat lately."""
    host = socket.gethostbyname(socket.gethostname())
    query = "SELECT EXTRACT(EPOCH FROM now() - max(latest_heartbeat)) FROM job WHERE job_type = %s AND hostname = %s"
    try:
        age = ask(query, job_type, host)[0][0]
    except psycopg.Error as error:
        sys.exit(f"the database does not answer: {error}")
    if age is None or age > float(seconds):
        sys.exit(f"{job_type} on {host}: " + ("no heartbeat yet" if age is None else f"last heartbeat {age:.0f} s ago"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["reachable"]:
            wait(reachable, "database reachable")
        case ["migrated"]:
            revision = expected_revision()
            wait(lambda: migrated(revision), "database migrated")
        case ["alive", job, seconds]:
            alive(job, seconds)
        case _:
            sys.exit(__doc__)
