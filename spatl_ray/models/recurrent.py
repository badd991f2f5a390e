"""The recurrent network that predicts the next character of Shakespeare.

References:
    McMahan et al., AISTATS 2017, section 3; Caldas et al., "LEAF: A Benchmark for Federated
    Settings", 2018.
"""

from __future__ import annotations

from torch import Tensor, nn

from spatl_ray.errors import ModelError
from spatl_ray.options import check_counts


class Reader(nn.Module):
    """Token ids to the last output of an LSTM over their embeddings."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (batch, hidden) of ids of shape (batch, length)."""
        outputs: Tensor = self.lstm(self.embedding(x))[0]
        return outputs[:, -1]


class CharLSTM(nn.Module):
    """An embedding (8), two LSTM layers (256) and a linear layer on the last output.

    With 80 characters 819,920 parameters (PyTorch's LSTM has two biases a gate). Embedding and LSTM
    are the encoder, the linear layer is the predictor. Weights begin as PyTorch draws them.

    Args:
        shape: (length,) of a sample of token ids.
        classes: number of outputs.
        vocabulary: number of token ids: the data's, else `classes`.
        embedding: size of a token's embedding.
        hidden: units of each LSTM layer.
        layers: number of LSTM layers.

    Raises:
        ModelError: an option or samples that do not fit; in `forward`, features that are no token ids.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        vocabulary: int | None = None,
        embedding: int = 8,
        hidden: int = 256,
        layers: int = 2,
    ) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ModelError(f"char_lstm needs token ids as (length,), got {shape}")
        ids = classes if vocabulary is None else vocabulary
        check_counts(
            "model.options",
            ModelError,
            vocabulary=ids,
            embedding=embedding,
            hidden=hidden,
            layers=layers,
        )
        self.encoder = Reader(ids, embedding, hidden, layers)
        self.predictor = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        if x.is_floating_point():
            raise ModelError(
                f"char_lstm needs token ids (a data set with a vocabulary), got features of {x.dtype}"
            )
        logits: Tensor = self.predictor(self.encoder(x))
        return logits
