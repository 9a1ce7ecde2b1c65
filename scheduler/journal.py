"""A scheduler that remembers what happened to it, so that a run can be repeated plan by plan.

The decisions are a pure function of the events: replaying a journal gives the same plans, byte for
byte. That is how a report from elsewhere becomes a test here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from octavo.errors import RequestError
from octavo.v1 import scheduling_pb2, step_pb2

from .config import SchedulerConfig
from .results import BadResult
from .scheduler import Scheduler


class EventKind(Enum):
    SUBMIT = "submit"
    ABORT = "abort"
    WINDOW = "window"
    LOSE_ROUTER = "lose_router"
    LOSE_WORKERS = "lose_workers"
    EXPIRE = "expire"
    SCHEDULE = "schedule"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    payload: bytes = b""
    """The message, serialized, or the router's id."""
    now_ns: int = 0


class JournaledScheduler(Scheduler):
    """Scheduler that keeps its last events."""

    def __init__(self, config: SchedulerConfig, max_events: int | None = None) -> None:
        """`max_events` bounds the journal; a replay needs it whole."""
        super().__init__(config)
        self.events: deque[Event] = deque(maxlen=max_events)

    def submit(self, request: scheduling_pb2.SubmitRequest, now_ns: int) -> None:
        self.events.append(Event(EventKind.SUBMIT, request.SerializeToString(), now_ns))
        super().submit(request, now_ns)

    def abort(self, abort: scheduling_pb2.Abort, now_ns: int) -> None:
        self.events.append(Event(EventKind.ABORT, abort.SerializeToString(), now_ns))
        super().abort(abort, now_ns)

    def set_window(self, window: scheduling_pb2.Window) -> None:
        self.events.append(Event(EventKind.WINDOW, window.SerializeToString()))
        super().set_window(window)

    def lose_router(self, router_id: bytes, now_ns: int) -> None:
        self.events.append(Event(EventKind.LOSE_ROUTER, router_id, now_ns))
        super().lose_router(router_id, now_ns)

    def lose_workers(self, now_ns: int) -> None:
        self.events.append(Event(EventKind.LOSE_WORKERS, now_ns=now_ns))
        super().lose_workers(now_ns)

    def expire(self, now_ns: int) -> None:
        self.events.append(Event(EventKind.EXPIRE, now_ns=now_ns))
        super().expire(now_ns)

    def schedule(self, now_ns: int) -> step_pb2.StepPlan | None:
        self.events.append(Event(EventKind.SCHEDULE, now_ns=now_ns))
        return super().schedule(now_ns)

    def update(self, result: step_pb2.StepResult, now_ns: int) -> None:
        self.events.append(Event(EventKind.UPDATE, result.SerializeToString(), now_ns))
        super().update(result, now_ns)


def replay(config: SchedulerConfig, events: Iterable[Event]) -> Iterator[step_pb2.StepPlan]:
    """Yield the plans that the events lead to."""
    scheduler = Scheduler(config)
    for event in events:
        try:
            plan = _apply(scheduler, event)
        except (RequestError, BadResult):
            # Refused then as now.
            continue
        if plan is not None:
            yield plan


def _apply(scheduler: Scheduler, event: Event) -> step_pb2.StepPlan | None:
    payload, now_ns = event.payload, event.now_ns
    match event.kind:
        case EventKind.SUBMIT:
            scheduler.submit(scheduling_pb2.SubmitRequest.FromString(payload), now_ns)
        case EventKind.ABORT:
            scheduler.abort(scheduling_pb2.Abort.FromString(payload), now_ns)
        case EventKind.WINDOW:
            scheduler.set_window(scheduling_pb2.Window.FromString(payload))
        case EventKind.LOSE_ROUTER:
            scheduler.lose_router(payload, now_ns)
        case EventKind.LOSE_WORKERS:
            scheduler.lose_workers(now_ns)
        case EventKind.EXPIRE:
            scheduler.expire(now_ns)
        case EventKind.UPDATE:
            scheduler.update(step_pb2.StepResult.FromString(payload), now_ns)
        case EventKind.SCHEDULE:
            return scheduler.schedule(now_ns)
    return None
