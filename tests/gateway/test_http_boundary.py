"""What is counted about every request."""

import re

from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import MODEL, TEXT

CHAT = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


async def metrics(gateway: Gateway) -> dict[str, float]:
    text = (await gateway.http.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(octavo\S+) (\S+)$", text, re.M)}


def requests(route: str, method: str, status: int) -> str:
    labels = f'method="{method}",route="{route}",status="{status}"'
    return f"octavo_gateway_http_requests_total{{{labels}}}"


async def test_requests_are_counted_under_names_that_clients_cannot_make_up(
    gateway: Gateway,
) -> None:
    for _ in range(2):
        await gateway.http.post(CHAT, json=BODY)
    await gateway.http.post(CHAT, content=b"{")
    for name in ("a", "b", "c/d"):
        await gateway.http.get(f"/v1/models/{name}")
        await gateway.http.get(f"/{name}")
        await gateway.http.request("PROPFIND", CHAT)
    counted = await metrics(gateway)
    assert {name: count for name, count in counted.items() if "requests_total" in name} == {
        requests(CHAT, "POST", 200): 2,
        requests(CHAT, "POST", 400): 1,
        requests(CHAT, "other", 405): 3,
        requests("/v1/models/{model_id:path}", "GET", 404): 3,
        requests("none", "GET", 404): 3,
    }
    # The request for the metrics itself.
    assert counted["octavo_gateway_http_requests_in_flight"] == 1


async def test_bytes_and_times_are_measured(gateway: Gateway) -> None:
    response = await gateway.http.post(CHAT, json=BODY | {"stream": True})
    assert TEXT.encode()[:3] in response.content
    counted = await metrics(gateway)
    sent = len(response.request.content)
    assert counted["octavo_gateway_http_received_bytes_total"] == sent
    assert counted["octavo_gateway_http_sent_bytes_total"] == len(response.content)
    assert counted[f'octavo_gateway_http_request_duration_seconds_count{{route="{CHAT}"}}'] == 1
    assert counted[f'octavo_gateway_first_text_seconds_count{{route="{CHAT}"}}'] == 1
    await gateway.http.post(CHAT, json=BODY)
    assert (await metrics(gateway))[
        f'octavo_gateway_first_text_seconds_count{{route="{CHAT}"}}'
    ] == 1
