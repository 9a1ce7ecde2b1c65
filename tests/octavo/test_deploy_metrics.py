"""The alert rules name metrics that the processes have."""

import re

from prometheus_client import CollectorRegistry, generate_latest

from octavo.router.metrics import RouterMetrics
from octavo.router.open_requests import OpenRequests
from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.metrics import SchedulerCollector, StepTimes
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import inference_pb2
from tests.file_sizes import ROOT


def test_every_metric_in_the_rules_exists() -> None:
    registry = CollectorRegistry()
    config = SchedulerConfig(
        epoch=1,
        block_size=4,
        kv_groups=(GroupConfig(num_blocks=8),),
        max_model_len=16,
        max_num_seqs=2,
        max_num_batched_tokens=8,
    )
    registry.register(SchedulerCollector(Scheduler(config)))
    StepTimes(registry)
    router = RouterMetrics(OpenRequests())
    token = inference_pb2.StreamEvent(delta=inference_pb2.Delta(num_tokens=1))
    router.stream("m", 0).observe(token, 1)
    text = (generate_latest(registry) + generate_latest(router.registry)).decode()
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    named = set(re.findall(r"octavo_[a-z_]+", rules))
    assert named
    existing = set(re.findall(r"^(octavo_\w+)", text, re.MULTILINE))
    assert named - existing == set()
