"""The salient parameter selection agent: a graph network, an actor's head and a critic.

Yu, Nguyen, Abebe, Qian, Anwar, Jannesari, "SPATL", SC22 (arXiv 2111.14345), section IV-B. The graph network
averages over a node's inputs and readers (Hamilton, Ying, Leskovec, "Inductive representation
learning on large graphs", NeurIPS 2017), so that it works on a network of any size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import elu

from spatl_ray import seeding
from spatl_ray.config.agent import SHIPPED
from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.parameters import Array
from spatl_ray.places import write_whole
from spatl_ray.selection.features import FEATURES, FEATURES_VERSION, Topology

WIDTH = 40
"""Numbers that describe a node."""

HIDDEN = 200
"""Hidden units of the actor's head (Yu et al., SC22)."""

HOPS = 4
"""Rounds of message passing: a convolution sees the next one behind normalisation and activation."""

SIGMA = 0.5
"""Standard deviation of an action on a client (Yu et al., SC22)."""

REACH = 2.0
"""Bound of the mean action: without noise one layer's ratio is at most e^4 times another's."""

FORMAT = f"spatl_ray agent 2.{FEATURES_VERSION}"


class Agent(nn.Module):
    """Actor and critic over the embedding of a network's graph.

        h_0 = elu(W x + b);  h_{k+1} = h_k + elu(U h_k + V mean_inputs(h_k) + R mean_readers(h_k))
        z_v = elu(Z [h_v, mean h]);  value = critic(mean z)
        action u_l ~ N(REACH tanh(actor(z_l)), sigma^2)

    An action is the logarithm of each prunable layer's weight in the budget (`Pruner.within`). Its mean is
    bounded, so that a network unlike those that were learnt on gets no extreme ratios.
    """

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(FEATURES, WIDTH)
        self.own = nn.Linear(WIDTH, WIDTH)
        self.inputs = nn.Linear(WIDTH, WIDTH, bias=False)
        self.readers = nn.Linear(WIDTH, WIDTH, bias=False)
        self.pooled = nn.Linear(2 * WIDTH, WIDTH)
        self.actor = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
        self.critic = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def embed(self, features: Tensor, topology: Topology) -> Tensor:
        """The embedding of each node, shape (batch, nodes, WIDTH).

        Args:
            features: shape (batch, nodes, FEATURES).
            topology: of the network.
        """
        h = elu(self.project(features))
        for _ in range(HOPS):
            passed = self.inputs(topology.inputs @ h) + self.readers(topology.readers @ h)
            h = h + elu(self.own(h) + passed)
        everything = h.mean(dim=1, keepdim=True).expand_as(h)
        z: Tensor = elu(self.pooled(torch.cat([h, everything], dim=2)))
        return z

    def means(self, embedding: Tensor, topology: Topology) -> Tensor:
        """The mean action, in (-REACH, REACH), shape (batch, layers)."""
        return REACH * torch.tanh(self.actor(embedding[:, topology.layers]).squeeze(2))

    def values(self, embedding: Tensor) -> Tensor:
        """The expected return, shape (batch,)."""
        values: Tensor = self.critic(embedding.mean(dim=1)).squeeze(1)
        return values

    def head(self) -> Array:
        """The actor's parameters as one vector, float32."""
        return nn.utils.parameters_to_vector(self.actor.parameters()).detach().numpy().copy()

    def set_head(self, vector: Array) -> None:
        """Give the actor the parameters of a vector from `head`."""
        with torch.no_grad():
            nn.utils.vector_to_parameters(torch.tensor(vector), self.actor.parameters())


def log_probability(actions: Tensor, means: Tensor, sigma: float) -> Tensor:
    """Of actions under N(means, sigma^2), up to a constant: -|u - mu|^2 / (2 sigma^2), shape (batch,)."""
    return -((actions - means) ** 2).sum(dim=1) / (2 * sigma**2)


def new_agent(seed: int) -> Agent:
    """An untrained agent: all layers are about equally important to it."""
    with seeding.torch_seeded(seed, "agent"):
        agent = Agent()
    with torch.no_grad():
        for parameter in agent.actor[2].parameters():
            parameter.mul_(0.01)
    return agent


def save_agent(agent: Agent, path: Path, provenance: Mapping[str, object]) -> None:
    """Write an agent; the file appears whole or not at all.

    Args:
        agent: its weights.
        path: of the file; its folder is made.
        provenance: command, seed, data, versions, reward: what can be written as JSON.

    Raises:
        ResultsError: the file cannot be written.
    """
    tensors = {name: value.contiguous() for name, value in agent.state_dict().items()}
    metadata = {"format": FORMAT, "provenance": json.dumps(dict(provenance))}
    try:
        write_whole(path, save(tensors, metadata))
    except OSError as error:
        raise ResultsError(f"the agent {path} cannot be written: {error}") from error


def load_agent(name: str) -> Agent:
    """The agent of a file, or the one that comes with the package.

    Args:
        name: a path, or `shipped`.

    Raises:
        ConfigError: there is no such file, it is damaged, or of another version.
    """
    agent = Agent()
    tensors, _ = _read(_path(name))
    try:
        agent.load_state_dict(tensors)
    except RuntimeError as error:
        raise _unusable(_path(name), " ".join(str(error).split())) from error
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise _unusable(_path(name), "it holds NaN or infinity")
    return agent


def provenance(name: str) -> dict[str, object]:
    """How an agent's weights were made.

    Raises:
        ConfigError: there is no such file, it is damaged, or of another version.
    """
    found: dict[str, object] = json.loads(_read(_path(name))[1]["provenance"])
    return found


def _path(name: str) -> Path:
    if name != SHIPPED:
        return Path(name)
    return Path(str(resources.files("spatl_ray.selection") / "agent.safetensors"))


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors and metadata of an agent's file."""
    if not path.is_file():
        raise ConfigError(
            f"algorithm.agent.weights must be '{SHIPPED}' or an agent's file, got {str(path)!r}, which "
            "is no file; `spatl pretrain-agent` makes one"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unusable(path, str(error)) from error
    if metadata.get("format") != FORMAT:
        got = metadata.get("format", "a file without a format")
        raise _unusable(path, f"it must be of format {FORMAT!r}, got {got!r}")
    return tensors, metadata


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"algorithm.agent.weights must be a whole file of this version, got {path}: {why}"
    )


def act(
    agent: Agent,
    features: Tensor,
    topology: Topology,
    noise: np.ndarray | None,
    sigma: float = SIGMA,
) -> tuple[np.ndarray, float, float]:
    """One decision.

    Args:
        agent: who decides.
        features: of the network, shape (nodes, FEATURES).
        topology: of the network.
        noise: standard normal numbers, shape (layers,), or None for the mean action.
        sigma: standard deviation of an action.

    Returns:
        The action, shape (layers,) in float64, its log probability and the expected return.
    """
    with torch.no_grad():
        embedding = agent.embed(features[None], topology)
        means = agent.means(embedding, topology)
        value = float(agent.values(embedding))
        actions = means
        if noise is not None:
            actions = means + sigma * torch.from_numpy(noise.astype(np.float32))
        chance = float(log_probability(actions, means, sigma))
    return actions[0].double().numpy(), chance, value
