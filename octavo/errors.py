"""Errors that cross a process boundary, and how they travel as gRPC statuses.

RequestError                 a status for the client; never a traceback
├── InvalidArgument          INVALID_ARGUMENT     a field is wrong: BadRequest names it
├── Unauthenticated          UNAUTHENTICATED      no key, or a wrong one
├── PermissionDenied         PERMISSION_DENIED    the key does not allow it
├── NotFound                 NOT_FOUND            no such model
├── Overloaded               RESOURCE_EXHAUSTED   too much is queued: RetryInfo says when
├── Unavailable              UNAVAILABLE          starting or draining: RetryInfo says when
├── FailedPrecondition       FAILED_PRECONDITION  not in this state
├── DeadlineExceeded         DEADLINE_EXCEEDED    the client's time is up
├── Unsupported              UNIMPLEMENTED        not offered
└── InternalError            INTERNAL             ours; the text tells the client no internals
"""

from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status


class RequestError(Exception):
    """Fails one request with a status; `message` is one sentence of cause and one of remedy."""

    code: ClassVar[grpc.StatusCode]

    def __init__(
        self, message: str, *, field: str = "", retry_after_s: float | None = None
    ) -> None:
        """`field` names the field of the request at fault, as the client spelled it."""
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def to_status(self) -> status_pb2.Status:
        """Return the status, with BadRequest and RetryInfo where they apply."""
        details = []
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status


class InvalidArgument(RequestError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(RequestError):
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(RequestError):
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(RequestError):
    code = grpc.StatusCode.NOT_FOUND


class Overloaded(RequestError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(RequestError):
    code = grpc.StatusCode.UNAVAILABLE


class FailedPrecondition(RequestError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class DeadlineExceeded(RequestError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unsupported(RequestError):
    code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(RequestError):
    code = grpc.StatusCode.INTERNAL


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: RequestError) -> None:
    """End the rpc with the error's status and details."""
    await context.abort_with_status(rpc_status.to_status(error.to_status()))


def from_rpc_error(error: grpc.aio.AioRpcError) -> RequestError:
    """Return the RequestError that a status from another of our processes stands for."""
    field, retry_after_s = "", None
    for packed in _details(error):
        if packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            packed.Unpack(bad_request)
            field = bad_request.field_violations[0].field
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_info = error_details_pb2.RetryInfo()
            packed.Unpack(retry_info)
            retry_after_s = retry_info.retry_delay.ToNanoseconds() / 1e9
    kind = _BY_CODE.get(error.code(), InternalError)
    return kind(error.details() or error.code().name, field=field, retry_after_s=retry_after_s)


def _details(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status()
            status.ParseFromString(value)
            return list(status.details) if status.code != code_pb2.OK else []
    return []


_BY_CODE = {kind.code: kind for kind in RequestError.__subclasses__()}
