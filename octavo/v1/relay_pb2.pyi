from octavo.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RelayAttachRequest(_message.Message):
    __slots__ = ("paused_call_ids", "resumed_call_ids")
    PAUSED_CALL_IDS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_CALL_IDS_FIELD_NUMBER: _ClassVar[int]
    paused_call_ids: _containers.RepeatedScalarFieldContainer[int]
    resumed_call_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, paused_call_ids: _Optional[_Iterable[int]] = ..., resumed_call_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RelayAttachResponse(_message.Message):
    __slots__ = ("relay_id", "call_ids", "output_indices", "num_tokens", "texts", "finished")
    RELAY_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_IDS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDICES_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    relay_id: bytes
    call_ids: _containers.RepeatedScalarFieldContainer[int]
    output_indices: _containers.RepeatedScalarFieldContainer[int]
    num_tokens: _containers.RepeatedScalarFieldContainer[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    finished: _containers.RepeatedCompositeFieldContainer[RelayedFinish]
    def __init__(self, relay_id: _Optional[bytes] = ..., call_ids: _Optional[_Iterable[int]] = ..., output_indices: _Optional[_Iterable[int]] = ..., num_tokens: _Optional[_Iterable[int]] = ..., texts: _Optional[_Iterable[str]] = ..., finished: _Optional[_Iterable[_Union[RelayedFinish, _Mapping]]] = ...) -> None: ...

class RelayedFinish(_message.Message):
    __slots__ = ("call_id", "finished")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    finished: _inference_pb2.Finished
    def __init__(self, call_id: _Optional[int] = ..., finished: _Optional[_Union[_inference_pb2.Finished, _Mapping]] = ...) -> None: ...
