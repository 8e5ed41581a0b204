"""What of Swift no server at hand shows: Keystone, tokens that run out, pages, servers that falter."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from snappy.bus.failures import to_wire
from snappy.errors import UsageError
from snappy.targets.opening import open_storage
from tests.support.scripted_http import Asked, Said, answering

PASSWORD = {"username": "backup", "password": "hush"}
WHEN = "2026-11-23T12:00:00.500000"


class Swift:
    """A login of version 1 and of Keystone's, and one container of nine objects, listed four at a time."""

    def __init__(self) -> None:
        self.url, self.logins, self.falters = "", 0, 0
        self.names = [f"site1/keys/{number}" for number in range(9)]

    def __call__(self, asked: Asked) -> Said:
        url = urlsplit(asked.path)
        if url.path == "/auth/v1.0":
            return self._logged_in(Said(200, b"", {"X-Storage-Url": f"{self.url}/v1/AUTH_x", "X-Auth-Token": "token0"}))
        if url.path == "/v3/auth/tokens":
            return self._keystone(json.loads(asked.body)["auth"])
        if asked.headers["X-Auth-Token"] != f"token{self.logins}":
            return Said(401)
        self.falters -= 1
        return Said(503) if self.falters >= 0 else self._listing(parse_qs(url.query))

    def _logged_in(self, said: Said) -> Said:
        self.logins += 1
        kind = "X-Subject-Token" if said.status == 201 else "X-Auth-Token"
        return said._replace(headers={**said.headers, kind: f"token{self.logins}"})

    def _keystone(self, auth: dict[str, dict[str, dict[str, dict[str, str]]]]) -> Said:
        if auth["identity"]["password"]["user"]["password"] != "hush":
            return Said(401)
        regions = [("here", "/v1/AUTH_x"), ("there", "/elsewhere")]
        endpoints = [
            {"interface": kind, "region": region, "url": self.url + path if kind == "public" else "http://inner"}
            for region, path in regions
            for kind in ("internal", "public")
        ]
        catalog = [{"type": "identity", "endpoints": []}, {"type": "object-store", "endpoints": endpoints}]
        return self._logged_in(Said(201, json.dumps({"token": {"catalog": catalog}}).encode()))

    def _listing(self, query: dict[str, list[str]]) -> Said:
        marker = query.get("marker", [""])[0]
        page = [name for name in self.names if name > marker][:4]
        return Said(200, json.dumps([{"name": name, "bytes": 3, "last_modified": WHEN} for name in page]).encode())


@pytest.mark.parametrize(
    "how", [{"path": "/auth/v1.0"}, {"path": "/v3", "project_name": "p", "region_name": "here"}], ids=["v1", "keystone"]
)
def test_all_pages_are_listed_after_a_login_of_either_kind(how: dict[str, str]) -> None:
    swift, others = Swift(), {name: value for name, value in how.items() if name != "path"}
    with answering(swift) as server:
        swift.url = server.url
        files, root = open_storage("swift://box/site1", {"auth_url": server.url + how["path"], **PASSWORD, **others})
        found = files.find(root, detail=True)
        assert sorted(found) == [f"box/{name}" for name in swift.names]
        assert found["box/site1/keys/0"] == {
            "name": "box/site1/keys/0",
            "size": 3,
            "type": "file",
            "mtime": 1795435200.5,
        }
        assert all(each.path.startswith("/v1/AUTH_x/box") for each in server.asked[1:])


def test_a_token_that_ran_out_is_renewed() -> None:
    swift = Swift()
    with answering(swift) as server:
        swift.url = server.url
        files, root = open_storage("swift://box/site1", {"auth_url": server.url + "/auth/v1.0", **PASSWORD})
        files.find(root)
        swift.logins += 1  # the server knows a newer token only
        assert len(files.find(root)) == 9
        assert [each.path for each in server.asked].count("/auth/v1.0") == 2


def test_a_server_that_falters_is_asked_again_and_then_is_unavailable() -> None:
    swift = Swift()
    with answering(swift) as server:
        swift.url = server.url
        files, root = open_storage("swift://box/site1", {"auth_url": server.url + "/auth/v1.0", **PASSWORD})
        swift.falters = 2
        assert len(files.find(root)) == 9
        swift.falters = 3
        with pytest.raises(OSError) as caught:
            files.find(root)
        assert to_wire(caught.value).code == "unavailable"


def test_a_login_that_keystone_refuses_or_that_leads_nowhere() -> None:
    swift = Swift()
    with answering(swift) as server:
        swift.url = server.url
        keystone = {"auth_url": f"{server.url}/v3", "project_name": "p", **PASSWORD}
        files, root = open_storage("swift://box/site1", keystone | {"password": "another"})
        with pytest.raises(PermissionError):
            files.find(root)
        files, root = open_storage("swift://box/site1", keystone | {"region_name": "nowhere"})
        with pytest.raises(UsageError, match="no object store"):
            files.find(root)


def test_a_missing_container_is_said() -> None:
    swift = Swift()

    def answer(asked: Asked) -> Said:
        return swift(asked) if "/auth/" in asked.path else Said(404)

    with answering(answer) as server:
        swift.url = server.url
        files, root = open_storage("swift://box/site1", {"auth_url": server.url + "/auth/v1.0", **PASSWORD})
        for attempt in (lambda: files.find(root), lambda: files.pipe_file(f"{root}/config", b"x")):
            with pytest.raises(FileNotFoundError) as caught:
                attempt()
            assert "bucket of the target does not exist" in to_wire(caught.value).message


@pytest.mark.parametrize("options", [{}, {"auth_url": "http://x", **PASSWORD, "tenant": "t"}], ids=["none", "unknown"])
def test_options_that_do_not_fit_are_the_operator_s_error(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="storage_options"):
        open_storage("swift://box/site1", options)
