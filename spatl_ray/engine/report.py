"""Figures of one client's update: what share travelled, and what each layer sent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spatl_ray.algorithms.base import DELTA, Proposal
from spatl_ray.engine.messages import LayerReport, SelectionReport
from spatl_ray.parameters import Layout, Space
from spatl_ray.update import MaskKind, Parts


def sent_share(parts: Parts, spaces: Mapping[str, Space], layout: Layout) -> float | None:
    """Share of the shared parameters that an update carries; None if nothing is shared."""
    if DELTA not in parts:
        return None
    return parts[DELTA].mask.count(spaces[DELTA]) / layout.shared.size


def layer_reports(proposal: Proposal, layout: Layout) -> tuple[LayerReport, ...]:
    """One report a prunable layer, for updates with a channel mask."""
    part = proposal.parts.get(DELTA)
    if part is None or part.mask.kind is not MaskKind.CHANNEL or part.mask.bits is None:
        return ()
    bits, inference = part.mask.bits, proposal.inference
    reports = []
    for index, group in enumerate(layout.shared.groups):
        own = slice(group.offset, group.offset + group.channels)
        kept = int(np.count_nonzero(bits[own]))
        row = sum(s.size // group.channels for s in layout.shared.segments if s.group == index)
        reports.append(
            LayerReport(
                layer=group.name,
                channels=group.channels,
                channels_kept=kept,
                inference_channels_kept=(
                    None if inference is None else int(np.count_nonzero(inference[own]))
                ),
                values=kept * row,
                bytes=kept * row * part.values.dtype.itemsize,
            )
        )
    return tuple(reports)


def selection_report(proposal: Proposal) -> SelectionReport | None:
    """What a client's selection came to; None if its algorithm selects nothing."""
    selection, seconds = proposal.selection, proposal.seconds_selection
    if selection is None or seconds is None:
        return None
    return SelectionReport(
        seconds, selection.inference_flops, selection.reward, selection.evaluations
    )
