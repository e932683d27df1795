"""`autovision search` where it changes something: submit, stop, resume and finish searches."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli import remote
from autovision.cli import search_views as views
from autovision.cli.figures import figures_table, plain_figures
from autovision.cli.files import read_costs, read_prices
from autovision.cli.options import Address, Json, License, Prices, Search, Seed, Store, TokenFile
from autovision.cli.output import Output, answering, facts, library
from autovision.cli.signals import StopFlag

if TYPE_CHECKING:
    from autovision.api import AutoVision
    from autovision.records.models import ModelVersion
    from autovision.records.searches import SearchRequest, SearchState


def submit(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A data set, or NAME@V for a version.")],
    space: Annotated[
        str,
        typer.Option(
            "--space",
            metavar="SPACE",
            help="A shipped search space such as quick, MODULE:NAME for your own, or a .json file.",
        ),
    ] = "quick",
    budget_s: Annotated[
        float, typer.Option("--budget-s", metavar="SECONDS", help="Wall seconds that the search may use.")
    ] = 120.0,
    seed: Seed = 0,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="METRIC",
            help="What trials are ranked by on validation: accuracy (the default), balanced_accuracy, f1, macro_f1, "
            "auroc, average_precision, neg_log_loss, recall@precision=0.9.",
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="FILE",
            help='Rank by the mean cost of the answers instead: JSON, {"TRUE CLASS": {"ANSWER": COST}}.',
        ),
    ] = None,
    no_refit: Annotated[
        bool,
        typer.Option("--no-refit", help="Do not train the winner again on train and validation together."),
    ] = False,
    no_confirm: Annotated[
        bool,
        typer.Option("--no-confirm", help="Do not judge the best heads once more, by cross-validation."),
    ] = False,
    no_soup: Annotated[
        bool, typer.Option("--no-soup", help="Do not average the weights of the best trials.")
    ] = False,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="COST",
            help="Also minimise latency_ms, memory_mb, size_mb or gflops, and keep the front; may be repeated.",
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler",
            metavar="NAME",
            help="What draws configurations: tpe, random, cmaes, nsga2, gp, or MODULE:NAME of an Optuna sampler.",
        ),
    ] = "tpe",
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler",
            metavar="NAME",
            help="Which trials go on: halving pauses and promotes on cost; asha and median only stop; none.",
        ),
    ] = "halving",
    max_trials: Annotated[
        int | None,
        typer.Option("--max-trials", metavar="N", help="At most so many; else what the budget allows."),
    ] = None,
    workers_per_trial: Annotated[
        int,
        typer.Option(
            "--workers-per-trial",
            metavar="N",
            help="Workers that train each trial together, with a GPU each if there are any: for large data sets.",
        ),
    ] = 1,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            "--max-latency-ms",
            metavar="MS",
            help="Only models that answer one image within so many milliseconds, measured here as they are served.",
        ),
    ] = None,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(
            "--max-memory-mb",
            metavar="MB",
            help="Only models whose serving process holds at most so much memory.",
        ),
    ] = None,
    max_size_mb: Annotated[
        float | None,
        typer.Option(
            "--max-size-mb", metavar="MB", help="Only models whose file of weights is at most so large."
        ),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="That latency and memory are measured on: evaluated (what models are evaluated with), openvino-f32, "
            "openvino-bf16, onnx-f32, eager-f32, torch-f32, torch-bf16.",
        ),
    ] = "evaluated",
    patience_s: Annotated[
        float | None,
        typer.Option(
            "--patience-s",
            metavar="SECONDS",
            help="End earlier, once the best has not risen above noise for so long.",
        ),
    ] = None,
    converged: Annotated[
        bool,
        typer.Option(
            "--converged", help="End earlier, once the rest of the budget is not expected to raise the best."
        ),
    ] = False,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost", metavar="AMOUNT", help="End once so much is spent, by the prices of --prices."
        ),
    ] = None,
    prices: Prices = None,
    priority: Annotated[
        int,
        typer.Option(
            "--priority",
            metavar="N",
            min=-10,
            max=10,
            help="Higher is begun earlier; each step doubles the share of a cluster that several searches share.",
        ),
    ] = 0,
    deployment: Annotated[
        str | None,
        typer.Option("--deployment", metavar="NAME", help="Where the controller shall promote the model."),
    ] = None,
    license_: License = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Begin without what earlier searches and the champion know.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="A new search, even if the same one was done already.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Run it here and now, and show its progress.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Submit nothing: say whether it can run, when its turn is, and its share."
        ),
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="KEY",
            help="With --address: however often the command is run with it, it submits one search.",
        ),
    ] = None,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Search for the best model of a data set.

    Without --wait the search is put into the queue that `autovision controller run` works through. The same
    request again is the same search: a finished one is shown, a stopped one goes on. With --address it is sent to an
    API service, as data: images and code stay where they are; --wait then follows it there.
    """
    import secrets

    from autovision.errors import InvalidInput

    with answering(as_json) as out:
        began = time.monotonic()
        asked: dict[str, Any] = {
            "space": space,
            "budget_s": budget_s,
            "seed": seed,
            "deployment": deployment,
            "licenses": license_ or (),
            **_ranked_by(metric, costs),
            "refit": not no_refit,
            "soup": not no_soup,
            "confirm": not no_confirm,
            "scheduler": scheduler,
            "sampler": sampler,
            "objectives": tuple(objective or ()),
            "max_trials": max_trials,
            "workers_per_trial": workers_per_trial,
            "max_latency_ms": max_latency_ms,
            "max_memory_mb": max_memory_mb,
            "max_size_mb": max_size_mb,
            "runtime": runtime,
            "patience_s": patience_s,
            "converged": converged,
            "max_cost": max_cost,
            "prices": read_prices(prices, needed=max_cost is not None),
            "priority": priority,
            "warm_start": not cold,
        }
        if address is not None:
            if dry_run:
                raise InvalidInput(
                    "--dry-run needs the store itself; leave out --address, or submit without it"
                )
            declared = remote.declaration(dataset, asked, again=again)
            return remote.submit(out, address, token_file, declared, key=idempotency_key, wait=wait)
        if idempotency_key is not None:
            raise InvalidInput("--idempotency-key is for an API service; give --address, too")
        asked["nonce"] = secrets.token_hex(8) if again else ""
        av = library(store)
        if dry_run:
            outlook = av.outlook(dataset, **asked)
            out.answer(asdict(outlook), *views.outlook(outlook))
            if outlook.faults:
                raise typer.Exit(2)
            return
        state = av.search(dataset, wait=False, **asked)
        if wait:
            _run(out, av, state.search, began)
        else:
            _queued(out, state)


def stop(
    search: Search,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Ask whoever runs a search to stop it; what it has done is kept, and `search resume` goes on with it."""
    with answering(as_json) as out:
        if address is not None:
            with remote.service(out, address, token_file) as client:
                state = client.stop(search)
        else:
            state = library(store).stop(search)
        if state.status.terminal:
            text = f"search {search} is over already: {state.status}"
        elif state.stop_requested:
            text = f"search {search} was asked to stop; `autovision search watch {search}` tells when it has"
        else:
            text = f"search {search} is stopped; `autovision search resume {search}` goes on with it"
        out.answer(state, text)


def resume(
    search: Search,
    budget_s: Annotated[
        float | None,
        typer.Option(
            "--budget-s",
            metavar="SECONDS",
            help="Extend the budget to so many seconds from here, also of a search that is finished.",
        ),
    ] = None,
    max_trials: Annotated[
        int | None,
        typer.Option("--max-trials", metavar="N", help="Extend it to so many trials after those that ended."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", metavar="AMOUNT", help="Extend what it may cost to so much from here."),
    ] = None,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Go on with a search that was stopped, failed or lost its process, here and now; with --address in the queue."""
    with answering(as_json) as out:
        if address is not None:
            more = {"budget_s": budget_s, "max_trials": max_trials, "max_cost": max_cost}
            return remote.resume(out, address, token_file, search, more)
        began, av = time.monotonic(), library(store)
        if any(more is not None for more in (budget_s, max_trials, max_cost)):
            state = av.extend(search, budget_s, more_trials=max_trials, more_cost=max_cost)
            out.note(f"search {search}: {_more(state, budget_s, max_trials, max_cost)}")
        _run(out, av, search, began)


def finish(
    search: Search,
    trial: Annotated[
        str | None,
        typer.Option(
            "--trial",
            metavar="TRIAL",
            help="Register this one's model besides, such as another of the front.",
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Evaluate and register the best that a stopped search has so far, without another trial."""
    with answering(as_json) as out:
        began = time.monotonic()
        av = library(store)
        request, _ = av.search_of(search)
        if trial is not None:
            note = f"search {search}: evaluating trial {trial} on the test split"
            return _registered(out, av.register(search, trial, begins=lambda: out.note(note)), trial)
        out.note(f"search {search}: evaluating the best trial on the test split")
        state = av.finish(search)
        _finished(out, av, request, state, began)


def _ranked_by(metric: str | None, costs: Path | None) -> dict[str, Any]:
    """The options `metric` and `costs` of a request."""
    given: dict[str, Any] = {} if metric is None else {"metric": metric}
    return given if costs is None else given | {"costs": read_costs(costs)}


def _queued(out: Output, state: SearchState) -> None:
    next_step = {
        "queued": "`autovision controller run` works through the queue, "
        f"`autovision search resume {state.search}` runs it here",
        "running": f"`autovision search watch {state.search}` follows it",
        "finished": f"its model is {state.model}; --again makes a new search",
    }.get(state.status, f"`autovision search resume {state.search}` goes on with it")
    out.answer(
        {"search": state.search, "status": state.status},
        f"search {state.search} is {state.status}: {next_step}",
    )


def _more(state: SearchState, budget_s: float | None, max_trials: int | None, max_cost: float | None) -> str:
    """What an extended search has got, in words."""
    parts = []
    if budget_s is not None:
        assert state.budget_s is not None, "it was extended just now"
        parts.append(f"{budget_s:g} s more, after {state.budget_s - budget_s:.0f} s")
    if max_trials is not None:
        assert state.max_trials is not None, "it was extended just now"
        parts.append(f"{max_trials} trials more, after {state.max_trials - max_trials}")
    if max_cost is not None:
        parts.append(f"{max_cost:g} {state.currency}".strip() + " more of cost")
    return "; ".join(parts)


def _run(out: Output, av: AutoVision, search: str, began: float) -> None:
    """Run a search to its end, or until a signal, and print its model."""
    from autovision.console import SearchProgress
    from autovision.errors import Interrupted
    from autovision.records.searches import SearchStatus

    request, state = av.search_of(search)
    if state.status is SearchStatus.FINISHED:
        out.note(
            f"search {search} was finished before; `search resume {search} --budget-s 120` goes on with it, and "
            "`search submit … --again` makes a new one"
        )
        return _finished(out, av, request, state, began)
    budget_s = request.budget_s if state.budget_s is None else state.budget_s
    out.note(f"search {search}: {budget_s:g} s on {request.dataset}@{request.dataset_version}")
    resumable = (
        f"what was done is kept; `autovision search resume {search}` goes on with it, and "
        f"`autovision search finish {search}` registers the best so far"
    )
    stopping = StopFlag(lambda: out.note(f"stopping; {resumable} (once more: stop at once)"))
    try:
        with stopping:
            av.connect()
            stopping.install()
            with SearchProgress(budget_s, out.err, request.metric) as progress:
                state = av.resume(search, on_progress=progress.update, should_stop=stopping, seen=state)
    except KeyboardInterrupt:
        raise Interrupted(f"search {search} was interrupted; {resumable}") from None
    return _finished(out, av, request, state, began)


def _finished(out: Output, av: AutoVision, request: SearchRequest, state: SearchState, began: float) -> None:
    assert state.model is not None, "a finished search has a model"
    model = av.model(state.model)
    wall_s = time.monotonic() - began
    budget_s = request.budget_s if state.budget_s is None else state.budget_s
    spent = f"{state.spent_s:.0f} s of {budget_s:.0f} s"
    best = None if state.best_value is None else f"{request.metric} {state.best_value:.4f} on validation"
    answer = {
        "search": request.id,
        "model": model.id,
        "metrics": plain_figures(model.metrics["test"]),
        "trials": state.trials,
        "wall_s": round(wall_s, 3),
    }
    out.answer(
        answer,
        facts(
            {
                "model": model.id,
                "search": f"{request.id}: {state.trials} trials, {spent}",
                "ended early": state.ended_early,
                "cost": views.cost_of(request, state),
                "best": best,
                "next": f"autovision promote {model.id} --to NAME",
            }
        ),
        figures_table(model.metrics, title="On images that it never saw, with 95 % intervals"),
    )


def _registered(out: Output, model: ModelVersion, trial: str) -> None:
    out.answer(
        {
            "search": model.lineage.search,
            "trial": trial,
            "model": model.id,
            "metrics": plain_figures(model.metrics["test"]),
        },
        facts({"model": model.id, "trial": trial, "next": f"autovision promote {model.id} --to NAME"}),
        figures_table(model.metrics, title="On images that it never saw, with 95 % intervals"),
    )
