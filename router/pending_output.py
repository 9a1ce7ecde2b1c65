"""One output of a request, on its way to the client."""

from dataclasses import dataclass, field

from octavo.v1 import common_pb2, inference_pb2

from .output_text import OutputText


@dataclass(slots=True)
class PendingOutput:
    """One output: what came in, and what of it has not gone out."""

    text: OutputText
    received: list[int] = field(default_factory=list)
    """All tokens from the scheduler; with the prompt, what another scheduler would go on from."""
    num_sent_tokens: int = 0
    pending_logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    """Of the tokens after those that were sent, if they are wanted."""
    pending_text: list[str] = field(default_factory=list)
    pending_finish: inference_pb2.Finished | None = None
    is_finished: bool = False
    """The client has been told, or is about to be."""
    is_closed: bool = False
    """The scheduler has said its last word about it."""
    max_position: int | None = None
    """The scheduler pauses before it; None: it need not."""

    @property
    def has_pending_text(self) -> bool:
        """Whether there is text, or tokens whose text is held back, that has not gone out."""
        return bool(self.pending_text) or self.num_sent_tokens < self.text.num_tokens

    @property
    def has_pending(self) -> bool:
        return self.has_pending_text or self.pending_finish is not None
