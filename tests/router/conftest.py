"""A router with a tiny tokenizer, in the test's own loop, behind a fake scheduler."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from octavo.router.server import serve
from octavo.router.settings import RouterSettings
from octavo.router.tokenizer import Tokenizer
from octavo.startup import StartupReport
from octavo.v1 import inference_pb2_grpc, models_pb2_grpc, scheduling_pb2, tokenizer_pb2_grpc
from tests.router.fake_scheduler import FakeScheduler
from tests.router.tiny_tokenizers import EOS_TOKEN_ID, byte_level_tokenizer, write_directory

MODEL = "org/tiny"


@dataclass
class Router:
    """A running router, and stubs that call it."""

    address: str
    process: "asyncio.Task[None]"
    channel: grpc.aio.Channel

    @property
    def inference(self) -> Any:
        return inference_pb2_grpc.InferenceStub(self.channel)

    @property
    def tokenizer(self) -> Any:
        return tokenizer_pb2_grpc.TokenizerStub(self.channel)

    @property
    def models(self) -> Any:
        return models_pb2_grpc.ModelsStub(self.channel)

    async def becomes(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        """Return when the health service says so."""
        request = health_pb2.HealthCheckRequest(service="octavo.v1.Inference")
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(request, wait_for_ready=True)
        async for answer in watch:
            if answer.status == status:
                watch.cancel()
                return

    async def becomes_serving(self) -> None:
        await self.becomes(health_pb2.HealthCheckResponse.SERVING)

    async def becomes_not_serving(self) -> None:
        await self.becomes(health_pb2.HealthCheckResponse.NOT_SERVING)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("model"), byte_level_tokenizer())


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(byte_level_tokenizer())


@pytest.fixture
def model_info(model_directory: Path) -> scheduling_pb2.ModelInfo:
    return scheduling_pb2.ModelInfo(
        served_names=[MODEL, "alias"],
        path=str(model_directory),
        max_model_len=200,
        vocab_size=512,
        eos_token_ids=[EOS_TOKEN_ID],
        block_size=4,
        model_hash=b"weights",
        created_s=1_700_000_000,
    )


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    # Not tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def scheduler_address(socket_directory: Path) -> str:
    return f"unix:{socket_directory}/scheduler.sock"


@pytest.fixture
async def scheduler(
    model_info: scheduling_pb2.ModelInfo, scheduler_address: str
) -> AsyncIterator[FakeScheduler]:
    scheduler = FakeScheduler(model_info)
    async with scheduler.serving(scheduler_address):
        yield scheduler


@pytest.fixture
def api_keys() -> tuple[str, ...]:
    """What the router is started with; a test may say otherwise."""
    return ()


@contextlib.asynccontextmanager
async def running_router(*schedulers: str, api_keys: tuple[str, ...] = ()) -> AsyncIterator[Router]:
    """Run a router for the schedulers at these addresses; none needs to be there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = RouterSettings(
        grpc_port=port, scheduler=schedulers, drain_timeout_s=5, api_key=api_keys
    )
    process = asyncio.create_task(serve(settings, StartupReport(None)))
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address) as channel:
        yield Router(address, process, channel)
    process.cancel()
    await asyncio.wait((process,))


@pytest.fixture
async def router_alone(scheduler_address: str, api_keys: tuple[str, ...]) -> AsyncIterator[Router]:
    """A router that no scheduler needs to be there for."""
    async with running_router(scheduler_address, api_keys=api_keys) as router:
        yield router


@pytest.fixture
async def router(scheduler: FakeScheduler, router_alone: Router) -> Router:
    await router_alone.becomes_serving()
    return router_alone
