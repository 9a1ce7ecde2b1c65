"""Text ⇄ token ids, as one model does it. Its calls release the GIL: run them on a thread."""

from collections.abc import Sequence

import tokenizers

from .detokenizer import Detokenizer, detokenizer_factory


class Tokenizer:
    """The tokenizer of a model."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Raises StartupError if outputs of this tokenizer cannot be detokenized as they grow."""
        # Some files cut or fill what they are given; a prompt is to arrive as it is.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._new_detokenizer = detokenizer_factory(tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids that stand for themselves; special tokens have none."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def detokenizer(self) -> Detokenizer:
        """Return what turns the tokens of one output to text as they come."""
        return self._new_detokenizer()
