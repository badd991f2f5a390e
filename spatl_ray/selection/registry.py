"""From an algorithm's options to the policy that selects."""

from __future__ import annotations

from spatl_ray import config
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.graphs.trace import trace
from spatl_ray.models.split import SplitModel
from spatl_ray.parameters import Space
from spatl_ray.selection.agent_selector import AgentSelector
from spatl_ray.selection.pruning import Pruner
from spatl_ray.selection.selector import FixedRatio, KeptForInference, Selector


def make_selector(
    options: config.Spatl, space: Space, model: SplitModel, spec: SampleSpec
) -> Selector:
    """The policy that the options ask for; the network is traced only if channels are to be removed.

    Args:
        options: of the algorithm.
        space: the shared parameters.
        model: the network.
        spec: of the data.

    Raises:
        ConfigError: options that do not fit the network.
        ModelError: a network that cannot be traced, but has to be.
    """
    o = options
    if o.agent is not None:
        criterion = (o.inference or config.Inference()).criterion
        pruner = Pruner(trace(model, spec, space.groups), o.agent.measure)
        return AgentSelector(o.agent, space, pruner, o.criterion, criterion)
    over_all, kept = o.allocation == "global", None
    if o.inference is not None:
        pruner = Pruner(trace(model, spec, space.groups))
        kept = KeptForInference(o.inference, pruner, over_all)
    return FixedRatio(space, o.keep, o.keep_layers, o.criterion, over_all, kept, o.keep_schedule)
