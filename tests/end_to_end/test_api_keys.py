"""A key closes REST and gRPC alike."""

from pathlib import Path

import grpc
import httpx
import openai
import pytest

from octavo.v1 import models_pb2, models_pb2_grpc
from tests.end_to_end.cluster import running_cluster

pytestmark = pytest.mark.slow


def test_a_key_closes_rest_and_grpc_alike(tmp_path: Path, demo_model: Path) -> None:
    with running_cluster(tmp_path / "serve.log", "demo", ["--api-key", "secret"]) as cluster:
        assert httpx.get(cluster.base_url + "/v1/models").status_code == 401
        with grpc.insecure_channel(cluster.grpc_address) as channel:
            models = models_pb2_grpc.ModelsStub(channel)
            with pytest.raises(grpc.RpcError) as refusal:
                models.ListModels(models_pb2.ListModelsRequest(), timeout=10)
            assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with openai.OpenAI(base_url=cluster.base_url + "/v1", api_key="secret") as client:
            answer = client.completions.create(model="demo", prompt="One, two,", max_tokens=4)
            assert answer.usage is not None and answer.usage.completion_tokens == 4
        for child in cluster.children():
            assert "secret" not in child.cmdline()
