"""The Python API: what a notebook uses, and what the command line is a thin layer over.

from autovision import AutoVision

av = AutoVision("runs/store")
av.import_dataset("photos/", "flowers")
search = av.search("flowers", space="quick", budget_s=60)
print(av.evaluate(search.model, "flowers")["test"].accuracy)
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision import runtime
from autovision.dataset import catalog as datasets
from autovision.errors import InvalidInput, NotFound
from autovision.model import licenses as license_names
from autovision.model import weight_catalog
from autovision.model.version import read_version
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, Labels, Split
from autovision.records.deployments import (
    CapturePolicy,
    Decision,
    Deployment,
    DriftReport,
    Label,
    RetrainingPolicy,
)
from autovision.records.gates import GatePolicy
from autovision.records.models import Evaluation, ImportedWeights, ModelVersion
from autovision.records.rollouts import RolloutPolicy
from autovision.records.runtimes import ExportManifest, Quantized, RuntimeParity
from autovision.records.searches import ClusterView, PriceTable, SearchRequest, SearchState
from autovision.records.tokens import Scope, Token
from autovision.records.trials import TrialResult
from autovision.registry import catalog as models
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.search.progress import ProgressEvent
from autovision.space import Space, load_space
from autovision.store import captures, keys, labels, lease, open_store, records, retention, tokens
from autovision.store.retention import Forgotten

# What needs torch or Ray is imported by the methods that use it: looking things up takes no seconds.
if TYPE_CHECKING:
    from autovision.controller import Controller
    from autovision.labelling.consensus import Consensus
    from autovision.model.predictor import Prediction
    from autovision.promotion.staging import Evidence
    from autovision.review.queue import ReviewQueue
    from autovision.search.estimates.estimate import Estimate
    from autovision.search.explain import Explanation
    from autovision.search.fleet import Fleet
    from autovision.search.sharing.queue import Entry, Outlook
    from autovision.serving.deploy import ServerHandle
    from autovision.serving.limits import Limits

OnProgress = Callable[[ProgressEvent], None]


class AutoVision:
    """Everything that can be done with one store.

    Args:
        store: URI or folder; None: `AUTOVISION_STORE`, or the folder `autovision-store` here.
        address: of a Ray cluster; None: `RAY_ADDRESS`, or an embedded Ray that is started when it is needed.
    """

    def __init__(self, store: str | Path | None = None, *, address: str | None = None) -> None:
        self.store = open_store(store)
        self._address = address

    def connect(self) -> None:
        """Connect to Ray now; whatever needs it does so by itself."""
        runtime.connect(self._address)

    # ------------------------------------------------------------------------------------------- data sets

    def import_dataset(
        self,
        path: str | Path,
        name: str,
        *,
        seed: int = 0,
        positive_class: str | None = None,
        alike_by: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> DatasetVersion:
        """Import a folder of class folders, or a CSV or Parquet manifest. See `dataset.importer.import_dataset`.

        Args:
            alike_by: a backbone whose pretrained weights tell near-duplicates, too; see `trial.likeness`.
        """
        from autovision.dataset import importer

        alike = importer.nothing_else
        if alike_by is not None:
            from autovision.model import backbone as backbones
            from autovision.space.config import TrialConfig
            from autovision.trial.likeness import Likeness

            backbones.check_name(alike_by)
            config = TrialConfig(backbone=alike_by)
            backbones.load(config, self.store)  # weights that cannot be had are told before anything is read
            alike = Likeness(self.store, config, compute_old=True)
        return importer.import_dataset(
            self.store,
            Path(path),
            name,
            seed=seed,
            positive_class=positive_class,
            alike=alike,
            progress=progress,
        )

    def datasets(self) -> list[DatasetVersion]:
        """The latest version of each data set, by name."""
        return [datasets.latest(self.store, name) for name in datasets.list_names(self.store)]

    def dataset(self, name: str) -> DatasetVersion:
        """`name` (its latest version) or `name@3`."""
        return datasets.get(self.store, name)

    # --------------------------------------------------------------------------------------------- weights

    def import_weights(
        self,
        path: str | Path,
        name: str,
        *,
        backbone: str,
        license: str | None = None,
        source: str | None = None,
    ) -> ImportedWeights:
        """Import pretrained weights of a timm model; a space then names them as `weights = "store:NAME"`.

        See `model.weight_import.import_weights`.
        """
        from autovision.model import weight_import

        return weight_import.import_weights(
            self.store, Path(path), name, backbone=backbone, license=license, source=source
        )

    def imported_weights(self) -> list[ImportedWeights]:
        """All weights that were imported, by name."""
        return weight_catalog.list_all(self.store)

    def imported_weights_of(self, name: str) -> ImportedWeights:
        return weight_catalog.get(self.store, name)

    # -------------------------------------------------------------------------------------------- searches

    def search(
        self,
        dataset: str,
        *,
        space: str | Space = "quick",
        budget_s: float = 120.0,
        seed: int = 0,
        wait: bool = True,
        deployment: str | None = None,
        licenses: Sequence[str] = (),
        on_progress: OnProgress = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> SearchState:
        """Submit a search and, with `wait`, run it to its end. The same call again returns the same search.

        Args:
            space: a `Space`, the name of a shipped one, `MODULE:NAME`, or a JSON file.
            deployment: where the model wants to be promoted by the controller; it is made if there is none.
            licenses: SPDX identifiers; backbones whose weights have another licence, or an unknown one, are left
                out. Empty: any.
            options: any other field of `SearchRequest`, such as `metric`, `scheduler`, `max_trials`, `max_latency_ms`.
        """
        resolved = load_space(space) if isinstance(space, str) else space
        request = requests.make_request(
            self.store,
            dataset,
            resolved,
            budget_s=budget_s,
            licenses=licenses,
            seed=seed,
            deployment=deployment,
            **options,
        )
        self._preflight(request)
        if deployment is not None:
            self.create_deployment(deployment, request.dataset, resolved)
        state = requests.submit(self.store, request)
        return self.resume(request.id, on_progress=on_progress, should_stop=should_stop) if wait else state

    def estimate(
        self,
        dataset: str,
        *,
        space: str | Space = "quick",
        budget_s: float = 120.0,
        licenses: Sequence[str] = (),
        prices: PriceTable | None = None,
        warm_start: bool = True,
    ) -> Estimate:
        """What a budget buys, before it is spent; on the cluster that this process is connected to, else here.

        Args:
            prices: what the cluster costs; None: what `AUTOVISION_PRICES` says, or nothing.
            warm_start: whether to predict from what earlier searches measured.
        """
        from autovision.search.estimates import preview

        resolved = load_space(space) if isinstance(space, str) else space
        request = requests.make_request(
            self.store, dataset, resolved, budget_s=budget_s, licenses=licenses, warm_start=warm_start
        )
        return preview.preview(self.store, request, prices)

    def finish(self, search: str, *, on_progress: OnProgress = lambda event: None) -> SearchState:
        """Evaluate and register the best that a stopped search has so far, without another trial."""
        from autovision.search.run import finish_search

        return finish_search(self.store, search, on_progress=on_progress)

    def register(self, search: str, trial: str, *, begins: Callable[[], None] = lambda: None) -> ModelVersion:
        """Evaluate and register the model of a given trial, such as another one of the search's front.

        The search keeps its own, which is what its winner gives. `begins` is called when there is something to do.
        Raises `NotFound`, and `InvalidInput` where the trial left no model.
        """
        from autovision.search.run import register

        return register(self.store, search, trial, begins=begins)

    def outlook(self, dataset: str, *, space: str | Space = "quick", **options: Any) -> Outlook:
        """What would happen to a search, which is not submitted: its place in the queue, its share, what speaks
        against it. The arguments are those of `search`.

        The cluster is that of a controller which runs, else the one that this process connects to.
        """
        from autovision.search.sharing import preflight
        from autovision.search.sharing.queue import outlook

        resolved = load_space(space) if isinstance(space, str) else space
        options = {"budget_s": 120.0} | options
        request = requests.make_request(self.store, dataset, resolved, **options)
        view = self._cluster(connect=True)
        assert view is not None, "it is connected"
        found = outlook(self.store, request, view)
        try:
            preflight.check_models(request, len(self.dataset(dataset).classes), view)
        except InvalidInput as error:
            return replace(found, faults=(*found.faults, str(error)), share=0, whole=0, waits=None)
        return found

    def _preflight(self, request: SearchRequest) -> None:
        """Raises `InvalidInput` for what can never fit, as far as that is known without connecting to Ray."""
        from autovision.search.sharing import preflight

        view = self._cluster()
        classes = len(self.dataset(f"{request.dataset}@{request.dataset_version}").classes)
        if view is not None:
            preflight.check(request, view)
        preflight.check_models(request, classes, view)

    def _cluster(self, *, connect: bool = False) -> ClusterView | None:
        """The cluster that this process is connected to, or the one of a controller that runs."""
        import ray

        from autovision.search.sharing import cluster

        if not ray.is_initialized():
            if lease.is_held(self.store, "controller") and (view := cluster.known(self.store)) is not None:
                return view
            if not connect:
                return None
            self.connect()
        return cluster.here()

    def resume(
        self,
        search: str,
        *,
        on_progress: OnProgress = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
        seen: SearchState | None = None,
    ) -> SearchState:
        """Go on with a search that was stopped or lost its driver; a finished one is returned as it is.

        Args:
            seen: the search when it was decided to go on with it: whoever stopped it since then is heeded. None: as
                it is now, which is before Ray is connected.
        """
        from autovision.search.run import run_search

        seen = seen or requests.get(self.store, search)[1]
        self.connect()
        return run_search(
            self.store,
            search,
            on_progress=on_progress,
            should_stop=should_stop,
            resumes=requests.stop_asked(seen),
        )

    def extend(self, search: str, more_s: float) -> SearchState:
        """Let a search use so many seconds more than it has, even if it is finished; `resume` then goes on with it."""
        from autovision.search.extending import extend

        return extend(self.store, search, more_s)

    def stop(self, search: str) -> SearchState:
        """Ask whoever runs a search to stop it. What it has done is kept; `resume` goes on with it."""
        return requests.request_stop(self.store, search)

    def searches(self) -> list[tuple[SearchRequest, SearchState]]:
        """Every search, oldest first."""
        return all_searches(self.store)

    def search_of(self, search: str) -> tuple[SearchRequest, SearchState]:
        return requests.get(self.store, search)

    def trials(self, search: str) -> list[TrialResult]:
        """A search's ledger."""
        requests.get(self.store, search)
        return requests.trials(self.store, search)

    def explain(self, search: str) -> Explanation:
        """Why a search ended as it did, or how far it has come. Raises `NotFound`."""
        from autovision.search.explain import explain  # Optuna and torch, which most commands do not need

        request, state = requests.get(self.store, search)
        return explain(
            request, state, requests.trials(self.store, search), requests.finished(self.store, search)
        )

    # ---------------------------------------------------------------------------------------------- models

    def models(self, *, licenses: Sequence[str] = ()) -> list[ModelVersion]:
        """Every model version, oldest first; with `licenses`, those whose backbone's weights have one of them."""
        allowed = license_names.parse(licenses)
        return [
            version
            for version in models.all_versions(self.store)
            if license_names.permits(allowed, version.lineage.backbone_weights_license)
        ]

    def model(self, name: str) -> ModelVersion:
        """A model version by its id, or a deployment's champion by the deployment's name."""
        return read_version(self.store, models.resolve(self.store, name))

    def evaluate(self, model: str, dataset: str, *, split: str = "test") -> dict[str, Evaluation]:
        """How a model does on a split (its own name), and on each subgroup of it (`test:column=value`).

        Raises:
            NotFound: no such model or data set.
            InvalidInput: no such split, an empty one, or one with a class that the model does not know.
        """
        from autovision.decisions import Measure
        from autovision.registry.evaluate import evaluate_subgroups, predictions

        if split not in tuple(Split):
            raise InvalidInput(f"no split {split!r}; choose one of {', '.join(Split)}")
        version, data = self.model(model), self.dataset(dataset)
        found = predictions(self.store, version.id, data, Split(split))
        return evaluate_subgroups(
            found,
            version.classes,
            version.positive_class,
            dataset=data.id,
            split=Split(split),
            measure=Measure.of(version.metric, version.costs, version.classes),
        )

    def export(self, model: str, folder: str | Path, *, format: str = "onnx") -> ExportManifest:
        """Write a model as a folder that runs without this package; see `registry.export.export`.

        Args:
            format: `onnx`, `openvino` or `pytorch`.
        """
        from autovision.registry.export import export

        return export(self.store, models.resolve(self.store, model), Path(folder), format)

    def quantize(self, model: str) -> Quantized:
        """Make a model's int8 form, and judge whether it may serve on nodes of this kind.

        See `promotion.quantization.quantize`.
        """
        from autovision.promotion.quantization import quantize

        return quantize(self.store, models.resolve(self.store, model))

    def compared_runtimes(self, model: str) -> list[RuntimeParity]:
        """How close the runtimes that were tried for a model came to PyTorch, oldest first."""
        prefix = keys.runtime_parities(models.resolve(self.store, model))
        found = records.read_all(self.store, prefix, RuntimeParity)
        return sorted(found, key=lambda each: each.created_at)

    def quantized(self, model: str) -> list[Quantized]:
        """The verdicts on a model's int8 form, one for each kind of node."""
        return records.read_all(self.store, keys.quantized_all(models.resolve(self.store, model)), Quantized)

    def predict(self, model: str, images: Sequence[bytes]) -> list[Prediction | Exception]:
        """One answer per image; an image that cannot be decoded gives its error in its place."""
        from autovision.model.predictor import Predictor

        return list(Predictor.load(self.store, models.resolve(self.store, model)).predict(images))

    # ---------------------------------------------------------------------------------------------- tokens

    def create_token(
        self, name: str, scopes: Collection[Scope], *, expires_at: datetime | None = None
    ) -> tokens.Created:
        """A token for servers of this store; its secret is in the result and nowhere else."""
        return tokens.create(self.store, name, scopes, now(), expires_at=expires_at)

    def tokens(self) -> list[Token]:
        """Every token that was ever made, oldest first."""
        return list(tokens.read(self.store))

    def revoke_token(self, which: str) -> list[Token]:
        """Revoke the token of an id, or all of a name. Servers refuse them within a few seconds."""
        return tokens.revoke(self.store, which, now())

    # ----------------------------------------------------------------------------------------- deployments

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
        """
        from autovision.serving import deploy
        from autovision.serving.scaling import scaling_of

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
            tls=None if tls is None else deploy.Tls(Path(tls[0]), Path(tls[1])),
            require_token=require_token,
            runtime=runtime,
            limits=limits,
        )

    def feedback(
        self,
        deployment: str,
        request_id: str,
        label: str | Collection[str],
        *,
        annotator: str = "unknown",
        confidence: float = 1.0,
        review: bool = False,
    ) -> bool:
        """Say what a request's image really was; False if that was known already.

        Args:
            label: its class; where an image may have any number of classes, all of them, which may be none.
            review: it settles what others said before.
        """
        if not 0 <= confidence <= 1:
            raise InvalidInput(f"confidence {confidence!r} of a label; give a number from 0 to 1")
        version = datasets.latest(self.store, deployments.get(self.store, deployment).dataset)
        given = Label(
            request_id=keys.check_request_id(request_id),
            label=_checked_label(version, label, f"deployment {deployment!r}"),
            annotator=annotator,
            confidence=confidence,
            review=review,
            received_at=now(),
        )
        return labels.add(self.store, deployment, given)

    def correct(
        self,
        dataset: str,
        image: str,
        label: str | Collection[str],
        *,
        annotator: str = "unknown",
        confidence: float = 1.0,
    ) -> bool:
        """Say what an image of a data set, named by its digest, really is; False if that was known already.

        `apply_corrections` makes a version of it. Raises `InvalidInput` for an image that is not in the latest version.
        """
        from autovision.dataset import manifest

        version = datasets.latest(self.store, dataset)
        if image not in {row.image for row in manifest.read(self.store, version)}:
            raise InvalidInput(
                f"{version.id} has no image {image[:70]!r}; give the SHA-256 of one of its images"
            )
        given = Label(
            request_id=image,
            label=_checked_label(version, label, f"data set {dataset!r}"),
            annotator=annotator,
            confidence=confidence,
            review=True,
            received_at=now(),
        )
        return labels.correct(self.store, dataset, given)

    def apply_corrections(self, dataset: str) -> DatasetVersion:
        """The next version of a data set, with the labels that reviews gave its images; the latest one if it has them.

        Every image keeps its split. An image on which reviewers contradict each other keeps its label.
        """
        from autovision.dataset.relabel import relabel
        from autovision.labelling.consensus import consensus

        said = consensus(labels.corrections(self.store, dataset)).agreed
        return relabel(self.store, datasets.latest(self.store, dataset), said)

    def review(self, deployment: str, budget: int = 100, *, seed: int = 0) -> ReviewQueue:
        """What is most worth looking at of a deployment's captures and of its data set; see `review.queue`.

        `review.folder.write` makes files of it. Raises `NotFound` for a deployment that has no model yet.
        """
        from autovision.review.queue import build

        return build(self.store, deployment, budget, seed=seed)

    def captured_requests(self, deployment: str) -> set[str]:
        """The ids of the requests of a deployment that were captured and stored by now."""
        deployments.get(self.store, deployment)
        return captures.request_ids(self.store, deployment)

    def agreement(self, deployment: str) -> Consensus:
        """What annotators agree on of a deployment's requests, what not, and how good each of them is."""
        from autovision.labelling.consensus import consensus

        deployments.get(self.store, deployment)
        return consensus(labels.read(self.store, deployment))

    def drift_reports(self, deployment: str) -> list[DriftReport]:
        """Every drift report of a deployment, oldest first."""
        deployments.get(self.store, deployment)
        return records.read_all(self.store, keys.reports(deployment), DriftReport)

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

    def queue(self) -> list[Entry]:
        """Searches that run or wait: their order, their shares, and why each of them waits."""
        from autovision.search.sharing.queue import entries  # Ray, which most commands do not need

        return entries(self.store)


def _checked_label(version: DatasetVersion, label: str | Collection[str], whose: str) -> Labels:
    """As the data set has labels: one class, or a tuple of any number."""
    names = (label,) if isinstance(label, str) else tuple(label)
    if not version.multi_label and len(names) != 1:
        raise InvalidInput(f"{len(names)} labels for an image of {whose}; its images have exactly one")
    for name in names:
        if name not in version.classes:
            raise InvalidInput(
                f"label {name!r} is not a class of {whose}; its classes: {', '.join(version.classes)}"
            )
    return names if version.multi_label else names[0]


def _person() -> str:
    """Who asks, for the records."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return f"user {os.getuid()}"
