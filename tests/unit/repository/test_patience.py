"""Who waits for a repository is heard out, and hears soon that nobody wants it any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from snappy.errors import JobCancelled, RepositoryLocked
from snappy.repository.patience import LOOK, alone


@contextmanager
def never_free(_exclusive: bool) -> Iterator[None]:
    raise RepositoryLocked()
    yield


def test_a_cancellation_is_heard_amid_a_pause() -> None:
    asked = count()

    def cancelled() -> None:
        if next(asked) == 3:
            raise JobCancelled()

    began = time.monotonic()
    with pytest.raises(JobCancelled), alone(never_free, cancelled, pause=60.0):
        raise AssertionError("nobody let it in")
    assert time.monotonic() - began < 20 * LOOK
