"""A Node client made from the proto files alone chats, cancels and runs into a deadline."""

import pytest

from tests.clients.node import needs_node, run_node
from tests.end_to_end.cluster import Cluster

pytestmark = [pytest.mark.slow, needs_node]


def test_it_streams_a_chat_cancels_one_and_sees_a_deadline(
    node_modules: None, cluster: Cluster
) -> None:
    seen = run_node("grpc_client.js", cluster.grpc_address, cluster.model)

    chat = seen["chat"]
    assert chat["code"] == "OK"
    assert "Paris" in chat["text"]
    assert chat["kinds"][0] == "started"
    assert chat["kinds"][-2:] == ["finished", "usage"]
    assert chat["sequence_numbers"] == list(range(len(chat["kinds"])))
    assert chat["finished"]["reason"] == "FINISH_REASON_STOP"
    assert chat["usage"]["num_output_tokens"] == len(chat["token_ids"])

    assert seen["cancelled"]["code"] == "CANCELLED"
    assert seen["cancelled"]["kinds"][0] == "started"
    assert "finished" not in seen["cancelled"]["kinds"]

    assert seen["late"]["code"] == "DEADLINE_EXCEEDED"
    assert seen["late"]["kinds"][0] == "started"
