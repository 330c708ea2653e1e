"""The cache: each value is made once, also by several threads, and dropped by its weight."""

import threading

import pytest

from dashboards.data.cache import Cache


def test_values_are_made_once_and_the_least_recently_used_dropped():
    cache = Cache(10, weigh=len)
    made = []

    def get(key, size):
        return cache.get(key, lambda: made.append(key) or "x" * size)

    get("a", 4), get("b", 4), get("a", 4), get("c", 4)
    assert made == ["a", "b", "c"]
    assert cache.weight == 8
    get("a", 4), get("b", 4)
    assert made == ["a", "b", "c", "b"]
    assert get("huge", 100) == "x" * 100
    assert cache.weight == 100
    get("huge", 100)
    assert made[-1] == "huge"
    get("a", 4)
    assert cache.weight == 4


def test_failures_are_forgotten_and_other_threads_wait():
    cache, made, got = Cache(10), [], []
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    begun, go = threading.Event(), threading.Event()

    def make():
        begun.set()
        assert go.wait(20)
        made.append(1)
        return cache.get("inner", lambda: 5)

    threads = [threading.Thread(target=lambda: got.append(cache.get("key", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    assert cache.get("other", lambda: 7) == 7
    go.set()
    for thread in threads:
        thread.join()
    assert (got, made) == ([5] * 4, [1])
