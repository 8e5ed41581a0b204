"""Where the API of a cluster is, and as whom one goes there: what the service's settings say, or a kubeconfig.

A kubeconfig is specified at https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. What it says and is not
known here is refused, not passed over: it may be how the server is told from another.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.decoding import converted
from snappy.errors import ProgramMissing, SourceDenied

SERVICE = "https://kubernetes.default.svc"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

Known = TypeVar("Known", bound=msgspec.Struct)


class KubernetesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the API of a cluster is, and as whom to go there. In a pod nothing need be said."""

    url: Annotated[str, Meta(description="of the API server")] = SERVICE
    service_account: Annotated[str, Meta(description="the folder with a pod's token and ca.crt")] = ACCOUNT
    token: Annotated[Secret | None, Meta(description="where another token is found")] = None
    ca: Annotated[str, Meta(description="the file of the authorities that may vouch for the server")] = ""
    certificate: Annotated[str, Meta(description="the file of a client certificate, instead of a token")] = ""
    key: Annotated[str, Meta(description="the file of that certificate's key")] = ""
    kubeconfig: Annotated[str, Meta(description="a file of kubectl's that says all this but for `token`")] = ""
    context: Annotated[str, Meta(description="which of its contexts; default: the current one")] = ""
    timeout: Annotated[float, Meta(gt=0, description="seconds after which a silent server is given up")] = 60

    def __post_init__(self) -> None:
        if self.kubeconfig and (self.url != SERVICE or self.ca or self.certificate or self.key):
            raise ValueError("`kubeconfig` says url, ca, certificate and key itself")
        if self.context and not self.kubeconfig:
            raise ValueError("`context` is one of a `kubeconfig`")


class Pem(NamedTuple):
    """Certificates or a key: a file of them, or themselves."""

    path: str = ""
    content: bytes = b""

    @contextmanager
    def file(self) -> Iterator[str | None]:
        """As OpenSSL wants it, without ever being on a disk; None where there is nothing."""
        if not self.content:
            yield self.path or None
            return
        handle = os.memfd_create("snappy")
        try:
            os.write(handle, self.content)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)


class Access(NamedTuple):
    """``token`` is asked for each request, since it may change; it may be empty."""

    url: str
    ca: Pem
    certificate: Pem
    key: Pem
    token: Callable[[], str]

    def tls(self) -> ssl.SSLContext:
        """Raises ``OSError`` for files that cannot be read."""
        with ExitStack() as open_files:
            authority, certificate, key = (
                open_files.enter_context(pem.file()) for pem in (self.ca, self.certificate, self.key)
            )
            context = ssl.create_default_context(cafile=authority)
            if certificate:
                context.load_cert_chain(certificate, key)
        return context


def access(settings: KubernetesSettings) -> Access:
    """As the settings say. Raises :class:`SourceDenied` for a kubeconfig that does not, :class:`ProgramMissing`."""
    own = partial(secrets.read, settings.token) if settings.token else None
    if settings.kubeconfig:
        found = _of_kubeconfig(Path(settings.kubeconfig).expanduser(), settings.context)
        return found._replace(token=own or found.token)
    mounted = Path(settings.service_account)
    ca = settings.ca or (str(mounted / "ca.crt") if (mounted / "ca.crt").exists() else "")
    token = own or partial(_text, mounted / "token", optional=True)
    return Access(settings.url, Pem(ca), Pem(settings.certificate), Pem(settings.key), token)


def _text(file: Path, *, optional: bool = False) -> str:
    try:
        return "" if optional and not file.exists() else file.read_text().strip()
    except OSError as error:
        raise SourceDenied(f"the token {file} cannot be read: {error.strerror}", hint="see the settings") from error


# ---- kubeconfig --------------------------------------------------------------------------------------------------


class _Context(msgspec.Struct, forbid_unknown_fields=True):
    cluster: str
    user: str = ""
    namespace: str = ""
    extensions: Any = None


class _Cluster(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    extensions: Any = None


class _User(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    extensions: Any = None


class _Named(msgspec.Struct):
    """One of a list, of which only the one that is used need be understood."""

    name: str
    cluster: Any = None
    user: Any = None
    context: Any = None


class _Kubeconfig(msgspec.Struct, rename={"current": "current-context"}):
    clusters: list[_Named] | None = None
    users: list[_Named] | None = None
    contexts: list[_Named] | None = None
    current: str = ""


def _of_kubeconfig(file: Path, context: str) -> Access:
    yaml = _yaml()
    try:
        config = converted(yaml.safe_load(file.read_bytes()), _Kubeconfig)
        chosen = _one("context", config.contexts, context or config.current, _Context)
        cluster = _one("cluster", config.clusters, chosen.cluster, _Cluster)
        user = _one("user", config.users, chosen.user, _User) if chosen.user else _User()
        return Access(
            cluster.server,
            _pem(file, cluster.certificate_authority, cluster.certificate_authority_data),
            _pem(file, user.client_certificate, user.client_certificate_data),
            _pem(file, user.client_key, user.client_key_data),
            partial(_text, file.parent / user.token_file) if user.token_file else lambda: user.token,
        )
    except (OSError, yaml.YAMLError, LookupError, ValueError, msgspec.ValidationError) as error:
        raise SourceDenied(
            f"the kubeconfig {file} does not say how to reach a cluster: {_reason(error)}",
            hint="see docs/plugins.md for what is understood; a program that gives a token belongs into `token`",
        ) from error


def _one(what: str, found: Sequence[_Named] | None, name: str, schema: type[Known]) -> Known:
    for one in found or ():
        if one.name == name:
            return converted(getattr(one, what), schema)
    raise LookupError(f"it has no {what} named {name!r}")


def _pem(file: Path, path: str, data: str) -> Pem:
    """Paths are as seen from the kubeconfig; where both are given, the data count."""
    return Pem(str(file.parent / path) if path else "", base64.b64decode(data, validate=True))


def _reason(error: Exception) -> str:
    """Why, without a word of what was read: there are keys in it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, LookupError | msgspec.ValidationError):
        return str(error.args[0])
    return "its data are no base64" if isinstance(error, binascii.Error) else "it is no YAML"


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ProgramMissing(
            f"the Python module yaml cannot be loaded: {error}",
            hint="pip install 'snappy-backup[kubernetes]' where the source service runs",
        ) from error
    return yaml
