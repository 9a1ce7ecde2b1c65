from octavo.v1 import common_pb2 as _common_pb2
from octavo.v1 import step_pb2 as _step_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AbortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABORT_REASON_UNSPECIFIED: _ClassVar[AbortReason]
    ABORT_REASON_CLIENT: _ClassVar[AbortReason]
    ABORT_REASON_STOP_STRING: _ClassVar[AbortReason]
    ABORT_REASON_SLOW_READER: _ClassVar[AbortReason]
ABORT_REASON_UNSPECIFIED: AbortReason
ABORT_REASON_CLIENT: AbortReason
ABORT_REASON_STOP_STRING: AbortReason
ABORT_REASON_SLOW_READER: AbortReason

class AttachRequest(_message.Message):
    __slots__ = ("hello", "abort", "window")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    abort: Abort
    window: Window
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("welcome", "outputs", "load")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    outputs: StepOutputs
    load: Load
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., outputs: _Optional[_Union[StepOutputs, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("router_id", "incarnation", "protocol_version", "open_requests")
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    router_id: bytes
    incarnation: int
    protocol_version: int
    open_requests: _containers.RepeatedCompositeFieldContainer[OpenRequest]
    def __init__(self, router_id: _Optional[bytes] = ..., incarnation: _Optional[int] = ..., protocol_version: _Optional[int] = ..., open_requests: _Optional[_Iterable[_Union[OpenRequest, _Mapping]]] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("request_key", "num_received_tokens")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    NUM_RECEIVED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_key: bytes
    num_received_tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request_key: _Optional[bytes] = ..., num_received_tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "model", "known_request_keys")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KNOWN_REQUEST_KEYS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model: ModelInfo
    known_request_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, protocol_version: _Optional[int] = ..., model: _Optional[_Union[ModelInfo, _Mapping]] = ..., known_request_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("served_names", "path", "max_model_len", "vocab_size", "eos_token_ids", "block_size", "model_hash", "adapters", "tokenizer_hash", "created_s", "has_priorities")
    SERVED_NAMES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_HASH_FIELD_NUMBER: _ClassVar[int]
    CREATED_S_FIELD_NUMBER: _ClassVar[int]
    HAS_PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    served_names: _containers.RepeatedScalarFieldContainer[str]
    path: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    block_size: int
    model_hash: bytes
    adapters: _containers.RepeatedScalarFieldContainer[str]
    tokenizer_hash: bytes
    created_s: int
    has_priorities: bool
    def __init__(self, served_names: _Optional[_Iterable[str]] = ..., path: _Optional[str] = ..., max_model_len: _Optional[int] = ..., vocab_size: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., block_size: _Optional[int] = ..., model_hash: _Optional[bytes] = ..., adapters: _Optional[_Iterable[str]] = ..., tokenizer_hash: _Optional[bytes] = ..., created_s: _Optional[int] = ..., has_priorities: _Optional[bool] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("request_key", "router_id", "tenant", "priority", "timeout_ns", "arrival_ns", "prompt_token_ids", "block_hashes", "delivered", "n", "sampling", "seeds", "max_tokens", "stop_token_ids", "adapter", "media", "grammar", "blob", "traceparent", "resume_window_ns", "min_tokens", "bad_words", "num_logprobs", "num_prompt_logprobs", "cache_salt")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NS_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_NS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    RESUME_WINDOW_NS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BAD_WORDS_FIELD_NUMBER: _ClassVar[int]
    NUM_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    request_key: bytes
    router_id: bytes
    tenant: str
    priority: int
    timeout_ns: int
    arrival_ns: int
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    block_hashes: bytes
    delivered: _containers.RepeatedCompositeFieldContainer[DeliveredTokens]
    n: int
    sampling: _common_pb2.SamplingParams
    seeds: _containers.RepeatedScalarFieldContainer[int]
    max_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    adapter: str
    media: _containers.RepeatedCompositeFieldContainer[_step_pb2.Media]
    grammar: _step_pb2.Grammar
    blob: bytes
    traceparent: str
    resume_window_ns: int
    min_tokens: int
    bad_words: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenIds]
    num_logprobs: int
    num_prompt_logprobs: int
    cache_salt: bytes
    def __init__(self, request_key: _Optional[bytes] = ..., router_id: _Optional[bytes] = ..., tenant: _Optional[str] = ..., priority: _Optional[int] = ..., timeout_ns: _Optional[int] = ..., arrival_ns: _Optional[int] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., block_hashes: _Optional[bytes] = ..., delivered: _Optional[_Iterable[_Union[DeliveredTokens, _Mapping]]] = ..., n: _Optional[int] = ..., sampling: _Optional[_Union[_common_pb2.SamplingParams, _Mapping]] = ..., seeds: _Optional[_Iterable[int]] = ..., max_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., adapter: _Optional[str] = ..., media: _Optional[_Iterable[_Union[_step_pb2.Media, _Mapping]]] = ..., grammar: _Optional[_Union[_step_pb2.Grammar, _Mapping]] = ..., blob: _Optional[bytes] = ..., traceparent: _Optional[str] = ..., resume_window_ns: _Optional[int] = ..., min_tokens: _Optional[int] = ..., bad_words: _Optional[_Iterable[_Union[_common_pb2.TokenIds, _Mapping]]] = ..., num_logprobs: _Optional[int] = ..., num_prompt_logprobs: _Optional[int] = ..., cache_salt: _Optional[bytes] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeliveredTokens(_message.Message):
    __slots__ = ("output_index", "token_ids")
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    output_index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, output_index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("request_key", "output_index", "reason", "final_token_count")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINAL_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_key: bytes
    output_index: int
    reason: AbortReason
    final_token_count: int
    def __init__(self, request_key: _Optional[bytes] = ..., output_index: _Optional[int] = ..., reason: _Optional[_Union[AbortReason, str]] = ..., final_token_count: _Optional[int] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("request_key", "output_index", "max_position")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITION_FIELD_NUMBER: _ClassVar[int]
    request_key: bytes
    output_index: int
    max_position: int
    def __init__(self, request_key: _Optional[bytes] = ..., output_index: _Optional[int] = ..., max_position: _Optional[int] = ...) -> None: ...

class StepOutputs(_message.Message):
    __slots__ = ("request_key", "output_index", "first_position", "num_tokens", "token_ids", "logprobs", "finished", "prompt_logprobs")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    request_key: _containers.RepeatedScalarFieldContainer[bytes]
    output_index: _containers.RepeatedScalarFieldContainer[int]
    first_position: _containers.RepeatedScalarFieldContainer[int]
    num_tokens: _containers.RepeatedScalarFieldContainer[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.PositionLogprobs]
    finished: _containers.RepeatedCompositeFieldContainer[OutputFinished]
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[PromptPart]
    def __init__(self, request_key: _Optional[_Iterable[bytes]] = ..., output_index: _Optional[_Iterable[int]] = ..., first_position: _Optional[_Iterable[int]] = ..., num_tokens: _Optional[_Iterable[int]] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.PositionLogprobs, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[OutputFinished, _Mapping]]] = ..., prompt_logprobs: _Optional[_Iterable[_Union[PromptPart, _Mapping]]] = ...) -> None: ...

class PromptPart(_message.Message):
    __slots__ = ("request_key", "first_position", "positions")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    request_key: bytes
    first_position: int
    positions: _containers.RepeatedCompositeFieldContainer[_common_pb2.PositionLogprobs]
    def __init__(self, request_key: _Optional[bytes] = ..., first_position: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[_common_pb2.PositionLogprobs, _Mapping]]] = ...) -> None: ...

class OutputFinished(_message.Message):
    __slots__ = ("request_key", "output_index", "reason", "stop_token_id", "error", "usage")
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    request_key: bytes
    output_index: int
    reason: _common_pb2.FinishReason
    stop_token_id: int
    error: str
    usage: _common_pb2.Usage
    def __init__(self, request_key: _Optional[bytes] = ..., output_index: _Optional[int] = ..., reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., stop_token_id: _Optional[int] = ..., error: _Optional[str] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("num_waiting", "num_running", "num_free_blocks", "num_blocks", "is_draining", "cached_prefixes")
    NUM_WAITING_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_FREE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    CACHED_PREFIXES_FIELD_NUMBER: _ClassVar[int]
    num_waiting: int
    num_running: int
    num_free_blocks: int
    num_blocks: int
    is_draining: bool
    cached_prefixes: bytes
    def __init__(self, num_waiting: _Optional[int] = ..., num_running: _Optional[int] = ..., num_free_blocks: _Optional[int] = ..., num_blocks: _Optional[int] = ..., is_draining: _Optional[bool] = ..., cached_prefixes: _Optional[bytes] = ...) -> None: ...
