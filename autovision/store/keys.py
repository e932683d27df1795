"""All keys and ids of the store, built in this one file.

images/<2 hex>/<sha256>                              an image, by the digest of its bytes
datasets/<name>/versions/<n>.json                    DatasetVersion: reveals the version
datasets/<name>/manifests/<digest>.parquet           its rows
datasets/<name>/corrections/<image>/<digest>.json    Label: what somebody says of an image of it
searches/<id>/request.json  state.json               SearchRequest, SearchState
searches/<id>/submission.json                        Submission: who submitted it through the API service
searches/<id>/trials/<trial>.json                    TrialResult
searches/<id>/begun/<trial>.json                     Begun: a trial, or heads together, that has not ended
searches/<id>/weights/<trial>-<sha256>.safetensors   what a trial trained
searches/<id>/checkpoints/<config>-<seed>.safetensors  where a trial that is being trained has got to
live/<id>.json                                       LiveSearch: who shares a cluster now
clusters/<name>.json                                 ClusterView: what it had when last seen
models/<id>/model.json                               ModelVersion: reveals the bundle
models/<id>/files/<sha256>-<file>                    its files
models/<id>/parity/<digest>.json                     RuntimeParity: a runtime compared with PyTorch
models/<id>/int8/<node kind>.json                    Quantized: the model in int8, and whether it may serve
models/<id>/reference/<digest>.safetensors           what drift is measured against, as it is used
models/<id>/taught/<digest of images>.safetensors    what it said of images that its successors learn from
weights/names/<name>.json                            ImportedWeights: reveals the file
weights/files/<sha256>.safetensors                   its tensors
evaluations/<model>/<dataset digest>-<split>.parquet paired predictions of a model on a split
evaluations/<model>/<dataset digest>-<split>-<suite>.parquet  the same of corrupted images
deployments/<name>/deployment.json                   Deployment
deployments/<name>/captures/<time>-<id>.parquet      captured requests
deployments/<name>/captures/<time>-<id>.kept.parquet those of them that stay for good: they are labelled
deployments/<name>/images/<hour>/<request>-<sha256>-<bytes>  the image of a captured request
deployments/<name>/labels/<request>/<digest>.json    Label
deployments/<name>/reports/<id>.json                 DriftReport
deployments/<name>/windows/<sha256>.safetensors      what later windows are compared with, of a report's window
deployments/<name>/decisions/<id>.json               Decision
deployments/<name>/retraining.json                   RetrainingState: what was last decided, and asked for
deployments/<name>/rollouts/<id>/<replica>.json      ReplicaCounts: what a replica counted during a rollout
speeds/<node kind>.json                              SpeedRecord: what searches measured on such nodes
footprints/<digest>.json                             Footprint: what serving an architecture takes on such nodes
runtimes/<digest>.json                               RuntimeSpeeds: how fast each runtime is for a network on such nodes
lanes/<digest>.json                                  LaneSpeeds: whether a network is quicker in lanes on such nodes
sketches/<feature spec>/<name>@<n>.json              Sketch: what the images of a version look like to a backbone
access/tokens.json                                   TokenList: digests of bearer tokens
access/usage/<token>.json                            Usage: what was submitted with a token that has quotas
access/answers/<digest>.json                         Answered: what an idempotency key was answered
audit/<id>.json                                      AuditEntry: who did what through the API service
leases/<name>.json                                   Lease
probes/<random>                                      for a moment: whether a server keeps to conditions
features/<spec digest>/<sha256>-<bytes>.arrow        frozen-prefix features (a cache: may be deleted)
"""

from __future__ import annotations

import re
import secrets
import threading
from datetime import UTC, datetime
from typing import NamedTuple

from autovision.errors import InvalidInput

_KEPT = ".kept.parquet"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_CONTENT = re.compile(
    r"(?:images/[0-9a-f]{2}/|weights/files/|models/[^/]+/files/|features/[0-9a-f]+/"
    r"|deployments/[^/]+/windows/|deployments/[^/]+/images/[^/]+/[A-Za-z0-9._-]+-)"
    r"([0-9a-f]{64})(?![0-9a-f])[^/]*"
)
_SHARD = re.compile(r"/[0-9a-f]{64}-(\d+)\.arrow$")
_CAPTURED_IMAGE = re.compile(r"/([^/]+)-([0-9a-f]{64})-(\d+)$")
_STAMP = "%Y%m%dT%H%M%S.%f"
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_name(name: str, *, what: str) -> str:
    """`name` if it may be part of a key; else an `InvalidInput` that says what is allowed."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(
            f"{what} {name!r} is not a valid name; use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', "
            "beginning and ending with a letter or digit"
        )
    return name


def content_digest(key: str) -> str | None:
    """The SHA-256 of the object's bytes, in hex, where the key tells it; such an object is never another one."""
    match = _CONTENT.fullmatch(key)
    return match[1] if match else None


def check_request_id(request_id: str) -> str:
    """`request_id`, which comes from outside, if it may be part of a key; else an `InvalidInput`."""
    if not _REQUEST_ID.fullmatch(request_id) or request_id in (".", ".."):
        raise InvalidInput(
            f"the request id {request_id[:140]!r} is not valid; use 1 to 128 of A-Z, a-z, 0-9, '.', '_' "
            "and '-', such as a UUID, or the id that the answer to the request named"
        )
    return request_id


def check_id(value: str, *, what: str) -> str:
    """`value`, which comes from outside, if it has the form of an id: a longer name; else an `InvalidInput`."""
    if not _ID.fullmatch(value) or ".." in value:
        raise InvalidInput(
            f"{what} {value[:140]!r} is not valid; use 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', beginning and "
            "ending with a letter or digit"
        )
    return value


class _Suffixes:
    """Tells ids of one microsecond apart: the first is drawn, those that follow in this process count on from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamp = ""
        self._number = 0

    def after(self, stamp: str) -> str:
        with self._lock:
            # Drawn from the lower half: there is room to count on.
            self._number = self._number + 1 if stamp == self._stamp else secrets.randbits(23)
            self._stamp = stamp
            return f"{self._number:06x}"


_suffixes = _Suffixes()


def timestamped_id(at: datetime) -> str:
    """A unique id that sorts by `at`: `20261122T231501.123456-1a2b3c`.

    Those that a process makes one after the other for the same microsecond sort in that order.
    """
    begins = stamp(at)
    return f"{begins}-{_suffixes.after(begins)}"


def derived_id(at: datetime, digest: str) -> str:
    """A timestamped id of what a digest names: whoever makes it for the same thing makes the same one."""
    return f"{stamp(at)}-{digest[:6]}"


def stamp(at: datetime) -> str:
    """What a timestamped id of this moment begins with."""
    return f"{at.astimezone(UTC):{_STAMP}}"


def time_of(timestamped: str) -> datetime | None:
    """The moment that a timestamped id, or a key that ends in one, tells; None of any other."""
    try:
        return datetime.strptime(timestamped.rpartition("/")[2].partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def image(digest: str) -> str:
    return f"images/{digest[:2]}/{digest}"


def dataset_versions(name: str) -> str:
    return f"datasets/{name}/versions/"


def dataset_version(name: str, version: int) -> str:
    return f"{dataset_versions(name)}{version:06d}.json"


def dataset_manifest(name: str, digest: str) -> str:
    return f"datasets/{name}/manifests/{digest}.parquet"


DATASETS = "datasets/"
SEARCHES = "searches/"
MODELS = "models/"
DEPLOYMENTS = "deployments/"
WEIGHTS_RECORDS = "weights/names/"
TOKENS = "access/tokens.json"
AUDIT = "audit/"


def token_usage(token: str) -> str:
    return f"access/usage/{token}.json"


def answered(digest: str) -> str:
    return f"access/answers/{digest}.json"


def audit_entry(entry: str) -> str:
    return f"{AUDIT}{entry}.json"


def search_request(search: str) -> str:
    return f"searches/{search}/request.json"


def search_state(search: str) -> str:
    return f"searches/{search}/state.json"


def submission(search: str) -> str:
    return f"searches/{search}/submission.json"


LIVE = "live/"
CLUSTERS = "clusters/"


def live_search(search: str) -> str:
    return f"{LIVE}{search}.json"


def cluster_view(name: str) -> str:
    return f"{CLUSTERS}{name}.json"


def trials(search: str) -> str:
    return f"searches/{search}/trials/"


def trial(search: str, trial_id: str) -> str:
    return f"{trials(search)}{trial_id}.json"


def begun(search: str) -> str:
    return f"searches/{search}/begun/"


def begun_trial(search: str, trial_id: str) -> str:
    return f"{begun(search)}{trial_id}.json"


def trial_weights(search: str, trial_id: str, digest: str) -> str:
    return f"searches/{search}/weights/{trial_id}-{digest}.safetensors"


def finishes(search: str) -> str:
    return f"searches/{search}/finishes/"


def finish(search: str, ledger_digest: str) -> str:
    return f"{finishes(search)}{ledger_digest}.json"


def checkpoints(search: str) -> str:
    return f"searches/{search}/checkpoints/"


def checkpoint(search: str, config_digest: str, seed: int) -> str:
    return f"{checkpoints(search)}{config_digest[:24]}-{seed}.safetensors"


def model(model_id: str) -> str:
    return f"models/{model_id}/model.json"


def model_file(model_id: str, file: str, digest: str) -> str:
    return f"models/{model_id}/files/{digest}-{file}"


def runtime_parities(model_id: str) -> str:
    return f"models/{model_id}/parity/"


def runtime_parity(model_id: str, digest: str) -> str:
    return f"{runtime_parities(model_id)}{digest}.json"


def quantized_all(model_id: str) -> str:
    return f"models/{model_id}/int8/"


def quantized(model_id: str, node: str) -> str:
    return f"{quantized_all(model_id)}{node}.json"


def reference_part(model_id: str, digest: str) -> str:
    """`digest` tells what was made of which images or embeddings."""
    return f"models/{model_id}/reference/{digest}.safetensors"


def taught(model_id: str, images_digest: str) -> str:
    return f"models/{model_id}/taught/{images_digest}.safetensors"


def weights_record(name: str) -> str:
    return f"{WEIGHTS_RECORDS}{name}.json"


def weights_file(digest: str) -> str:
    return f"weights/files/{digest}.safetensors"


def evaluation(model_id: str, dataset_digest: str, split: str) -> str:
    return f"evaluations/{model_id}/{dataset_digest}-{split}.parquet"


def corrupted_evaluations(model_id: str, dataset_digest: str, split: str) -> str:
    return f"evaluations/{model_id}/{dataset_digest}-{split}-"


def corrupted_evaluation(model_id: str, dataset_digest: str, split: str, suite: str) -> str:
    """`suite` tells which images were corrupted, and how."""
    return f"{corrupted_evaluations(model_id, dataset_digest, split)}{suite}.parquet"


def deployment(name: str) -> str:
    return f"deployments/{name}/deployment.json"


def captures(name: str) -> str:
    return f"deployments/{name}/captures/"


def capture_file(name: str, batch_id: str) -> str:
    return f"{captures(name)}{batch_id}.parquet"


def kept_captures(capture_file: str) -> str:
    """Where those rows of a file go that stay when the others are deleted."""
    return f"{capture_file.removesuffix('.parquet')}{_KEPT}"


def are_kept_captures(key: str) -> bool:
    return key.endswith(_KEPT)


def captured_images(name: str) -> str:
    return f"deployments/{name}/images/"


def captured_image(name: str, request_id: str, digest: str, size_bytes: int) -> str:
    """With its size, so that a listing tells what all of them take; ordered by time, in a folder for each hour."""
    return f"{captured_images(name)}{request_id[:11]}/{request_id}-{digest}-{size_bytes}"


class CapturedImage(NamedTuple):
    """What the key of a captured image tells."""

    request_id: str
    digest: str
    size_bytes: int


def captured_image_of(key: str) -> CapturedImage | None:
    """None of any other key."""
    match = _CAPTURED_IMAGE.search(key)
    return CapturedImage(match[1], match[2], int(match[3])) if match else None


def labels(name: str, request_id: str = "") -> str:
    return f"deployments/{name}/labels/{request_id}{'/' if request_id else ''}"


def corrections(name: str, image: str = "") -> str:
    return f"datasets/{name}/corrections/{image}{'/' if image else ''}"


def label(place: str, digest: str) -> str:
    """A label at one of the two places above."""
    return f"{place}{digest}.json"


def reports(name: str) -> str:
    return f"deployments/{name}/reports/"


def report(name: str, report_id: str) -> str:
    return f"{reports(name)}{report_id}.json"


def window_rows(name: str, digest: str) -> str:
    return f"deployments/{name}/windows/{digest}.safetensors"


def decisions(name: str) -> str:
    return f"deployments/{name}/decisions/"


def decision(name: str, decision_id: str) -> str:
    return f"{decisions(name)}{decision_id}.json"


def retraining(name: str) -> str:
    return f"deployments/{name}/retraining.json"


def rollout_counts(name: str, rollout: str) -> str:
    return f"deployments/{name}/rollouts/{rollout}/"


def replica_counts(name: str, rollout: str, replica: str) -> str:
    return f"{rollout_counts(name, rollout)}{replica}.json"


def lease(name: str) -> str:
    return f"leases/{name}.json"


def probe(number: str) -> str:
    return f"probes/{number}"


def speeds(node_kind: str) -> str:
    return f"speeds/{node_kind}.json"


def footprint(digest: str) -> str:
    return f"footprints/{digest}.json"


def runtime_speeds(digest: str) -> str:
    return f"runtimes/{digest}.json"


def lane_speeds(digest: str) -> str:
    return f"lanes/{digest}.json"


def sketches(spec: str) -> str:
    return f"sketches/{spec[:24]}/"


def sketch(spec: str, dataset: str) -> str:
    return f"{sketches(spec)}{dataset}.json"


FEATURES = "features/"


def features(spec: str) -> str:
    return f"{FEATURES}{spec}/"


def feature_shard(spec: str, digest: str, size_bytes: int) -> str:
    """By the digest of its content; with its size, so that a listing tells what all of them take."""
    return f"{features(spec)}{digest}-{size_bytes}.arrow"


def feature_shard_bytes(key: str) -> int:
    """The size that a shard's key tells; 0 of any other key."""
    match = _SHARD.search(key)
    return int(match[1]) if match else 0


def feature_shard_digest(key: str) -> str:
    """The digest of its content that a shard's key tells."""
    return key.rpartition("/")[2].partition("-")[0]
