"""Volume claims of Kubernetes and the images behind them, from answers of its API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from snappy.decoding import from_json
from snappy.errors import BadOptions, SourceDenied, SourceError, SourceMissing, SourceUnavailable
from snappy.sources.plugins.rbd import RbdOptions, RbdRestore, RbdSource
from snappy.sources.plugins.rbd_cluster import RbdSettings
from snappy.sources.plugins.rbd_volumes import Volume, VolumeClaim, image_of
from snappy.sources.site import Site

UUID = "5d47a0f2-1d4e-4f5c-9d3a-0d7f5e2b8c11"
HANDLE = f"0001-0024-3c813b3c-89d1-425b-86df-6d5d8001328c-0000000000000002-{UUID}"

IN_TREE = {"spec": {"rbd": {"image": "disk-1", "monitors": ["10.0.0.1:6789"], "user": "admin", "readOnly": False}}}
CSI = {
    "kind": "PersistentVolume",
    "spec": {
        "capacity": {"storage": "1Gi"},
        "csi": {
            "driver": "rbd.csi.ceph.com",
            "volumeHandle": HANDLE,
            "volumeAttributes": {"clusterID": "3c81", "pool": "kubernetes", "imageName": f"csi-vol-{UUID}"},
        },
    },
}
ANSWERS: dict[str, dict[str, Any]] = {
    "/api/v1/namespaces/shop/persistentvolumeclaims/data": {"kind": "x", "spec": {"volumeName": "pvc-1"}},
    "/api/v1/namespaces/shop/persistentvolumeclaims/waiting": {"spec": {}},
    "/api/v1/persistentvolumes/pvc-1": CSI,
}


def found(volume: dict[str, Any]) -> str:
    return str(image_of(from_json(json.dumps(volume).encode(), Volume), "pvc-1", "default"))


def csi(**fields: Any) -> dict[str, Any]:
    return {"spec": {"csi": CSI["spec"]["csi"] | fields}}  # type: ignore[index]


def test_images_are_found_from_volumes_of_all_kinds() -> None:
    assert found(IN_TREE) == "rbd/disk-1"
    assert found({"spec": {"rbd": {"image": "disk-1", "pool": "vms"}}}) == "vms/disk-1"
    assert found(CSI) == f"kubernetes/csi-vol-{UUID}"
    assert found(csi(driver="rook-ceph.rbd.csi.ceph.com")) == f"kubernetes/csi-vol-{UUID}"
    assert found(csi(volumeAttributes={"pool": "old"})) == f"old/csi-vol-{UUID}"
    static = csi(volumeHandle="mine", volumeAttributes={"pool": "p", "staticVolume": "true"})
    assert found(static) == "p/mine"
    spaced = csi(volumeAttributes={"pool": "p", "imageName": "i", "radosNamespace": "tenant"})
    assert found(spaced) == "p/tenant/i"


@pytest.mark.parametrize("spec", [{}, {"nfs": {"path": "/"}}, {"csi": {"driver": "nfs", "volumeHandle": "x"}}])
def test_volumes_of_other_kinds_are_no_images(spec: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="no RBD image"):
        found({"spec": spec})


def test_no_volume_names_an_image_elsewhere() -> None:
    with pytest.raises(BadOptions):
        found({"spec": {"rbd": {"image": "../other"}}})


class Answers(BaseHTTPRequestHandler):
    """As the API answers to a token."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer right"
        answer = ANSWERS.get(self.path)
        self.send_response(200 if known and answer else 404 if known else 403)
        self.end_headers()
        self.wfile.write(json.dumps(answer or {"kind": "Status"}).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[RbdSettings]:
    (tmp_path / "token").write_text("right\n")
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield RbdSettings(kubernetes=f"http://127.0.0.1:{server.server_port}", service_account=str(tmp_path))
        server.shutdown()
        thread.join()


def test_the_api_is_asked_for_claim_and_volume(settings: RbdSettings, tmp_path: Path) -> None:
    claim = VolumeClaim("default", "shop", "data")
    assert str(claim.found(settings)) == f"kubernetes/csi-vol-{UUID}"
    with pytest.raises(SourceMissing, match="not bound"):
        VolumeClaim("default", "shop", "waiting").found(settings)
    with pytest.raises(SourceMissing, match="has no nothing among its persistentvolumeclaims"):
        VolumeClaim("default", "shop", "nothing").found(settings)
    (tmp_path / "token").write_text("wrong")
    with pytest.raises(SourceDenied, match="read api/v1/namespaces/shop/persistentvolumeclaims/data"):
        claim.found(settings)
    (tmp_path / "token").unlink()
    with pytest.raises(SourceDenied, match="cannot be asked"):
        claim.found(settings)


def test_an_api_that_is_down_or_talks_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("right")
    down = RbdSettings(kubernetes="http://127.0.0.1:9", service_account=str(tmp_path), timeout=1)
    with pytest.raises(SourceUnavailable):
        VolumeClaim("default", "shop", "data").found(down)
    monkeypatch.setattr("snappy.sources.plugins.rbd_volumes._get", lambda *_: b"<html>")
    with pytest.raises(SourceUnavailable, match="not what"):
        VolumeClaim("default", "shop", "data").found(down)


def test_rules_and_snapshots_name_the_claim() -> None:
    site = Site("north", {"rbd": {"default": {}}})
    source = RbdSource(RbdOptions(pvc="shop/data"), site)
    assert source.claims() == ["rbd+pvc://default/shop/data"]
    assert RbdSource.restore_claims(RbdRestore(pvc="shop/data"), site) == source.claims()
    assert RbdSource(RbdOptions(pool="p", image="i", namespace="n"), site).claims() == ["rbd://default/p/n/i"]
    for wrong in ({"pvc": "data"}, {"pvc": "shop/../data"}, {"pvc": "shop/data", "pool": "p"}, {"pool": "p"}):
        with pytest.raises(BadOptions):
            RbdSource(RbdOptions(**wrong), site)
