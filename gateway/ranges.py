"""What the router takes in each field, as openapi.json tells it: in the words of JSON schema.

The router's checks are what counts; a test holds them against this table.
"""

from typing import Any

RANGES: dict[str, dict[str, Any]] = {
    "allowed_token_ids": {"minItems": 1, "maxItems": 1024},
    "bad_words": {"maxItems": 32, "items": {"minLength": 1, "maxLength": 64}},
    "cache_salt": {"maxLength": 64},
    "frequency_penalty": {"minimum": -2, "maximum": 2},
    "logit_bias": {
        "maxProperties": 300,
        "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    "logprobs": {"maximum": 20},
    "messages": {"minItems": 1},
    "min_p": {"minimum": 0, "maximum": 1},
    "n": {"maximum": 16},
    "presence_penalty": {"minimum": -2, "maximum": 2},
    "prompt_logprobs": {"maximum": 5},
    "repetition_penalty": {"exclusiveMinimum": 0},
    "stop": {
        "minLength": 1,
        "maxLength": 256,
        "maxItems": 16,
        "items": {"minLength": 1, "maxLength": 256},
    },
    "stop_token_ids": {"maxItems": 256},
    "temperature": {"minimum": 0, "maximum": 2},
    "tools": {"maxItems": 128},
    "top_logprobs": {"maximum": 20},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "truncate_prompt_tokens": {"not": {"const": 0}},
}
"""By field. A word counts for values of its kind only, so null and other forms are not touched."""
