"""What is open with keys, and to whom."""

import grpc
import pytest

from octavo.block_hash import extend_chain, root_hash
from octavo.v1 import models_pb2
from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import failure, generate

KEYS = ("first", "second")


@pytest.fixture
def api_keys() -> tuple[str, ...]:
    return KEYS


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ((), "this server needs an API key"),
        ((("authorization", "first"),), "this server needs an API key"),
        ((("authorization", "Basic first"),), "this server needs an API key"),
        ((("authorization", "Bearer "),), "this server needs an API key"),
        ((("authorization", "Bearer firs"),), "the API key is wrong"),
        ((("authorization", "Bearer firsT"),), "the API key is wrong"),
    ],
)
async def test_without_a_key_nothing_is_served_but_health(
    router: Router,
    scheduler: FakeScheduler,
    metadata: tuple[tuple[str, str], ...],
    message: str,
) -> None:
    error = await failure(router.inference.Generate(generate(), metadata=metadata))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert message in (error.details() or "")
    with pytest.raises(grpc.aio.AioRpcError, match=message):
        await router.models.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)
    assert scheduler.submitted.empty()
    await router.becomes_serving()


async def test_each_key_has_a_tenant_whose_blocks_are_its_own(
    router: Router, scheduler: FakeScheduler
) -> None:
    tenants = set()
    for scheme in ("Bearer", "bearer"):
        call = router.inference.Generate(
            generate(), metadata=(("authorization", f"{scheme} first"),)
        )
        submitted = await scheduler.submitted.get()
        root = root_hash(b"weights", submitted.tenant)
        hashes = extend_chain(root, submitted.prompt_token_ids, 4)
        assert submitted.block_hashes == b"".join(hashes)
        assert "first" not in submitted.tenant
        tenants.add(submitted.tenant)
        call.cancel()
    assert len(tenants) == 1
    assert tenants != {""}
