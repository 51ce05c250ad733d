"""Every object fits its schema, without a field that the schema does not know."""

from __future__ import annotations

import copy
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import K8S, WAYS, Document, kubectl, manifests, named

VERSION = "1.37"
CRDS = Path(os.environ.get("MBDCNN_CRDS", Path(__file__).parents[3] / "shared" / "schemas"))
# of custom resources, the files that their projects publish
FILES = {
    "RayJob": "ray.io_rayjobs.yaml",
    "TrainJob": "trainer.kubeflow.org_trainjobs.yaml",
    "TrainingRuntime": "trainer.kubeflow.org_trainingruntimes.yaml",
}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


_TEXT = {"type": "string"}
_TIME = {"type": "string", "pattern": "^[0-9]+[smh]$"}
_RULE = _object(alert=_TEXT, expr=_TEXT, labels=_TEXTS, annotations=_TEXTS)
_RULE["properties"]["for"] = _TIME
_ENDPOINT = _object(port=_TEXT, path=_TEXT, interval=_TIME, scrapeTimeout=_TIME)
# of the Prometheus operator's, the fields that are used, as its documentation names them
OPERATOR = {
    "PrometheusRule": _object(groups=_list(_object(name=_TEXT, rules=_list(_RULE)))),
    "ServiceMonitor": _object(selector=_object(matchLabels=_TEXTS), endpoints=_list(_ENDPOINT)),
}
CUSTOM = {*FILES, *OPERATOR}


def _check(document: Document) -> None:
    """Refuse what does not fit.

    Raises:
        jsonschema.ValidationError: with the reason.
    """
    if document["kind"] in OPERATOR:
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.validate(document["spec"], OPERATOR[document["kind"]])
    elif document["kind"] in FILES:
        jsonschema.validate(document, _schema(document["kind"], document["apiVersion"]))
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


@cache
def _schema(kind: str, api_version: str) -> Any:
    file = CRDS / FILES[kind]
    if not file.is_file():
        pytest.skip(f"no {FILES[kind]} in {CRDS}; set MBDCNN_CRDS to a folder that has it")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(file.read_text(), loader)
    group, version = api_version.split("/")
    assert (definition["spec"]["group"], definition["spec"]["names"]["kind"]) == (group, kind)
    (found,) = [v for v in definition["spec"]["versions"] if v["name"] == version]
    schema = _closed(found["schema"]["openAPIV3Schema"])
    for field, value in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        schema["properties"][field] = {"type": value}  # which a definition leaves to the API server
    return schema


def _closed(schema: Any) -> Any:
    """The same schema, which refuses fields that it does not know."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
        closed.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    known = "properties" in schema and isinstance(schema["properties"], dict) and schema.get("type") == "object"
    if known and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed


@pytest.mark.parametrize("way", WAYS)
def test_built_in_kinds_fit(way: str) -> None:
    for document in manifests(way):
        if document["kind"] not in CUSTOM:
            _check(document)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("tune", "RayJob"),
        ("train with kubeflow", "TrainJob"),
        ("train with kubeflow", "TrainingRuntime"),
        ("monitoring", "PrometheusRule"),
        ("monitoring", "ServiceMonitor"),
    ],
)
def test_custom_resources_fit_and_a_misspelt_field_does_not(way: str, kind: str) -> None:
    (document,) = [d for d in manifests(way) if d["kind"] == kind]
    _check(document)
    for place in (document["spec"], _deep(document)):
        place["mispelt"] = 1
        with pytest.raises(jsonschema.ValidationError, match="mispelt"):
            _check(document)
        del place["mispelt"]


def _deep(document: Document) -> Document:
    """A part of an object far below its top."""
    spec = document["spec"]
    return {
        "RayJob": lambda: spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0],
        "TrainJob": lambda: spec["trainer"],
        "TrainingRuntime": lambda: spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"][
            "spec"
        ],
        "PrometheusRule": lambda: spec["groups"][0]["rules"][0],
        "ServiceMonitor": lambda: spec["endpoints"][0],
    }[document["kind"]]()


@pytest.mark.parametrize(
    ("kind", "name", "harm"),
    [
        ("Deployment", "server", lambda d: d["spec"]["template"]["spec"]["containers"][0].update(resurces={})),
        ("Deployment", "server", lambda d: d["spec"].update(minReadySeconds="ten")),
        ("NetworkPolicy", "deny-all", lambda d: d["spec"].update(podselector={})),
        ("HorizontalPodAutoscaler", "server", lambda d: d.update(apiVersion="autoscaling/v2beta2")),
    ],
)
def test_what_does_not_fit_is_found(kind: str, name: str, harm: Any) -> None:
    document = copy.deepcopy(named(manifests("k8s"), kind, name))
    _check(document)
    harm(document)
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        _check(document)


def test_the_folder_holds_what_a_bare_cluster_takes_and_kubectl_reads_it() -> None:
    """Its files are links to those of the base, so that overlays can build on them; kubectl follows them."""
    words = [kubectl(), "label", "--local", "-f", str(K8S), "read=yes", "-o", "name"]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout.split()
    assert said[0] == "namespace/mbdcnn"  # before what goes into it
    documents = manifests("k8s")
    assert len(said) == len(documents)
    assert not any(document["kind"] in {*CUSTOM, "Kustomization"} for document in documents)
    assert all(file.resolve().parent == K8S / "base" for file in K8S.glob("*.yaml"))
    base = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text())["resources"]
    assert base == sorted(file.name for file in K8S.glob("*.yaml"))


def test_everything_is_in_one_namespace() -> None:
    for way in WAYS:
        for document in manifests(way):
            if document["kind"] != "Namespace":
                assert document["metadata"]["namespace"] == "mbdcnn", document["metadata"]
