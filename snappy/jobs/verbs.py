"""The verbs of the API, in one table: services answer from it, the typed client asks from it, schemas are made of it.

A request goes to ``snappy.api.<noun>.<verb>.<caller>``, or to ``snappy.ask.<service>.<noun>.<verb>.<caller>`` where a
source service answers; its body is the verb's request struct, the answer always a :class:`Reply`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from snappy.jobs import api_words, audit_words, protection_words, schedule_words


class Verb(NamedTuple):
    """``answer`` names the field of :class:`Reply` that holds the answer."""

    noun: str
    verb: str
    request: type[msgspec.Struct]
    answer: str
    owner: Literal["core", "audit", "source"]

    @property
    def name(self) -> str:
        return f"{self.noun}-{self.verb}"


JOB_SUBMIT = Verb("job", "submit", api_words.SubmitRequest, "job", "core")
JOB_GET = Verb("job", "get", api_words.GetRequest, "job", "core")
JOB_LIST = Verb("job", "list", api_words.ListRequest, "jobs", "core")
JOB_CANCEL = Verb("job", "cancel", api_words.CancelRequest, "job", "core")
SERVICES_LIST = Verb("services", "list", api_words.ServicesRequest, "services", "core")
REPOSITORIES_LIST = Verb("repositories", "list", api_words.RepositoriesRequest, "repositories", "core")
STATUS_GET = Verb("status", "get", protection_words.StatusRequest, "status", "core")
SCHEDULE_ADD = Verb("schedule", "add", schedule_words.ScheduleAddRequest, "schedule", "core")
SCHEDULE_LIST = Verb("schedule", "list", schedule_words.ScheduleListRequest, "schedules", "core")
SCHEDULE_GET = Verb("schedule", "get", schedule_words.ScheduleRequest, "schedule", "core")
SCHEDULE_PAUSE = Verb("schedule", "pause", schedule_words.ScheduleRequest, "schedule", "core")
SCHEDULE_RESUME = Verb("schedule", "resume", schedule_words.ScheduleRequest, "schedule", "core")
SCHEDULE_REMOVE = Verb("schedule", "remove", schedule_words.ScheduleRequest, "schedule", "core")
SCHEDULE_RUN_NOW = Verb("schedule", "run-now", schedule_words.ScheduleRunRequest, "job", "core")
EVENTS_SUBSCRIBE = Verb("events", "subscribe", api_words.SubscribeRequest, "subscription", "core")
EVENTS_SUBSCRIPTION = Verb("events", "subscription", api_words.SubscriptionRequest, "subscription", "core")
EVENTS_UNSUBSCRIBE = Verb("events", "unsubscribe", api_words.UnsubscribeRequest, "subscription", "core")
SNAPSHOTS_LIST = Verb("snapshots", "list", api_words.SnapshotsRequest, "snapshots", "source")
BLOBS_LOCATE = Verb("blobs", "locate", api_words.LocateRequest, "places", "source")
BLOBS_GET = Verb("blobs", "get", api_words.BlobRequest, "piece", "source")
TREES_GET = Verb("trees", "get", api_words.TreesRequest, "trees", "source")
AUDIT_QUERY = Verb("audit", "query", audit_words.AuditQuery, "entries", "audit")
AUDIT_VERIFY = Verb("audit", "verify", audit_words.AuditVerifyRequest, "audit", "audit")
AUDIT_EXPORT = Verb("audit", "export", audit_words.AuditExportRequest, "extract", "audit")
AUDIT_RECALL = Verb("audit", "recall", audit_words.RecallRequest, "memory", "audit")

JOBS = (JOB_SUBMIT, JOB_GET, JOB_LIST, JOB_CANCEL)
SCHEDULES = (
    SCHEDULE_ADD,
    SCHEDULE_LIST,
    SCHEDULE_GET,
    SCHEDULE_PAUSE,
    SCHEDULE_RESUME,
    SCHEDULE_REMOVE,
    SCHEDULE_RUN_NOW,
)
EVENTS = (EVENTS_SUBSCRIBE, EVENTS_SUBSCRIPTION, EVENTS_UNSUBSCRIBE)
AUDIT = (AUDIT_QUERY, AUDIT_VERIFY, AUDIT_EXPORT, AUDIT_RECALL)
BROWSING = (SNAPSHOTS_LIST, BLOBS_LOCATE, BLOBS_GET, TREES_GET)
VERBS = (*JOBS, *SCHEDULES, *EVENTS, SERVICES_LIST, REPOSITORIES_LIST, STATUS_GET, *BROWSING, *AUDIT)
