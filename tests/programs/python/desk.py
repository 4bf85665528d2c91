"""All that a script may have open at once: threads, a child, a database, a log, and standard output in a file."""

import logging
import sqlite3
import subprocess
import sys
import threading
import time

import selfdump

ROUNDS = int(sys.argv[2])
folder = sys.argv[1]

selfdump.install(copy_files=[f"{folder}/desk.db*"])
logging.basicConfig(filename=f"{folder}/desk.log", filemode="w", format="%(message)s", level=logging.INFO)
database = sqlite3.connect(f"{folder}/desk.db")
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE numbers (number INTEGER)")
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
assert child.stdin is not None and child.stdout is not None

lock = threading.Lock()
counts = [0, 0]


def count(slot: int) -> None:
    for _ in range(ROUNDS):
        with lock:
            counts[slot] += 1
        time.sleep(0.01)


threads = [threading.Thread(target=count, args=(slot,)) for slot in range(2)]
for thread in threads:
    thread.start()
for step in range(ROUNDS):
    database.execute("INSERT INTO numbers VALUES (?)", (step,))
    database.commit()
    child.stdin.write(f"{step}\n")
    child.stdin.flush()
    assert int(child.stdout.readline()) == step
    logging.info("step %d", step)
    # It is in the buffer of the process, and written in blocks.
    print("step", step)
    time.sleep(0.01)
for thread in threads:
    thread.join()
child.stdin.close()
rows = database.execute("SELECT count(*), sum(number) FROM numbers").fetchone()
print("result", rows, counts, child.wait(), flush=True)
