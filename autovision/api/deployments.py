"""Deployments: promote, roll out, serve, watch, and who may call."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.api.models import Models
from autovision.errors import InvalidInput, NotFound
from autovision.promotion import refused
from autovision.promotion.refused import Refused
from autovision.records.base import now
from autovision.records.deployments import (
    CapturePolicy,
    Decision,
    Deployment,
    DriftReport,
    RetrainingPolicy,
)
from autovision.records.gates import GatePolicy
from autovision.records.history import History, Overview
from autovision.records.retraining import Ask, RetrainingState
from autovision.records.rollouts import RolloutPolicy
from autovision.records.tokens import Scope, Token
from autovision.registry import deployments, policies, policy_files
from autovision.registry.policies import Change
from autovision.search import requests
from autovision.search.progress import ProgressEvent
from autovision.space import Space, load_space
from autovision.store import captures, keys, records, retention, tokens
from autovision.store.protocol import KeyNotFound
from autovision.store.retention import Forgotten

# What needs torch or Ray is imported by the methods that use it: looking things up takes no seconds.
if TYPE_CHECKING:
    from autovision.controller import Controller
    from autovision.promotion.staging import Evidence
    from autovision.search.fleet import Fleet
    from autovision.serving.deploy import ServerHandle
    from autovision.serving.limits import Limits

OnProgress = Callable[[ProgressEvent], None]


class Deployments(Models):
    """Deployments: promote, roll out, serve, watch, and who may call."""

    def create_deployment(
        self, name: str, dataset: str, space: str | Space, policy: RetrainingPolicy | None = None
    ) -> Deployment:
        """A deployment without a model; the one of that name if there is one already."""
        resolved = load_space(space) if isinstance(space, str) else space
        return deployments.create(self.store, name, dataset, resolved.to_json(), policy)

    def promote(self, model: str, deployment: str, *, force: bool = False, at_once: bool = False) -> Decision:
        """Compare a model with a deployment's champion and let it take over if every gate passes.

        A deployment of that name is made if there is none, with the search space that the model came from.

        Args:
            force: whatever the gates say.
            at_once: leave out the steps that the deployment's rollout policy has.
        """
        from autovision.promotion import rollout

        version = self.model(model)
        request, _ = requests.get(self.store, version.lineage.search)
        deployments.create(self.store, deployment, version.dataset, request.space)
        return rollout.consider(
            self.store,
            deployment,
            version.id,
            metric=request.metric,
            costs=request.costs,
            force=force,
            at_once=at_once,
            person=_person(),
        )

    def adapt(self, deployment: str, *, seed: int = 0) -> tuple[Decision, Decision | None]:
        """Put a champion's probabilities right without labels, where only the shares of the classes have moved.

        Whether that helps, by the latest requests; and what the gates say of the challenger, None if there is none.
        """
        from autovision.promotion import rollout
        from autovision.retraining import adaptation

        found = adaptation.consider(self.store, deployment, seed=seed)
        if found.model is None:
            return found.decision, None
        request, _ = requests.get(self.store, found.model.lineage.search)
        verdict = rollout.consider(
            self.store,
            deployment,
            found.model.id,
            metric=request.metric,
            costs=request.costs,
            person=_person(),
        )
        return found.decision, verdict

    def roll_back(self, deployment: str) -> Decision:
        """End the rollout that is under way, or serve the champion before this one again."""
        from autovision.promotion import rollout

        return rollout.roll_back(self.store, deployment)

    def deployment(self, name: str) -> Deployment:
        """A deployment as it is. Raises `NotFound`, with the near names."""
        return deployments.get(self.store, name)

    def set_rollout_policy(self, deployment: str, policy: RolloutPolicy) -> Deployment:
        """How challengers come to serve from now on; a rollout that is under way goes on as it began."""
        return deployments.set_rollout_policy(self.store, deployment, policy)

    def set_gate_policy(self, deployment: str, policy: GatePolicy) -> Deployment:
        """What challengers must show from now on, and within which limits they must serve."""
        return deployments.set_gate_policy(self.store, deployment, policy)

    def set_capture_policy(self, deployment: str, policy: CapturePolicy) -> Deployment:
        """What is kept of the requests of a deployment from now on; `forget` and the controller delete the rest.

        Raises `InvalidInput` if fewer requests are to be kept than drift is watched in.
        """
        return deployments.set_capture_policy(self.store, deployment, policy)

    def policies(self, deployment: str) -> dict[str, Any]:
        """All policies of a deployment as the document that `apply_policies` takes."""
        return policies.render(deployments.get(self.store, deployment))

    def compare_policies(self, file: str | Path) -> list[Change]:
        """What applying a file of policies would change. Raises like `apply_policies`."""
        path = Path(file)
        wanted = policies.parse(policy_files.read(path), str(path))
        return policies.compare(self.store, wanted, str(path))

    def apply_policies(self, file: str | Path) -> list[Change]:
        """Give deployments the policies of a YAML, JSON or TOML file; what changed.

        Where anything is wrong nothing is changed. Raises `InvalidInput` or `NotFound` that name every fault: file,
        key, value and remedy.
        """
        path = Path(file)
        wanted = policies.parse(policy_files.read(path), str(path))
        return policies.apply(self.store, wanted, str(path))

    def policy_remarks(self, file: str | Path) -> list[str]:
        """What a file of policies may mean that does nothing as yet. Raises like `apply_policies`."""
        path = Path(file)
        return policies.remarks(self.store, policies.parse(policy_files.read(path), str(path)))

    def forget(self, deployment: str, *, delete: bool = False) -> Forgotten:
        """What the capture policy of a deployment no longer keeps; `delete` deletes it, as the controller does."""
        policy = deployments.get(self.store, deployment).capture_policy
        return retention.forget(self.store, deployment, policy, now(), delete=delete)

    def go_on(self, deployment: str, *, at_once: bool = False) -> Decision | None:
        """Take the next step of a rollout if it is time to, or roll it back if it does harm; None: it stays.

        `autovision serve` and the controller ask for it by themselves.

        Args:
            at_once: take the step even if it is too early.
        """
        from autovision.promotion import rollout

        return rollout.go_on(self.store, deployment, at_once=at_once)

    def rollout_evidence(self, deployment: str) -> Evidence | None:
        """What is known of the rollout that is under way; None: there is none."""
        from autovision.promotion import evidence

        found = deployments.get(self.store, deployment)
        return evidence.gather(self.store, found, found.rollout) if found.rollout else None

    def waiting_for_approval(self, deployment: str) -> list[Decision]:
        """Of the models that wait for a person's approval, what the gates said."""
        from autovision.promotion import rollout

        deployments.get(self.store, deployment)
        return rollout.waiting(self.store, deployment)

    def approve(self, deployment: str, model: str) -> Decision:
        """Let a model begin that waits for approval. Raises `InvalidInput` if it does not wait."""
        from autovision.promotion import rollout

        return rollout.approve(self.store, deployment, model, person=_person())

    def reject(self, deployment: str, model: str) -> Decision:
        """Refuse a model that waits for approval. Raises `InvalidInput` if it does not wait."""
        from autovision.promotion import rollout

        return rollout.reject(self.store, deployment, model, person=_person())

    def decisions(self, deployment: str) -> list[Decision]:
        """Everything that was decided about a deployment, oldest first."""
        deployments.get(self.store, deployment)
        return deployments.decisions(self.store, deployment)

    def retraining(self, deployment: str) -> RetrainingState:
        """How the retraining of a deployment stands: the latest evaluation, and what was decided and asked for."""
        from autovision.retraining import evaluation

        deployments.get(self.store, deployment)
        return evaluation.read(self.store, deployment).state

    def challengers(self, deployment: str) -> list[Refused]:
        """The refused challengers that later labels may still show to be better, the newest first."""
        of = deployments.get(self.store, deployment)
        if of.model is None or of.rollout_policy.approval == "manual":
            return []  # of the latter a person has had the gates' word
        told = [refused.said(each) for each in deployments.decisions(self.store, deployment)]
        return refused.candidates(told, of.model, now())

    def ask_for_search(self, deployment: str, reason: str) -> tuple[Ask, bool]:
        """Have the controller search again, and whether that is news: a word that waits already stays as it is.

        Overrules cooldown, back-off, quiet hours and least numbers of labels, but no budget, and one search runs at a
        time.
        """
        from autovision.retraining import evaluation

        if deployments.get(self.store, deployment).model is None:
            raise InvalidInput(
                f"deployment {deployment!r} has no model yet that a re-search could start from; promote one first"
            )
        return evaluation.ask(self.store, deployment, person=_person(), reason=reason, at=now())

    def serve(
        self,
        model: str | Sequence[str],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        replicas: int = 1,
        max_replicas: int | None = None,
        wait_ms: float = 100.0,
        idle_s: float | None = None,
        capture: bool = True,
        cpus: float = 1.0,
        tls: tuple[str | Path, str | Path] | None = None,
        require_token: bool | None = None,
        runtime: str = "auto",
        limits: Limits | None = None,
        again: bool = False,
    ) -> ServerHandle:
        """Serve over HTTP: a deployment's champion, followed as it changes, or one model version for good; or several.

        Args:
            model: deployments and models by their names; of several each answers under its name, `/pets/v1/predict`.
            port: 0 takes any free one.
            replicas: processes that answer, of each.
            max_replicas: up to so many of each while they are busy; None: no more than `replicas`.
            wait_ms: images that wait longer on the average call for another replica.
            idle_s: after so long without an image none is kept, and the next image waits for one to start; None: never.
            cpus: what each replica reserves in Ray; 0 leaves all of a small machine to searches.
            tls: certificate and key, two PEM files; None: plain HTTP.
            require_token: whether a token is needed where the store has none, too; None: unless `host` is this
                machine's own loopback.
            runtime: what runs the network, such as `openvino-f32`; `auto`: the fastest that agrees with PyTorch;
                `evaluated`: the one that the model was evaluated with.
            limits: what requests may hold, one by one and together.
            again: whether an earlier process did the same, and what is left of it in the cluster is taken over.
        """
        from autovision.serving import deploy
        from autovision.serving.scaling import scaling_of
        from autovision.serving.tls import Tls

        scaling = scaling_of(replicas, max_replicas, wait_ms, idle_s)
        names = [model] if isinstance(model, str) else list(model)
        known = deployments.names(self.store)
        pinned = [name for name in names if name not in known]
        for name in pinned:
            self.model(name)
        self.connect()
        return deploy.start(
            self.store.uri,
            deployment=[name for name in names if name in known],
            model=pinned,
            host=host,
            port=port,
            scaling=scaling,
            capture=capture,
            cpus=cpus,
            tls=None if tls is None else Tls(Path(tls[0]), Path(tls[1])),
            require_token=require_token,
            runtime=runtime,
            limits=limits,
            again=again,
        )

    def create_token(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        expires_at: datetime | None = None,
        max_searches: int | None = None,
        max_search_s_per_day: float | None = None,
        max_priority: int = 0,
    ) -> tokens.Created:
        """A token for servers of this store, and its quotas at the API service; its secret is in the result alone."""
        return tokens.create(
            self.store,
            name,
            scopes,
            now(),
            expires_at=expires_at,
            max_searches=max_searches,
            max_search_s_per_day=max_search_s_per_day,
            max_priority=max_priority,
        )

    def tokens(self) -> list[Token]:
        """Every token that was ever made, oldest first."""
        return list(tokens.read(self.store))

    def revoke_token(self, which: str) -> list[Token]:
        """Revoke the token of an id, or all of a name. Servers refuse them within a few seconds."""
        return tokens.revoke(self.store, which, now())

    def drift_reports(self, deployment: str) -> list[DriftReport]:
        """Every drift report of a deployment, oldest first."""
        deployments.get(self.store, deployment)
        return records.read_all(self.store, keys.reports(deployment), DriftReport)

    def drift_report(self, deployment: str, which: str) -> DriftReport:
        """A drift report by its id. Raises `NotFound`."""
        deployments.get(self.store, deployment)
        try:
            return records.read(
                self.store, keys.report(deployment, keys.check_id(which, what="report")), DriftReport
            )
        except KeyNotFound:
            raise NotFound(
                f"deployment {deployment!r} has no drift report {which!r}; `autovision monitor {deployment} --history` "
                "lists them"
            ) from None

    def images_of(self, report: DriftReport) -> dict[str, bytes]:
        """By digest, the images that a drift report shows, unlike and typical ones, as far as they are kept."""
        shown = {each.request_id for each in report.unlike}
        since = report.window_start - timedelta(microseconds=1)
        seen = captures.each(self.store, report.deployment, after=since) if shown else ()
        unlike = {captures.image_key(each): each.image for each in seen if each.request_id in shown}
        wanted = unlike | {
            keys.image(digest): digest
            for digest in (*(each.image for each in report.unlike), *report.typical)
        }
        return {wanted[key]: blob.data for key, blob in self.store.get_many(wanted)}

    def overview(self) -> list[Overview]:
        """All deployments by name, each in a few facts: champion, latest window, whether to search again."""
        from autovision.registry.standing import overview

        return overview(self.store)

    def history(self, deployment: str, *, since: datetime | None = None) -> History:
        """What became of a deployment: champions, drift, accuracy, searches, decisions, sums by month.

        `autovision.report.history.render` makes a page of it. See `registry.history.gather`.
        """
        from autovision.registry.history import gather

        return gather(self.store, deployment, since=since)

    def monitor(self, deployment: str) -> DriftReport | None:
        """Examine the captured requests since the last report; None if there are too few for a window."""
        if deployments.get(self.store, deployment).model is None:
            raise NotFound(f"deployment {deployment!r} has no model yet; promote one first")
        before = len(self.drift_reports(deployment))
        for _ in self.controller().monitor(deployment):
            pass
        reports = self.drift_reports(deployment)
        return reports[-1] if len(reports) > before else None

    def controller(
        self,
        *,
        on_progress: OnProgress = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
        seed: int = 0,
        fleet: Fleet | None = None,
    ) -> Controller:
        """The loop that searches, promotes, monitors and retrains by itself.

        Args:
            fleet: `autovision.search.fleet.Fleet(store)` runs as many searches at once as the cluster has places for,
                each in a process of its own; None: one after the other, in this process.
        """
        from autovision.controller import Controller

        return Controller(
            self.store,
            seed=seed,
            on_progress=on_progress,
            should_stop=should_stop,
            connect=self.connect,
            fleet=fleet,
        )


def _person() -> str:
    """Who asks, for the records."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return f"user {os.getuid()}"
