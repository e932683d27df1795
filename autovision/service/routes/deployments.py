"""Deployments: what serves, why, and what a person has to say about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request

from autovision.model.version import read_version
from autovision.promotion import rollout
from autovision.records.deployments import Decision, Deployment
from autovision.records.tokens import Scope
from autovision.registry import deployments
from autovision.search import requests
from autovision.service.access import Promoter, Reader
from autovision.service.audit import acting
from autovision.service.context import Context, Ctx
from autovision.service.idempotency import Key
from autovision.service.paging import Cursor, Limit, page
from autovision.service.routes.common import Name, answer, problems
from autovision.service.routes.searches import acted_once
from autovision.service.schema import Approval, Page, PromotionOrder
from autovision.store import keys

router = APIRouter(prefix="/deployments", tags=["deployments"], responses=problems())


@router.get("", response_model=Page[Deployment])
def list_deployments(context: Ctx, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Any:
    """The deployments by name."""
    found = page(deployments.names(context.store), str, limit, cursor, str)
    items = [deployments.get(context.store, name) for name in found.items]
    return answer(Page[Deployment](items=items, next=found.next))


@router.get("/{deployment}", response_model=Deployment, responses=problems(404))
def show_deployment(context: Ctx, caller: Reader, deployment: Name) -> Any:
    """What a deployment serves, the rollout that is under way, and its policies."""
    return answer(_found(context, deployment))


@router.get("/{deployment}/decisions", response_model=Page[Decision], responses=problems(404))
def list_decisions(
    context: Ctx, caller: Reader, deployment: Name, limit: Limit = 50, cursor: Cursor = None
) -> Any:
    """Everything that was decided about it with reasons and numbers, oldest first."""
    _found(context, deployment)
    found = deployments.decisions(context.store, deployment)
    return answer(page(found, lambda each: each.id, limit, cursor, lambda each: each))


@router.post(
    "/{deployment}/promote",
    response_model=Decision,
    responses=problems(404, 409),
    dependencies=[acting("deployment.promote")],
)
def promote(
    request: Request,
    context: Ctx,
    caller: Promoter,
    deployment: Name,
    order: PromotionOrder,
    idempotency_key: Key = None,
) -> Any:
    """Compare a model with the champion on held-out images, and let it take over if every gate passes.

    That may take a minute. The decision tells whether it was accepted, and why. A deployment is made if there is none.
    """
    keys.check_name(deployment, what="deployment")
    if order.force:
        caller.demand(Scope.ADMIN)

    def act(subject: str | None, intend: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        version = read_version(context.store, keys.check_id(order.model, what="model"))
        searched, _ = requests.get(context.store, version.lineage.search)
        with context.room.heavy():
            deployments.create(context.store, deployment, version.dataset, searched.space)
            decision = rollout.consider(
                context.store,
                deployment,
                version.id,
                metric=searched.metric,
                costs=searched.costs,
                force=order.force,
                at_once=order.at_once,
                person=caller.name,
                clock=context.clock,
            )
        return 200, decision.model_dump(mode="json")

    body = acted_once(request, context, caller, idempotency_key, order.model_dump(mode="json"), act)
    return answer(Decision.model_validate(body))


@router.post(
    "/{deployment}/rollback",
    response_model=Decision,
    responses=problems(404, 409),
    dependencies=[acting("deployment.rollback")],
)
def roll_back(
    request: Request, context: Ctx, caller: Promoter, deployment: Name, idempotency_key: Key = None
) -> Any:
    """End the rollout that is under way, or serve the champion before this one again."""
    _found(context, deployment)

    def act(subject: str | None, intend: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        decision = rollout.roll_back(context.store, deployment, clock=context.clock)
        return 200, decision.model_dump(mode="json")

    body = acted_once(request, context, caller, idempotency_key, None, act)
    return answer(Decision.model_validate(body))


@router.post(
    "/{deployment}/approve",
    response_model=Decision,
    responses=problems(404, 409),
    dependencies=[acting("deployment.approve")],
)
def approve(
    request: Request,
    context: Ctx,
    caller: Promoter,
    deployment: Name,
    approval: Approval,
    idempotency_key: Key = None,
) -> Any:
    """Let a model begin that waits for a person's approval."""
    _found(context, deployment)

    def act(subject: str | None, intend: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        with context.room.heavy():
            decision = rollout.approve(
                context.store, deployment, approval.model, person=caller.name, clock=context.clock
            )
        return 200, decision.model_dump(mode="json")

    body = acted_once(request, context, caller, idempotency_key, approval.model_dump(mode="json"), act)
    return answer(Decision.model_validate(body))


@router.post(
    "/{deployment}/reject",
    response_model=Decision,
    responses=problems(404, 409),
    dependencies=[acting("deployment.reject")],
)
def reject(
    request: Request,
    context: Ctx,
    caller: Promoter,
    deployment: Name,
    approval: Approval,
    idempotency_key: Key = None,
) -> Any:
    """Refuse a model that waits for a person's approval."""
    _found(context, deployment)

    def act(subject: str | None, intend: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        decision = rollout.reject(
            context.store, deployment, approval.model, person=caller.name, clock=context.clock
        )
        return 200, decision.model_dump(mode="json")

    body = acted_once(request, context, caller, idempotency_key, approval.model_dump(mode="json"), act)
    return answer(Decision.model_validate(body))


def _found(context: Context, name: str) -> Deployment:
    return deployments.get(context.store, keys.check_name(name, what="deployment"))
