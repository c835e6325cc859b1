"""Once, whoever asks; an end to waiting; a lock whose file goes away."""

from __future__ import annotations

import os
import threading

import pytest

from unikeel.boot import flight
from unikeel.errors import DeadlineExceeded
from unikeel.kernel import locks


@pytest.fixture
def lock(tmp_path: os.PathLike[str]) -> str:
    return os.path.join(tmp_path, "lock")


def nothing(_result: object) -> None:
    pass


def test_one_works_the_others_find_it_done(lock: str) -> None:
    made: list[int] = []
    inside = threading.Semaphore(1)

    def work() -> int:
        assert inside.acquire(blocking=False), "two at once"
        if not made:
            made.append(threading.get_ident())
        inside.release()
        return made[0]

    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(flight.once(lock, 30, "work", work, nothing))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), answers) == (1, made * 16)


def test_the_works_error_is_the_callers(lock: str) -> None:
    def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        flight.once(lock, 30, "work", work, nothing)


def test_the_work_goes_on_after_the_caller_gave_up(lock: str) -> None:
    go, discarded, late = threading.Event(), threading.Event(), list[str]()

    def work() -> str:
        go.wait()
        return "late"

    def discard(result: str) -> None:
        late.append(result)
        discarded.set()

    with pytest.raises(DeadlineExceeded, match=r"reading x took longer than 0\.01 s"):
        flight.once(lock, 0.01, "reading x", work, discard)
    go.set()
    assert discarded.wait(30)
    assert late == ["late"]
    assert flight.once(lock, 30, "again", lambda: "next", nothing) == "next"


def test_a_held_locks_file_stays(lock: str) -> None:
    with locks.locked(lock):
        locks.forget(lock)
        assert os.path.exists(lock)
    locks.forget(lock)
    assert not os.path.exists(lock)
    locks.forget(lock)


def test_who_waited_for_a_forgotten_file_locks_the_new_one(lock: str) -> None:
    started, order = threading.Event(), list[str]()

    def other() -> None:
        started.set()
        with locks.locked(lock):
            order.append("other")

    with locks.locked(lock):
        thread = threading.Thread(target=other)
        thread.start()
        started.wait()
        os.unlink(lock)
        order.append("first")
    thread.join()
    assert order == ["first", "other"] or order == ["other", "first"]
    assert os.path.exists(lock)
