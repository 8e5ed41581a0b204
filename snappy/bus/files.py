"""A file of a target, open for reading or writing, for programs that want file objects."""

from __future__ import annotations

from typing import Any

from fsspec.asyn import sync
from fsspec.spec import AbstractBufferedFile

from snappy.bus.protocol import Mode
from snappy.bus.uploads import Upload


class SnappyFile(AbstractBufferedFile):  # type: ignore[misc]
    """Modes ``rb``, ``wb`` and ``xb``. What is written shows when the file is closed, and then all of it; a file
    that is left by an exception, or never closed, leaves nothing."""

    def __init__(self, fs: Any, path: str, mode: str = "rb", **options: Any) -> None:
        if mode not in ("rb", "wb", "xb"):
            raise NotImplementedError(f"files of a target cannot be opened with mode {mode!r}")
        super().__init__(fs, path, mode, **options)
        self._upload: Upload | None = None
        self._whole = b""

    @property
    def _mode(self) -> Mode:
        return "create" if self.mode == "xb" else "overwrite"

    def commit(self) -> None:
        if self._upload is None:
            self.fs.pipe_file(self.path, self._whole, mode=self._mode)
        else:
            sync(self.fs.loop, self._upload.commit)

    def discard(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            sync(self.fs.loop, upload.discard)

    def _upload_chunk(self, final: bool = False) -> bool:
        content = self.buffer.getvalue()
        if final and self._upload is None:
            self._whole = content
        else:
            self._write(content)
        if final and self.autocommit:
            self.commit()
        return True

    def _write(self, content: bytes) -> None:
        if self._upload is None:
            self._upload = sync(self.fs.loop, self.fs.objects.open_upload, self.path, self._mode)
        sync(self.fs.loop, self._upload.write, content)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is None or self.mode == "rb":
            self.close()
        else:
            self.closed = True
            self.discard()

    def __del__(self) -> None:
        # The base class would close, and so commit, what nobody said is complete.
        self.closed = True
