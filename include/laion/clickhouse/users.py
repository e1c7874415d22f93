"""Three ClickHouse users with no more than they need: loader, searcher, deployer.

`sql/users/<role>.sql` is the one place that says what each may do; preflight reads it as well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys

from laion.clickhouse.identifiers import quote_string
from laion.clickhouse.statements import statement
from laion.errors import BadSetting, LaionError

ROLES = ("loader", "searcher", "deployer")
GRANT = re.compile(r"^GRANT (?P<privilege>[A-Z ]+) ON (?P<target>\S+) TO ", re.MULTILINE)


def render_user(role: str, database: str, password: str) -> str:
    """Return the statements that make the user `laion_<role>`, or make it what it should be.

    The password goes in as its SHA-256. Raises BadIdentifier, BadSetting.
    """
    if not password:
        raise BadSetting(
            f"LAION_{role.upper()}_PASSWORD is not set: it becomes the password of the ClickHouse "
            f"user laion_{role}. Set it, for example to what `openssl rand -hex 16` prints."
        )
    digest = quote_string(hashlib.sha256(password.encode()).hexdigest())
    return statement(f"users/{role}", database=database, literals={"password_sha256": digest})


def read_grants(role: str, database: str) -> list[tuple[str, str]]:
    """Return what a user is granted, as (privilege, quoted target) such as (SELECT, `laion`.*)."""
    return GRANT.findall(render_user(role, database, "-"))


def main() -> int:
    """Print the SQL that makes the users; passwords come from LAION_<ROLE>_PASSWORD."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.clickhouse.users", description=main.__doc__
    )
    parser.add_argument("--database", required=True, help="that the loader fills")
    parser.add_argument("roles", nargs="*", default=ROLES, help="by default all three")
    args = parser.parse_args()
    try:
        if unknown := set(args.roles) - set(ROLES):
            raise BadSetting(
                f"{', '.join(sorted(unknown))}: no such role; take of {', '.join(ROLES)}"
            )
        for role in args.roles:
            password = os.environ.get(f"LAION_{role.upper()}_PASSWORD", "")
            print(render_user(role, args.database, password), end="\n\n")
    except LaionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
