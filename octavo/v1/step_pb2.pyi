from octavo.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GrammarKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRAMMAR_KIND_UNSPECIFIED: _ClassVar[GrammarKind]
    GRAMMAR_KIND_JSON_SCHEMA: _ClassVar[GrammarKind]
    GRAMMAR_KIND_REGEX: _ClassVar[GrammarKind]
    GRAMMAR_KIND_LARK: _ClassVar[GrammarKind]
    GRAMMAR_KIND_CHOICE: _ClassVar[GrammarKind]

class WorkerPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_PHASE_UNSPECIFIED: _ClassVar[WorkerPhase]
    WORKER_PHASE_IDLE: _ClassVar[WorkerPhase]
    WORKER_PHASE_STAGE: _ClassVar[WorkerPhase]
    WORKER_PHASE_FORWARD: _ClassVar[WorkerPhase]
    WORKER_PHASE_SAMPLE: _ClassVar[WorkerPhase]
    WORKER_PHASE_SEND: _ClassVar[WorkerPhase]
GRAMMAR_KIND_UNSPECIFIED: GrammarKind
GRAMMAR_KIND_JSON_SCHEMA: GrammarKind
GRAMMAR_KIND_REGEX: GrammarKind
GRAMMAR_KIND_LARK: GrammarKind
GRAMMAR_KIND_CHOICE: GrammarKind
WORKER_PHASE_UNSPECIFIED: WorkerPhase
WORKER_PHASE_IDLE: WorkerPhase
WORKER_PHASE_STAGE: WorkerPhase
WORKER_PHASE_FORWARD: WorkerPhase
WORKER_PHASE_SAMPLE: WorkerPhase
WORKER_PHASE_SEND: WorkerPhase

class SchedulerFrame(_message.Message):
    __slots__ = ("welcome", "refused", "plan", "heartbeat", "control")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    welcome: WorkerWelcome
    refused: WorkerRefused
    plan: StepPlan
    heartbeat: Heartbeat
    control: ControlRequest
    def __init__(self, welcome: _Optional[_Union[WorkerWelcome, _Mapping]] = ..., refused: _Optional[_Union[WorkerRefused, _Mapping]] = ..., plan: _Optional[_Union[StepPlan, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., control: _Optional[_Union[ControlRequest, _Mapping]] = ...) -> None: ...

class WorkerFrame(_message.Message):
    __slots__ = ("ready", "result", "ack", "heartbeat", "control", "plan_refused")
    READY_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    PLAN_REFUSED_FIELD_NUMBER: _ClassVar[int]
    ready: WorkerReady
    result: StepResult
    ack: StepAck
    heartbeat: Heartbeat
    control: ControlResponse
    plan_refused: PlanRefused
    def __init__(self, ready: _Optional[_Union[WorkerReady, _Mapping]] = ..., result: _Optional[_Union[StepResult, _Mapping]] = ..., ack: _Optional[_Union[StepAck, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., control: _Optional[_Union[ControlResponse, _Mapping]] = ..., plan_refused: _Optional[_Union[PlanRefused, _Mapping]] = ...) -> None: ...

class StepPlan(_message.Message):
    __slots__ = ("epoch", "step_id", "freed_rows", "added_rows", "forked_rows", "row", "num_new_tokens", "needs_sample", "max_draft_tokens", "await_result", "groups")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    FREED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ADDED_ROWS_FIELD_NUMBER: _ClassVar[int]
    FORKED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEEDS_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    MAX_DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AWAIT_RESULT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step_id: int
    freed_rows: _containers.RepeatedScalarFieldContainer[int]
    added_rows: _containers.RepeatedCompositeFieldContainer[AddedRow]
    forked_rows: _containers.RepeatedCompositeFieldContainer[ForkedRow]
    row: _containers.RepeatedScalarFieldContainer[int]
    num_new_tokens: _containers.RepeatedScalarFieldContainer[int]
    needs_sample: _containers.RepeatedScalarFieldContainer[int]
    max_draft_tokens: _containers.RepeatedScalarFieldContainer[int]
    await_result: _containers.RepeatedScalarFieldContainer[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupBlocks]
    def __init__(self, epoch: _Optional[int] = ..., step_id: _Optional[int] = ..., freed_rows: _Optional[_Iterable[int]] = ..., added_rows: _Optional[_Iterable[_Union[AddedRow, _Mapping]]] = ..., forked_rows: _Optional[_Iterable[_Union[ForkedRow, _Mapping]]] = ..., row: _Optional[_Iterable[int]] = ..., num_new_tokens: _Optional[_Iterable[int]] = ..., needs_sample: _Optional[_Iterable[int]] = ..., max_draft_tokens: _Optional[_Iterable[int]] = ..., await_result: _Optional[_Iterable[int]] = ..., groups: _Optional[_Iterable[_Union[GroupBlocks, _Mapping]]] = ...) -> None: ...

class GroupBlocks(_message.Message):
    __slots__ = ("grown_row", "num_new_blocks", "block_ids", "num_front_blocks_dropped", "copy_row", "copy_source", "copy_target", "sealed_block_ids", "sealed_block_hashes")
    GROWN_ROW_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_FRONT_BLOCKS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    COPY_ROW_FIELD_NUMBER: _ClassVar[int]
    COPY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    COPY_TARGET_FIELD_NUMBER: _ClassVar[int]
    SEALED_BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    SEALED_BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    grown_row: _containers.RepeatedScalarFieldContainer[int]
    num_new_blocks: _containers.RepeatedScalarFieldContainer[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    num_front_blocks_dropped: _containers.RepeatedScalarFieldContainer[int]
    copy_row: _containers.RepeatedScalarFieldContainer[int]
    copy_source: _containers.RepeatedScalarFieldContainer[int]
    copy_target: _containers.RepeatedScalarFieldContainer[int]
    sealed_block_ids: _containers.RepeatedScalarFieldContainer[int]
    sealed_block_hashes: bytes
    def __init__(self, grown_row: _Optional[_Iterable[int]] = ..., num_new_blocks: _Optional[_Iterable[int]] = ..., block_ids: _Optional[_Iterable[int]] = ..., num_front_blocks_dropped: _Optional[_Iterable[int]] = ..., copy_row: _Optional[_Iterable[int]] = ..., copy_source: _Optional[_Iterable[int]] = ..., copy_target: _Optional[_Iterable[int]] = ..., sealed_block_ids: _Optional[_Iterable[int]] = ..., sealed_block_hashes: _Optional[bytes] = ...) -> None: ...

class AddedRow(_message.Message):
    __slots__ = ("row", "request_key", "output_index", "token_ids", "num_prompt_tokens", "num_computed_tokens", "block_tables", "sampling", "seed", "adapter", "media", "grammar", "num_logprobs", "num_prompt_logprobs", "stop_token_ids", "min_tokens", "bad_words")
    ROW_FIELD_NUMBER: _ClassVar[int]
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TABLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    NUM_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BAD_WORDS_FIELD_NUMBER: _ClassVar[int]
    row: int
    request_key: bytes
    output_index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    num_prompt_tokens: int
    num_computed_tokens: int
    block_tables: _containers.RepeatedCompositeFieldContainer[BlockTable]
    sampling: _common_pb2.SamplingParams
    seed: int
    adapter: str
    media: _containers.RepeatedCompositeFieldContainer[Media]
    grammar: Grammar
    num_logprobs: int
    num_prompt_logprobs: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    min_tokens: int
    bad_words: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenIds]
    def __init__(self, row: _Optional[int] = ..., request_key: _Optional[bytes] = ..., output_index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., num_prompt_tokens: _Optional[int] = ..., num_computed_tokens: _Optional[int] = ..., block_tables: _Optional[_Iterable[_Union[BlockTable, _Mapping]]] = ..., sampling: _Optional[_Union[_common_pb2.SamplingParams, _Mapping]] = ..., seed: _Optional[int] = ..., adapter: _Optional[str] = ..., media: _Optional[_Iterable[_Union[Media, _Mapping]]] = ..., grammar: _Optional[_Union[Grammar, _Mapping]] = ..., num_logprobs: _Optional[int] = ..., num_prompt_logprobs: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., min_tokens: _Optional[int] = ..., bad_words: _Optional[_Iterable[_Union[_common_pb2.TokenIds, _Mapping]]] = ...) -> None: ...

class BlockTable(_message.Message):
    __slots__ = ("block_ids",)
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, block_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ForkedRow(_message.Message):
    __slots__ = ("source_row", "row", "request_key", "output_index", "seed", "num_shared_blocks")
    SOURCE_ROW_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    source_row: int
    row: int
    request_key: bytes
    output_index: int
    seed: int
    num_shared_blocks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, source_row: _Optional[int] = ..., row: _Optional[int] = ..., request_key: _Optional[bytes] = ..., output_index: _Optional[int] = ..., seed: _Optional[int] = ..., num_shared_blocks: _Optional[_Iterable[int]] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("hash", "position", "num_tokens", "content")
    HASH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    position: int
    num_tokens: int
    content: bytes
    def __init__(self, hash: _Optional[bytes] = ..., position: _Optional[int] = ..., num_tokens: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class Grammar(_message.Message):
    __slots__ = ("kind", "source", "hash", "max_step_items")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    MAX_STEP_ITEMS_FIELD_NUMBER: _ClassVar[int]
    kind: GrammarKind
    source: str
    hash: bytes
    max_step_items: int
    def __init__(self, kind: _Optional[_Union[GrammarKind, str]] = ..., source: _Optional[str] = ..., hash: _Optional[bytes] = ..., max_step_items: _Optional[int] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("epoch", "step_id", "token_ids", "num_tokens", "num_drafted_tokens", "logprobs", "prompt_logprobs", "pooled", "errors", "grammar_finished_rows", "timings")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FINISHED_ROWS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step_id: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    num_tokens: _containers.RepeatedScalarFieldContainer[int]
    num_drafted_tokens: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.PositionLogprobs]
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[PromptLogprobs]
    pooled: _containers.RepeatedCompositeFieldContainer[PooledVector]
    errors: _containers.RepeatedCompositeFieldContainer[RowError]
    grammar_finished_rows: _containers.RepeatedScalarFieldContainer[int]
    timings: StepTimings
    def __init__(self, epoch: _Optional[int] = ..., step_id: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., num_tokens: _Optional[_Iterable[int]] = ..., num_drafted_tokens: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.PositionLogprobs, _Mapping]]] = ..., prompt_logprobs: _Optional[_Iterable[_Union[PromptLogprobs, _Mapping]]] = ..., pooled: _Optional[_Iterable[_Union[PooledVector, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., grammar_finished_rows: _Optional[_Iterable[int]] = ..., timings: _Optional[_Union[StepTimings, _Mapping]] = ...) -> None: ...

class PromptLogprobs(_message.Message):
    __slots__ = ("row", "first_position", "positions")
    ROW_FIELD_NUMBER: _ClassVar[int]
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    row: int
    first_position: int
    positions: _containers.RepeatedCompositeFieldContainer[_common_pb2.PositionLogprobs]
    def __init__(self, row: _Optional[int] = ..., first_position: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[_common_pb2.PositionLogprobs, _Mapping]]] = ...) -> None: ...

class PooledVector(_message.Message):
    __slots__ = ("row", "values")
    ROW_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    row: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, row: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class RowError(_message.Message):
    __slots__ = ("row", "message")
    ROW_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    row: int
    message: str
    def __init__(self, row: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class StepTimings(_message.Message):
    __slots__ = ("receive_ns", "stage_ns", "forward_ns", "sample_ns", "copy_ns", "overlapped_ns")
    RECEIVE_NS_FIELD_NUMBER: _ClassVar[int]
    STAGE_NS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_NS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_NS_FIELD_NUMBER: _ClassVar[int]
    COPY_NS_FIELD_NUMBER: _ClassVar[int]
    OVERLAPPED_NS_FIELD_NUMBER: _ClassVar[int]
    receive_ns: int
    stage_ns: int
    forward_ns: int
    sample_ns: int
    copy_ns: int
    overlapped_ns: int
    def __init__(self, receive_ns: _Optional[int] = ..., stage_ns: _Optional[int] = ..., forward_ns: _Optional[int] = ..., sample_ns: _Optional[int] = ..., copy_ns: _Optional[int] = ..., overlapped_ns: _Optional[int] = ...) -> None: ...

class StepAck(_message.Message):
    __slots__ = ("epoch", "step_id", "phase")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step_id: int
    phase: WorkerPhase
    def __init__(self, epoch: _Optional[int] = ..., step_id: _Optional[int] = ..., phase: _Optional[_Union[WorkerPhase, str]] = ...) -> None: ...

class PlanRefused(_message.Message):
    __slots__ = ("epoch", "step_id", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step_id: int
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., step_id: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class WorkerReady(_message.Message):
    __slots__ = ("protocol_version", "incarnation", "rank", "stage", "last_epoch", "model_hash", "dtype", "block_size", "kv_groups", "num_rows", "vocab_size", "max_model_len", "eos_token_ids", "model_path", "device", "memory", "max_num_batched_tokens")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    KV_GROUPS_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    incarnation: int
    rank: int
    stage: int
    last_epoch: int
    model_hash: bytes
    dtype: str
    block_size: int
    kv_groups: _containers.RepeatedCompositeFieldContainer[KVGroup]
    num_rows: int
    vocab_size: int
    max_model_len: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    model_path: str
    device: str
    memory: MemoryLedger
    max_num_batched_tokens: int
    def __init__(self, protocol_version: _Optional[int] = ..., incarnation: _Optional[int] = ..., rank: _Optional[int] = ..., stage: _Optional[int] = ..., last_epoch: _Optional[int] = ..., model_hash: _Optional[bytes] = ..., dtype: _Optional[str] = ..., block_size: _Optional[int] = ..., kv_groups: _Optional[_Iterable[_Union[KVGroup, _Mapping]]] = ..., num_rows: _Optional[int] = ..., vocab_size: _Optional[int] = ..., max_model_len: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., model_path: _Optional[str] = ..., device: _Optional[str] = ..., memory: _Optional[_Union[MemoryLedger, _Mapping]] = ..., max_num_batched_tokens: _Optional[int] = ...) -> None: ...

class KVGroup(_message.Message):
    __slots__ = ("num_blocks", "layers", "sliding_window", "inventory_block_ids", "inventory_block_hashes")
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    num_blocks: int
    layers: _containers.RepeatedScalarFieldContainer[int]
    sliding_window: int
    inventory_block_ids: _containers.RepeatedScalarFieldContainer[int]
    inventory_block_hashes: bytes
    def __init__(self, num_blocks: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., sliding_window: _Optional[int] = ..., inventory_block_ids: _Optional[_Iterable[int]] = ..., inventory_block_hashes: _Optional[bytes] = ...) -> None: ...

class MemoryLedger(_message.Message):
    __slots__ = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "graphs_bytes")
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRAPHS_BYTES_FIELD_NUMBER: _ClassVar[int]
    weights_bytes: int
    kv_cache_bytes: int
    activations_bytes: int
    graphs_bytes: int
    def __init__(self, weights_bytes: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., activations_bytes: _Optional[int] = ..., graphs_bytes: _Optional[int] = ...) -> None: ...

class WorkerWelcome(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class WorkerRefused(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("epoch", "last_step_id", "phase", "phase_ns")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_NS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    last_step_id: int
    phase: WorkerPhase
    phase_ns: int
    def __init__(self, epoch: _Optional[int] = ..., last_step_id: _Optional[int] = ..., phase: _Optional[_Union[WorkerPhase, str]] = ..., phase_ns: _Optional[int] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("control_id", "load_adapter", "unload_adapter", "sleep", "wake", "reset_prefix_cache", "profile")
    CONTROL_ID_FIELD_NUMBER: _ClassVar[int]
    LOAD_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    SLEEP_FIELD_NUMBER: _ClassVar[int]
    WAKE_FIELD_NUMBER: _ClassVar[int]
    RESET_PREFIX_CACHE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    control_id: int
    load_adapter: LoadAdapter
    unload_adapter: UnloadAdapter
    sleep: Sleep
    wake: Wake
    reset_prefix_cache: ResetPrefixCache
    profile: Profile
    def __init__(self, control_id: _Optional[int] = ..., load_adapter: _Optional[_Union[LoadAdapter, _Mapping]] = ..., unload_adapter: _Optional[_Union[UnloadAdapter, _Mapping]] = ..., sleep: _Optional[_Union[Sleep, _Mapping]] = ..., wake: _Optional[_Union[Wake, _Mapping]] = ..., reset_prefix_cache: _Optional[_Union[ResetPrefixCache, _Mapping]] = ..., profile: _Optional[_Union[Profile, _Mapping]] = ...) -> None: ...

class LoadAdapter(_message.Message):
    __slots__ = ("name", "path")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class UnloadAdapter(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Sleep(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Wake(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetPrefixCache(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Profile(_message.Message):
    __slots__ = ("num_steps",)
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    num_steps: int
    def __init__(self, num_steps: _Optional[int] = ...) -> None: ...

class ControlResponse(_message.Message):
    __slots__ = ("control_id", "error")
    CONTROL_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    control_id: int
    error: str
    def __init__(self, control_id: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...
