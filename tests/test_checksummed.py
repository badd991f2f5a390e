"""Files of arrays and facts: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from spatl_ray.checksummed import packed, unpacked
from spatl_ray.errors import StateError

MAGIC = b"SPATLTESTS01"

arrays = drawn.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    drawn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name != "__metadata__"
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(names, arrays, max_size=3), st.dictionaries(st.text(), plain, max_size=3))
def test_what_is_packed_is_unpacked(
    tensors: dict[str, np.ndarray], facts: dict[str, object]
) -> None:
    found, told = unpacked(MAGIC, packed(MAGIC, tensors, facts), "the file")
    assert told == facts
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable


def test_strided_arrays_are_written_in_their_order() -> None:
    array = np.arange(12.0).reshape(3, 4).T
    found, _ = unpacked(MAGIC, packed(MAGIC, {"x": array}, {}), "the file")
    assert np.array_equal(found["x"], array)


@given(st.data())
def test_any_damage_shows(data: st.DataObject) -> None:
    whole = packed(MAGIC, {"x": np.arange(5.0)}, {"round": 3})
    damaged = bytearray(whole)
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged[place] ^= data.draw(st.integers(1, 255))
    else:
        del damaged[place:]
    with pytest.raises(StateError, match="the file must"):
        unpacked(MAGIC, bytes(damaged), "the file")


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(StateError, match="must be a checkpoint of this version, got another file"):
        unpacked(b"SPATLTESTS02", packed(MAGIC, {}, {}), "the file")


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    with pytest.raises(StateError, match="got another file"):
        unpacked(MAGIC, bomb, "the file")
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists(), "it is a bomb"


def test_facts_are_json() -> None:
    with pytest.raises(TypeError):
        packed(MAGIC, {}, {"facts": Bomb(Path())})
    data = packed(MAGIC, {}, {"a": [1, 2.5, None]})
    assert json.dumps({"a": [1, 2.5, None]}).replace('"', '\\"').encode() in data
