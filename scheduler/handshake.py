"""Whether a worker that says it is ready can join; a difference is named with both values."""

from octavo.v1 import step_pb2
from octavo.version import PROTOCOL_VERSION

_HASH_BYTES = 16


def refusal(
    ready: step_pb2.WorkerReady, first: step_pb2.WorkerReady | None, epoch: int
) -> str | None:
    """Return why the worker is refused, or None.

    Args:
        ready: what the worker says of itself.
        first: what the first worker of this scheduler said; all others serve the same model with
            it, and whoever replaces it has to hold what is planned for it.
        epoch: of this scheduler; 0 if none has been chosen yet.
    """
    if ready.protocol_version != PROTOCOL_VERSION:
        return (
            f"the worker speaks protocol version {ready.protocol_version}, the scheduler"
            f" {PROTOCOL_VERSION}; run the same release of both"
        )
    if ready.stage or ready.rank:
        return f"the worker is rank {ready.rank} of stage {ready.stage}, the group has one rank"
    if (nonsense := _nonsense(ready)) is not None:
        return nonsense
    if epoch and ready.last_epoch >= epoch:
        return (
            f"the worker has served epoch {ready.last_epoch}, the scheduler has epoch {epoch}:"
            " it has to start again"
        )
    return _difference(ready, first) if first is not None else None


def _nonsense(ready: step_pb2.WorkerReady) -> str | None:
    """Return what no worker can mean, or None."""
    if len(ready.model_hash) != _HASH_BYTES:
        return f"model_hash has {len(ready.model_hash)} bytes, not {_HASH_BYTES}"
    if not ready.kv_groups or not all(group.num_blocks for group in ready.kv_groups):
        return "the worker has no KV blocks"
    for field in ("block_size", "num_rows", "vocab_size", "max_model_len"):
        if getattr(ready, field) < 1:
            return f"{field} is 0"
    if ready.max_num_batched_tokens < 1:
        return "max_num_batched_tokens is 0"
    return None


def _difference(ready: step_pb2.WorkerReady, first: step_pb2.WorkerReady) -> str | None:
    if ready.model_hash != first.model_hash:
        return (
            f"model hash: the worker has {ready.model_hash.hex()} ({ready.model_path},"
            f" {ready.dtype}), the group {first.model_hash.hex()} ({first.model_path},"
            f" {first.dtype})"
        )
    same = ("block_size", "vocab_size")
    at_least = ("num_rows", "max_model_len", "max_num_batched_tokens")
    for field in same + at_least:
        theirs, ours = getattr(ready, field), getattr(first, field)
        if theirs < ours or (field in same and theirs != ours):
            return f"{field}: the worker has {theirs}, the group {ours}"
    theirs_blocks = [group.num_blocks for group in ready.kv_groups]
    ours_blocks = [group.num_blocks for group in first.kv_groups]
    if len(theirs_blocks) != len(ours_blocks) or any(
        theirs < ours for theirs, ours in zip(theirs_blocks, ours_blocks, strict=True)
    ):
        return (
            f"KV blocks: the worker has {theirs_blocks}, the group {ours_blocks}; start it with the"
            " same --kv-cache-memory-bytes"
        )
    return None
