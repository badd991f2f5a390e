"""Counts among options, in one wording for data sets and models."""

from __future__ import annotations

import pytest

from spatl_ray.errors import ConfigError, ModelError, SpatlError
from spatl_ray.options import check_counts


@pytest.mark.parametrize("error", [ConfigError, ModelError])
@pytest.mark.parametrize("value", [1, 2.0, True, "3", None])
def test_what_is_no_count_is_named(error: type[SpatlError], value: object) -> None:
    rule = rf"^x\.options\.b must be an integer of at least 2, got {value!r}$"
    with pytest.raises(error, match=rule):
        check_counts("x.options", error, 2, a=2, b=value, c=0)


def test_counts_pass() -> None:
    check_counts("x.options", ConfigError, a=1, b=10**30)
    check_counts("x.options", ConfigError, 0, a=0)
