"""Where the new tokens of a step are, in their rows and in the cache."""

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PagedTokens:
    """Where the new tokens of a step are: those of each row, one row after another.

    Attributes:
        positions: int64 [num_tokens], of each token in its row.
        slot_mapping: int64 [num_tokens], where each token's keys and values go.
        block_tables: int32 [num_rows, max_blocks]; entries past a row's blocks are ignored.
        seq_lens: int32 [num_rows], tokens in the cache once this step's are.
        query_start_loc: int32 [num_rows + 1], prefix sums of the rows' new tokens.
        num_decodes: of the first so many rows each has one new token. It need not tell of all: a
            GPU takes another way for those it tells of, a CPU does not.
    """

    positions: Tensor
    slot_mapping: Tensor
    block_tables: Tensor
    seq_lens: Tensor
    query_start_loc: Tensor
    num_decodes: int = 0

    def of_rows(self, num_rows: int) -> "PagedTokens":
        """Return the same with the first rows alone; tokens of others stay behind theirs."""
        return replace(
            self,
            block_tables=self.block_tables[:num_rows],
            seq_lens=self.seq_lens[:num_rows],
            query_start_loc=self.query_start_loc[: num_rows + 1],
            num_decodes=min(self.num_decodes, num_rows),
        )
