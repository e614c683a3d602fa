"""A ring buffer of the most recent rows, stored in the state dict so that checkpoints contain it."""

import torch
from torch import Tensor, nn


class RingBuffer(nn.Module):
    """Named columns of `rows` rows each.

    Args:
        rows: The number of rows that are kept.
        blank: For each column, the value of a row that was never written.
    """

    pushed: Tensor

    def __init__(self, rows: int, **blank: Tensor) -> None:
        super().__init__()
        self.rows = rows
        self.names = tuple(blank)
        for name, row in blank.items():
            self.register_buffer(name, row.expand(rows, *row.shape).clone())
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, **rows: Tensor) -> None:
        """Overwrites the oldest rows; each column receives the same number of rows."""
        count = len(next(iter(rows.values())))
        latest = slice(max(0, count - self.rows), count)
        index = (self.pushed + torch.arange(count, device=self.pushed.device)[latest]) % max(1, self.rows)
        for name in self.names:
            column = getattr(self, name)
            column[index] = rows[name][latest].to(column)
        self.pushed += count

    def valid_rows(self) -> dict[str, Tensor]:
        """Returns the rows that were pushed and not yet overwritten, by column."""
        count = min(self.rows, int(self.pushed))
        return {name: getattr(self, name)[:count] for name in self.names}
