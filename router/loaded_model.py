"""What of a model is the same whichever engine serves it: its tokenizer, template and defaults."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from octavo.v1 import common_pb2

from .chat_template import ChatTemplate
from .generation_config import read_generation_config
from .model_text import load_model_text
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model's files, read."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    sampling_defaults: common_pb2.SamplingParams

    @classmethod
    async def load(
        cls, path: Path, chat_template_path: Path | None, *, reads_generation_config: bool
    ) -> "LoadedModel":
        """Read the model's files; raises StartupError."""
        text = await asyncio.to_thread(load_model_text, path, chat_template_path)
        defaults = common_pb2.SamplingParams()
        if reads_generation_config:
            defaults = read_generation_config(path)
        chat_template = None
        if text.chat_template is not None:
            chat_template = ChatTemplate(text.chat_template)
            await chat_template.start()
        return cls(text.tokenizer, chat_template, defaults)

    async def close(self) -> None:
        if self.chat_template is not None:
            await self.chat_template.close()
