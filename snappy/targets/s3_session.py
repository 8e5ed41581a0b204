"""An S3 client and its session: what s3fs and botocore do, with less memory, and to the end."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from typing import Any

from aiobotocore.session import AioSession
from botocore.loaders import Loader
from s3fs import S3FileSystem

SERVICES = frozenset({"s3", "s3-control", "sts", "oidc", "portal.sso"})
"""The store, and who may give out credentials for it."""


class S3(S3FileSystem):
    """Lets go of its connections in the loop that they belong to, whoever drops it. s3fs would do so in any loop that
    runs, or give up after a tenth of a second."""

    @staticmethod
    def close_session(loop: AbstractEventLoop | None, client: Any) -> None:
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(lambda: loop.create_task(client.__aexit__(None, None, None)))


def session() -> AioSession:
    """Without the addresses of some 400 other services, of which botocore keeps 7 MB in each process."""
    made = AioSession()
    folders = made.get_config_variable("data_path") or ""
    made.register_component("data_loader", _OfS3([os.path.expanduser(it) for it in folders.split(os.pathsep) if it]))
    return made


class _OfS3(Loader):
    def load_data_with_path(self, name: str) -> tuple[Any, str]:
        data, path = super().load_data_with_path(name)
        if name == "endpoints":
            for partition in data.get("partitions", ()):
                services = partition.get("services", {})
                partition["services"] = {service: services[service] for service in SERVICES & services.keys()}
        return data, path
