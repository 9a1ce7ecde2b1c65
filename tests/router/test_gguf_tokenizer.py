"""Tokenizers from GGUF metadata, against the same ones from tokenizer.json, and transformers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from octavo.router.gguf_tokenizer import build_tokenizer
from octavo.router.model_text import load_model_text
from octavo.startup import StartupError
from tests.router.tiny_tokenizers import (
    byte_level_tokenizer,
    gguf_metadata,
    sentencepiece_metadata,
    sentencepiece_tokenizer,
    write_gguf,
)

TEXTS = [
    "The cat's on the mat; we'll see.  It'S 12345 o'clock!",
    "日本語のテキスト、Привет мир, مرحبا بالعالم, नमस्ते, 한국어",
    "😀👨‍👩‍👧 café émigré e\u0301 ﬁ ①②",
    "def f(x):\n\treturn x ** 2  # comment\n\n\n   \n",
    "<|im_start|>user\nhello<|im_end|>\n",
    " leading, trailing  ",
    "",
]

text = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ae 19\n")))

# As the tokenizer.json of SmolLM2 has it.
SMOLLM_PRE_TOKENIZER = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)


@given(text)
def test_gpt2_kind_is_the_original(text: str) -> None:
    assert gpt2.encode(text).ids == gpt2_original.encode(text).ids


@given(text)
def test_smollm_kind_is_the_original(text: str) -> None:
    assert smollm.encode(text).ids == smollm_original.encode(text).ids


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_sentencepiece_kind_is_the_original(text: str) -> None:
    assert llama.encode(text, add_special_tokens=False).ids == llama_original.encode(text).ids


gpt2_original = byte_level_tokenizer()
gpt2 = build_tokenizer(gguf_metadata(gpt2_original, "gpt-2"))
smollm_original = byte_level_tokenizer(SMOLLM_PRE_TOKENIZER)
smollm = build_tokenizer(gguf_metadata(smollm_original, "smollm"))
llama_original = sentencepiece_tokenizer()
llama = build_tokenizer(sentencepiece_metadata(llama_original))


def test_special_tokens_are_found_whole_and_have_no_text() -> None:
    token_ids = gpt2.encode("<|im_start|>the<|im_end|>").ids
    assert (token_ids[0], token_ids[-1]) == (1, 2)
    assert gpt2.decode(token_ids) == "the"


def test_a_text_begins_as_the_file_says() -> None:
    metadata = gguf_metadata(gpt2_original, "gpt-2")
    assert build_tokenizer(metadata | {"tokenizer.ggml.add_bos_token": True}).encode("").ids == [1]
    assert build_tokenizer(metadata | {"tokenizer.ggml.add_eos_token": True}).encode("").ids == [2]
    assert build_tokenizer(metadata).encode("").ids == []


def test_llama_kinds_begin_a_text_unless_the_file_says_otherwise() -> None:
    assert llama.encode("").ids == [1]
    metadata = gguf_metadata(gpt2_original, "llama-bpe")
    del metadata["tokenizer.ggml.add_bos_token"]
    assert build_tokenizer(metadata).encode("").ids == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert'; supported are gpt2, llama"),
        ({"tokenizer.ggml.model": None}, "kind None; supported are"),
        ({"tokenizer.ggml.pre": "exotic"}, "splits text as 'exotic'; supported are gpt-2, smollm"),
        ({"tokenizer.ggml.merges": ["not there"]}, "tokenizer is damaged"),
        ({"tokenizer.ggml.merges": ["one"]}, "tokenizer is damaged"),
        ({"tokenizer.ggml.token_type": [1]}, "tokenizer is damaged"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer is damaged"),
    ],
)
def test_what_cannot_be_built_is_said(change: dict[str, Any], message: str) -> None:
    metadata = {**gguf_metadata(gpt2_original, "gpt-2"), **change}
    with pytest.raises(StartupError, match=message):
        build_tokenizer(metadata)


@pytest.mark.slow
@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2"])
def test_splits_as_transformers_does(tmp_path: Path, pre: str) -> None:
    metadata = gguf_metadata(byte_level_tokenizer(vocab_size=600), pre)
    path = write_gguf(tmp_path / "model.gguf", metadata)
    reference = transformers_tokenizer(path)
    ours = build_tokenizer(metadata)
    # For GGUF files transformers forgets that Qwen composes characters first.
    texts = [text for text in TEXTS if "\u0301" not in text]
    for text in texts:
        assert ours.encode(text).ids == reference.encode(text).ids, text


@pytest.mark.slow
def test_the_demo_model_is_tokenized_as_transformers_does(
    demo_model: Path, demo_in_transformers: Path
) -> None:
    reference = tokenizers.Tokenizer.from_file(str(demo_in_transformers / "tokenizer.json"))
    ours = load_model_text(demo_model, None).tokenizer
    for text in TEXTS:
        token_ids = ours.encode(text, add_special_tokens=True)
        if not any(character.isnumeric() for character in text):
            assert token_ids == reference.encode(text).ids, text
        assert ours.decode(token_ids) == reference.decode(token_ids, skip_special_tokens=True)
    # For GGUF files transformers forgets that SmolLM splits off every digit.
    reference.pre_tokenizer = SMOLLM_PRE_TOKENIZER
    for text in TEXTS:
        assert ours.encode(text, add_special_tokens=True) == reference.encode(text).ids, text


def transformers_tokenizer(path: Path) -> tokenizers.Tokenizer:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return tokenizers.Tokenizer.from_str(json.dumps(json.loads(loaded.backend_tokenizer.to_str())))
