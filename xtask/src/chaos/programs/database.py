"""Writes rows into a database, each with a hash over the one before: `database.py DATABASE`. It remembers how many there
are and the last hash, and ends where the database has anything else. `database.py DATABASE check` looks from outside."""

import hashlib
import sqlite3
import sys
import time


LAST = "SELECT number, link, (SELECT count(*) FROM links) FROM links ORDER BY number DESC LIMIT 1"


def following(link, number):
    return hashlib.sha256(link + number.to_bytes(8, "big")).digest()[:16]


def work(db):
    db.execute("PRAGMA journal_mode=wal")
    db.execute("PRAGMA wal_autocheckpoint=40")
    db.execute("CREATE TABLE links (number INTEGER PRIMARY KEY, link BLOB)")
    number, link = 0, b""
    while True:
        number += 1
        link = following(link, number)
        db.execute("INSERT INTO links VALUES (?, ?)", (number, link))
        db.commit()
        last = db.execute(LAST).fetchone()
        if last != (number, link, number):
            print("BROKEN: the database has", last, "and the program", (number, link), flush=True)
            sys.exit(3)
        print("rows", number, flush=True)
        time.sleep(0.03)


def check(db):
    db.execute("PRAGMA query_only=1")
    verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
    assert verdict == "ok", verdict
    link, expected = b"", 0
    for number, found in db.execute("SELECT number, link FROM links ORDER BY number"):
        expected += 1
        link = following(link, expected)
        assert (number, found) == (expected, link), f"row {number} stands where row {expected} belongs"
    print(expected)


database = sqlite3.connect(sys.argv[1], timeout=30)
check(database) if sys.argv[2:] == ["check"] else work(database)
