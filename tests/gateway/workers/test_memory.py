import threading

from serving.gateway.workers import memory
from serving.gateway.workers.memory import TRIMMED_AFTER, FreedMemory


def test_memory_is_returned_once_many_bytes_were_freed() -> None:
    trimmed = threading.Event()
    freed = FreedMemory(trimmed.set)
    freed.add(TRIMMED_AFTER - 1)
    assert freed._timer is None
    freed.add(1)
    assert trimmed.wait(20)


def test_freed_bytes_are_counted_anew_after_a_trim() -> None:
    trims: list[int] = []
    done = threading.Event()

    def trim() -> None:
        trims.append(1)
        done.set()

    freed = FreedMemory(trim)
    for count in (1, 2):
        done.clear()
        freed.add(TRIMMED_AFTER)
        assert done.wait(20)
        assert len(trims) == count


def test_glibc_takes_the_call() -> None:
    memory._malloc_trim()
