"""An estimate of a search that is not submitted: everything that is known before its first trial."""

from __future__ import annotations

import os

from autovision.features import budget
from autovision.records.searches import PriceTable, SearchRequest
from autovision.search.costing.cost import CostModel
from autovision.search.costing.node import this_node
from autovision.search.estimates import prices
from autovision.search.estimates.estimate import Estimate, estimate
from autovision.search.feasibility import infeasible_backbones
from autovision.search.finishing.court import config_of_champion
from autovision.search.finishing.finish import evaluated
from autovision.search.reserve import Reserve
from autovision.search.sharing.placement import placement
from autovision.space import Space
from autovision.store.protocol import Store
from autovision.trial.workbench import Workbench


def preview(store: Store, request: SearchRequest, table: PriceTable | None) -> Estimate:
    """What a request's budget buys, on the cluster that this process is connected to, or on this node alone.

    Args:
        table: what it costs; None: what `AUTOVISION_PRICES` says.

    Raises:
        AutoVisionError: none of the backbones can be used here.
        InvalidInput: prices are missing in the table.
    """
    bench = Workbench(store, max(1, len(os.sched_getaffinity(0))), budget.configured_bytes())
    space = Space.from_json(request.space)
    left_out = infeasible_backbones(space, bench, request.licenses)
    splits = bench.splits(f"{request.dataset}@{request.dataset_version}", request.parent_model)
    cost = CostModel(bench, splits, this_node(workers=request.workers_per_trial), warm=request.warm_start)
    nodes = prices.cluster()
    table = table or prices.configured()
    place = placement([dict(node["Resources"]) for node in nodes], request.workers_per_trial)
    default = space.config(space.default())
    reserve = Reserve(
        request,
        cost,
        default,
        evaluated(splits),
        request.budget_s,
        bench.threads,
        config_of_champion(store, request, splits),
    )
    return estimate(
        cost,
        space,
        request.budget_s,
        cpus=place.concurrent,
        finish_s=reserve(None),
        left_out=frozenset(left_out),
        per_hour=None if table is None else prices.per_hour(table, nodes),
        currency="" if table is None else table.currency,
        memory=True,
    )
