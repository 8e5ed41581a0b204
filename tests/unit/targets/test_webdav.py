"""What of WebDAV the server at hand shows by chance only: locks, answers that were lost, folders that are filled."""

from __future__ import annotations

import errno

import pytest

from snappy.bus.failures import to_wire
from snappy.targets.drafts import draft
from snappy.targets.opening import open_storage
from tests.support.scripted_http import Asked, Said, answering


def listing(*names: str) -> Said:
    entries = "".join(f"<D:response><D:href>{name}</D:href></D:response>" for name in names)
    return Said(207, f'<D:multistatus xmlns:D="DAV:">{entries}</D:multistatus>'.encode())


def opened(url: str):  # type: ignore[no-untyped-def]
    return open_storage(f"{url.replace('http', 'webdav')}/dav", {})[0]


def test_a_folder_that_is_locked_is_asked_for_again() -> None:
    answers = [423, 409, 201, 423, 201]  # the parent is missing
    with answering(lambda _asked: Said(answers.pop(0))) as server:
        opened(server.url).makedirs("/dav/a", exist_ok=True)
        assert [each.path for each in server.asked] == ["/dav/a/", "/dav/a/", "/dav/", "/dav/a/", "/dav/a/"]


def test_an_object_is_uploaded_under_a_name_that_does_not_show_and_then_moved() -> None:
    with answering(lambda _asked: Said(201)) as server:
        made = draft(opened(server.url), "/dav/ü #?", exclusive=True)
        made.write(b"bytes")
        made.settle()
        (put,) = server.asked
        assert (put.method, put.body) == ("PUT", b"bytes")
        assert put.path.endswith(".snappy-part")
        made.commit()
        move = server.asked[1]
        assert (move.method, move.path, move.headers["Overwrite"]) == ("MOVE", put.path, "F")
        assert move.headers["Destination"] == f"{server.url}/dav/%C3%BC%20%23%3F"
        made.discard()
        assert len(server.asked) == 2


def test_a_name_that_is_taken_leaves_nothing_behind() -> None:
    with answering(lambda asked: Said(412 if asked.method == "MOVE" else 201)) as server:
        made = draft(opened(server.url), "/dav/a", exclusive=True)
        made.write(b"bytes")
        with pytest.raises(FileExistsError):
            made.commit()
        made.discard()
        assert (server.asked[-1].method, server.asked[-1].path) == ("DELETE", server.asked[0].path)


def test_a_move_whose_answer_was_lost_is_no_success() -> None:
    with answering(lambda asked: Said(404 if asked.method == "MOVE" else 201)) as server:
        made = draft(opened(server.url), "/dav/a", exclusive=True)
        with pytest.raises(OSError) as caught:
            made.commit()
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        listing("/dav/a").body.replace(b"</D:href>", b"</D:href><D:getcontentlength>x</D:getcontentlength>"),
    ],
)
def test_an_answer_that_is_no_listing_is_an_error_of_the_storage(body: bytes) -> None:
    with answering(lambda _asked: Said(207, body)) as server:
        with pytest.raises(OSError) as caught:
            opened(server.url).ls("/dav")
        assert to_wire(caught.value).code == "unavailable"


def test_a_folder_that_is_filled_while_it_is_removed_stays() -> None:
    def answer(asked: Asked) -> Said:
        if asked.method != "PROPFIND":
            return Said(201)
        return listing(asked.path, f"{asked.path}/late") if ".snappy-part" in asked.path else listing(asked.path)

    def is_a_folder(asked: Asked) -> Said:
        said = answer(asked)
        mark = b"</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop></D:propstat>"
        return said._replace(body=said.body.replace(b"</D:href>", mark))

    with answering(is_a_folder) as server:
        with pytest.raises(OSError) as caught:
            opened(server.url).rmdir("/dav/a")
        assert caught.value.errno == errno.ENOTEMPTY
        assert server.count("MOVE") == 2
        assert server.count("DELETE") == 0
