"""Text ⇄ token ids, as one model does it. Its calls release the GIL: run long ones on a thread."""

from collections.abc import Sequence

import tokenizers

from .detokenizer import Detokenizer, TokenPieces


class Tokenizer:
    """The tokenizer of a model."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Raises StartupError if outputs of this tokenizer cannot be detokenized as they grow."""
        # Some files cut or fill what they are given; a prompt is to arrive as it is.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._pieces = TokenPieces(tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids that stand for themselves."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        """Return what turns the tokens of one output to text as they come."""
        return self._pieces.detokenizer(skip_special_tokens=skip_special_tokens)

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of one token, be they whole characters or not."""
        return self._pieces.bytes_of(token_id)

    def spelling_of(self, token_id: int) -> str:
        """Return the token as the vocabulary has it, which is not its text: "Ġcat" for " cat"."""
        return self._tokenizer.id_to_token(token_id) or ""

    def spellings(self, text: str) -> list[list[int]]:
        """Return how a text comes in an output: at a word's start, or within one."""
        word = text.lstrip(" ")
        spelled = [self.encode(start + word, add_special_tokens=False) for start in ("", " ")]
        return spelled[:1] if spelled[0] == spelled[1] else spelled
