"""Fields of the OpenAI API and of vLLM's that would change the answer but are not offered yet.

Set to a neutral value they are ignored; set to anything else they are refused, never dropped in
silence. A field that is offered moves from this table into openai_types.py.
"""

from typing import Any, TypeVar

import msgspec

from octavo.errors import InvalidArgument

from .openai_types import GenerationBody

BodyT = TypeVar("BodyT", bound=GenerationBody)

NOT_OFFERED: dict[str, tuple[object, ...]] = {
    # Field: the values, beside null, with which it changes nothing.
    "add_generation_prompt": (True,),
    "add_special_tokens": (False, True),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
}


def with_not_offered(body_type: type[BodyT]) -> type[BodyT]:
    """Return the body type with the table's fields added, so that one decoding reads them too."""
    fields = [(name, Any, None) for name in NOT_OFFERED]
    return msgspec.defstruct(  # type: ignore[return-value]
        body_type.__name__, fields, bases=(body_type,), kw_only=True
    )


def refuse_not_offered(body: GenerationBody) -> None:
    """Raise InvalidArgument if a field of the table is set to something that matters."""
    for name, neutral_values in NOT_OFFERED.items():
        value = getattr(body, name)
        if value is not None and not any(_is_same(value, neutral) for neutral in neutral_values):
            raise InvalidArgument(f"{name} is not offered yet; leave it out.", field=name)


def _is_same(value: object, neutral: object) -> bool:
    # JSON's 0 and false are different values; Python's are equal.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
