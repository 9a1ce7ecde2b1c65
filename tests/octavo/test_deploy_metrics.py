"""Dashboard and alert rules ask for what the processes tell: each metric, label and value."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client import CollectorRegistry

from octavo.cluster import metrics_ports
from octavo.gateway.metrics import GatewayMetrics
from octavo.metrics_server import process_registry
from octavo.router.metrics import RouterMetrics
from octavo.router.open_requests import OpenRequests
from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.metrics import SchedulerCollector, StepTimes
from octavo.scheduler.scheduler import Scheduler
from octavo.serve_settings import ServeSettings
from octavo.v1 import common_pb2, inference_pb2, step_pb2
from octavo.worker.metrics import WorkerMetrics
from tests.file_sizes import ROOT

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "octavo.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
(RULES,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]

# Those that the scrape configuration adds to every sample.
TARGET_LABELS = {"job", "instance", "process"}
SELECTOR = re.compile(r"\b(octavo_\w+|process_\w+|up\b)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')

Values = dict[str, set[str]]


def gateway_registry() -> CollectorRegistry:
    metrics = GatewayMetrics()
    metrics.count("/v1/completions", "POST", 200, 0.1)
    metrics.first_text_timer("/v1/completions", since=0)()
    return metrics.registry


def router_registry() -> CollectorRegistry:
    metrics = RouterMetrics(OpenRequests())
    for code in grpc.StatusCode:
        metrics.count_call("Chat", code.name)
    stream = metrics.stream("demo", arrived_s=0)
    stream.observe(inference_pb2.StreamEvent(delta=inference_pb2.Delta(num_tokens=1)), 1)
    stream.observe(inference_pb2.StreamEvent(usage=common_pb2.Usage()), 2)
    return metrics.registry


def scheduler_registry() -> CollectorRegistry:
    scheduler = Scheduler(
        SchedulerConfig(
            epoch=1,
            block_size=4,
            kv_groups=(GroupConfig(num_blocks=8),),
            max_model_len=16,
            max_num_seqs=2,
            max_num_batched_tokens=8,
        )
    )
    scheduler.stats.num_finished.update(common_pb2.FinishReason.values())
    registry = process_registry()
    registry.register(SchedulerCollector(scheduler))
    StepTimes(registry)
    return registry


def worker_registry() -> CollectorRegistry:
    metrics = WorkerMetrics(step_pb2.WorkerReady())
    metrics.observe(step_pb2.StepPlan(), step_pb2.StepResult())
    return metrics.registry


@pytest.fixture(scope="module")
def told() -> dict[str, Values]:
    """Every sample's name → its labels → their values, after one of everything."""
    samples: dict[str, Values] = {"up": {}}
    for registry in (gateway_registry, router_registry, scheduler_registry, worker_registry):
        for family in registry().collect():
            for sample in family.samples:
                labels = samples.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return samples


def expressions() -> Iterator[tuple[str, str, str]]:
    """Yield where an expression is, the expression, and the legend of its series."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for rule in RULES["rules"]:
        yield rule["alert"], rule["expr"], ""


@pytest.mark.parametrize(("place", "expression", "legend"), list(expressions()))
def test_what_is_asked_for_is_told(
    told: dict[str, Values], place: str, expression: str, legend: str
) -> None:
    assert expression.count("(") == expression.count(")")
    selectors = SELECTOR.findall(expression)
    assert selectors
    for name, matchers in selectors:
        assert name in told
        for label, value in MATCHER.findall(matchers):
            assert label in told[name] or label in TARGET_LABELS
            # Patterns are not looked into, and a variable may be anything.
            if label not in TARGET_LABELS and re.fullmatch(r"[\w|]+", value):
                assert set(value.split("|")) <= told[name][label]
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
    for name, _ in selectors:
        assert grouped <= set(told[name]) | TARGET_LABELS
    shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
    assert shown <= (grouped or TARGET_LABELS)


def test_the_models_to_choose_from_are_those_of_the_router(told: dict[str, Values]) -> None:
    (variable,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == "model"]
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert match is not None
    assert match[2] in told[match[1]]


@pytest.mark.parametrize("name", ["prometheus.yml", "compose.yml"])
def test_what_is_scraped_has_the_labels_that_tell_the_processes_apart(name: str) -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["scrape_configs"]
    assert job["job_name"] == "octavo"
    ports = {"gateway": 8000} | metrics_ports(ServeSettings(metrics_port=9101))
    scraped = {
        config["labels"]["process"]: {int(each.rpartition(":")[2]) for each in config["targets"]}
        for config in job["static_configs"]
    }
    assert scraped == {process: {port} for process, port in ports.items()}


def test_panels_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        assert (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        ), (one["title"], other["title"])


def test_every_panel_can_be_read_and_moved_to_another_data_source() -> None:
    for panel in PANELS:
        assert panel["description"], panel["title"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source["uid"] == "${datasource}" for source in sources), panel["title"]
        options = panel["options"].get("yAxis") or panel["fieldConfig"]["defaults"]
        assert options["unit"], panel["title"]


@pytest.mark.parametrize("rule", RULES["rules"], ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_grafana_is_given_the_data_source_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus" and source["isDefault"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "octavo.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file" and provider["options"]["path"]
