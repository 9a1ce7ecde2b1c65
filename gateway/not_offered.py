"""Fields of the OpenAI API and of vLLM's that would change the answer but are not offered yet.

Set to a neutral value they are ignored; set to anything else they are refused, never dropped in
silence. A field that is offered moves from this table into openai_types.py.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from octavo.errors import InvalidArgument

BodyT = TypeVar("BodyT", bound=msgspec.Struct)

NOT_OFFERED: dict[str, tuple[object, ...]] = {
    # Field: the values, beside null, with which it changes nothing.
    "add_special_tokens": (False, True),
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "kv_transfer_params": (),
    "length_penalty": (1.0,),
    "logprob_token_ids": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_embeds": (),
    "repetition_detection": (),
    "response_format": ({"type": "text"},),
    "return_prompt_text": (False,),
    "return_token_offsets": (False,),
    "return_tokens_as_token_ids": (False,),
    "structured_outputs": (),
    "suffix": ("",),
    "truncation_side": ("left",),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
}


TOKENIZE_NOT_OFFERED: dict[str, tuple[object, ...]] = {
    "chat_template": (),
    "chat_template_kwargs": ({},),
}


def with_not_offered(
    body_type: type[BodyT], table: Mapping[str, tuple[object, ...]] = NOT_OFFERED
) -> type[BodyT]:
    """Return the body type with the table's fields added, so that one decoding reads them too."""
    fields = [(name, Any, None) for name in table]
    return msgspec.defstruct(  # type: ignore[return-value]
        body_type.__name__, fields, bases=(body_type,), kw_only=True
    )


def refuse_not_offered(
    body: msgspec.Struct, table: Mapping[str, tuple[object, ...]] = NOT_OFFERED
) -> None:
    """Raise InvalidArgument if a field of the table is set to something that matters."""
    for name, neutral_values in table.items():
        value = getattr(body, name)
        if value is not None and not any(_is_same(value, neutral) for neutral in neutral_values):
            raise InvalidArgument(f"{name} is not offered yet; leave it out.", field=name)


def _is_same(value: object, neutral: object) -> bool:
    # JSON's 0 and false are different values; Python's are equal.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
