"""Who asks, and whether they may: the scopes of the store's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase

from autovision.records.tokens import Scope, Token
from autovision.service.audit import trail_of
from autovision.service.context import Context
from autovision.service.metrics import ANONYMOUS
from autovision.serving.problems import Forbidden

BEARER: SecurityBase = HTTPBearer(
    auto_error=False, scheme_name="token", description="Made with `autovision token create`."
)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        token: None where none is needed; everything is allowed then.
    """

    name: str
    token: Token | None

    def allows(self, scope: Scope) -> bool:
        return self.token is None or scope in self.token.scopes

    def demand(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the token has the scope."""
        if not self.allows(scope):
            raise Forbidden(scope)


def _needs(scope: Scope | None) -> Any:
    """Lets whoever has the scope pass; None: whoever has a valid token."""

    async def caller_of(request: Request, credentials: Annotated[Any, Security(BEARER)] = None) -> Caller:
        context: Context = request.app.state.context
        token = None
        if context.book is not None:
            # First who it is, so that the audit log knows whose attempt was refused.
            token = context.book.caller(request.headers.get("authorization"), None)
        caller = Caller(ANONYMOUS if token is None else token.name, token)
        trail_of(request).by(caller.name, None if token is None else token.id)
        if scope is not None:
            caller.demand(scope)
        return caller

    return Depends(caller_of)


Anyone = Annotated[Caller, _needs(None)]
Reader = Annotated[Caller, _needs(Scope.READ)]
Submitter = Annotated[Caller, _needs(Scope.SUBMIT)]
Promoter = Annotated[Caller, _needs(Scope.PROMOTE)]
Admin = Annotated[Caller, _needs(Scope.ADMIN)]
