"""Log-probabilities as the OpenAI API words them: one shape for chats, another for completions.

A token may be half a character. Chats give its bytes beside the text; completions, which have only
text, spell such a token `bytes:\\xe2\\x82`, as OpenAI does.
"""

import codecs
from collections.abc import Sequence

from octavo.v1 import common_pb2
from octavo.v1.inference_pb2 import TokenText

from .openai_answers import (
    ChatLogprob,
    ChatLogprobs,
    CompletionLogprobs,
    PromptLogprob,
    TopLogprob,
)

_LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON does not have (as OpenAI and vLLM)."""


def chat_logprobs(tokens: Sequence[TokenText]) -> ChatLogprobs:
    return ChatLogprobs([_chat_logprob(token) for token in tokens])


def prompt_logprobs(
    tokens: Sequence[TokenText],
) -> list[dict[int, PromptLogprob] | None]:
    """Return vLLM's form: by token id, the chosen token first; None where there is nothing."""
    return [_prompt_logprob(token) for token in tokens]


class CompletionLogprobsWriter:
    """Makes the log-probabilities of one choice of a completion, piece by piece.

    `text_offset` counts the whole characters before a token, so that half a character does not
    move the tokens after it.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def write(self, tokens: Sequence[TokenText]) -> CompletionLogprobs:
        """Return the entries of the tokens that come next."""
        entries = CompletionLogprobs()
        for token in tokens:
            text = _text(token)
            entries.tokens.append(_spelled(text))
            entries.text_offset.append(self._offset)
            self._offset += len(self._decoder.decode(text))
            logprobs = token.logprobs
            if not _has_logprob(token):
                entries.token_logprobs.append(None)
                entries.top_logprobs.append(None)
                continue
            entries.token_logprobs.append(_finite(logprobs.chosen.logprob))
            # The chosen token is there whether or not it is one of the best.
            best = {_spelled(text): _finite(logprobs.chosen.logprob)}
            for candidate, its_text in zip(logprobs.top, token.texts[1:], strict=True):
                best[_spelled(its_text)] = _finite(candidate.logprob)
            entries.top_logprobs.append(best)
        return entries


def _chat_logprob(token: TokenText) -> ChatLogprob:
    text = _text(token)
    top = [
        TopLogprob(_shown(its_text), _finite(candidate.logprob), list(its_text))
        for candidate, its_text in zip(token.logprobs.top, token.texts[1:], strict=True)
    ]
    return ChatLogprob(_shown(text), _finite(token.logprobs.chosen.logprob), list(text), top)


def _prompt_logprob(token: TokenText) -> dict[int, PromptLogprob] | None:
    if not _has_logprob(token):
        return None
    candidates: list[common_pb2.TokenLogprob] = [token.logprobs.chosen, *token.logprobs.top]
    return {
        candidate.token_id: PromptLogprob(_finite(candidate.logprob), candidate.rank, _shown(text))
        for candidate, text in zip(candidates, token.texts, strict=True)
    }


def _has_logprob(token: TokenText) -> bool:
    """Return False for the first token of a prompt, which nothing comes before."""
    return token.logprobs.chosen.rank > 0


def _text(token: TokenText) -> bytes:
    """Return the token's bytes; none where the router could not tell them."""
    return token.texts[0] if token.texts else b""


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)


def _shown(text: bytes) -> str:
    return text.decode(errors="replace")


def _spelled(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)
