"""Groups: their members have the roles that are given to the group."""

from collections.abc import Iterable

from pachd.auth.subjects import check_subject
from pachd.errors import NotFound
from pachd.store import Snapshot, Txn


def groups_of(txn: Snapshot, user: str) -> list[str]:
    """Return the groups of a user, by name."""
    rows = txn.db.execute("SELECT grp FROM auth_members WHERE user=? ORDER BY grp", (user,))
    return [row["grp"] for row in rows]


def users(txn: Snapshot, group: str = "") -> list[str]:
    """Return a group's members, or ("") everybody who was ever put into one. Raises NotFound."""
    if not group:
        return [row["name"] for row in txn.db.execute("SELECT name FROM auth_users ORDER BY name")]
    if not txn.db.execute("SELECT 1 FROM auth_groups WHERE name=?", (group,)).fetchone():
        raise NotFound(f"groups {group} not found")
    return [r["user"] for r in txn.db.execute("SELECT user FROM auth_members WHERE grp=? ORDER BY user", (group,))]


def set_groups(txn: Txn, user: str, groups: Iterable[str]) -> None:
    """Put a user into exactly these groups. Raises PachError if the user has no prefix."""
    check_subject(user)
    names = list(groups)
    txn.db.execute("DELETE FROM auth_members WHERE user=?", (user,))
    txn.db.execute("INSERT OR IGNORE INTO auth_users VALUES (?)", (user,))
    txn.db.executemany("INSERT OR IGNORE INTO auth_groups VALUES (?)", [(name,) for name in names])
    txn.db.executemany("INSERT OR IGNORE INTO auth_members VALUES (?,?)", [(user, name) for name in names])


def modify_members(txn: Txn, group: str, add: Iterable[str], remove: Iterable[str]) -> None:
    """Add users to a group, then remove users from it. Raises PachError if one has no prefix."""
    adding, removing = list(add), list(remove)
    for user in (*adding, *removing):
        check_subject(user)
    txn.db.execute("INSERT OR IGNORE INTO auth_groups VALUES (?)", (group,))
    everybody = [(user,) for user in (*adding, *removing)]
    txn.db.executemany("INSERT OR IGNORE INTO auth_users VALUES (?)", everybody)
    txn.db.executemany("INSERT OR IGNORE INTO auth_members VALUES (?,?)", [(user, group) for user in adding])
    txn.db.executemany("DELETE FROM auth_members WHERE user=? AND grp=?", [(user, group) for user in removing])
