"""The accounts and roles of a MariaDB server, as statements that make them anew and grant what they had."""

from __future__ import annotations

from contextlib import suppress

from snappy.errors import SourceError, SourceMissing, SourceUnavailable
from snappy.sources.plugins.mariadb_server import Session, identifier

ACCOUNTS = "SELECT User, Host, is_role FROM mysql.user ORDER BY is_role DESC, User, Host"
OWN = ("mariadb.sys", "PUBLIC")
"""Every server has them."""

Accounts = dict[str, list[str]]
"""Statements by accounts: the first one makes it, if it is not there, and the others grant."""


def read_accounts(session: Session) -> Accounts:
    """All of them, roles first. Raises :class:`snappy.errors.SourceDenied`."""
    found: Accounts = {}
    for user, host, is_role in session.rows(ACCOUNTS):
        if user in OWN:
            continue
        account = _account(user, host, is_role)
        with suppress(SourceMissing):  # a server that resolves no names passes over those of named hosts
            making = _making(session, account, is_role)
            found[account] = [making, *session.column(f"SHOW GRANTS FOR {account}")]
    return found


def _account(user: str, host: str, is_role: str) -> str:
    return identifier(user) if is_role == "Y" else f"{identifier(user)}@{identifier(host)}"


def _making(session: Session, account: str, is_role: str) -> str:
    if is_role == "Y":
        return f"CREATE ROLE IF NOT EXISTS {account}"
    said = str(session.value(f"SHOW CREATE USER {account}"))
    return said.replace("CREATE USER", "CREATE USER IF NOT EXISTS", 1)


class Making:
    """Accounts as they are made again: those that there are not; with ``altering`` the others get what they had, too,
    but never the session's own, whose password would be another one amid the restore. Databases need some of them, and
    what they may in a table is granted once that is there: so it is done twice."""

    def __init__(self, session: Session, accounts: Accounts, *, altering: bool) -> None:
        user, _, host = str(session.value("SELECT CURRENT_USER()")).rpartition("@")
        there = {_account(user, host, "N")} | {_account(*row) for row in ([] if altering else session.rows(ACCOUNTS))}
        wanted = [(account, statements) for account, statements in accounts.items() if account not in there]
        making = [(account, statements[0]) for account, statements in wanted]
        self._session = session
        self._left = making + [(account, statement) for account, statements in wanted for statement in statements[1:]]

    def carry_out(self) -> list[str]:
        """Do what is not done yet. Returns what was refused; raises :class:`SourceUnavailable`."""
        left, self._left = self._left, []
        refused = []
        for account, statement in left:
            try:
                self._session.rows(statement)
            except SourceUnavailable:
                raise
            except SourceError as error:
                self._left.append((account, statement))
                said = error.message.partition(" near ")[0]  # what follows is of the statement, and may be a password's
                refused.append(f"{account} does not have all that it had: {said}")
        return refused


def script(accounts: Accounts) -> bytes:
    """The same for the program ``mariadb``."""
    making = [statements[0] for statements in accounts.values()]
    granting = [statement for statements in accounts.values() for statement in statements[1:]]
    return "".join(f"{statement};\n" for statement in making + granting).encode()
