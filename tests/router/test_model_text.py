"""What is read of a model's directory or GGUF file, and what is said of bad ones."""

import json
from pathlib import Path

import pytest

from octavo.router.model_text import load_model_text
from octavo.startup import StartupError
from tests.router.tiny_tokenizers import (
    CHATML,
    byte_level_tokenizer,
    gguf_metadata,
    write_directory,
    write_gguf,
)

tokenizer = byte_level_tokenizer()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "model", tokenizer)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model.gguf", gguf_metadata(tokenizer, "gpt-2"))


def test_directory_and_gguf_file_of_a_model_are_the_same_to_clients(
    directory: Path, gguf: Path
) -> None:
    one, other = load_model_text(directory, None), load_model_text(gguf, None)
    text = "<|im_start|>hello 日本語 <|im_end|>"
    token_ids = one.tokenizer.encode(text, add_special_tokens=True)
    assert token_ids == other.tokenizer.encode(text, add_special_tokens=True)
    assert one.tokenizer.decode(token_ids) == other.tokenizer.decode(token_ids) == "hello 日本語 "
    for model_text in (one, other):
        assert model_text.chat_template is not None
        assert model_text.chat_template.text == CHATML
        assert model_text.chat_template.variables == {
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
        }


def test_a_template_file_goes_before_the_one_in_the_configuration(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("from the file")
    source = load_model_text(directory, None).chat_template
    assert source is not None
    assert source.text == "from the file"


def test_the_operators_template_goes_before_all(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("own")
    source = load_model_text(directory, path).chat_template
    assert source is not None
    assert (source.text, source.origin) == ("own", str(path))


def test_of_several_templates_the_default_one_is_taken(directory: Path) -> None:
    templates = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "plain"},
    ]
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    source = load_model_text(directory, None).chat_template
    assert source is not None
    assert source.text == "plain"


def test_a_model_may_have_no_template(directory: Path) -> None:
    (directory / "tokenizer_config.json").unlink()
    assert load_model_text(directory, None).chat_template is None


def test_truncation_and_padding_of_a_file_are_not_for_prompts(tmp_path: Path) -> None:
    cutting = byte_level_tokenizer()
    cutting.enable_truncation(2)
    cutting.enable_padding(length=8)
    text = load_model_text(write_directory(tmp_path / "cut", cutting), None)
    expected = tokenizer.encode("the cat sat on the mat").ids
    assert len(expected) > 2
    assert text.tokenizer.encode("the cat sat on the mat", add_special_tokens=True) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "it has no tokenizer.json"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer that can be read"),
        ("tokenizer_config.json", "{", "tokenizer_config.json: not JSON"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json: not a JSON object"),
        ("tokenizer_config.json", b"\xff", "tokenizer_config.json: cannot be read"),
    ],
)
def test_a_bad_file_is_named(
    directory: Path, name: str, content: str | bytes | None, message: str
) -> None:
    file = directory / name
    file.unlink()
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StartupError, match=message):
        load_model_text(directory, None)


def test_a_missing_template_file_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"absent\.jinja: cannot be read"):
        load_model_text(directory, tmp_path / "absent.jinja")


@pytest.mark.parametrize("path", ["", "model.bin"])
def test_what_is_no_model_is_said(path: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="model's directory or GGUF file; this is"):
        load_model_text(tmp_path / path / "nothing", None)


def test_a_gguf_file_cut_in_half_is_named(gguf: Path) -> None:
    content = gguf.read_bytes()
    gguf.write_bytes(content[: len(content) // 2])
    with pytest.raises(StartupError, match=r"model\.gguf"):
        load_model_text(gguf, None)


def test_a_tokenizer_of_another_kind_in_a_gguf_file_is_named(tmp_path: Path) -> None:
    metadata = gguf_metadata(tokenizer, "gpt-2") | {"tokenizer.ggml.model": "t5"}
    path = write_gguf(tmp_path / "t5.gguf", metadata)
    with pytest.raises(StartupError, match=r"t5\.gguf: the file has a tokenizer of the kind 't5'"):
        load_model_text(path, None)
