"""Who may do what, and who did: one's own token, all tokens, the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from autovision.records.service import AuditEntry
from autovision.service import audit, quotas
from autovision.service.access import Admin, Anyone
from autovision.service.audit import acting
from autovision.service.context import Ctx
from autovision.service.paging import Cursor, Limit, cut, decoded, page
from autovision.service.routes.common import Name, answer, problems
from autovision.service.schema import Me, Page, Revoked, TokenView
from autovision.store import keys, tokens

router = APIRouter(tags=["access"], responses=problems())


@router.get("/me", response_model=Me)
def show_me(context: Ctx, caller: Anyone) -> Any:
    """Who the service takes the caller for, and what is left of their quotas."""
    view = None if caller.token is None else TokenView.of(caller.token)
    left = quotas.left(context.store, caller.token, context.clock())
    return answer(Me(name=caller.name, token=view, left=left))


@router.get("/tokens", response_model=Page[TokenView])
def list_tokens(context: Ctx, caller: Admin, limit: Limit = 50, cursor: Cursor = None) -> Any:
    """Every token that was ever made, oldest first, without what it takes to use one."""
    found = page(
        tokens.read(context.store),
        lambda each: f"{keys.stamp(each.created_at)}-{each.id}",
        limit,
        cursor,
        TokenView.of,
    )
    return answer(found)


@router.post(
    "/tokens/{token}/revoke",
    response_model=Revoked,
    responses=problems(404, 409),
    dependencies=[acting("token.revoke")],
)
def revoke_token(context: Ctx, caller: Admin, token: Name) -> Any:
    """Revoke the token of an id, or all of a name; every server refuses it within a few seconds. Again does nothing."""
    keys.check_name(token, what="token")
    revoked = tokens.revoke(context.store, token, context.clock())
    return answer(Revoked(revoked=tuple(map(TokenView.of, revoked))))


@router.get("/audit", response_model=Page[AuditEntry])
def read_audit(
    context: Ctx,
    caller: Admin,
    limit: Limit = 50,
    cursor: Cursor = None,
    day: Annotated[
        str | None, Query(pattern=r"^[0-9]{8}$", description="Of this day alone, in UTC, such as 20261127.")
    ] = None,
) -> Any:
    """Who did what, when, and what came of it, oldest first."""
    after = "" if cursor is None else decoded(cursor)
    found = audit.entries(context.store, after, limit + 1, day or "")
    return answer(cut(found, lambda each: each.id, limit, lambda each: each))
