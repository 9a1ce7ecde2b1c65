"""Who may join the group: every difference is refused, with the values of both sides."""

import re
from collections.abc import Callable

import pytest

from octavo.scheduler.handshake import refusal
from octavo.v1 import step_pb2
from octavo.version import PROTOCOL_VERSION


def ready() -> step_pb2.WorkerReady:
    return step_pb2.WorkerReady(
        protocol_version=PROTOCOL_VERSION,
        incarnation=1,
        model_hash=b"0123456789abcdef",
        dtype="bfloat16",
        block_size=16,
        kv_groups=[step_pb2.KVGroup(num_blocks=100)],
        num_rows=8,
        vocab_size=1000,
        max_model_len=512,
        max_num_batched_tokens=64,
        model_path="/models/a",
    )


def test_the_first_worker_joins() -> None:
    assert refusal(ready(), None, epoch=0) is None


def test_a_worker_that_can_do_as_much_or_more_takes_the_place() -> None:
    bigger = ready()
    bigger.incarnation = 2
    bigger.kv_groups[0].num_blocks = 101
    bigger.num_rows = 9
    assert refusal(bigger, ready(), epoch=3) is None


ALONE: dict[str, tuple[Callable[[step_pb2.WorkerReady], None], str]] = {
    "protocol version": (
        lambda r: setattr(r, "protocol_version", PROTOCOL_VERSION + 1),
        f"speaks protocol version {PROTOCOL_VERSION + 1}, the scheduler {PROTOCOL_VERSION}",
    ),
    "rank": (lambda r: setattr(r, "rank", 1), "rank 1 of stage 0, the group has one rank"),
    "stage": (lambda r: setattr(r, "stage", 2), "rank 0 of stage 2, the group has one rank"),
    "hash": (lambda r: setattr(r, "model_hash", b"short"), "model_hash has 5 bytes, not 16"),
    "groups": (lambda r: r.kv_groups.clear(), "no KV blocks"),
    "blocks": (lambda r: setattr(r.kv_groups[0], "num_blocks", 0), "no KV blocks"),
    "block size": (lambda r: setattr(r, "block_size", 0), "block_size is 0"),
    "rows": (lambda r: setattr(r, "num_rows", 0), "num_rows is 0"),
    "vocabulary": (lambda r: setattr(r, "vocab_size", 0), "vocab_size is 0"),
    "context": (lambda r: setattr(r, "max_model_len", 0), "max_model_len is 0"),
    "budget": (lambda r: setattr(r, "max_num_batched_tokens", 0), "max_num_batched_tokens is 0"),
}

BESIDE: dict[str, tuple[Callable[[step_pb2.WorkerReady], None], str]] = {
    "model": (
        lambda r: setattr(r, "model_hash", b"fedcba9876543210"),
        f"{b'fedcba9876543210'.hex()} .* the group {b'0123456789abcdef'.hex()}",
    ),
    "block size": (
        lambda r: setattr(r, "block_size", 8),
        "block_size: the worker has 8, the group 16",
    ),
    "vocabulary": (lambda r: setattr(r, "vocab_size", 1001), "worker has 1001, the group 1000"),
    "rows": (lambda r: setattr(r, "num_rows", 7), "num_rows: the worker has 7, the group 8"),
    "context": (lambda r: setattr(r, "max_model_len", 511), "worker has 511, the group 512"),
    "budget": (lambda r: setattr(r, "max_num_batched_tokens", 63), "has 63, the group 64"),
    "blocks": (
        lambda r: setattr(r.kv_groups[0], "num_blocks", 99),
        r"KV blocks: the worker has \[99\], the group \[100\]",
    ),
    "groups": (
        lambda r: r.kv_groups.append(step_pb2.KVGroup(num_blocks=9)),
        r"KV blocks: the worker has \[100, 9\], the group \[100\]",
    ),
    "epoch": (
        lambda r: setattr(r, "last_epoch", 3),
        "has served epoch 3, the scheduler has epoch 3: it has to start again",
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_nonsense_is_refused(name: str) -> None:
    spoil, reason = ALONE[name]
    worker = ready()
    spoil(worker)
    refused = refusal(worker, None, epoch=0)
    assert refused is not None
    assert reason in refused


@pytest.mark.parametrize("name", BESIDE)
def test_a_worker_unlike_the_group_is_refused(name: str) -> None:
    spoil, reason = BESIDE[name]
    worker = ready()
    spoil(worker)
    assert re.search(reason, refusal(worker, ready(), epoch=3) or "not refused")
