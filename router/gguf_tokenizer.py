"""Builds a tokenizer from the metadata of a GGUF file, as the model's own tokenizer.json would.

A GGUF file holds vocabulary and merges, but of how text is split before the merges only a name,
`tokenizer.ggml.pre`. The names are llama.cpp's; the rules behind them are the original tokenizers'.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE

from octavo.startup import StartupError


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# As Llama 3's, but each digit is a token.
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that the metadata describes.

    Raises:
        StartupError: a kind that is not known, or metadata that is not whole.
    """
    builders: dict[str, Callable[[Mapping[str, Any]], Tokenizer]] = {
        "gpt2": _byte_level,
        "llama": _sentencepiece,
    }
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in builders:
        raise StartupError(
            f"the file has a tokenizer of the kind {kind!r}; supported are {', '.join(builders)}"
        )
    try:
        tokenizer = builders[kind](metadata)
        _add_special_tokens(tokenizer, metadata)
        tokenizer.post_processor = _post_processor(metadata)
    except StartupError:
        raise
    except Exception as error:  # tokenizers raises nothing more precise
        raise StartupError(f"the file's tokenizer is damaged: {error}") from error
    return tokenizer


def token_text(metadata: Mapping[str, Any], name: str) -> str | None:
    """Return the token that `tokenizer.ggml.<name>_token_id` names; None where it is not said."""
    token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    tokens = metadata["tokenizer.ggml.tokens"]
    return tokens[token_id] if token_id is not None and token_id < len(tokens) else None


def _byte_level(metadata: Mapping[str, Any]) -> Tokenizer:
    """GPT-2's kind: text is split, then spelled in bytes, then merged."""
    split = metadata.get("tokenizer.ggml.pre")
    splits: dict[str, list[pre_tokenizers.PreTokenizer]] = {
        "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "smollm": [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ],
        "llama-bpe": _split_by(_LLAMA3_SPLIT),
        "qwen2": _split_by(_QWEN2_SPLIT),
    }
    if split not in splits:
        raise StartupError(
            f"the file's tokenizer splits text as {split!r}; supported are {', '.join(splits)}"
        )
    tokenizer = Tokenizer(
        BPE(_vocabulary(metadata), _merges(metadata), ignore_merges=split == "llama-bpe")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits[split])
    tokenizer.decoder = decoders.ByteLevel()
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _split_by(pattern: str) -> list[pre_tokenizers.PreTokenizer]:
    return [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _sentencepiece(metadata: Mapping[str, Any]) -> Tokenizer:
    """Llama 2's kind: no splitting; spaces are ▁, characters without a token become byte tokens."""
    unknown = token_text(metadata, "unknown")
    model = BPE(
        _vocabulary(metadata),
        _merges_by_score(metadata),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    has_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    prefix = [normalizers.Prepend("▁")] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _vocabulary(metadata: Mapping[str, Any]) -> dict[str, int]:
    tokens, types = metadata["tokenizer.ggml.tokens"], _token_types(metadata)
    return {
        token: token_id
        for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != TokenType.UNUSED
    }


def _merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    merges = []
    for merge in metadata["tokenizer.ggml.merges"]:
        left, right = merge.split(" ")
        merges.append((left, right))
    return merges


def _merges_by_score(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges that make each token from two others, those of the best token first.

    SentencePiece keeps no merges: it joins the neighbours whose joint token has the best score.
    """
    vocabulary, scores = _vocabulary(metadata), metadata["tokenizer.ggml.scores"]
    ranked = []
    for token, token_id in vocabulary.items():
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = [(a, b) for a, b in halves if a in vocabulary and b in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        ranked += [(-scores[token_id], pair) for pair in pairs]
    ranked.sort(key=lambda entry: entry[0])
    return [pair for _, pair in ranked]


def _add_special_tokens(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> None:
    """Control and user-defined tokens are found whole in a text; only the latter have text."""
    special, user_defined = [], []
    for token, kind in zip(metadata["tokenizer.ggml.tokens"], _token_types(metadata), strict=True):
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN):
            special.append(AddedToken(token, normalized=False, special=True))
        elif kind == TokenType.USER_DEFINED:
            user_defined.append(AddedToken(token, normalized=False, special=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(user_defined)


def _post_processor(metadata: Mapping[str, Any]) -> processors.TemplateProcessing:
    """Add the tokens that begin and end a text, where the file says so."""
    is_sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
    # llama.cpp's defaults, for files that do not say.
    begins_by_default = is_sentencepiece or metadata.get("tokenizer.ggml.pre") == "llama-bpe"
    begin = end = None
    if metadata.get("tokenizer.ggml.add_bos_token", begins_by_default):
        begin = token_text(metadata, "bos")
    if metadata.get("tokenizer.ggml.add_eos_token", False):
        end = token_text(metadata, "eos")
    special = {
        token: metadata["tokenizer.ggml.tokens"].index(token) for token in (begin, end) if token
    }
    return processors.TemplateProcessing(
        single=[part for part in (begin, "$A", end) if part],
        special_tokens=list(special.items()),
    )


def _token_types(metadata: Mapping[str, Any]) -> list[int]:
    default = [TokenType.NORMAL] * len(metadata["tokenizer.ggml.tokens"])
    types: list[int] = metadata.get("tokenizer.ggml.token_type", default)
    return types
