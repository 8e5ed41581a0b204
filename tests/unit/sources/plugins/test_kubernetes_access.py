"""Where a cluster is and who one is there: settings, kubeconfigs, and a server that asks for a certificate."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import SourceDenied, SourceUnavailable, UsageError
from snappy.sources.plugins.kubernetes_access import KubernetesSettings, access
from snappy.sources.plugins.kubernetes_api import PLUGIN, Api
from snappy.sources.site import Site
from tests.support.certificates import make_certificate

CONFIG = """
apiVersion: v1
kind: Config
current-context: first
contexts:
- name: first
  context: {{cluster: one, user: token}}
- name: second
  context: {{cluster: two, user: certificate, namespace: shop}}
- {{name: nobody, context: {{cluster: one}}}}
- {{name: lost, context: {{cluster: elsewhere, user: token}}}}
- {{name: program, context: {{cluster: one, user: program}}}}
- {{name: careless, context: {{cluster: careless, user: token}}}}
- {{name: torn, context: {{cluster: one, user: torn}}}}
clusters:
- {{name: one, cluster: {{server: "https://one:6443", certificate-authority: pki/ca.crt}}}}
- name: two
  cluster: {{server: "{url}", certificate-authority-data: {cert}, extensions: [{{name: any}}]}}
- {{name: careless, cluster: {{server: "https://one:6443", insecure-skip-tls-verify: true}}}}
users:
- {{name: token, user: {{token: secret-word}}}}
- {{name: certificate, user: {{client-certificate-data: {cert}, client-key-data: {key}}}}}
- {{name: program, user: {{exec: {{command: aws, apiVersion: client.authentication.k8s.io/v1}}}}}}
- {{name: torn, user: {{client-key-data: "secret-word"}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certificate(tmp_path)
    return tmp_path


def kubeconfig(folder: Path, url: str = "https://two") -> str:
    data = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in ("cert", "key")}
    (folder / "config").write_text(CONFIG.format(url=url, **data))
    return str(folder / "config")


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The URL of an API that lies below a path, for who has the certificate."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"gitVersion": "%s"}' % self.path.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "cert"))
    context.load_cert_chain(folder / "cert", folder / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(("127.0.0.1", 0), Answers) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{http.server_port}/k8s/clusters/c-1/"
        http.shutdown()
        thread.join()


def api(**settings: Any) -> Api:
    return Api(Site("site", {PLUGIN: {"default": settings}}), "default")


def test_a_kubeconfig_has_certificates_in_it_and_a_server_below_a_path(folder: Path, server: str) -> None:
    opened = api(kubeconfig=kubeconfig(folder, server), context="second")
    assert opened.version() == "/k8s/clusters/c-1/version"
    opened.close()
    files = {name: str(folder / file) for name, file in (("ca", "cert"), ("certificate", "cert"), ("key", "key"))}
    opened = api(url=server, **files)
    assert opened.version() == "/k8s/clusters/c-1/version"
    opened.close()
    with pytest.raises(SourceUnavailable, match="does not answer"):
        api(url=server, ca=files["ca"], timeout=5).version()
    with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        api(url=server, timeout=5).version()


def test_the_context_is_the_current_one_or_the_one_that_is_named(folder: Path) -> None:
    file = kubeconfig(folder)
    found = access(KubernetesSettings(kubeconfig=file))
    assert (found.url, found.token(), found.ca.path) == ("https://one:6443", "secret-word", str(folder / "pki/ca.crt"))
    found = access(KubernetesSettings(kubeconfig=file, context="second"))
    assert (found.url, found.token()) == ("https://two", "")
    assert found.key.content == (folder / "key").read_bytes()
    assert access(KubernetesSettings(kubeconfig=file, context="nobody")).token() == ""
    (folder / "token").write_text("another\n")
    own = Api(
        Site("site", {PLUGIN: {"default": {"kubeconfig": file, "token": {"file": str(folder / "token")}}}}), "default"
    )
    assert own._access.token() == "another"


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ("third", "no context named 'third'"),
        ("lost", "no cluster named 'elsewhere'"),
        ("program", "unknown field `exec`"),
        ("careless", "unknown field `insecure-skip-tls-verify`"),
        ("torn", "no base64"),
    ],
)
def test_what_a_kubeconfig_says_and_is_not_understood_is_refused(folder: Path, context: str, why: str) -> None:
    with pytest.raises(SourceDenied, match=why) as refused:
        access(KubernetesSettings(kubeconfig=kubeconfig(folder), context=context))
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize(("text", "why"), [("a: [", "no YAML"), ("[]", "Expected `object`"), (None, "No such file")])
def test_what_is_no_kubeconfig_is_said(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    with pytest.raises(SourceDenied, match=why):
        access(KubernetesSettings(kubeconfig=str(tmp_path / "config")))


def test_settings_that_say_it_twice_are_refused_when_the_service_starts() -> None:
    for wrong in ({"kubeconfig": "/x", "url": "https://other"}, {"kubeconfig": "/x", "ca": "/y"}, {"context": "x"}):
        with pytest.raises(UsageError, match="kubeconfig"):
            Site("site", {PLUGIN: {"default": wrong}}).check(PLUGIN, KubernetesSettings)


def test_a_pods_token_is_read_anew_and_a_token_that_is_gone_is_said(tmp_path: Path) -> None:
    found = access(KubernetesSettings(service_account=str(tmp_path)))
    assert (found.token(), found.ca.path) == ("", "")
    (tmp_path / "token").write_text("first\n")
    assert found.token() == "first"
    (tmp_path / "token").write_text("second\n")
    assert found.token() == "second"
    (tmp_path / "ca.crt").touch()
    assert access(KubernetesSettings(service_account=str(tmp_path))).ca.path == str(tmp_path / "ca.crt")
    config = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]}
    config |= {
        "clusters": [{"name": "k", "cluster": {"server": "https://k"}}],
        "users": [{"name": "u", "user": {"tokenFile": "gone"}}],
    }
    (tmp_path / "config").write_text(str(config))
    with pytest.raises(SourceDenied, match="gone cannot be read"):
        access(KubernetesSettings(kubeconfig=str(tmp_path / "config"))).token()
