"""A draft under a policy: hashed as it is written, and asked for again at the instant it becomes visible."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

from snappy.bus.grants import Grant
from snappy.bus.protocol import named_hash
from snappy.errors import AttemptOver, Corrupt
from snappy.targets.drafts import Bytes, Draft

MOMENT = 0.5
"""Seconds by which a time-out may come early."""


class GuardedDraft:
    """A draft that hashes what it is given, and asks again before it commits; ``done`` hears who was let."""

    def __init__(
        self,
        inner: Draft,
        path: str,
        allow: Callable[[], Grant | None],
        done: Callable[[Grant | None], None],
        taken: type[Exception],
        clock: Callable[[], float],
    ) -> None:
        self._inner, self._path, self._allow, self._done, self._taken = inner, path, allow, done, taken
        self._clock = clock
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Bytes) -> None:
        self._hash.update(data)
        self._inner.write(data)
        self.size += len(data)

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def commit(self) -> None:
        """Raises Corrupt, AccessDenied, AttemptOver or AlreadyExists; nothing is visible then."""
        expected = named_hash(self._path)
        if expected and expected != self.sha256():
            raise Corrupt(f"the bytes of {self._path!r} do not have the SHA-256 that is its name")
        self._inner.settle()
        grant = self._allow()
        try:
            self._inner.commit(self._left(grant))
        except FileExistsError as error:
            raise self._taken(f"an object {self._path!r} exists") from error
        except TimeoutError as error:
            if grant is None or grant.expires - self._clock() > MOMENT:
                raise
            raise AttemptOver(f"the grant of attempt {grant.attempt} ran out during the upload") from error
        self._done(grant)

    def _left(self, grant: Grant | None) -> float | None:
        """Seconds that the grant will last; never 0, which fsspec takes for no limit."""
        return None if grant is None else max(0.001, grant.expires - self._clock())

    def discard(self) -> None:
        self._inner.discard()

    def __enter__(self) -> GuardedDraft:
        return self

    def __exit__(self, *_error: object) -> None:
        self.discard()


class WritableFile(io.RawIOBase):
    """A draft as a file, for ``open(path, "wb")``: closing commits, unless ``autocommit`` is off."""

    def __init__(self, guarded: GuardedDraft, autocommit: bool) -> None:
        self._draft, self._autocommit = guarded, autocommit

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._draft.write(view)
        return len(view)

    def tell(self) -> int:
        return self._draft.size

    def commit(self) -> None:
        self._draft.commit()

    def discard(self) -> None:
        self._draft.discard()

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._autocommit:
                with self._draft:
                    self._draft.commit()

    def __del__(self) -> None:
        # A file that nobody closed is not complete; the base class would close it, and so commit.
        self._draft.discard()

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None and self._autocommit:
            self._autocommit = False
            self._draft.discard()
        self.close()
