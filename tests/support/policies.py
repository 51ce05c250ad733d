"""What every manifest of k8s/ must keep to; each policy names what does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from manifests import Document, Pod, named, pods, selects

Policy = Callable[[list[Document]], Iterator[str]]
_IMAGE = re.compile(r"[\w.-]+(:\d+)?/[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
_SIZES = {"cpu", "memory", "ephemeral-storage"}
_REFERENCE = re.compile(r"\$[({]?([A-Z][A-Z0-9_]*)[)}]?")


def limits(documents: list[Document]) -> Iterator[str]:
    """Every container says what it needs and what it may take at most."""
    for pod, container in _containers(documents):
        for part in ("requests", "limits"):
            if missing := _SIZES - set(container.get("resources", {}).get(part, {})):
                yield f"{pod.name}/{container['name']} has no {part} of {sorted(missing)}"
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name}: the volume {volume['name']} has no sizeLimit"


def probes(documents: list[Document]) -> Iterator[str]:
    """What is to run for long is asked whether it does."""
    for pod in pods(documents):
        wanted = ["readinessProbe", "livenessProbe"] if pod.lasting else []
        if pod.name.startswith("Deployment"):
            wanted.append("startupProbe")
        for container in pod.spec["containers"]:
            for kind in wanted:
                if kind not in container:
                    yield f"{pod.name}/{container['name']} has no {kind}"


def security(documents: list[Document]) -> Iterator[str]:
    """Pod Security "restricted", and a root file system that nobody writes."""
    for pod in pods(documents):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{pod.name} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.name} has no seccomp profile"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.name} has {field}"
        for volume in pod.spec.get("volumes", []):
            if not set(volume) - {"name"} <= _VOLUMES:
                yield f"{pod.name}: the volume {volume['name']} is not of an allowed kind"
    for pod, container in _containers(documents):
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if container.get("securityContext") != expected:
            yield f"{pod.name}/{container['name']} has not the restricted security context"
    for document in documents:
        if document["kind"] == "Namespace":
            enforced = document["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
            if enforced != "restricted":
                yield f"Namespace {document['metadata']['name']} does not enforce restricted pods"


def digests(documents: list[Document]) -> Iterator[str]:
    """Every image is named by tag and digest."""
    for pod, container in _containers(documents):
        if not _IMAGE.fullmatch(container["image"]):
            yield f"{pod.name}/{container['name']}: {container['image']} is not of the form NAME:TAG@sha256:DIGEST"


def network(documents: list[Document]) -> Iterator[str]:
    """Nothing goes in or out unless a policy says so, and what listens is reached at its ports alone."""
    rules = [d for d in documents if d["kind"] == "NetworkPolicy"]
    closed = [
        rule["spec"]
        for rule in rules
        if not rule["spec"].get("ingress") and not rule["spec"].get("egress") and len(rule["spec"]["policyTypes"]) == 2
    ]
    for pod in pods(documents):
        if not any(selects(spec["podSelector"], pod.labels) for spec in closed):
            yield f"{pod.name} is not closed by default"
        ways_in = [
            way
            for rule in rules
            if selects(rule["spec"]["podSelector"], pod.labels)
            for way in rule["spec"].get("ingress", [])
        ]
        if any("from" not in way for way in ways_in):
            yield f"{pod.name} is open to everybody"
        reached = {port["port"] for way in ways_in for port in way.get("ports", [])}
        ports = {port["name"]: port["containerPort"] for c in pod.spec["containers"] for port in c.get("ports", [])}
        for name in reached - set(ports) - set(ports.values()):
            yield f"{pod.name}: a policy opens the port {name}, which it has not"
        whole = any("ports" not in way for way in ways_in)
        for name, number in ports.items():
            if not whole and not {name, number} & reached:
                yield f"{pod.name}: no policy lets anybody reach the port {name}"


def tokens(documents: list[Document]) -> Iterator[str]:
    """Nobody carries a token of the cluster's API."""
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    for document in documents:
        if document["kind"] == "ServiceAccount" and document.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {document['metadata']['name']} hands out tokens"
    for pod in pods(documents):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name} carries a token"
        if pod.spec.get("serviceAccountName") not in accounts:
            yield f"{pod.name} has no service account of its own"


def references(documents: list[Document]) -> Iterator[str]:
    """What an object names is there: settings, volumes, claims."""
    settings = named(documents, "ConfigMap", "settings")["data"]
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    for pod in pods(documents):
        for name, volume in pod.volumes.items():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                yield f"{pod.name}: the volume {name} is of {claim}, which nobody claims"
        mounted = {mount["name"] for c in pod.containers for mount in c.get("volumeMounts", [])}
        for name in mounted ^ set(pod.volumes):
            yield f"{pod.name}: {name} is mounted and no volume, or a volume and not mounted"
        for container in pod.containers:
            known = {variable["name"] for variable in container.get("env", [])}
            for source in container.get("envFrom", []):
                if source["configMapRef"]["name"] != "settings":
                    yield f"{pod.name}/{container['name']} reads settings that are not there"
                known |= set(settings)
            for name in variables(words(container)):
                if name not in known:
                    yield f"{pod.name}/{container['name']}: {name} is not set"
    for name, command in commands_elsewhere(documents):
        for missing in variables(command) - set(settings):
            yield f"{name}: {missing} is not set"


def services(documents: list[Document]) -> Iterator[str]:
    """Services, budgets and the autoscaler mean pods that are there, and ports that these have."""
    made = list(pods(documents))
    for document in documents:
        name, spec = f"{document['kind']} {document['metadata']['name']}", document.get("spec", {})
        if document["kind"] == "Service":
            meant = [pod for pod in made if spec["selector"].items() <= pod.labels.items()]
            if not meant:
                yield f"{name} selects no pod"
            for pod in meant:
                has = {p["name"]: p["containerPort"] for c in pod.spec["containers"] for p in c.get("ports", [])}
                for port in spec["ports"]:
                    if has.get(port["targetPort"]) != port["port"]:
                        yield f"{name}: {pod.name} has no port {port['targetPort']} of that number"
        if document["kind"] == "PodDisruptionBudget" and not any(selects(spec["selector"], pod.labels) for pod in made):
            yield f"{name} selects no pod"
        if document["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            found = [d for d in documents if (d["kind"], d["metadata"]["name"]) == (target["kind"], target["name"])]
            if not found:
                yield f"{name} scales nothing"
            elif "replicas" in found[0]["spec"]:
                yield f"{name}: a second apply would undo it, as {target['kind']} {target['name']} has replicas"


def words(container: Document) -> list[str]:
    """A container's command line."""
    return [*container.get("command", []), *container.get("args", [])]


def variables(command: list[str]) -> set[str]:
    """The settings that a command line means."""
    return {name for word in command for name in _REFERENCE.findall(word)}


def commands_elsewhere(documents: list[Document]) -> Iterator[tuple[str, list[str]]]:
    """Command lines that are not in a pod's template."""
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "RayJob":
            yield name, document["spec"]["entrypoint"].split()
        if document["kind"] == "TrainJob":
            yield name, words(document["spec"]["trainer"])


def _containers(documents: list[Document]) -> Iterator[tuple[Pod, Document]]:
    return ((pod, container) for pod in pods(documents) for container in pod.containers)
