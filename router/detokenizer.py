"""Token ids → text as it grows: never half a character, and joined what decoding it at once gives.

`tokenizers.decoders.DecodeStream` is not used: it decodes its window again for every token, has no
end (bytes that never become a character are lost), and takes a U+FFFD that is really there for half
a character. What a token stands for does not depend on its neighbours, so a table does it.
"""

import codecs
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import tokenizers

from octavo.startup import StartupError


class Detokenizer(Protocol):
    """The text of one output. Tokens that are not in its table have none."""

    def extend(self, token_ids: Iterable[int]) -> str:
        """Return the characters that these tokens complete."""

    def finish(self) -> str:
        """Return what is left; bytes that are no character become U+FFFD."""


class ByteLevelDetokenizer:
    """For byte-level BPE: a token is bytes, the text is UTF-8."""

    def __init__(self, pieces: Mapping[int, bytes]) -> None:
        self._pieces = pieces
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def extend(self, token_ids: Iterable[int]) -> str:
        pieces = self._pieces
        return self._decode(b"".join([pieces.get(token_id, b"") for token_id in token_ids]))

    def finish(self) -> str:
        return self._decode(b"", final=True)


class SentencePieceDetokenizer:
    """For BPE of the SentencePiece kind: a token is text, or a byte of a character that has none.

    A run of byte tokens is decoded as a whole, as `tokenizers` does: if it is not UTF-8 as a whole,
    each of its bytes is a U+FFFD. So a run is held back until the next token of the other kind.
    The output goes on after a prompt: a space at its start is kept.
    """

    def __init__(self, pieces: Mapping[int, str | bytes]) -> None:
        self._pieces = pieces
        self._run = bytearray()

    def extend(self, token_ids: Iterable[int]) -> str:
        parts: list[str] = []
        for token_id in token_ids:
            piece = self._pieces.get(token_id, "")
            if isinstance(piece, bytes):
                self._run += piece
            elif piece:
                parts += (self.finish(), piece)
        return "".join(parts)

    def finish(self) -> str:
        run, self._run = self._run, bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(run)


class TokenPieces:
    """What each token of a vocabulary stands for."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Raises StartupError if the tokenizer's decoder is of neither kind."""
        # Its state as JSON; the whole tokenizer's, vocabulary and merges, takes a quarter of a
        # second.
        decoder = tokenizer.decoder and json.loads(tokenizer.decoder.__getstate__())
        self._is_byte_level = decoder is not None and decoder["type"] == "ByteLevel"
        if not self._is_byte_level and not _is_sentencepiece(decoder):
            kind = "none" if decoder is None else json.dumps(decoder)[:200]
            raise StartupError(
                f"the tokenizer's decoder is not one that is supported: {kind}. Supported are"
                " ByteLevel, and SentencePiece's sequence Replace, ByteFallback, Fuse, Strip."
            )
        piece_of = _bytes_of if self._is_byte_level else _sentencepiece
        self._pieces: dict[int, Any] = {
            token_id: piece_of(token) for token_id, token in _text_tokens(tokenizer).items()
        }
        # A special token stands for itself, whatever the others are written in.
        special = {
            token_id: token.content.encode() if self._is_byte_level else token.content
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self._pieces_and_special = self._pieces | special

    def detokenizer(self, *, skip_special_tokens: bool) -> Detokenizer:
        """Return what turns the tokens of one output to text."""
        pieces = self._pieces if skip_special_tokens else self._pieces_and_special
        if self._is_byte_level:
            return ByteLevelDetokenizer(pieces)
        return SentencePieceDetokenizer(pieces)

    def bytes_of(self, token_id: int) -> bytes:
        """Return a token's own bytes, which need be no whole character; special ones have some."""
        piece: str | bytes = self._pieces_and_special.get(token_id, b"")
        return piece.encode() if isinstance(piece, str) else piece


def _text_tokens(tokenizer: tokenizers.Tokenizer) -> dict[int, str]:
    """Return id → token of all tokens that have text."""
    special = {
        token_id for token_id, t in tokenizer.get_added_tokens_decoder().items() if t.special
    }
    last = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    ids = (token_id for token_id in range(last + 1) if token_id not in special)
    return {i: token for i in ids if (token := tokenizer.id_to_token(i)) is not None}


def _is_sentencepiece(decoder: dict[str, Any] | None) -> bool:
    if decoder is None or decoder["type"] != "Sequence":
        return False
    replace, *others = decoder["decoders"]
    kinds = [other["type"] for other in others]
    return (
        replace == {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        and kinds[:2] == ["ByteFallback", "Fuse"]
        # Strip takes the space from the start of a text, and an output is no start.
        and others[2:] in ([], [{"type": "Strip", "content": " ", "start": 1, "stop": 0}])
    )


def _sentencepiece(token: str) -> str | bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.replace("▁", " ")


def _byte_alphabet() -> dict[str, int]:
    """Return character → byte of the alphabet in which GPT-2's vocabulary is written."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_ALPHABET = _byte_alphabet()


def _bytes_of(token: str) -> bytes:
    """Return the bytes of a token; an added one that is not in the alphabet stands for itself."""
    try:
        return bytes([BYTE_ALPHABET[character] for character in token])
    except KeyError:
        return token.encode()
