"""octavo.line_reader: lines out of a pipe, however they arrive."""

import asyncio
import os

from octavo.line_reader import LineReader


async def lines_of(*chunks: bytes) -> list[str]:
    """Write the chunks, each read before the next is written, and return the lines."""
    lines: list[str] = []
    read_fd, write_fd = os.pipe()
    reader = LineReader(read_fd, lines.append)
    for chunk in chunks:
        os.write(write_fd, chunk)
        for _ in range(3):
            await asyncio.sleep(0)
    os.close(write_fd)
    await asyncio.wait_for(reader.closed.wait(), 30)
    return lines


async def test_lines_may_arrive_in_pieces_and_end_without_a_newline() -> None:
    assert await lines_of(b"one\ntw", b"o\r\n\n", b"thr", b"ee") == ["one", "two", "", "three"]


async def test_half_a_character_waits_for_its_other_half() -> None:
    assert await lines_of("a ü".encode()[:3], "a ü".encode()[3:] + b"\n") == ["a ü"]


async def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    assert await lines_of(b"\xff\n") == ["\N{REPLACEMENT CHARACTER}"]


async def test_a_line_without_end_is_cut_and_not_collected() -> None:
    lines = await lines_of(*[b"x" * 60_000] * 5)
    assert "".join(lines) == "x" * 300_000
    assert max(map(len, lines)) <= 130_000
