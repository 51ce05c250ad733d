"""Alerts, the dashboard and the autoscaler ask for metrics that a real server has, by labels and models that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import promql_parser as promql
import pytest
import yaml
from manifests import K8S, manifests, named
from server_pods import ServerPod
from tritonclient import grpc

from serve._metrics import fetch
from serve._profiles import MODELS

MONITORING = K8S / "monitoring"
FROM_KUBERNETES = {"namespace", "pod"}  # labels that Prometheus adds
# which a server without a GPU does not have; names of Triton's own documentation
GPU_METRICS = {
    "nv_gpu_utilization": {"gpu_uuid"},
    "nv_gpu_memory_used_bytes": {"gpu_uuid"},
    "nv_gpu_memory_total_bytes": {"gpu_uuid"},
    "nv_gpu_power_usage": {"gpu_uuid"},
}
ADAPTER = yaml.safe_load((MONITORING / "adapter-values.yaml").read_text())["rules"]["custom"][0]


def _alerts() -> Iterator[str]:
    rule = named(manifests("monitoring"), "PrometheusRule", "server")
    return (r["expr"] for group in rule["spec"]["groups"] for r in group["rules"])


def _panels() -> Iterator[str]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "1m").replace("$pod", ".*")


def _adapter() -> Iterator[str]:
    matchers, grouped = 'namespace="mbdcnn",pod=~"server-1|server-2"', "pod"
    yield ADAPTER["metricsQuery"].replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", grouped)
    yield ADAPTER["seriesQuery"]


SOURCES = {"alerts": _alerts, "dashboard": _panels, "autoscaler": _adapter}


def _selectors(expression: str) -> list[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []

    def visit(part: promql.Expr) -> None:
        if isinstance(part, promql.VectorSelector):
            found.append(part)

    promql.walk(promql.parse(expression), visit)
    return found


def problems(expressions: Iterator[str], labels: dict[str, set[str]], models: set[str]) -> Iterator[str]:
    """What of the expressions a server does not have.

    Args:
        expressions: of PromQL.
        labels: of each metric of the server.
        models: of the server's repository.
    """
    for expression in expressions:
        selectors = _selectors(expression)
        if not selectors:
            yield f"nothing is asked for: {expression}"
        for selector in selectors:
            if selector.name not in labels:
                yield f"no metric {selector.name}"
                continue
            for matcher in selector.matchers.matchers:
                if matcher.name not in labels[selector.name] | FROM_KUBERNETES:
                    yield f"{selector.name} has no label {matcher.name}"
                if matcher.name == "model":
                    names = re.sub(r"\(_v\[0-9\]\+\)\?$", "", matcher.value).strip("()").split("|")
                    yield from (f"no model {name}" for name in names if name not in models)
                    yield from (f"{name} is not matched" for name in names if not re.fullmatch(matcher.value, name))


@pytest.fixture(scope="module")
def samples(pod: ServerPod) -> list[tuple[str, dict[str, str]]]:
    """Name and labels of each line that a server's metrics have after an answer."""
    assert pod.asked("readinessProbe") == 0
    lines = fetch(f"http://127.0.0.1:{pod.ports.metrics}").decode().splitlines()
    names = [line.split("{")[0].split()[0] for line in lines if line and not line.startswith("#")]
    found = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in lines if line and not line.startswith("#")]
    return list(zip(names, found, strict=True))


@pytest.fixture(scope="module")
def labels(samples: list[tuple[str, dict[str, str]]]) -> dict[str, set[str]]:
    """The labels of each metric."""
    found: dict[str, set[str]] = {"mbdcnn_upgrades_total": {"result"}}  # there from the first version on
    for name, values in samples:
        found.setdefault(name, set()).update(values)
    return found


@pytest.fixture(scope="module")
def served(pod: ServerPod, samples: list[tuple[str, dict[str, str]]]) -> set[str]:
    """The models that the server has; those that an ensemble asks bear a version's number."""
    names = {values["model"] for _, values in samples if "model" in values}
    with grpc.InferenceServerClient(f"127.0.0.1:{pod.ports.grpc}") as client:
        assert all(client.is_model_ready(name) for name in names)
    assert {"mbdcnn", "mbdcnn_fused", "coarse_sn_v1"} <= names
    return {re.sub(r"_v\d+$", "", name) for name in names}


@pytest.mark.server
@pytest.mark.parametrize("source", SOURCES)
def test_metrics_labels_and_models_are_those_of_a_real_server(
    source: str, labels: dict[str, set[str]], served: set[str]
) -> None:
    assert not set(labels) & set(GPU_METRICS)
    assert served == set(MODELS)
    assert list(problems(SOURCES[source](), labels | GPU_METRICS, served)) == []


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("mbdcnn_servers_up", "no metric mbdcnn_servers_up"),
        ('mbdcnn_server_up{instance="x"}', "has no label instance"),
        ('x{model=~"(preprocess|coarse_cn)(_v[0-9]+)?"}', "no model coarse_cn"),
        ("1 + 1", "nothing is asked for"),
    ],
)
def test_what_a_server_does_not_have_is_found(expression: str, says: str) -> None:
    known = {"mbdcnn_server_up": set(), "x": {"model"}}
    assert any(says in problem for problem in problems(iter([expression]), known, {"preprocess"}))


def test_every_expression_is_promql_and_a_broken_one_is_not() -> None:
    assert sum(len([promql.parse(e) for e in source()]) for source in SOURCES.values()) > 25
    with pytest.raises(ValueError):
        promql.parse("sum by (pod (x)")


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    scaler = named(manifests("monitoring"), "HorizontalPodAutoscaler", "server")
    (metric,) = [m["pods"]["metric"]["name"] for m in scaler["spec"]["metrics"] if m["type"] == "Pods"]
    assert metric == ADAPTER["name"]["as"]


def test_prometheus_finds_the_metrics_service_and_may_reach_it() -> None:
    documents = manifests("monitoring")
    monitor = named(documents, "ServiceMonitor", "server")["spec"]
    service = named(documents, "Service", "server-metrics")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    others = [named(documents, "Service", name) for name in ("server", "server-pods")]
    assert not any(monitor["selector"]["matchLabels"].items() <= o["metadata"]["labels"].items() for o in others)
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    (rule,) = named(documents, "NetworkPolicy", "server-from-prometheus")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["metrics"]


def test_the_dashboard_is_in_a_map_that_grafana_looks_for() -> None:
    document = named(manifests("monitoring"), "ConfigMap", "mbdcnn-dashboard")
    assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(document["data"]["mbdcnn.json"])
    assert dashboard == json.loads((MONITORING / "dashboard.json").read_text())
    drawn = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["title"] and panel["targets"] for panel in drawn)
    places = [
        (p["gridPos"]["x"] + i, p["gridPos"]["y"] + j)
        for p in drawn
        for i in range(p["gridPos"]["w"])
        for j in range(p["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) == 23
