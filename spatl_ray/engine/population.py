"""The clients' samples as tensors that stay where training happens."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spatl_ray import seeding
from spatl_ray.arrays import Bits, Integers
from spatl_ray.data.dealing import transformed
from spatl_ray.data.federated import FederatedData, SplitName
from spatl_ray.training.samples import Samples


def resident(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor on `device`; on the CPU without a copy (it is only read)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


class Population:
    """All clients' samples, indexed on demand: a client is a list of rows, never an object.

    Args:
        data: the federated data set.
        device: where samples are kept.
        dtype: of features.
        global_samples: size of the seeded sample of the global test set, or None for all.
        seed: the experiment's.
        flipped: clients whose training labels y are C - 1 - y, shape (clients,); None for nobody.
        client_global_samples: size of the seeded sample of that one for clients' models, or None for all.
    """

    def __init__(
        self,
        data: FederatedData,
        device: torch.device,
        dtype: torch.dtype,
        global_samples: int | None,
        seed: int,
        flipped: Bits | None = None,
        client_global_samples: int | None = None,
    ) -> None:
        self.data = data
        self._dtype = dtype
        self._seed = seed
        self._x = resident(data.dataset.train_x, device)
        self._y = resident(data.dataset.train_y, device)
        self._flipped = flipped
        # As one tensor: clients that share their samples' tensors can be batched together.
        self._flipped_y = self._y if flipped is None else data.dataset.classes - 1 - self._y
        rows = self._drawn(np.arange(len(data.dataset.test_y)), global_samples, "global test")
        self.global_x, self.global_y = self._of_test(rows)
        few = self._drawn(rows, client_global_samples, "global test of clients")
        own = few is not rows
        self.client_global_test = self._of_test(few) if own else (self.global_x, self.global_y)

    def _drawn(self, rows: Integers, limit: int | None, stream: str) -> Integers:
        """At most `limit` rows of the global test set, in order."""
        if limit is None or limit >= len(rows):
            return rows
        return np.sort(seeding.generator(self._seed, stream).choice(rows, limit, replace=False))

    def _of_test(self, rows: Integers) -> tuple[Tensor, Tensor]:
        """Features and labels of the global test set at some rows."""
        x, y = self.data.dataset.test_x[rows], self.data.dataset.test_y[rows]
        return self._cast(resident(x, self._x.device)), resident(y, self._x.device)

    def samples(self, client: int, split: SplitName) -> tuple[Tensor, Tensor]:
        """A client's features and labels of one split."""
        return self._taken(client, split, self.data.indices(client, split))

    def indexed(self, client: int, split: SplitName, share: float = 1.0) -> Samples:
        """The same, of which nothing is copied before a batch is asked for.

        Args:
            client: whose.
            split: which.
            share: seeded share in (0, 1] of them, at least one; smaller ones are parts of larger ones.
        """
        indices = self.data.indices(client, split)
        if share < 1:
            generator = seeding.generator(self._seed, f"{split} share", client=client)
            count = max(1, int(share * len(indices) + 0.5))
            indices = indices[np.sort(generator.permutation(len(indices))[:count])]
        if self.data.transform is not None:
            return Samples(*self._taken(client, split, indices))
        return Samples(self._x, self._labels(client, split), indices)

    def size(self, client: int, split: SplitName) -> int:
        """How many they are."""
        return len(self.data.indices(client, split))

    def sample(self, client: int, split: SplitName, limit: int | None) -> tuple[Tensor, Tensor]:
        """The same of at most `limit` samples: always the same ones, whatever the round.

        Args:
            client: whose.
            split: which.
            limit: or None for all.
        """
        indices = self.data.indices(client, split)
        if limit is not None and limit < len(indices):
            generator = seeding.generator(self._seed, f"{split} sample", client=client)
            indices = indices[np.sort(generator.choice(len(indices), limit, replace=False))]
        return self._taken(client, split, indices)

    def _labels(self, client: int, split: SplitName) -> Tensor:
        """All labels of the data set, as a client knows them in a split."""
        lies = split == "train" and self._flipped is not None and self._flipped[client]
        return self._flipped_y if lies else self._y

    def _taken(
        self, client: int, split: SplitName, indices: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """A client's features and labels at some rows of the data set."""
        rows = torch.from_numpy(indices).to(self._x.device)
        x = self._x.index_select(0, rows)
        if self.data.transform is not None:
            changed = transformed(self.data.transform, client, indices, x.cpu().numpy())
            x = resident(changed, self._x.device)
        return self._cast(x), self._labels(client, split).index_select(0, rows)

    def _cast(self, x: Tensor) -> Tensor:
        """Features in the training's dtype; token ids as they are."""
        return x.to(self._dtype) if x.is_floating_point() else x
