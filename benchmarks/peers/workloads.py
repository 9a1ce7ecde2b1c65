"""The workloads W1 to W7 of the comparison with peers, and what is served; prompts of token ids."""

import math
import random
from dataclasses import dataclass, replace

# Of all vocabularies, and no special tokens.
_TOKEN_IDS = range(1000, 30_000)
_MOST_TOKENS = 1024
"""Of a prompt or an output whose length is drawn."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, and exactly how many tokens must follow it."""

    prompt_token_ids: list[int]
    output_len: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OfflineWorkload:
    """Requests that are all there from the start, without a network."""

    name: str
    num_requests: int
    input_len: int
    output_len: int
    common_len: int = 0
    """Tokens that all prompts begin with, in front of `input_len` of their own."""
    sigma: float = 0.0
    """Of the lognormal distribution that both lengths, then means, are drawn from; 0: all alike."""
    counts_input: bool = False
    """Whether throughput counts the prompts' tokens too: where they are the work."""

    @property
    def title(self) -> str:
        prompt = f"({self.common_len} common + {self.input_len})" if self.common_len else ""
        about = "about " if self.sigma else ""
        return f"{self.num_requests} × {about}{prompt or self.input_len}/{self.output_len}"

    def scaled(self, scale: float) -> "OfflineWorkload":
        """Return it with fewer requests of the same lengths, so that the mix of work stays."""
        return replace(self, num_requests=max(1, round(self.num_requests * scale)))

    def requests(self, seed: int) -> list[Request]:
        draw = random.Random(f"{self.name} {seed}")
        common = draw.choices(_TOKEN_IDS, k=self.common_len)
        return [
            Request(
                common + draw.choices(_TOKEN_IDS, k=self._length(draw, self.input_len)),
                self._length(draw, self.output_len),
            )
            for _ in range(self.num_requests)
        ]

    def num_cacheable_tokens(self) -> int:
        """Return how many prompt tokens a prefix cache may save; more means a wrong measurement."""
        return self.common_len * (self.num_requests - 1)

    def _length(self, draw: random.Random, mean: int) -> int:
        if not self.sigma:
            return mean
        location = math.log(mean) - self.sigma**2 / 2
        return max(1, min(_MOST_TOKENS, round(draw.lognormvariate(location, self.sigma))))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedWorkload:
    """Requests over HTTP, of which so many are under way at once."""

    name: str
    concurrency: int
    num_requests: int
    input_len: int
    output_len: int
    request_rate: float = math.inf
    """A second; inf: as soon as fewer than `concurrency` are under way."""
    counts_input: bool = False

    @property
    def title(self) -> str:
        rate = f", {self.request_rate:g}/s" if math.isfinite(self.request_rate) else ""
        return f"served, {self.concurrency} at once, {self.input_len}/{self.output_len}{rate}"

    def scaled(self, scale: float) -> "ServedWorkload":
        """Return it with fewer requests, down to as many as are under way at once."""
        return replace(self, num_requests=max(self.concurrency, round(self.num_requests * scale)))


Workload = OfflineWorkload | ServedWorkload

WORKLOADS: dict[str, Workload] = {
    each.name: each
    for each in (
        OfflineWorkload(name="W1", num_requests=64, input_len=128, output_len=128),
        OfflineWorkload(name="W2", num_requests=128, input_len=202, output_len=179, sigma=1.0),
        OfflineWorkload(name="W3", num_requests=64, input_len=32, output_len=256),
        OfflineWorkload(
            name="W4", num_requests=64, input_len=1024, output_len=16, counts_input=True
        ),
        OfflineWorkload(name="W5", num_requests=64, common_len=1024, input_len=32, output_len=32),
        OfflineWorkload(name="W6", num_requests=1000, input_len=16, output_len=16),
        OfflineWorkload(name="W7", num_requests=1, input_len=128, output_len=256),
        # Twice what two cores can do, for 30 seconds.
        ServedWorkload(
            name="W9",
            concurrency=256,
            num_requests=300,
            input_len=128,
            output_len=128,
            request_rate=10.0,
        ),
        ServedWorkload(name="S1", concurrency=1, num_requests=4, input_len=128, output_len=128),
        ServedWorkload(name="S16", concurrency=16, num_requests=48, input_len=128, output_len=128),
        ServedWorkload(name="S64", concurrency=64, num_requests=128, input_len=128, output_len=128),
    )
}
