"""One output: what is shown, how many tokens count, what is hidden."""

from hypothesis import given
from hypothesis import strategies as st

from octavo.router.output_text import OutputText
from octavo.router.stop_strings import StopStringAutomaton, StopStringMatcher
from octavo.router.tokenizer import Tokenizer
from tests.router.tiny_tokenizers import EOS_TOKEN_ID, byte_level_tokenizer

tokenizers_tokenizer = byte_level_tokenizer()
tokenizer = Tokenizer(tokenizers_tokenizer)


def output_text(*stop_strings: str, stop_token_ids: frozenset[int] = frozenset()) -> OutputText:
    matcher = StopStringMatcher(StopStringAutomaton(stop_strings)) if stop_strings else None
    return OutputText(tokenizer.detokenizer(), matcher, stop_token_ids)


@given(st.text(st.sampled_from("abé日 "), max_size=20), st.sampled_from(["a", "b日", "é é", "  "]))
def test_usage_counts_up_to_the_token_that_completes_the_stop_string(text: str, stop: str) -> None:
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    output = output_text(stop)
    shown = output.extend(token_ids) + output.finish()
    before, found, _ = text.partition(stop)
    assert shown == before
    if found:
        counted = output.num_tokens
        assert stop in tokenizer.decode(token_ids[:counted])
        assert stop not in tokenizer.decode(token_ids[: counted - 1])
    else:
        assert output.num_tokens == len(token_ids)


def test_a_stop_token_counts_but_has_no_text() -> None:
    (ordinary,) = tokenizer.encode("the", add_special_tokens=False)
    token_ids = [*tokenizer.encode("a cat ", add_special_tokens=False), ordinary]
    output = output_text(stop_token_ids=frozenset([ordinary]))
    assert output.extend(token_ids) + output.finish() == "a cat "
    assert output.num_tokens == len(token_ids)


def test_an_end_token_hides_no_text_held_back_before_it() -> None:
    output = output_text("the end", stop_token_ids=frozenset([EOS_TOKEN_ID]))
    shown = output.extend([*tokenizer.encode("on the", add_special_tokens=False), EOS_TOKEN_ID])
    assert shown == "on "
    assert output.finish() == "the"
    assert output.stop_string is None


def test_half_a_character_at_the_end_becomes_a_replacement_character() -> None:
    # The first of the three bytes of 日, as the vocabulary writes it.
    first_byte = tokenizers_tokenizer.token_to_id("æ")
    assert first_byte is not None
    output = output_text()
    assert output.extend([first_byte]) == ""
    assert output.finish() == "\ufffd"
