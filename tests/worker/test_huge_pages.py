"""octavo.worker.huge_pages: pieces that are aligned, apart, and as large as wished."""

import torch

from octavo.worker.huge_pages import HugePages


def test_pieces_are_copies_that_do_not_touch() -> None:
    pages = HugePages()
    originals = [
        torch.randn(3, 5),
        torch.randn(7, 1001).bfloat16(),
        torch.randint(0, 256, (65 << 20,), dtype=torch.uint8),
        torch.empty(0, 4),
        torch.randn(20, 30).T,
    ]
    pieces = [pages.moved(original) for original in originals]
    for original, piece in zip(originals, pieces, strict=True):
        assert piece.dtype == original.dtype and torch.equal(piece, original)
        assert piece.is_contiguous() and piece.data_ptr() % 64 == 0
        assert piece.nbytes == 0 or piece.data_ptr() != original.data_ptr()
    for piece in pieces:
        piece.zero_()
    assert all(original.any() for original in originals if original.numel())


def test_a_piece_survives_the_others_and_whoever_made_it() -> None:
    pages = HugePages()
    pieces = [pages.moved(torch.full((1 << 20,), float(i))) for i in range(40)]
    last = pieces[-1]
    del pages, pieces
    assert last.eq(39).all()
