"""`octavo complete`: a prompt in, its continuation out."""

import sys
from typing import Annotated

from cyclopts import Parameter

from .answer_printer import print_answer
from .client_settings import GenerationSettings
from .openai_client import OpenAIClient, ServerError
from .terminal import forgive_encoding


def main(
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    settings: Annotated[GenerationSettings, Parameter(name="*")] = GenerationSettings(),
) -> int:
    """Let a running server continue a text.

    Parameters
    ----------
    prompt:
        The text; `-` reads it from standard input.
    """
    forgive_encoding()
    text = sys.stdin.read() if prompt == "-" else prompt
    try:
        with OpenAIClient(settings) as client:
            model = settings.model or client.first_model()
            body = {"model": model, "prompt": text, **settings.sampling()}
            print_answer(client.stream("completions", body), sys.stdout)
    except ServerError as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    return 0
