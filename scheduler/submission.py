"""From the wire to a Request: every field is checked before anything is kept.

What a worker would refuse is refused here: a refused plan costs all requests in it a new worker.
"""

from array import array
from collections.abc import Sequence as Values

from octavo.block_hash import HASH_BYTES, BlockHash, extend_chain, root_hash
from octavo.errors import InvalidArgument, Unsupported
from octavo.v1 import scheduling_pb2

from .config import SchedulerConfig
from .request import Request, Sequence
from .sampling_checks import check_sampling

KEY_BYTES = 16


def check_request(submit: scheduling_pb2.SubmitRequest, config: SchedulerConfig) -> None:
    """Raise the RequestError that says what is wrong with the request, if anything is."""
    num_prompt_tokens = len(submit.prompt_token_ids)
    if len(submit.request_key) != KEY_BYTES:
        raise InvalidArgument(
            f"request_key has {len(submit.request_key)} bytes; it takes {KEY_BYTES}."
        )
    if not num_prompt_tokens:
        raise InvalidArgument("The prompt has no tokens; give at least one.", field="prompt")
    if num_prompt_tokens >= config.max_sequence_len:
        raise InvalidArgument(
            f"The prompt has {num_prompt_tokens} tokens and the context holds"
            f" {config.max_sequence_len}, one of them at least for the output;"
            " shorten the prompt.",
            field="prompt",
        )
    _check_token_ids(submit.prompt_token_ids, "prompt", config)
    if not 1 <= submit.n <= config.max_num_seqs:
        raise InvalidArgument(
            f"n is {submit.n}; it has to lie in 1..{config.max_num_seqs}.", field="n"
        )
    if len(submit.seeds) != submit.n:
        raise InvalidArgument(
            f"There are {len(submit.seeds)} seeds for n = {submit.n} outputs; give one for each.",
            field="seed",
        )
    if submit.max_tokens < 1:
        raise InvalidArgument("max_tokens is 0; it has to be at least 1.", field="max_tokens")
    if submit.adapter or submit.media or submit.HasField("grammar"):
        raise Unsupported("This scheduler takes no adapters, media or grammars; leave them out.")
    check_sampling(submit, config.vocab_size)
    _check_hashes(submit, config)
    _check_delivered(submit, config)


def _check_token_ids(token_ids: Values[int], field: str, config: SchedulerConfig) -> None:
    largest = max(token_ids, default=0)
    if largest >= config.vocab_size:
        raise InvalidArgument(
            f"The {field} has the token id {largest}; the model's ids are below"
            f" {config.vocab_size}.",
            field=field,
        )


def _check_hashes(submit: scheduling_pb2.SubmitRequest, config: SchedulerConfig) -> None:
    num_blocks = len(submit.prompt_token_ids) // config.block_size
    if len(submit.block_hashes) not in (0, num_blocks * HASH_BYTES):
        raise InvalidArgument(
            f"block_hashes has {len(submit.block_hashes)} bytes; {num_blocks} full blocks of"
            f" {config.block_size} tokens take {num_blocks * HASH_BYTES}."
        )


def _check_delivered(submit: scheduling_pb2.SubmitRequest, config: SchedulerConfig) -> None:
    indices = [delivered.output_index for delivered in submit.delivered]
    if len(set(indices)) != len(indices) or any(index >= submit.n for index in indices):
        raise InvalidArgument(
            f"delivered names the outputs {indices}; each may appear once, below n = {submit.n}."
        )
    limit = _max_output_tokens(submit, config)
    for delivered in submit.delivered:
        _check_token_ids(delivered.token_ids, "delivered", config)
        if len(delivered.token_ids) > limit:
            raise InvalidArgument(
                f"Output {delivered.output_index} has {len(delivered.token_ids)} tokens delivered"
                f" and may have {limit}."
            )


def _max_output_tokens(submit: scheduling_pb2.SubmitRequest, config: SchedulerConfig) -> int:
    return min(submit.max_tokens, config.max_sequence_len - len(submit.prompt_token_ids))


def build_request(
    submit: scheduling_pb2.SubmitRequest,
    config: SchedulerConfig,
    *,
    arrival: int,
    now_ns: int,
) -> Request:
    """Return the request, with a sequence for each output; `check_request` has passed."""
    root = root_hash(config.model_hash, submit.tenant, submit.adapter, submit.cache_salt)
    request = Request(
        key=submit.request_key,
        router_id=submit.router_id,
        arrival=arrival,
        priority=submit.priority if config.policy == "priority" else 0,
        adapter=submit.adapter,
        prompt_token_ids=array("I", submit.prompt_token_ids),
        root_hash=root,
        prompt_block_hashes=_prompt_hashes(submit, config, root),
        sampling=submit.sampling,
        stop_token_ids=frozenset(submit.stop_token_ids),
        min_tokens=submit.min_tokens,
        bad_words=tuple(submit.bad_words),
        num_logprobs=submit.num_logprobs if submit.HasField("num_logprobs") else None,
        num_prompt_logprobs=(
            submit.num_prompt_logprobs if submit.HasField("num_prompt_logprobs") else None
        ),
        max_output_tokens=_max_output_tokens(submit, config),
        submitted_ns=now_ns,
        expires_ns=now_ns + submit.timeout_ns if submit.HasField("timeout_ns") else None,
        resume_window_ns=submit.resume_window_ns,
        num_unfinished=submit.n,
        num_resumptions=1 if submit.delivered else 0,
    )
    delivered = {entry.output_index: entry.token_ids for entry in submit.delivered}
    request.sequences = [
        Sequence(request, index, seed, array("I", delivered.get(index, ())))
        for index, seed in enumerate(submit.seeds)
    ]
    return request


def _prompt_hashes(
    submit: scheduling_pb2.SubmitRequest, config: SchedulerConfig, root: BlockHash
) -> list[BlockHash]:
    if not config.enable_prefix_caching:
        return []
    chain = submit.block_hashes
    if not chain:
        return extend_chain(root, submit.prompt_token_ids, config.block_size)
    return [
        BlockHash(chain[start : start + HASH_BYTES]) for start in range(0, len(chain), HASH_BYTES)
    ]
