"""What requests may ask for and no scheduler does yet: refused, so that nothing is ignored."""

from octavo.errors import Unsupported
from octavo.v1 import scheduling_pb2


def refuse_unserved(submit: scheduling_pb2.SubmitRequest) -> None:
    """Raise Unsupported for a field that would be ignored."""
    if submit.HasField("num_logprobs"):
        raise Unsupported("logprobs is not offered yet; leave it out", field="logprobs")
    if submit.HasField("num_prompt_logprobs"):
        raise Unsupported(
            "prompt_logprobs is not offered yet; leave it out", field="prompt_logprobs"
        )
