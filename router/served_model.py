"""A served model as the router sees it: what its scheduler said, its tokenizer, its template."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from octavo.block_hash import extend_chain, root_hash
from octavo.errors import InvalidArgument
from octavo.v1 import common_pb2, scheduling_pb2

from .calls import tenant
from .chat_template import ChatTemplate
from .generation_config import read_generation_config
from .model_text import load_model_text
from .prompt_validation import ValidConversation, check_fits_context, max_prompt_bytes
from .tokenizer import Tokenizer
from .validation import ValidOptions


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the scheduler takes it."""

    token_ids: list[int]
    block_hashes: bytes
    echo: str
    """Its text, if outputs are to begin with it."""
    bad_words: tuple[tuple[int, ...], ...]
    """The token sequences that outputs may not have."""


class ServedModel:
    """Encodes prompts. What takes long runs on a thread, in one hop for each request."""

    def __init__(
        self,
        info: scheduling_pb2.ModelInfo,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate | None,
        sampling_defaults: common_pb2.SamplingParams,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.sampling_defaults = sampling_defaults
        self._chat_template = chat_template

    @classmethod
    async def load(
        cls,
        info: scheduling_pb2.ModelInfo,
        chat_template_path: Path | None,
        *,
        reads_generation_config: bool,
    ) -> "ServedModel":
        """Read the model's files; raises StartupError."""
        text = await asyncio.to_thread(load_model_text, Path(info.path), chat_template_path)
        defaults = common_pb2.SamplingParams()
        if reads_generation_config:
            defaults = read_generation_config(Path(info.path))
        chat_template = None
        if text.chat_template is not None:
            # The template's own words come on top of the messages.
            chat_template = ChatTemplate(text.chat_template, 2 * max_prompt_bytes(info))
            await chat_template.start()
        return cls(info, text.tokenizer, chat_template, defaults)

    async def close(self) -> None:
        if self._chat_template is not None:
            await self._chat_template.close()

    @property
    def name(self) -> str:
        """The name in answers."""
        return self.info.served_names[0]

    async def encode_text(self, text: str, options: ValidOptions) -> EncodedPrompt:
        return await asyncio.to_thread(
            self._encode, text, "prompt", options, add_special_tokens=True
        )

    async def encode_conversation(
        self, conversation: ValidConversation, options: ValidOptions
    ) -> EncodedPrompt:
        text = await self.render(conversation)
        return await asyncio.to_thread(
            self._encode, text, "messages", options, add_special_tokens=False
        )

    async def encode_token_ids(self, token_ids: list[int], options: ValidOptions) -> EncodedPrompt:
        return await asyncio.to_thread(self._finish, token_ids, "prompt", options)

    async def render(self, conversation: ValidConversation) -> str:
        """Return the conversation as text, special tokens written out."""
        if self._chat_template is None:
            raise InvalidArgument(
                f"model {self.name!r} has no chat template; send a prompt instead, or start the"
                " router with --chat-template",
                field="messages",
            )
        return await self._chat_template.render(conversation)

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
        root = root_hash(self.info.model_hash, tenant.get(), cache_salt=options.cache_salt)
        hashes = extend_chain(root, token_ids, self.info.block_size)
        skip = options.skip_special_tokens
        return EncodedPrompt(
            token_ids,
            b"".join(hashes),
            self.tokenizer.decode(token_ids, skip_special_tokens=skip) if options.echo else "",
            tuple(
                tuple(spelling)
                for word in options.bad_words
                for spelling in self.tokenizer.spellings(word)
            ),
        )
