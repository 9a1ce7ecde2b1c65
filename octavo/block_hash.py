"""The chained hash that names a full block of a prefix: equal hash, equal KV.

    root     = H(model hash, tenant, adapter, cache salt)
    hash[i]  = H(hash[i-1], token ids of block i)          hash[-1] = root

Router and scheduler compute the same chain: the router for affinity and to keep the work off the
scheduler's step, the scheduler for blocks that outputs fill. H is BLAKE2b cut to 128 bits: two
different prefixes that share a hash would take about 2^64 tries, so a hit needs no second look.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NewType

BlockHash = NewType("BlockHash", bytes)

HASH_BYTES = 16

# Copied for each block, which takes half as long as to make one.
_NEW_HASH = blake2b(digest_size=HASH_BYTES)


@lru_cache(maxsize=256)
def root_hash(
    model_hash: bytes, tenant: str, adapter: str = "", cache_salt: bytes = b""
) -> BlockHash:
    """Return the parent of a first block: all that changes the KV or forbids sharing it."""
    digest = _NEW_HASH.copy()
    for part in (model_hash, tenant.encode(), adapter.encode(), cache_salt):
        # Lengths first, so that no two different lists of parts run together into the same bytes.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return BlockHash(digest.digest())


def extend_chain(parent: BlockHash, token_ids: Sequence[int], block_size: int) -> list[BlockHash]:
    """Return the hashes of the full blocks that `token_ids` fills, after the block `parent`."""
    tokens = array("I", token_ids).tobytes()
    stride = block_size * 4
    hashes = []
    for start in range(0, len(tokens) - stride + 1, stride):
        parent = block_hash(parent, tokens[start : start + stride])
        hashes.append(parent)
    return hashes


def block_hash(parent: BlockHash, tokens: bytes) -> BlockHash:
    """Return the hash of one block of tokens, uint32 each, after the block `parent`."""
    digest = _NEW_HASH.copy()
    digest.update(parent + tokens)
    return digest.digest()  # type: ignore[return-value]
