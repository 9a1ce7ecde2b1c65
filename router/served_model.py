"""A served model as the router sees it: its files, and what its engines say."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from octavo.block_hash import extend_chain, root_hash
from octavo.errors import InvalidArgument
from octavo.v1 import common_pb2, scheduling_pb2

from .calls import tenant
from .loaded_model import LoadedModel
from .prompt_validation import ValidConversation, check_fits_context, max_prompt_bytes
from .tokenizer import Tokenizer
from .validation import ValidOptions

# Less takes less than the hop to a thread, which is 0.1 ms (two Zen 4 cores).
_SHORT_CHARACTERS = 256
_SHORT_TOKENS = 2048


class HashScheme(NamedTuple):
    """What of an engine its block hashes depend on."""

    model_hash: bytes
    block_size: int

    @classmethod
    def of(cls, info: scheduling_pb2.ModelInfo) -> "HashScheme":
        return cls(info.model_hash, info.block_size)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as schedulers take it."""

    token_ids: list[int]
    block_hashes: Mapping[HashScheme, bytes]
    """For each kind of engine that serves the model; replicas are mostly of one."""
    echo: str
    """Its text, if outputs are to begin with it."""
    bad_words: tuple[tuple[int, ...], ...]
    """The token sequences that outputs may not have."""


class ServedModel:
    """Encodes prompts. What takes long runs on a thread, in one hop for a request.

    Attributes:
        info: of the engine with the longest context: what that cannot take, none can.
    """

    def __init__(self, files: LoadedModel, infos: Sequence[scheduling_pb2.ModelInfo]) -> None:
        """`infos`: what the engines say that serve it."""
        self.info = max(infos, key=lambda info: info.max_model_len)
        self._files = files
        self._hash_schemes = {HashScheme.of(info) for info in infos}

    @property
    def tokenizer(self) -> Tokenizer:
        return self._files.tokenizer

    @property
    def sampling_defaults(self) -> common_pb2.SamplingParams:
        return self._files.sampling_defaults

    @property
    def name(self) -> str:
        """The name in answers."""
        return self.info.served_names[0]

    async def encode_text(self, text: str, options: ValidOptions) -> EncodedPrompt:
        encode = partial(self._encode, text, "prompt", options, add_special_tokens=True)
        return await _finished(encode, options, is_short=len(text) <= _SHORT_CHARACTERS)

    async def encode_conversation(
        self, conversation: ValidConversation, options: ValidOptions
    ) -> EncodedPrompt:
        text = await self.render(conversation)
        encode = partial(self._encode, text, "messages", options, add_special_tokens=False)
        return await _finished(encode, options, is_short=len(text) <= _SHORT_CHARACTERS)

    async def encode_token_ids(self, token_ids: list[int], options: ValidOptions) -> EncodedPrompt:
        finish = partial(self._finish, token_ids, "prompt", options)
        return await _finished(finish, options, is_short=len(token_ids) <= _SHORT_TOKENS)

    async def render(self, conversation: ValidConversation) -> str:
        """Return the conversation as text, special tokens written out."""
        if self._files.chat_template is None:
            raise InvalidArgument(
                f"model {self.name!r} has no chat template; send a prompt instead, or start the"
                " router with --chat-template",
                field="messages",
            )
        # The template's own words come on top of the messages.
        max_characters = 2 * max_prompt_bytes(self.info)
        return await self._files.chat_template.render(conversation, max_characters)

    def _encode(
        self, text: str, field: str, options: ValidOptions, *, add_special_tokens: bool
    ) -> EncodedPrompt:
        token_ids = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return self._finish(token_ids, field, options)

    def _finish(self, token_ids: list[int], field: str, options: ValidOptions) -> EncodedPrompt:
        """Cut the prompt to what is wanted of it, and hash its blocks."""
        if options.truncate_prompt_tokens is not None:
            token_ids = token_ids[-options.truncate_prompt_tokens :]
        check_fits_context(len(token_ids), field, self.info)
        skip = options.skip_special_tokens
        return EncodedPrompt(
            token_ids,
            {
                scheme: _block_hashes(scheme, token_ids, options.cache_salt)
                for scheme in self._hash_schemes
            },
            self.tokenizer.decode(token_ids, skip_special_tokens=skip) if options.echo else "",
            tuple(
                tuple(spelling)
                for word in options.bad_words
                for spelling in self.tokenizer.spellings(word)
            ),
        )


async def _finished(
    encode: Callable[[], EncodedPrompt], options: ValidOptions, *, is_short: bool
) -> EncodedPrompt:
    """Return what `encode` returns, which is called here where that takes no longer than a hop."""
    if is_short and not (options.bad_words or options.echo):
        return encode()
    return await asyncio.to_thread(encode)


def _block_hashes(scheme: HashScheme, token_ids: Sequence[int], cache_salt: bytes) -> bytes:
    root = root_hash(scheme.model_hash, tenant.get(), cache_salt=cache_salt)
    return b"".join(extend_chain(root, token_ids, scheme.block_size))
