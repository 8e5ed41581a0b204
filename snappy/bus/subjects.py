"""Builds and parses every NATS name: subjects, streams, buckets, durables, queue groups, inboxes.

Each subject that a caller publishes ends in, or holds, a token that names the caller; the server's permissions bind a
user to its token, so a receiver may believe the subject and never the payload. With authentication off the token of
a submitter is :data:`ANYONE`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from snappy.errors import UsageError

ANYONE = "anyone"
TOKEN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})\Z")
REQUEST = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def token(name: str) -> str:
    """``name`` if it can stand in a subject (lower case, digits and hyphens, 63 at most). Raises UsageError."""
    if TOKEN.match(name):
        return name
    raise UsageError(f"{name!r} is no name", hint="use a-z, 0-9 and '-', 63 characters at most")


def inbox(user: str) -> str:
    """The prefix of a user's private inbox."""
    return f"_INBOX.{user}"


def hint_of(subject: str) -> str:
    """What to do when nobody answers on ``subject``: which service to look for, and how it is started."""
    _, kind, name, *_ = [*subject.split("."), "", ""]
    if kind in ("fs", "data"):
        return f"is the target service {name!r} running? `snappy target run {name}` or `snappy up` starts it"
    if kind == "ask":
        return f"is the source service {name!r} running? `snappy source run {name}` or `snappy up` starts it"
    if (kind, name) == ("api", "audit"):
        return "is an audit running? `snappy audit run` or `snappy up` starts one"
    return "is a core running? `snappy core run` or `snappy up` starts one" if kind in ("api", "hold") else ""


class CommandSubject(NamedTuple):
    kind: str
    submitter: str


class WorkerSubject(NamedTuple):
    verb: str
    service: str
    replica: str


class CallSubject(NamedTuple):
    noun: str
    verb: str
    caller: str


class Subjects:
    """All names under one prefix (``snappy`` by default; lower case, digits and hyphens)."""

    def __init__(self, prefix: str = "snappy") -> None:
        self.prefix = token(prefix)
        upper = prefix.upper().replace("-", "_")
        lower = prefix.replace("-", "_")
        self.commands_stream = f"{upper}_COMMANDS"
        self.work_stream = f"{upper}_WORK"
        self.reports_stream = f"{upper}_REPORTS"
        self.schedules_stream = f"{upper}_SCHEDULES"
        self.events_stream = f"{upper}_EVENTS"
        self.jobs_bucket = f"{lower}_jobs"
        self.holds_bucket = f"{lower}_holds"
        self.services_bucket = f"{lower}_services"
        self.core_durable = f"{lower}_core"
        self.audit_durable = f"{lower}_audit"

    # jobs, from submitters to the core
    def command(self, kind: str, submitter: str) -> str:
        return f"{self.prefix}.cmd.{kind}.{submitter}"

    @property
    def all_commands(self) -> list[str]:
        """What the commands stream collects: named submitters, and the bare form for servers without authentication."""
        return [f"{self.prefix}.cmd.*", f"{self.prefix}.cmd.*.*"]

    def parse_command(self, subject: str) -> CommandSubject:
        _, _, kind, *rest = subject.split(".")
        return CommandSubject(kind, rest[0] if rest else ANYONE)

    # calls that are answered at once
    def api(self, noun: str, verb: str, caller: str) -> str:
        """Answered by the core, or by the audit for noun ``audit``."""
        return f"{self.prefix}.api.{noun}.{verb}.{caller}"

    def ask(self, service: str, noun: str, verb: str, caller: str) -> str:
        """Answered by one source service: snapshots and browsing of the repositories whose keys it holds."""
        return f"{self.prefix}.ask.{service}.{noun}.{verb}.{caller}"

    def parse_call(self, subject: str) -> CallSubject:
        """Of an ``api`` or an ``ask`` subject."""
        noun, verb, caller = subject.split(".")[-3:]
        return CallSubject(noun, verb, caller)

    # the core and the workers
    def work(self, service: str) -> str:
        return f"{self.prefix}.work.{service}"

    def work_durable(self, service: str) -> str:
        return f"work-{service}"

    def hold(self, verb: str, service: str, replica: str) -> str:
        """Verbs: ``claim``, ``renew``, ``release``, ``read`` (a grant to browse) and ``beat`` (I am alive)."""
        return f"{self.prefix}.hold.{verb}.{service}.{replica}"

    def report(self, service: str, replica: str) -> str:
        return f"{self.prefix}.report.{service}.{replica}"

    def parse_worker(self, subject: str) -> WorkerSubject:
        """Of a ``hold`` or a ``report`` subject; the verb of a report is ``report``."""
        verb, service, replica = subject.split(".")[-3:]
        return WorkerSubject(verb, service, replica)

    def control(self, service: str) -> str:
        return f"{self.prefix}.control.{service}"

    # schedules
    def schedule(self, name: str) -> str:
        return f"{self.prefix}.schedule.{name}"

    def due(self, name: str) -> str:
        return f"{self.prefix}.due.{name}"

    # what observers read
    def event(self, kind: str, event: str, job: str) -> str:
        return f"{self.prefix}.event.{kind}.{event}.{job}"

    def events_of(self, job: str) -> str:
        return self.event("*", "*", job)

    def observer_durable(self, caller: str) -> str:
        """The consumer of events of which a caller alone may pull."""
        return f"observer-{caller}"

    def progress(self, job: str) -> str:
        return f"{self.prefix}.progress.{job}"

    # files
    def fs(self, target: str, op: str, caller: str) -> str:
        return f"{self.prefix}.fs.{target}.{op}.{caller}"

    def data(self, target: str, replica: str, caller: str, transfer: str) -> str:
        return f"{self.prefix}.data.{target}.{replica}.{caller}.{transfer}"
