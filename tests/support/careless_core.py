"""``snappy`` whose core tells of a transition without a look at what it told before, to see that the tests notice.

python -m tests.support.careless_core core run ...
"""

from __future__ import annotations

import sys

import msgspec

from snappy.cli.main import main
from snappy.jobs.ledger import Ledger, Published, cloud_event
from snappy.jobs.messages import JobRecord

PROGRAM = [sys.executable, "-m", "tests.support.careless_core"]


async def publish(ledger: Ledger, record: JobRecord, last: int) -> Published:
    """With neither an id nor an expected sequence, by which the server would know a repeat."""
    subjects = ledger._bus.subjects
    event = cloud_event(record, subjects.prefix)
    subject = subjects.event(record.kind, record.event, record.id)
    ack = await ledger._bus.store(subject, msgspec.json.encode(event))
    return ledger._remember(record, Published(record.event_number, ack.seq))


async def nothing_told(ledger: Ledger, job: str) -> None:
    """What the stream holds of a job is not looked for."""


if __name__ == "__main__":
    Ledger._publish = publish  # type: ignore[assignment, method-assign]
    Ledger._newest = nothing_told  # type: ignore[assignment, method-assign]
    sys.exit(main())
