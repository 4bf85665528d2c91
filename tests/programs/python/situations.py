"""One situation after the other, by name; each says what came of it."""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Callable, Union

import selfdump


def say(*words: object) -> None:
    print(*words, flush=True)


def failure(call: Callable[[], object]) -> selfdump.Error:
    try:
        call()
    except selfdump.Error as error:
        return error
    raise AssertionError("it went well")


def attributes() -> None:
    """What an outcome knows, in both processes."""

    @selfdump.on_restore
    def back(outcome: selfdump.Outcome) -> None:
        selfdump.reseed()
        say("back", outcome.restored, outcome.generation, outcome.age > 0, dict(outcome.settings))

    selfdump.install(name="situation", keep=2)
    outcome = selfdump.checkpoint()
    say(
        "outcome",
        outcome.restored,
        outcome.generation,
        outcome.id.startswith("situation/"),
        outcome.path.joinpath("manifest.json").is_file(),
        outcome.age > 0,
        outcome.size is None,
        selfdump.generation(),
    )
    time.sleep(60)


def errors() -> None:
    """Each with its kind, hint and class."""
    error = failure(selfdump.checkpoint)
    say("error", type(error).__name__, error.kind, error.hint)
    error = failure(lambda: selfdump.install(every="often"))
    say("error", type(error).__name__, error.kind, error.hint)
    selfdump.install()
    error = failure(selfdump.install)
    say("error", type(error).__name__, error.kind, error.hint)
    error = failure(selfdump.checkpoint)
    say("error", type(error).__name__, error.kind, error.hint)


def hooks() -> None:
    """One that says no, one that fails, one that asks for a checkpoint itself."""
    refuses = True

    @selfdump.before_checkpoint
    def before(cause: str) -> None:
        inner = failure(selfdump.checkpoint)
        say("before", cause, inner.kind, threading.current_thread() is threading.main_thread())
        if refuses:
            raise RuntimeError("a transfer is under way")

    @selfdump.after_checkpoint
    def after(what: Union[selfdump.Outcome, selfdump.Error]) -> None:
        say("after", "failed" if isinstance(what, selfdump.Error) else "saved")
        raise ValueError("after all")

    selfdump.install()
    error = failure(selfdump.checkpoint)
    say("error", error.kind, str(error).splitlines()[0])
    refuses = False
    say("outcome", selfdump.checkpoint().restored)


def deep_hook() -> None:
    """A hook that needs a thread's usual stack."""

    def depth(left: int) -> int:
        return left and 1 + depth(left - 1)

    @selfdump.before_checkpoint
    def before(_: str) -> None:
        say("depth", depth(900))

    selfdump.install()
    say("outcome", selfdump.checkpoint().restored)


def interrupt() -> None:
    """KeyboardInterrupt ends the wait for a checkpoint, which is made all the same."""
    # Whoever started it may ignore the signal, and then Python leaves it at that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    selfdump.install()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with selfdump.hold():
            entered.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    try:
        selfdump.checkpoint()
    except KeyboardInterrupt:
        say("interrupted", time.monotonic() - started < 30)
    leave.set()
    holder.join()
    say("outcome", selfdump.checkpoint().restored)


def hold() -> None:
    """The thread that holds can't ask; others wait."""
    selfdump.install(hold_timeout=timedelta(milliseconds=300))
    with selfdump.hold():
        say("error", failure(selfdump.checkpoint).kind)
        kinds: list[str] = []
        other = threading.Thread(target=lambda: kinds.append(failure(selfdump.checkpoint).kind))
        other.start()
        other.join()
        say("other", kinds)
    say("outcome", selfdump.checkpoint().restored)


def forked() -> None:
    """A child is inert, ends as it does otherwise, and may have checkpoints of its own."""
    selfdump.install()
    child = os.fork()
    if child == 0:
        say("child", failure(selfdump.checkpoint).kind)
        selfdump.install(name="child")
        say("child", selfdump.checkpoint().id.startswith("child/"))
        sys.exit(5)
    say("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    say("outcome", selfdump.checkpoint().restored)


def locked() -> None:
    """A checkpoint by a signal, while an extension keeps the interpreter's lock."""
    selfdump.install()
    say("locked")
    # It never comes back to the interpreter in between, which alone lets others have the lock.
    sum(range(2_000_000_000))
    say("unlocked")


def ending() -> None:
    """Hooks run while the interpreter ends."""

    @selfdump.before_checkpoint
    def before(_: str) -> None:
        time.sleep(0.05)

    @selfdump.after_checkpoint
    def after(_: object) -> None:
        time.sleep(0.05)

    selfdump.install()
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(float(sys.argv[2]))
    say("ends")


def settings() -> None:
    """Durations in each form."""
    forms: list[tuple[selfdump.Duration, str]] = [
        (90, "90"),
        (0.5, "0.5"),
        (timedelta(minutes=2), "120"),
        ("1h 30m", "5400"),
    ]
    for form, seconds in forms:
        selfdump.install(every=form, signal=signal.SIGUSR1, overhead=None, copy_limit="1 MiB", on_panic=False)
        say("installed", seconds)
        sys.stdin.readline()
        selfdump.uninstall()
    say("error", failure(selfdump.uninstall).kind)


def uncaught() -> None:
    """Exceptions that nobody catches, in a thread and in the main one."""
    selfdump.install(on_exception=True)

    def fail() -> None:
        raise KeyError("in a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    with selfdump.checkpoint_on_exception():
        raise LookupError("in the main thread")


def caught() -> None:
    """Those that leave a block, and the ones that are no failures."""
    selfdump.install()
    for exception in (ValueError("in a block"), KeyboardInterrupt(), SystemExit(1)):
        try:
            with selfdump.checkpoint_on_exception():
                raise exception
        except BaseException as back:
            say("caught", back is exception)
    say("outcome", selfdump.checkpoint().restored)


SITUATIONS = [
    attributes,
    errors,
    hooks,
    deep_hook,
    interrupt,
    hold,
    forked,
    locked,
    ending,
    settings,
    uncaught,
    caught,
]

next(situation for situation in SITUATIONS if situation.__name__ == sys.argv[1])()
