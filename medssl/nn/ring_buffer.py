"""A ring that remembers the last rows pushed into it, as part of the state that a checkpoint keeps."""

import torch
from torch import Tensor, nn


class Ring(nn.Module):
    """Named columns of `rows` rows each; a row that was never pushed holds the blank it was made with."""

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
        """Writes rows over the oldest ones."""
        count = len(next(iter(rows.values())))
        latest = slice(max(0, count - self.rows), count)
        at = (self.pushed + torch.arange(count, device=self.pushed.device)[latest]) % max(1, self.rows)
        for name in self.names:
            column = getattr(self, name)
            column[at] = rows[name][latest].to(column)
        self.pushed += count

    def filled(self) -> dict[str, Tensor]:
        """The rows that were pushed and are still remembered, by column."""
        count = min(self.rows, int(self.pushed))
        return {name: getattr(self, name)[:count] for name in self.names}
