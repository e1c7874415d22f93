"""Three ClickHouse users with no more than they need: loader, searcher, deployer.

`sql/users/<role>.sql` is the one place that says what each may do; preflight reads it as well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Collection

from clickhouse_connect import get_client

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_string
from laion.clickhouse.statements import statement
from laion.errors import BadSetting, LaionError

ROLES = ("loader", "searcher", "deployer")
LOADER_EXTRAS = ("s3", "cluster")
"""What the loader needs further grants for: a staging area on S3, tables on a cluster."""
GRANT = re.compile(r"^GRANT (?P<privilege>[A-Z0-9 ]+) ON (?P<target>\S+) TO ", re.MULTILINE)


def render_user(role: str, database: str, password: str, extras: Collection[str] = ()) -> str:
    """Return the statements that make the user `laion_<role>`, or make it what it should be.

    The password goes in as its SHA-256; `extras` are of LOADER_EXTRAS. Raises BadIdentifier,
    BadSetting.
    """
    if not password:
        raise BadSetting(
            f"LAION_{role.upper()}_PASSWORD is not set: it becomes the password of the ClickHouse "
            f"user laion_{role}. Set it, for example to what `openssl rand -hex 16` prints."
        )
    digest = quote_string(hashlib.sha256(password.encode()).hexdigest())
    names = [role, *(f"loader_{extra}" for extra in extras if role == "loader")]
    literals = {"password_sha256": digest}
    parts = (statement(f"users/{name}", database=database, literals=literals) for name in names)
    return "\n".join(parts)


def read_grants(role: str, database: str, extras: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return what a user is granted, as (privilege, quoted target) such as (SELECT, `laion`.*)."""
    return GRANT.findall(render_user(role, database, "-", extras))


def apply_statements(client: Client, sql: str) -> None:
    """Run statements that each end a line with a semicolon. Raises ClickHouseError."""
    for text in sql.split(";\n"):
        code = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip()
        if code:
            with typed_errors(f"run {code.splitlines()[0]}"):
                client.command(code)


def main() -> int:
    """Print, or run, the SQL that makes the users; passwords come from LAION_<ROLE>_PASSWORD."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.clickhouse.users", description=main.__doc__
    )
    parser.add_argument("--database", required=True, help="that the loader fills")
    parser.add_argument(
        "--apply",
        action="store_true",
        help="run it as the administrator of CLICKHOUSE_ADMIN_URL, http://user:password@host:8123",
    )
    for extra in LOADER_EXTRAS:
        parser.add_argument(
            f"--{extra}",
            dest="extras",
            action="append_const",
            const=extra,
            default=[],
            help=f"with the grants of sql/users/loader_{extra}.sql",
        )
    parser.add_argument("roles", nargs="*", default=ROLES, help="by default all three")
    args = parser.parse_args()
    try:
        if unknown := set(args.roles) - set(ROLES):
            raise BadSetting(
                f"{', '.join(sorted(unknown))}: no such role; take of {', '.join(ROLES)}"
            )
        passwords = {r: os.environ.get(f"LAION_{r.upper()}_PASSWORD", "") for r in args.roles}
        users = (render_user(r, args.database, passwords[r], args.extras) for r in args.roles)
        sql = "\n\n".join(users)
        if not args.apply:
            print(sql)
            return 0
        with typed_errors("accept the administrator"):
            client = get_client(dsn=os.environ.get("CLICKHOUSE_ADMIN_URL", ""))
        apply_statements(client, sql + "\n")
        print(f"Made, or brought up to date: {', '.join(f'laion_{r}' for r in args.roles)}")
    except LaionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
