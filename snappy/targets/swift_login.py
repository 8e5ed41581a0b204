"""How one logs in at OpenStack Swift: Keystone's version 3 with a password, or version 1 (TempAuth, Ceph's radosgw)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import msgspec

from snappy.decoding import from_json
from snappy.errors import UsageError
from snappy.targets.web import Answer, Web, refusal

SERVICE = "object-store"
LOGGED_IN = (200, 201, 204)


class Access(msgspec.Struct, frozen=True):
    """``storage``: the URL of the account, without a slash at its end."""

    storage: str
    token: str


@dataclass(frozen=True)
class Login:
    """As in OpenStack's environment variables. With ``project_name``, ``auth_url`` is Keystone's (``.../v3``)."""

    auth_url: str
    username: str
    password: str
    project_name: str = ""
    user_domain_name: str = "Default"
    project_domain_name: str = "Default"
    region_name: str = ""


class _Endpoint(msgspec.Struct):
    url: str = ""
    interface: str = ""
    region: str | None = None


class _Service(msgspec.Struct):
    type: str = ""
    endpoints: list[_Endpoint] = []


class _Token(msgspec.Struct):
    catalog: list[_Service] = []


class _Grant(msgspec.Struct):
    token: _Token


async def log_in(web: Web, login: Login) -> Access:
    """Raises PermissionError where it is refused, UsageError where Keystone knows no Swift."""
    return await (_by_keystone if login.project_name else _by_version_1)(web, login)


async def _by_version_1(web: Web, login: Login) -> Access:
    headers = {"X-Auth-User": login.username, "X-Auth-Key": login.password}
    answer = _accepted(await web.ask("GET", login.auth_url, headers), login)
    return _access(answer.headers.get("X-Storage-Url", ""), answer.headers.get("X-Auth-Token", ""), login)


async def _by_keystone(web: Web, login: Login) -> Access:
    body = io.BytesIO(msgspec.json.encode({"auth": _asked(login)}))
    url = f"{login.auth_url.rstrip('/')}/auth/tokens"
    answer = _accepted(await web.ask("POST", url, {"Content-Type": "application/json"}, body), login)
    catalog = from_json(answer.content, _Grant).token.catalog
    return _access(_public(catalog, login.region_name), answer.headers.get("X-Subject-Token", ""), login)


def _asked(login: Login) -> dict[str, Any]:
    user = {"name": login.username, "password": login.password, "domain": {"name": login.user_domain_name}}
    project = {"name": login.project_name, "domain": {"name": login.project_domain_name}}
    return {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}


def _public(catalog: list[_Service], region: str) -> str:
    endpoints = (each for service in catalog if service.type == SERVICE for each in service.endpoints)
    return next((each.url for each in endpoints if each.interface == "public" and region in ("", each.region)), "")


def _accepted(answer: Answer, login: Login) -> Answer:
    if answer.status not in LOGGED_IN:
        raise refusal(answer, login.auth_url)
    return answer


def _access(storage: str, token: str, login: Login) -> Access:
    if not (storage and token):
        hint = "auth_url is that of version 1, or Keystone's with project_name (and region_name)"
        raise UsageError("the login names no object store", hint=hint)
    return Access(storage.rstrip("/"), token)
