"""The process of one role, started by :mod:`snappy.cli.children`: ``python -m snappy.cli.child``."""

from __future__ import annotations

import asyncio
import sys

from snappy import log, serve
from snappy.cli import output
from snappy.decoding import from_json
from snappy.error_codes import cause_of
from snappy.errors import SnappyError


def main() -> int:
    """Read what to do from standard input, and do it until that ends."""
    start = from_json(sys.stdin.buffer.readline(), serve.ChildStart)
    log.setup(start.config.log_level)
    try:
        asyncio.run(serve.until_signalled(_run(start)))
    except Exception as error:
        cause = cause_of(error)
        if not isinstance(cause, SnappyError):
            raise
        output.fault(cause, as_json=False)
        return cause.exit_code
    return 0


async def _run(start: serve.ChildStart) -> None:
    host = serve.Host(start.config, signing_key=start.signing_key, public_key=start.public_key)
    work = asyncio.create_task(serve.run(host, [serve.Role(start.kind, start.name)]))
    orphaned = asyncio.create_task(_parent_is_gone())
    try:
        await asyncio.wait({work, orphaned}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        orphaned.cancel()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _parent_is_gone() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


if __name__ == "__main__":
    sys.exit(main())
