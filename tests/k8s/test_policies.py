"""Every way of applying k8s/ keeps to the policies, and each policy finds what breaks it."""

from __future__ import annotations

from collections.abc import Callable

import policies
import pytest
from manifests import WAYS, Document, Pod, manifests, named, pods

POLICIES = {
    policy.__name__: policy
    for policy in (
        policies.limits,
        policies.probes,
        policies.security,
        policies.digests,
        policies.network,
        policies.tokens,
        policies.references,
        policies.services,
    )
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_holds(policy: str, way: str) -> None:
    assert list(POLICIES[policy](manifests(way))) == []


def _server(documents: list[Document]) -> Document:
    return named(documents, "Deployment", "server")["spec"]["template"]["spec"]


def _container(documents: list[Document]) -> Document:
    return _server(documents)["containers"][0]


def _drop(place: Callable[[list[Document]], Document], *keys: str) -> Callable[[list[Document]], object]:
    def harm(documents: list[Document]) -> None:
        part = place(documents)
        for key in keys[:-1]:
            part = part[key]
        del part[keys[-1]]

    return harm


def _set(place: Callable[[list[Document]], Document], value: object, *keys: str) -> Callable[[list[Document]], object]:
    def harm(documents: list[Document]) -> None:
        part = place(documents)
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return harm


def _object(kind: str, name: str) -> Callable[[list[Document]], Document]:
    return lambda documents: named(documents, kind, name)


def _remove(kind: str, name: str) -> Callable[[list[Document]], object]:
    return lambda documents: documents.remove(named(documents, kind, name))


# policy, what it must say, and what is done to the manifests
HARM = [
    ("limits", "has no limits of ['memory']", _drop(_container, "resources", "limits", "memory")),
    ("limits", "has no requests of", _drop(_container, "resources", "requests")),
    ("limits", "has no sizeLimit", lambda d: _server(d)["volumes"][1].update(emptyDir={})),
    ("probes", "has no startupProbe", _drop(_container, "startupProbe")),
    ("probes", "has no readinessProbe", _drop(_container, "readinessProbe")),
    ("probes", "has no livenessProbe", _drop(_container, "livenessProbe")),
    ("security", "may run as root", _drop(_server, "securityContext", "runAsNonRoot")),
    ("security", "has no seccomp profile", _drop(_server, "securityContext", "seccompProfile")),
    ("security", "has hostNetwork", _set(_server, True, "hostNetwork")),
    ("security", "not of an allowed kind", lambda d: _server(d)["volumes"].append({"name": "x", "hostPath": {}})),
    (
        "security",
        "not the restricted security context",
        _set(_container, False, "securityContext", "readOnlyRootFilesystem"),
    ),
    (
        "security",
        "not the restricted security context",
        _set(_container, {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "securityContext", "capabilities"),
    ),
    (
        "security",
        "does not enforce",
        _set(_object("Namespace", "mbdcnn"), "baseline", "metadata", "labels", "pod-security.kubernetes.io/enforce"),
    ),
    ("digests", "not of the form", _set(_container, "registry.example/mbdcnn/server:0.1.0", "image")),
    ("digests", "not of the form", _set(_container, "registry.example/mbdcnn/server@sha256:" + 64 * "0", "image")),
    ("network", "is not closed by default", _remove("NetworkPolicy", "deny-all")),
    (
        "network",
        "is not closed by default",
        _set(_object("NetworkPolicy", "deny-all"), ["Ingress"], "spec", "policyTypes"),
    ),
    ("network", "lets anybody reach the port grpc", _remove("NetworkPolicy", "server-from-clients")),
    ("network", "which it has not", _set(_container, [], "ports")),
    (
        "network",
        "is open to everybody",
        lambda d: named(d, "NetworkPolicy", "server-from-clients")["spec"]["ingress"].append({}),
    ),
    ("tokens", "carries a token", _drop(_server, "automountServiceAccountToken")),
    ("tokens", "hands out tokens", _drop(_object("ServiceAccount", "server"), "automountServiceAccountToken")),
    ("tokens", "no service account", _set(_server, "default", "serviceAccountName")),
    ("references", "PROFILE is not set", _drop(_object("ConfigMap", "settings"), "data", "PROFILE")),
    ("references", "which nobody claims", _remove("PersistentVolumeClaim", "models")),
    ("references", "is mounted and no volume", lambda d: _server(d)["volumes"].pop()),
    ("references", "REPOSITORY is not set", _drop(_container, "envFrom")),
    (
        "services",
        "has no port grpc",
        lambda d: named(d, "Service", "server-pods")["spec"]["ports"][0].update(port=9001),
    ),
    (
        "services",
        "Service server selects no pod",
        _set(_object("Service", "server"), "x", "spec", "selector", "app.kubernetes.io/component"),
    ),
    (
        "services",
        "PodDisruptionBudget server selects no pod",
        _set(_object("PodDisruptionBudget", "server"), {"matchLabels": {"app": "x"}}, "spec", "selector"),
    ),
    ("services", "would undo it", _set(_object("Deployment", "server"), 2, "spec", "replicas")),
    (
        "services",
        "scales nothing",
        _set(_object("HorizontalPodAutoscaler", "server"), "x", "spec", "scaleTargetRef", "name"),
    ),
]


@pytest.mark.parametrize(("policy", "says", "harm"), HARM, ids=[f"{p}: {s}" for p, s, _ in HARM])
def test_what_breaks_a_policy_is_found(policy: str, says: str, harm: Callable[[list[Document]], object]) -> None:
    documents = manifests("k8s")
    harm(documents)
    assert any(says in problem for problem in POLICIES[policy](documents))


def test_every_policy_is_broken_by_something() -> None:
    assert {policy for policy, _, _ in HARM} == set(POLICIES)


def _names(way: str) -> list[Pod]:
    return sorted(pod.name for pod in pods(manifests(way)))


def test_the_pods_of_custom_resources_are_looked_at_too() -> None:
    assert "TrainingRuntime mbdcnn node" in _names("train with kubeflow")
    assert {"RayJob tune head", "RayJob tune gpu", "RayJob tune submitter"} <= set(_names("tune"))


@pytest.mark.parametrize(("way", "part"), [("tune", "RayJob tune gpu"), ("train with kubeflow", "TrainingRuntime")])
def test_a_custom_resource_without_limits_is_found(way: str, part: str) -> None:
    documents = manifests(way)
    (pod,) = [pod for pod in pods(documents) if pod.name.startswith(part)]
    del pod.spec["containers"][0]["resources"]
    assert any(problem.startswith(pod.name) for problem in policies.limits(documents))
