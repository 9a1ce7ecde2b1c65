"""Text as tokens come, against decoding all of them at once."""

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from octavo.router.detokenizer import Detokenizer
from octavo.router.tokenizer import Tokenizer
from octavo.startup import StartupError
from tests.router.tiny_tokenizers import byte_level_tokenizer, sentencepiece_tokenizer

byte_level = byte_level_tokenizer()
sentencepiece = sentencepiece_tokenizer()
# Beyond the vocabulary: a model's logits are often wider than its tokenizer.
byte_level_ids = st.lists(st.integers(0, byte_level.get_vocab_size() + 5), max_size=40)
sentencepiece_ids = st.lists(
    st.one_of(
        st.integers(0, sentencepiece.get_vocab_size() + 5),
        # Bytes of characters, and bytes of none.
        st.sampled_from([sentencepiece.token_to_id(f"<0x{b:02X}>") for b in "é日".encode()]),
    ),
    max_size=40,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
cuts = st.lists(st.integers(1, 4), min_size=1, max_size=8)


def in_pieces(detokenizer: Detokenizer, token_ids: list[int], sizes: list[int]) -> list[str]:
    """Return the deltas of an output whose tokens come in lots of these sizes, over and over."""
    deltas, start, turn = [], 0, 0
    while start < len(token_ids):
        size = sizes[turn % len(sizes)]
        deltas.append(detokenizer.extend(token_ids[start : start + size]))
        start, turn = start + size, turn + 1
    return [*deltas, detokenizer.finish()]


@given(byte_level_ids, cuts)
def test_any_bytes_join_to_what_decode_gives(token_ids: list[int], sizes: list[int]) -> None:
    deltas = in_pieces(Tokenizer(byte_level).detokenizer(), token_ids, sizes)
    assert "".join(deltas) == byte_level.decode(token_ids, skip_special_tokens=True)


@given(texts, cuts)
def test_text_survives_and_no_delta_has_half_a_character(text: str, sizes: list[int]) -> None:
    token_ids = byte_level.encode(text).ids
    deltas = in_pieces(Tokenizer(byte_level).detokenizer(), token_ids, sizes)
    assert "".join(deltas) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in delta for delta in deltas)


@given(sentencepiece_ids, cuts)
def test_sentencepiece_joins_to_what_decode_gives_after_a_prompt(
    token_ids: list[int], sizes: list[int]
) -> None:
    prompt_id = sentencepiece.token_to_id("a")
    assert prompt_id is not None
    deltas = in_pieces(Tokenizer(sentencepiece).detokenizer(), token_ids, sizes)
    whole = sentencepiece.decode([prompt_id, *token_ids], skip_special_tokens=True)
    assert "a" + "".join(deltas) == whole


def test_a_replacement_character_that_is_really_there_is_not_held_back() -> None:
    (*first, last) = byte_level.encode("\ufffd").ids
    detokenizer = Tokenizer(byte_level).detokenizer()
    assert detokenizer.extend(first) == ""
    assert detokenizer.extend([last]) == "\ufffd"


def test_special_tokens_have_no_text() -> None:
    detokenizer = Tokenizer(byte_level).detokenizer()
    text = detokenizer.extend(byte_level.encode("<|im_start|>the<|im_end|>").ids)
    assert text + detokenizer.finish() == "the"


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece()])
def test_a_decoder_of_another_kind_is_refused(decoder: decoders.Decoder | None) -> None:
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"a": 0}, "a"))
    if decoder is not None:
        tokenizer.decoder = decoder
    with pytest.raises(StartupError, match="decoder is not one that is supported"):
        Tokenizer(tokenizer)
