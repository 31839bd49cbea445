"""Tests of the kustomize base without a cluster: the API's schemas, the rules for compose, and the same commands."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from schedules.routes import queue_of
from tests.test_containers import SERVICES, WORKERS, words
from workers.app import SOFT_SHUTDOWN_SECONDS
from workers.local.process_specs import WORKER_GROUPS
from workers.settings import CHECKOUT, unknown_variables
from workers.transport.validation import HARD_TIME_LIMIT_SECONDS

FOLDER = CHECKOUT / "deploy" / "kubernetes"
BASE: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
RESOURCES: list[dict[str, Any]] = [
    resource for name in BASE["resources"] for resource in yaml.safe_load_all((FOLDER / name).read_text())
]
PODS = {
    resource["metadata"]["name"]: resource["spec"]["template"]["spec"]
    for resource in RESOURCES
    if resource["kind"] == "Deployment"
}
OLDEST_VERSION = "1.25"
"""Of the Kubernetes API, whose schemas the files must fit, as well as the newest that the package knows."""
LIFE_SIGNS = ("UNWIND_READY", "UNWIND_ALIVE")
CONTAINERS = [
    pytest.param(pod, container, id=f"{name}-{container['name']}")
    for name, pod in PODS.items()
    for container in (*pod.get("initContainers", []), *pod["containers"])
]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [resource for resource in RESOURCES if resource["kind"] == kind]


def test_every_file_is_a_resource() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*BASE["resources"], "kustomization.yaml"}
    assert len({(resource["kind"], resource["metadata"]["name"]) for resource in RESOURCES}) == len(RESOURCES)


@pytest.mark.parametrize("version", [OLDEST_VERSION, kubernetes_validate.latest_version()])
def test_resources_fit_the_schema_of_the_api(version: str) -> None:
    for resource in RESOURCES:
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_misspelled_field_does_not_fit_the_schema_of_the_api() -> None:
    beat = copy.deepcopy(next(resource for resource in of_kind("Deployment") if resource["metadata"]["name"] == "beat"))
    beat["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="'comand' was unexpected"):
        kubernetes_validate.validate(beat, OLDEST_VERSION, strict=True)


def test_pods_run_the_commands_of_compose() -> None:
    assert set(PODS) == {*WORKERS, "beat", "flower", "metrics", "web"}
    for name, pod in PODS.items():
        assert pod["containers"][0]["command"] == words(name)
        for migration in pod.get("initContainers", []):
            assert migration["command"] == words("migrate")
    assert {name for name, pod in PODS.items() if "initContainers" in pod} == {*WORKERS, "beat"}


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_containers_have_no_privileges(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == SERVICES["worker-commands"]["image"] == "unwind:0.1.0"
    assert container["resources"]["limits"]["memory"]


def test_user_is_that_of_the_image() -> None:
    assert "useradd --uid 10001 " in (CHECKOUT / "Dockerfile").read_text()
    assert {(pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) for pod in PODS.values()} == {
        (10001, 10001)
    }


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_containers_get_known_variables_and_only_their_secrets(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Service links would add UNWIND_... variables, such as UNWIND_METRICS_PORT, that are addresses."""
    assert pod["enableServiceLinks"] is False
    literals = dict(literal.split("=", 1) for literal in BASE["configMapGenerator"][0]["literals"])
    variables = literals | {entry["name"]: entry["value"] for entry in container["env"]}
    assert unknown_variables(variables) == []
    (secret,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets"]
    (mount,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "secrets"]
    files = {f"{mount}/{item['path']}" for item in secret["items"]}
    named = {value for name, value in variables.items() if name.endswith("_FILE") and name[:-5] not in LIFE_SIGNS}
    assert named <= files
    assert secret["defaultMode"] == 0o440
    if container is pod["containers"][0]:
        assert named == files


@pytest.mark.parametrize("name", sorted(PODS))
def test_pods_get_the_secrets_of_compose(name: str) -> None:
    (secret,) = [volume["secret"] for volume in PODS[name]["volumes"] if volume["name"] == "secrets"]
    assert {item["key"] for item in secret["items"]} == set(SERVICES[name]["secrets"])
    assert all(item["key"] == item["path"] for item in secret["items"])


@pytest.mark.parametrize("name", sorted(PODS))
def test_pods_have_probes_and_time_to_finish(name: str) -> None:
    assert PODS[name]["terminationGracePeriodSeconds"] > max(HARD_TIME_LIMIT_SECONDS, SOFT_SHUTDOWN_SECONDS)
    (container,) = PODS[name]["containers"]
    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    if "ports" in container:
        assert {probe["httpGet"]["port"] for probe in probes} == {container["ports"][0]["containerPort"]}
        return
    states = [probe["exec"]["command"] for probe in probes]
    assert states == [["python", "-m", "workers.monitoring.probes", state] for state in ("ready", "ready", "alive")]
    assert {entry["value"] for entry in container["env"] if entry["name"][:-5] in LIFE_SIGNS} == {
        "/tmp/ready",
        "/tmp/alive",
    }


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_what_is_mounted_exists_and_has_a_size(pod: dict[str, Any], container: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(volume["emptyDir"]["sizeLimit"] for volume in volumes.values() if "emptyDir" in volume)


def test_beat_is_never_doubled_and_workers_are_never_all_away() -> None:
    deployments = {resource["metadata"]["name"]: resource["spec"] for resource in of_kind("Deployment")}
    assert deployments["beat"]["strategy"] == {"type": "Recreate"}
    assert deployments["beat"]["replicas"] == 1
    for name in WORKERS:
        assert deployments[name]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (scaler,) = of_kind("HorizontalPodAutoscaler")
    assert "replicas" not in deployments[scaler["spec"]["scaleTargetRef"]["name"]]
    assert scaler["spec"]["minReplicas"] >= 2
    assert {resource["metadata"]["name"] for resource in of_kind("PodDisruptionBudget")} == set(WORKERS)


def test_selectors_select_pods() -> None:
    pods = [resource["spec"]["template"]["metadata"]["labels"] for resource in of_kind("Deployment")]
    for resource in of_kind("Deployment"):
        assert resource["spec"]["selector"]["matchLabels"] == resource["spec"]["template"]["metadata"]["labels"]
    selectors = [resource["spec"]["podSelector"]["matchLabels"] for resource in of_kind("NetworkPolicy")]
    selectors += [resource["spec"]["selector"] for resource in of_kind("Service")]
    selectors += [resource["spec"]["selector"]["matchLabels"] for resource in of_kind("PodDisruptionBudget")]
    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in pods), selector
    everything = next(
        resource["spec"] for resource in of_kind("NetworkPolicy") if resource["metadata"]["name"] == "unwind"
    )
    assert everything["ingress"] == []
    assert all(everything["podSelector"]["matchLabels"].items() <= labels.items() for labels in pods)


def test_workers_that_send_reach_mail_servers_and_webhooks() -> None:
    sending = {
        f"worker-{group}"
        for group, queues in WORKER_GROUPS.items()
        if {queue_of("notices.deliver"), queue_of("webhooks.deliver")} & set(queues)
    }
    (outbound,) = (
        resource["spec"] for resource in of_kind("NetworkPolicy") if resource["metadata"]["name"] == "unwind-outbound"
    )
    assert {outbound["podSelector"]["matchLabels"]["app.kubernetes.io/name"]} == sending
    assert {port["port"] for rule in outbound["egress"] for port in rule["ports"]} == {25, 443, 465, 587}


def test_page_says_what_was_not_run() -> None:
    page = (CHECKOUT / "docs" / "operate.md").read_text().partition("## On Kubernetes")[2].partition("\n## ")[0]
    assert "No cluster has run it yet" in page
    script = (CHECKOUT / "deploy" / "make-secrets").read_text()
    for pod in PODS.values():
        for item in pod["volumes"][0]["secret"]["items"]:
            assert f"write_secret {item['key']} " in script
            assert f"deploy/secrets/{item['key']}" in page
