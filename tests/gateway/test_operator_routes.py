"""The routes beside those that generate: models, readiness, version."""

from octavo.version import VERSION
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import MODEL, FakeRouter


async def test_models_are_listed_and_found_by_ids_with_slashes(gateway: Gateway) -> None:
    listed = (await gateway.http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [MODEL]
    assert (await gateway.http.get(f"/v1/models/{MODEL}")).json() == listed["data"][0]
    missing = await gateway.http.get("/v1/models/no/such")
    assert missing.status_code == 404
    assert "no/such" in missing.json()["error"]["message"]


async def test_ready_needs_a_serving_router_with_a_model(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    assert (await gateway.http.get("/ready")).status_code == 200
    models, fake_router.models = fake_router.models, []
    assert (await gateway.http.get("/ready")).json()["error"]["message"].startswith("No model")
    fake_router.models = models
    await fake_router.health.set_serving(False)
    response = await gateway.http.get("/ready")
    assert response.status_code == 503
    assert "starting or draining" in response.json()["error"]["message"]
    assert (await gateway.http.get("/health")).status_code == 200


async def test_version(gateway: Gateway) -> None:
    assert (await gateway.http.get("/version")).json() == {"version": VERSION}


async def test_no_model_has_an_empty_name(gateway: Gateway) -> None:
    response = await gateway.http.get("/v1/models/")
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["message"] == "There is no route /v1/models/."
    assert error["code"] == "route_not_found"
