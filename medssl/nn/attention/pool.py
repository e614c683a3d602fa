"""Attention pooling: a weighted mean of the tokens of a crop, with weights that a network learns for each question."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """Pools the tokens of a bag by gated attention.

    Ilse et al., "Attention-based deep multiple instance learning" (2018), https://arxiv.org/abs/1802.04712. Deviation:
    one set of weights for each of several questions.

    Args:
        in_channels: Dimensions of a token.
        num_questions: Number of weighted means.
    """

    def __init__(self, in_channels: int, num_questions: int = 1) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(in_channels, in_channels), nn.Linear(in_channels, in_channels)
        self.score = nn.Linear(in_channels, num_questions, bias=False)

    def forward(
        self, tokens: Float[Tensor, "b n d"], where: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b q n"]]:
        """Returns a mean of some tokens for each question, and the weights of the tokens, which sum to 1."""
        scores = self.score(self.content(tokens).tanh() * self.gate(tokens).sigmoid()).float().mT
        weights = scores.masked_fill(~where[:, None], float("-inf")).softmax(-1)
        return (weights @ tokens.float()).to(tokens.dtype), weights
