"""Who may say and hear what: users, their roles, and nats-server's ``accounts`` section made from them.

Permissions alone do not hold. Whoever may publish into a stream may name any subject as the reply, and the server
itself then publishes its receipt there: into another's command queue, or over a record in a bucket. So what may be
named is bounded by accounts, which the server keeps apart:

* the core's account holds the streams, the core and the audit;
* the services' account holds sources and targets, so that data flows without a detour;
* each submitter and each observer has an account of its own.

What crosses is listed below, subject by subject; an answer to a request from another account comes back into that
account alone. ``python -m snappy.bus.roles --help`` prints a whole configuration.
Language: https://docs.nats.io/running-a-nats-service/configuration.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from snappy.bus.subjects import Subjects, inbox, token
from snappy.errors import UsageError

Role = Literal["core", "audit", "source", "target", "submitter", "observer"]
READ_VERBS = ("get", "list", "query", "verify", "export")
MICRO = "$SRV.>"
ANSWERS_ABROAD = "_R_.>"
"""Where the server leads answers to requests from other accounts; no client may name such a reply itself."""


@dataclass(frozen=True)
class User:
    """``name`` is the token in its subjects. The credential is a password, plain or bcrypt, or a public nkey."""

    name: str
    role: Role
    password: str = ""
    nkey: str = ""


class Variable(str):
    """A value that stands elsewhere in the configuration, under this name."""

    __slots__ = ()


# ---- permissions -------------------------------------------------------------------------------------------------


def publishes(user: User, subjects: Subjects) -> list[str]:
    """The subjects on which ``user`` may publish."""
    p, own = subjects.prefix, user.name
    match user.role:
        case "core":
            kept = [f"$KV.{name}.>" for name in (subjects.jobs_bucket, subjects.holds_bucket, subjects.services_bucket)]
            said = [f"{p}.work.*", f"{p}.control.*", f"{p}.event.*.*.*", f"{p}.schedule.*"]
            said += [f"{p}.api.audit.recall.{own}"]
            return [*said, *kept, "$JS.API.>", "$JS.ACK.>", "_INBOX.>", ANSWERS_ABROAD]
        case "audit":
            return [*_consumer(subjects.events_stream, subjects.audit_durable), "_INBOX.>", ANSWERS_ABROAD]
        case "source":
            said = [f"{p}.hold.*.{own}.*", f"{p}.report.{own}.*", f"{p}.progress.*"]
            files = [f"{p}.fs.*.*.{own}", f"{p}.data.*.*.{own}.*"]
            return [*said, *files, *_consumer(subjects.work_stream, subjects.work_durable(own)), ANSWERS_ABROAD]
        case "target":
            return [f"{p}.hold.beat.{own}.*", "_INBOX.>", ANSWERS_ABROAD]
        case "submitter":
            asked = [f"{p}.cmd.*.{own}", f"{p}.api.*.*.{own}", f"{p}.ask.*.*.*.{own}"]
            return [*asked, *_consumer(subjects.events_stream, subjects.observer_durable(own))]
        case "observer":
            asked = [*(f"{p}.api.*.{verb}.{own}" for verb in READ_VERBS), f"{p}.api.events.*.{own}", MICRO]
            return [*asked, *_consumer(subjects.events_stream, subjects.observer_durable(own))]


def subscribes(user: User, subjects: Subjects) -> list[str]:
    """The subjects on which ``user`` may listen; a second word binds it to that queue group."""
    p, own = subjects.prefix, user.name
    mine = f"{inbox(own)}.>"
    match user.role:
        case "core":
            return [mine, f"{p}.hold.>", f"{p}.api.>", f"{p}.event.>", MICRO, "$JS.EVENT.ADVISORY.>"]
        case "audit":
            return [mine, f"{p}.api.audit.>", MICRO]
        case "source":
            return [mine, f"{p}.control.{own}", f"{p}.ask.{own}.> {own}", MICRO]
        case "target":
            return [mine, f"{p}.fs.{own}.> {own}", f"{p}.data.{own}.>", MICRO]
        case "submitter" | "observer":
            return [mine, f"{p}.event.>", f"{p}.progress.*"]


def _consumer(stream: str, durable: str) -> list[str]:
    """What it takes to read from a consumer that exists, and no more."""
    return [f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", f"$JS.ACK.{stream}.{durable}.>"]


# ---- accounts ----------------------------------------------------------------------------------------------------


def accounts(users: Sequence[User], subjects: Subjects) -> dict[str, Any]:
    """nats-server's ``accounts`` section. Raises UsageError for a name that is taken or cannot stand in a subject."""
    _refuse_namesakes(users)
    core, services = _account(subjects, "core"), _account(subjects, "services")
    section: dict[str, Any] = {
        core: {"jetstream": "enabled", "users": [], "exports": _core_exports(subjects)},
        services: {"users": [], "exports": _service_exports(subjects), "imports": _service_imports(subjects, core)},
    }
    for user in users:
        entry = _user(user, subjects)
        if user.role in ("submitter", "observer"):
            imports = _client_imports(user, subjects, core, services)
            section[_account(subjects, user.role, user.name)] = {"users": [entry], "imports": imports}
        else:
            section[core if user.role in ("core", "audit") else services]["users"].append(entry)
    return section


def _refuse_namesakes(users: Sequence[User]) -> None:
    """A name is a token in subjects and the name of an inbox, so that no two may share one."""
    names = [user.name for user in users]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            raise UsageError(f"two users are called {name!r}", hint="core, audit, sources and targets share the names")


def _account(subjects: Subjects, *words: str) -> str:
    return "_".join((subjects.prefix, *words)).upper().replace("-", "_")


def _user(user: User, subjects: Subjects) -> dict[str, Any]:
    login = {"nkey": user.nkey} if user.nkey else {"user": token(user.name), "password": user.password}
    allowed = {
        "publish": {"allow": publishes(user, subjects)},
        "subscribe": {"allow": subscribes(user, subjects)},
    }
    return {**login, "permissions": allowed}


def _core_exports(subjects: Subjects) -> list[dict[str, Any]]:
    p = subjects.prefix
    return [
        *({"service": name} for name in (f"{p}.cmd.*.*", f"{p}.api.*.*.*", f"{p}.hold.*.*.*", f"{p}.report.*.*")),
        *_pulled(subjects.work_stream),
        *_pulled(subjects.events_stream),
        {"service": MICRO, "response_type": "stream"},
        *({"stream": name} for name in (f"{p}.event.>", f"{p}.control.*")),
    ]


def _pulled(stream: str) -> list[dict[str, Any]]:
    return [
        {"service": f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*", "response_type": "stream"},
        {"service": f"$JS.ACK.{stream}.>"},
    ]


def _service_exports(subjects: Subjects) -> list[dict[str, Any]]:
    p = subjects.prefix
    return [
        {"service": f"{p}.ask.*.*.*.*"},
        {"service": MICRO, "response_type": "stream"},
        {"stream": f"{p}.progress.*"},
    ]


def _service_imports(subjects: Subjects, core: str) -> list[dict[str, Any]]:
    p = subjects.prefix
    asked = [f"{p}.hold.*.*.*", f"{p}.report.*.*"]
    pulled = [f"$JS.API.CONSUMER.MSG.NEXT.{subjects.work_stream}.*", f"$JS.ACK.{subjects.work_stream}.>"]
    return [*(_service(core, name) for name in (*asked, *pulled)), _stream(core, f"{p}.control.*")]


def _client_imports(user: User, subjects: Subjects, core: str, services: str) -> list[dict[str, Any]]:
    p, own = subjects.prefix, user.name
    pulled = [_service(core, name) for name in _consumer(subjects.events_stream, subjects.observer_durable(own))]
    watched = [*pulled, _stream(core, f"{p}.event.>"), _stream(services, f"{p}.progress.*")]
    if user.role == "submitter":
        asked = [_service(core, f"{p}.cmd.*.{own}"), _service(core, f"{p}.api.*.*.{own}")]
        return [*asked, _service(services, f"{p}.ask.*.*.*.{own}"), *watched]
    verbs = [*(f"{p}.api.*.{verb}.{own}" for verb in READ_VERBS), f"{p}.api.events.*.{own}"]
    asked = [_service(core, name) for name in verbs]
    return [*asked, _service(core, MICRO), _service(services, MICRO), *watched]


def _service(account: str, subject: str) -> dict[str, Any]:
    return {"service": {"account": account, "subject": subject}}


def _stream(account: str, subject: str) -> dict[str, Any]:
    return {"stream": {"account": account, "subject": subject}}


# ---- text --------------------------------------------------------------------------------------------------------


def render(section: dict[str, Any], depth: int = 0) -> str:
    """``section`` in nats-server's configuration language, which is close to JSON."""
    pad = "  " * depth
    return "".join(f"{pad}{_key(key)}: {_value(value, depth)}\n" for key, value in section.items())


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)


def _value(value: Any, depth: int) -> str:
    pad, inner = "  " * depth, "  " * (depth + 1)
    if isinstance(value, Variable):
        return f"${value}"
    if isinstance(value, dict):
        short = "{" + ", ".join(f"{_key(key)}: {_value(each, depth)}" for key, each in value.items()) + "}"
        return short if len(short) < 100 and "\n" not in short else "{\n" + render(value, depth + 1) + pad + "}"
    if isinstance(value, list):
        lines = "".join(f"{inner}{_value(each, depth + 1)}\n" for each in value)
        return f"[\n{lines}{pad}]" if value else "[]"
    return json.dumps(value)


def deployment(users: Sequence[User], subjects: Subjects) -> str:
    """A whole configuration for an operator's server, with passwords from the file ``secrets.conf`` beside it."""
    return f"{_PREFACE}\n{render({'accounts': {**accounts(users, subjects), 'SYS': {}}, 'system_account': 'SYS'})}"


_PREFACE = """\
# nats-server for Snappy: one user for each service and each submitter, with the rights it needs and no more.
# Made by `python -m snappy.bus.roles`; make it again with your own names:
#   python -m snappy.bus.roles --source site1 --source site2 --target vault --submitter alice > nats.conf
# Passwords (better: bcrypt hashes of them, from `nats server passwd`) stand in secrets.conf beside this file, one
# `name_password: "..."` a line. An nkey does as well: replace the user's two words by `nkey: "U..."`.

include ./secrets.conf

listen: "0.0.0.0:4222"
http: "127.0.0.1:8222"

# Uncomment where the network is not yours alone, and set tls_ca in each snappy.toml.
# tls { cert_file: "/etc/nats/server.pem", key_file: "/etc/nats/server.key" }

# The server acknowledges only what is on the disk. The stock setting loses two minutes of jobs in a power cut.
jetstream { store_dir: "/var/lib/nats", sync_interval: always, max_file_store: 4GB, max_memory_store: 256MB }

max_payload: 2MB
max_pending: 128MB
write_deadline: "10s"
ping_interval: "20s"
ping_max: 2
"""


def example_users(names: Sequence[tuple[Role, str]]) -> list[User]:
    """Users whose passwords are variables, named after them."""
    return [User(name, role, Variable(f"{name.replace('-', '_')}_password")) for role, name in names]


EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("core", "core"),
    ("audit", "audit"),
    ("source", "site1"),
    ("target", "vault"),
    ("submitter", "alice"),
    ("observer", "watcher"),
)
"""One of each role: what ``deploy/nats.conf`` is made from."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a configuration."""
    parser = argparse.ArgumentParser(prog="python -m snappy.bus.roles", description="Print a nats.conf for Snappy.")
    parser.add_argument("--prefix", default="snappy", help="the first word of every subject")
    named: tuple[Role, ...] = get_args(Role)[2:]
    for role in named:
        parser.add_argument(f"--{role}", metavar="NAME", action="append", default=[], help=f"a {role}'s user")
    given = parser.parse_args(arguments)
    chosen: list[tuple[Role, str]] = [(role, name) for role in named for name in getattr(given, role)]
    always: list[tuple[Role, str]] = [("core", "core"), ("audit", "audit")]
    print(deployment(example_users([*always, *chosen] if chosen else EXAMPLE), Subjects(given.prefix)), end="")


if __name__ == "__main__":
    main()
