"""The one place where calls are let in or refused, by the table in `pachd.api.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from pachd.api.access import Access, Rule
from pachd.api.rules import BY_TRANSACTION_FIELD, RULES
from pachd.auth import bindings, tokens
from pachd.auth.bindings import NotActivated
from pachd.auth.permissions import NotAuthorized
from pachd.auth.resources import Resource
from pachd.errors import PermissionDenied
from pachd.store import Snapshot, Store, Txn, system

if TYPE_CHECKING:
    from pachd.api.service import Call

_KNOWN = 1000  # tokens that are remembered

# The call that the running coroutine answers, if access control is active; `Context.write` asks for it.
_current: ContextVar[Pass | None] = ContextVar("current", default=None)


class Denied(Exception):
    """The caller may not, and Pachyderm does not say so: `reply` is what it answers."""

    def __init__(self, reply: Message) -> None:
        super().__init__()
        self.reply = reply


class Pass:
    """What one call may do. Made by `Guard.admit`."""

    def __init__(self, rule: Rule, token: str | None, principal: str) -> None:
        self.rule = rule
        self.token = token
        self.principal = principal

    def check(self, snapshot: Snapshot, request: Any) -> None:
        """Raise NotAuthorized, Unauthenticated or Denied if the caller may not make this request."""
        self._check(self.rule, self._access(snapshot), request)

    def show(self, snapshot: Snapshot, request: Any, reply: Any) -> Any:
        """Return a reply, or an iterator of replies, as the caller may see it."""
        show = self.rule.show
        if show is None:
            return reply
        access = self._access(snapshot)
        if isinstance(reply, Message):
            return show(access, request, reply)
        return self._each(access, request, reply)

    def _each(self, access: Access, request: Any, replies: Iterator[Any]) -> Iterator[Any]:
        show = self.rule.show
        assert show is not None
        for reply in replies:
            shown = show(access, request, reply)
            if shown is not None:
                yield shown

    def step(self, txn: Txn, field: str, request: Any) -> bool:
        """Check one request of a transaction; False: it is to be passed over without a word."""
        rule = RULES[BY_TRANSACTION_FIELD[field]]
        access = self._access(txn)
        if rule.gate:
            access.need_cluster(*rule.gate)
        try:
            self._check(rule, access, request)
        except Denied:
            return False
        return True

    def need(self, snapshot: Snapshot, resource: Resource, *permissions: int, told: str = "") -> None:
        """Raise NotAuthorized unless the caller has permissions on something; `told`: words before those of errors."""
        self._access(snapshot).need(resource, *permissions, told=told)

    def may(self, snapshot: Snapshot, resource: Resource, *permissions: int) -> bool:
        """Return whether the caller has permissions on something."""
        return self._access(snapshot).may(resource, *permissions)

    def _access(self, snapshot: Snapshot) -> Access:
        return Access(snapshot, self.token, self.principal)

    @staticmethod
    def _check(rule: Rule, access: Access, request: Any) -> None:
        if rule.check is None:
            return
        try:
            rule.check(access, request)
        except NotAuthorized:
            if rule.denied is None:
                raise
            raise Denied(rule.denied()) from None


class Guard:
    """Lets calls in. `active` says whether access control is on, so that nothing is looked up while it is off."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.active = False
        self.pinned = False  # the root token was given at the start: access control stays on, with this token
        self._known: dict[str, tuple[int, tokens.Caller]] = {}  # by token, each with the store's version
        self.refresh()

    def refresh(self) -> None:
        """Look again whether access control is on; to be called after it was switched."""
        with self._store.read() as snapshot:
            self.active = bindings.active(snapshot)

    def _remembered(self, token: str | None) -> str:
        """Return whom a token stands for, if nothing at all was written since that was looked up; else ""."""
        version, caller = self._known.get(token or "", (-1, None))
        if caller is None or version != self._store.version:
            return ""
        return caller.subject if caller.expiration is None or caller.expiration > system.now_ns() else ""

    async def admit(self, call: Call) -> Pass | None:
        """Return what `call` may do, or None where access control is off; the running coroutine writes in its name.

        :raises Unauthenticated: the token is missing or wrong.
        :raises NotAuthorized: the caller lacks a permission on the cluster.
        """
        rule = RULES.get(call.method)
        if not self.active:
            if rule is not None and rule.only_active:
                raise NotActivated
            return None
        if rule is None:  # a new RPC is closed until it is in the table
            raise PermissionDenied(f"{call.method} has no rule of access control: nobody may call it")
        token = call.metadata.get("authn-token")
        principal = ""
        if rule.gate is not None:
            principal = self._remembered(token) if not rule.gate else ""
            if not principal:
                version = self._store.version
                caller = await call.context.read(lambda snapshot: _enter(snapshot, rule, token))
                principal = caller.subject
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[token or ""] = (version, caller)
        found = Pass(rule, token, principal)
        _current.set(found)
        return found


def _enter(snapshot: Snapshot, rule: Rule, token: str | None) -> tokens.Caller:
    caller = tokens.identify(snapshot, token)
    if rule.gate:
        Access(snapshot, token, caller.subject).need_cluster(*rule.gate)
    return caller


def sign() -> dict[str, Any]:
    """Return what a transaction's state is to hold of who makes it: the caller whom the running coroutine answers."""
    current = _current.get()
    return {} if current is None else {"principal": current.principal, "authorize": current.step}
