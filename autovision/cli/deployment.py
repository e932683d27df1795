"""What is done with a deployment: promote, rollback, serve, feedback, monitor."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli import remote
from autovision.cli.decisions import decision_facts, gates_table
from autovision.cli.drift_view import report_facts, reports_table
from autovision.cli.model import Model
from autovision.cli.options import Address, Json, NewClass, Runtime, Seed, Store, TokenFile
from autovision.cli.output import REFUSED, Output, answering, check_output_file, library, write_file
from autovision.cli.signals import StopFlag
from autovision.cli.supervisor import LOST, Lifeline

if TYPE_CHECKING:
    from autovision.api import AutoVision
    from autovision.records.deployments import DriftReport

TURN_S = 1.0
"""how often a served deployment's rollout is looked at"""

DeploymentName = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="A deployment's name.")]


def promote(
    model: Model,
    to: Annotated[str, typer.Option("--to", metavar="DEPLOYMENT", help="Made if there is none yet.")],
    force: Annotated[bool, typer.Option("--force", help="Promote it whatever the gates say.")] = False,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Leave out the steps of the deployment's rollout policy.")
    ] = False,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare a model with a deployment's champion on held-out images, and let it take over if every gate passes.

    It takes over at once, or in the steps that `autovision rollout policy` sets. Exits with 8 if the gates refuse it;
    the decision is stored with its numbers either way.
    """
    with answering(as_json) as out:
        if address is not None:
            with remote.service(out, address, token_file) as client:
                decision = client.promote(model, to, force=force, at_once=at_once)
        else:
            decision = library(store).promote(model, to, force=force, at_once=at_once)
        out.answer(decision, decision_facts(decision), *gates_table(decision))
        if not decision.accepted:
            out.note("refused; --force promotes it nevertheless")
            raise typer.Exit(REFUSED)


def adapt(deployment: DeploymentName, seed: Seed = 0, store: Store = None, as_json: Json = False) -> None:
    """Put the champion's probabilities right without labels, where only the shares of the classes have moved.

    The latest requests tell the shares, whether anything else has changed, and whether accuracy is expected to gain. If
    it is, a challenger is made of the champion, and the gates compare it on held-out images with these shares.
    """
    with answering(as_json) as out:
        decision, verdict = library(store).adapt(deployment, seed=seed)
        shown = [decision_facts(decision)]
        if verdict is not None:
            shown += [decision_facts(verdict), *gates_table(verdict)]
        out.answer({"decision": decision, "verdict": verdict}, *shown)


def rollback(
    deployment: DeploymentName,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """End the rollout that is under way, or serve the champion before this one again."""
    with answering(as_json) as out:
        if address is not None:
            with remote.service(out, address, token_file) as client:
                decision = client.roll_back(deployment)
        else:
            decision = library(store).roll_back(deployment)
        out.answer(decision, decision_facts(decision))


def serve(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Deployments, or ids of models; one or several.")
    ],
    port: Annotated[int, typer.Option("--port", metavar="P", help="0: any free one.")] = 8000,
    host: Annotated[str, typer.Option("--host", metavar="H", help="0.0.0.0: every interface.")] = "127.0.0.1",
    replicas: Annotated[
        int, typer.Option("--replicas", metavar="N", help="Processes that answer, of each.")
    ] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option("--max-replicas", metavar="N", help="Up to so many while they are busy or images wait."),
    ] = None,
    wait_ms: Annotated[
        float,
        typer.Option(
            "--wait-ms", metavar="MS", help="Images that wait longer, on the average, call for a replica."
        ),
    ] = 100.0,
    idle_s: Annotated[
        float | None,
        typer.Option(
            "--idle-s",
            metavar="S",
            help="Keep no replica after so long without an image; the next one waits for a replica to start.",
            show_default="never",
        ),
    ] = None,
    no_capture: Annotated[bool, typer.Option("--no-capture", help="Do not store the requests.")] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert", metavar="PEM", help="Answer over HTTPS with this certificate; with --tls-key."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="PEM", help="The certificate's key, without password.")
    ] = None,
    require_token: Annotated[
        bool | None,
        typer.Option(
            "--require-token/--no-require-token",
            help="Whether a token is needed while the store has none. Without it: unless the host is loopback. "
            "As soon as the store has one, a token is always needed.",
            show_default=False,
        ),
    ] = None,
    runtime: Runtime = "auto",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=NUMBER",
            help="Of each replica, may be repeated: max_body_bytes, max_images, max_waiting, body_timeout_s, "
            "deadline_s, max_held_bytes, max_images_per_token.",
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Answer over HTTP until Ctrl-C.

    A deployment's name serves its champion, and follows as another one is promoted; its requests are captured
    for the monitor. A model's id serves that model for good. Of several each answers under its name, such as
    /pets/v1/predict and /v2/models/pets.
    """
    from autovision.errors import InvalidInput
    from autovision.serving.limits import Limits
    from autovision.serving.ports import claim_port
    from autovision.serving.presence import Presence
    from autovision.serving.scaling import scaling_of

    if (tls_cert is None) != (tls_key is None):
        raise InvalidInput("--tls-cert and --tls-key belong together; give both, or none for plain HTTP")
    with answering(as_json) as out:
        scaling_of(replicas, max_replicas, wait_ms, idle_s)
        limits = Limits.parse(limit or ())
        av = library(store)
        champions = {name: _served(av, name) for name in names}
        for line in _exposed(av, host, require_token, encrypted=tls_cert is not None):
            out.note(line)
        lifeline = Lifeline()
        if port != 0 and not lifeline.again:
            claim_port(host, port)  # said at once, not after Ray has started
        for name, champion in champions.items():
            starting = champion or "no model yet: the first that is promoted will answer"
            out.note(f"starting {'' if len(names) == 1 else f'{name} '}with {starting}")
        server = av.serve(
            names,
            host=host,
            port=port,
            replicas=replicas,
            max_replicas=max_replicas,
            wait_ms=wait_ms,
            idle_s=idle_s,
            capture=not no_capture,
            tls=(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None,
            require_token=require_token,
            runtime=runtime,
            limits=limits,
            again=lifeline.again,
        )
        lifeline.begun()
        # From here on only: Ray has taken SIGTERM for itself while it connected.
        with ExitStack() as leaving, StopFlag(lambda: _stopping(out, leaving)) as stopping, server:
            _say_where(out, server.url, server.urls, champions)
            turns = [_Turns(av, name, out) for name in names]
            presence = Presence(server.url)
            while not stopping():
                for each in turns:
                    each.take()
                if lifeline.held and presence.lost():
                    out.note(f"nothing answers at {server.url} any more; it is started anew")
                    # Ray may be gone: nothing can be stopped in good order, and all is in the store.
                    os._exit(LOST)
                time.sleep(0.2)


def _stopping(out: Output, leaving: ExitStack) -> None:
    from autovision import runtime

    def lost() -> None:
        out.note(
            "Ray was ended at the same time: requests under way were not answered, and the captures of the last "
            "seconds may be lost; let the signal reach this process alone (for systemd: KillMode=mixed)"
        )
        os._exit(runtime.RayUnavailable.exit_code)

    out.note("stopping; requests under way are answered")
    leaving.enter_context(runtime.when_lost(lost))


def feedback(
    deployment: DeploymentName,
    request_id: Annotated[
        str | None,
        typer.Argument(metavar="REQUEST_ID", help="The id that the answer named."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LABEL...",
            help="What the image really was: one class, or several where it may have any number.",
        ),
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help="The image has none of the classes; instead of LABEL.")
    ] = False,
    annotator: Annotated[str, typer.Option("--annotator", metavar="A", help="Who says so.")] = "unknown",
    confidence: Annotated[float, typer.Option("--confidence", metavar="C", help="From 0 to 1.")] = 1.0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Many, CSV or Parquet: columns request_id, label (or labels, with | between them) and, if wanted, "
            "annotator, confidence, said_at.",
        ),
    ] = None,
    new_class: NewClass = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say what captured requests really showed, one by one or from a CSV or Parquet file.

    The same word of the same annotator counts once; a later one takes the place of the earlier, which is kept. A row
    of the file that cannot be used is reported with its line, and the others are stored; the exit code is 1 then.
    Labels of requests that are not captured yet are kept, and reported, too.

    A file that is given again changes nothing, also where annotators have changed their minds since. With the column
    said_at, a time with its zone, the word that was said later stands, in whichever order files come.
    """
    from autovision.cli import label_files as labels_file
    from autovision.errors import InvalidInput

    if file is not None and (request_id is not None or labels or none):
        raise InvalidInput("give either REQUEST_ID and LABEL, or --file, not both")
    if file is None and (request_id is None or not (labels or none)):
        raise InvalidInput("give REQUEST_ID and LABEL, or --file with a table that has them as columns")
    if labels and none:
        raise InvalidInput("--none says that the image has none of the classes; give it or LABEL, not both")
    with answering(as_json) as out:
        if file is not None:
            rows = labels_file.read(file, annotator, confidence)
            outcome = labels_file.send(library(store), deployment, rows, new_classes=new_class or ())
            out.answer({"deployment": deployment, **outcome.to_json()}, outcome.to_text())
            if outcome.bad:
                raise typer.Exit(1)
            return
        assert request_id is not None
        given = labels_file.check_confidence(confidence)
        label = labels[0] if labels and len(labels) == 1 else tuple(labels or ())
        new = library(store).feedback(
            deployment,
            request_id,
            label,
            annotator=annotator,
            confidence=given,
            new_classes=new_class or (),
        )
        said = {"label": label} if isinstance(label, str) else {"labels": label}
        shown = " and ".join(labels or ["none of the classes"])
        out.answer(
            {"deployment": deployment, "request_id": request_id, **said, "new": bool(new)},
            f"stored: {request_id} is {shown}" if new else f"known already: {request_id} is {shown}",
        )


def monitor(
    deployment: DeploymentName,
    history: Annotated[bool, typer.Option("--history", help="List the reports there are instead.")] = False,
    which: Annotated[
        str | None,
        typer.Option("--report", metavar="ID", help="Show this report instead; `--history` lists them."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Also write the report there, without one the newest, as a page with the images that are the most "
            "unlike.",
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Examine the requests since the last report for drift, if they fill a window."""
    from autovision.errors import InvalidInput

    if history and which is not None:
        raise InvalidInput("--history lists all reports, and --report shows one; give one of them")
    with answering(as_json) as out:
        if html is not None:
            check_output_file(html, option="--html")
        av = library(store)
        if which is not None:
            chosen = av.drift_report(deployment, which)
            if html is not None:
                _write_page(out, av, [chosen], html)
            out.answer({"examined": False, "report": chosen}, *report_facts(chosen))
            return
        report = None if history else av.monitor(deployment)
        reports = av.drift_reports(deployment) if history or html else []
        if html is not None:
            _write_page(out, av, reports, html)
        if history:
            out.answer(reports, reports_table(reports) if reports else "No window has been examined yet.")
            return
        if report is not None:
            out.answer({"examined": True, "report": report}, *report_facts(report))
            for note in report.notes:
                out.note(note)
            return
        have, window = _unexamined(av, deployment)
        out.answer(
            {"examined": False, "requests": have, "window": window, "missing": window - have},
            f"too few requests to examine: {have} since the last report, and a window is {window}; "
            f"{window - have} are missing",
        )


# ---------------------------------------------------------------------------------------------- helpers


@dataclass
class _Turns:
    """Takes the steps of a rollout while its deployment is served, so that no controller is needed for it."""

    av: AutoVision
    name: str
    out: Output
    next_at: float = 0.0
    fault: str | None = None

    def take(self) -> None:
        """Look once a second. What cannot be done is told once, and tried again."""
        from autovision.errors import AutoVisionError, Conflict
        from autovision.registry import deployments

        if time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + TURN_S
        try:
            decision = self.av.go_on(self.name) if self.name in deployments.names(self.av.store) else None
        except Conflict:
            return  # a controller was faster
        except AutoVisionError as error:
            if str(error) != self.fault:
                self.fault = str(error)
                self.out.note(f"the rollout cannot go on: {error}")
            return
        self.fault = None
        if decision is not None:
            self.out.note(f"{decision.what}: {decision.why}")


def _served(av: AutoVision, name: str) -> str | None:
    """The id of the model that will answer; None: a deployment that has none yet."""
    from autovision.registry import deployments

    if name in deployments.names(av.store):
        return deployments.get(av.store, name).model
    return av.model(name).id


def _exposed(av: AutoVision, host: str, require_token: bool | None, *, encrypted: bool) -> list[str]:
    """What should be known of a server before it is started, when others can reach it, or nobody will be let in."""
    from autovision.serving.client import is_loopback

    lines, known = [], bool(av.tokens())
    if require_token is None:
        require_token = not is_loopback(host)
    if not known and require_token:
        lines.append(
            "the store has no token, so that the server refuses everything but /v1/health until there is one: "
            "`autovision token create --scope predict --name NAME`"
        )
    if not is_loopback(host) and not known and not require_token:
        lines.append(f"whoever reaches {host} may use the server until the store has a token")
    if not is_loopback(host) and not encrypted:
        lines.append(
            f"images and tokens for {host} can be read on their way; give --tls-cert and --tls-key, or put a "
            "proxy that has a certificate in front"
        )
    return lines


def _say_where(out: Output, url: str, urls: Mapping[str, str], champions: Mapping[str, str | None]) -> None:
    if out.as_json:
        import json

        said: dict[str, Any] = {"url": url, "model": next(iter(champions.values()))}
        if len(urls) > 1:
            served = {name: {"url": urls[name], "model": model} for name, model in champions.items()}
            said = {"url": url, "deployments": served}
        out.stream.write(json.dumps(said) + "\n")
        out.stream.flush()
        return
    for name, model in champions.items():
        out.answer(
            None,
            f"serving {model or 'no model yet'} at {urls[name]}; Ctrl-C stops it",
            f"    curl --data-binary @image.jpg {urls[name]}/v1/predict",
        )


def _write_page(out: Output, av: AutoVision, reports: Sequence[DriftReport], html: Path) -> None:
    from autovision.report.drift_page import render

    if not reports:
        out.note("no page: no window has been examined yet")
        return
    write_file(html, render(reports[-1], av.images_of(reports[-1])), option="--html")
    out.note(f"page  {html}")


def _unexamined(av: AutoVision, name: str) -> tuple[int, int]:
    """How many requests wait to be examined, and how many fill a window."""
    from autovision.registry import deployments
    from autovision.retraining.request import latest_report
    from autovision.store import captures

    deployment = deployments.get(av.store, name)
    last = latest_report(av.store, deployment)
    since = captures.each(av.store, name, after=last.window_end if last else None)
    usable = {each.request_id for each in since if each.model == deployment.model and each.embedding}
    return len(usable), deployment.policy.window
