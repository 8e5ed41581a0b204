"""A session of botocore's that keeps what an S3 client needs."""

from __future__ import annotations

import os
from typing import Any

from aiobotocore.session import AioSession
from botocore.loaders import Loader

SERVICES = frozenset({"s3", "s3-control", "sts", "oidc", "portal.sso"})
"""The store, and who may give out credentials for it."""


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
