"""Tokens: what a caller sends to say who they are. Only their hashes are kept."""

import hashlib
from typing import NamedTuple

from pachd.auth.bindings import require_active
from pachd.auth.subjects import PACH, ROBOT, ROOT
from pachd.errors import Internal, PachError, Unauthenticated
from pachd.proto import auth_pb2
from pachd.store import Snapshot, Txn, system

SECOND = 1_000_000_000  # ns
NOT_SIGNED_IN = "no authentication token (try logging in)"
BAD_TOKEN = "provided auth token is corrupted or has expired (try logging in again)"
EXPIRED = "token expiration is in the past"


class Caller(NamedTuple):
    """Whom a token stands for. `expiration`: nanoseconds since 1970, None for never."""

    subject: str
    expiration: int | None = None


def digest(token: str) -> str:
    """Return the form in which a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def identify(txn: Snapshot, token: str | None) -> Caller:
    """Return whom a token stands for; None: the caller sent none.

    Raises NotActivated, Unauthenticated, or Internal for a token that has expired but is not yet swept away: that is
    the status Pachyderm answers.
    """
    require_active(txn)
    if token is None:
        raise Unauthenticated(NOT_SIGNED_IN)
    row = txn.db.execute("SELECT subject, expiration FROM auth_tokens WHERE hash=?", (digest(token),)).fetchone()
    if row is None:
        raise Unauthenticated(BAD_TOKEN)
    if row["expiration"] is not None and row["expiration"] < system.now_ns():
        raise Internal(EXPIRED)
    return Caller(row["subject"], row["expiration"])


def make(txn: Txn, subject: str, ttl: int = 0, token: str = "") -> str:
    """Make a token for a subject and return it; it can never be read again.

    ttl: seconds until it expires, 0 for never. token: use this one. Raises PachError if it is in use.
    """
    token = token or system.new_id()
    _insert(txn, digest(token), subject, txn.now + ttl * SECOND if ttl > 0 else None)
    return token


def _insert(txn: Txn, hashed: str, subject: str, expiration: int | None) -> None:
    if txn.db.execute("SELECT 1 FROM auth_tokens WHERE hash=?", (hashed,)).fetchone():
        raise PachError("cannot overwrite existing token with same hash")
    if expiration is not None:
        expiration = min(expiration, (1 << 63) - 1)
    txn.db.execute("INSERT INTO auth_tokens VALUES (?,?,?,?)", (hashed, subject, expiration, txn.now))


def make_robot(txn: Txn, robot: str, ttl: int) -> str:
    """Make a token for a robot user, named with or without its prefix. Raises PachError for a name with a colon."""
    require_active(txn)
    name = robot.removeprefix(ROBOT)
    if ":" in name:
        raise PachError("robot names cannot contain colons (':')")
    return make(txn, ROBOT + name, ttl)


def rotate_root(txn: Txn, token: str = "") -> str:
    """Replace the root token; returns the new one."""
    revoke_all(txn, ROOT)
    return make(txn, ROOT, token=token)


def revoke(txn: Txn, token: str) -> int:
    """Forget a token; returns how many there were."""
    return txn.db.execute("DELETE FROM auth_tokens WHERE hash=?", (digest(token),)).rowcount


def revoke_all(txn: Txn, subject: str) -> int:
    """Forget all tokens of a subject; returns how many there were."""
    return txn.db.execute("DELETE FROM auth_tokens WHERE subject=?", (subject,)).rowcount


def revoke_user(txn: Txn, subject: str) -> int:
    """The same for a subject that a client names. Raises PachError for `pach:` users."""
    if subject.startswith(PACH):
        raise PachError("cannot revoke tokens for pach: users")
    return revoke_all(txn, subject)


def delete_expired(txn: Txn) -> int:
    """Forget the tokens that have expired; returns how many there were."""
    return txn.db.execute("DELETE FROM auth_tokens WHERE expiration < ?", (txn.now,)).rowcount


def extract(txn: Snapshot) -> list[auth_pb2.TokenInfo]:
    """Return the robots' tokens, hashed."""
    found = []
    for row in txn.db.execute("SELECT * FROM auth_tokens WHERE subject LIKE 'robot:%' ORDER BY created, subject, hash"):
        info = auth_pb2.TokenInfo(subject=row["subject"], hashed_token=row["hash"])
        if row["expiration"] is not None:
            info.expiration.FromNanoseconds(row["expiration"])
        found.append(info)
    return found


def restore(txn: Txn, info: auth_pb2.TokenInfo) -> None:
    """Take back a token that was extracted. Raises Internal if it has expired, PachError if it is there."""
    expiration = None
    if info.HasField("expiration"):
        expiration = info.expiration.ToNanoseconds()
        if expiration < txn.now:
            raise Internal(EXPIRED)
    try:
        _insert(txn, info.hashed_token, info.subject, expiration)
    except PachError as error:
        raise error.wrapped("error restoring auth token") from None
