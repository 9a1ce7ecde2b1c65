"""One output from tokens to text that may be shown."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from .detokenizer import Detokenizer
from .stop_strings import StopStringMatcher


class OutputText:
    """Detokenizes one output, hides the token that ends it, and watches for stop strings.

    Attributes:
        num_tokens: tokens of the output so far; those after a stop string do not count.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        matcher: StopStringMatcher | None,
        stop_token_ids: AbstractSet[int],
        *,
        min_tokens: int = 0,
    ) -> None:
        """Text of the first `min_tokens` tokens is never taken for a stop string."""
        self.num_tokens = 0
        self._detokenizer = detokenizer
        self._matcher = matcher
        self._stop_token_ids = stop_token_ids
        self._min_tokens = min_tokens

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the output."""
        return None if self._matcher is None else self._matcher.matched

    def extend(self, token_ids: Sequence[int]) -> str:
        """Return the text that may be shown after these tokens."""
        if self._matcher is None:
            self.num_tokens += len(token_ids)
            return self._detokenizer.extend(self._shown(token_ids))
        parts = []
        # One by one, to know which token completes a stop string: usage counts up to it.
        for token_id in token_ids:
            if self._matcher.matched is not None:
                break
            self.num_tokens += 1
            text = self._detokenizer.extend(self._shown((token_id,)))
            parts.append(text if self.num_tokens <= self._min_tokens else self._matcher.feed(text))
        return "".join(parts)

    def finish(self) -> str:
        """Return the text that was held back; no token comes after it."""
        rest = self._detokenizer.finish()
        if self._matcher is None:
            return rest
        return self._matcher.feed(rest) + self._matcher.flush()

    def _shown(self, token_ids: Sequence[int]) -> Sequence[int]:
        """Leave out a stop token, which can only be the last."""
        if token_ids and token_ids[-1] in self._stop_token_ids:
            return token_ids[:-1]
        return token_ids
