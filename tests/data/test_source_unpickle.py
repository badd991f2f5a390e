"""The restricted unpickler: arrays and plain values as they were, and nothing that runs."""

from __future__ import annotations

import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import python2_pickle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.data.unpickle import unpickle
from spatl_ray.errors import DataError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(value=plain, protocol=st.sampled_from([3, 4, 5]))
def test_plain_values_are_read(value: Any, protocol: int) -> None:
    assert unpickle(pickle.dumps(value, protocol), "file") == value


@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)))
def test_arrays_of_python_2_and_numpy_1_are_read(array: np.ndarray[Any, Any]) -> None:
    read = unpickle(python2_pickle({"data": array, "labels": [1, 2]}), "file")
    assert read["labels"] == [1, 2]
    assert read["data"].dtype == np.uint8
    assert np.array_equal(read["data"], array)


def test_the_writers_form_is_what_pickle_reads() -> None:
    """The tests' own writer of Python 2's form is checked by the standard library."""
    array = np.arange(600, dtype=np.uint8).reshape(2, 300)
    read = pickle.loads(python2_pickle({"data": array}), encoding="latin1")
    assert np.array_equal(read["data"], array)


def test_arrays_of_this_numpy_are_read() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(unpickle(pickle.dumps(array, 3), "file"), array)


class Runs:
    """Unpickled in the ordinary way, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_what_would_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    content = pickle.dumps({"data": Runs(folder)})
    pickle.loads(content)
    assert folder.is_dir()
    folder.rmdir()
    rule = r"batch: must be a pickle of plain values and arrays, .*names '\w+\.mkdir', which is not"
    with pytest.raises(DataError, match=rule):
        unpickle(content, "batch")
    assert not folder.exists()


@pytest.mark.parametrize("value", [shutil.rmtree, eval, Path("x"), np.load, getattr])
def test_other_names_are_refused(value: object) -> None:
    with pytest.raises(DataError, match="not allowed"):
        unpickle(pickle.dumps(value), "batch")


@given(cut=st.integers(0, 10**6))
def test_every_truncation_is_an_error(cut: int) -> None:
    content = python2_pickle({"data": np.zeros((2, 8), np.uint8), "labels": [0, 1]})
    with pytest.raises(DataError, match="batch: must be a pickle of plain values and arrays"):
        unpickle(content[: cut % len(content)], "batch")


@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused(place: int, value: int) -> None:
    content = bytearray(python2_pickle({"data": np.zeros((2, 8), np.uint8), "labels": [0, 1]}))
    content[place % len(content)] = value
    with suppress(DataError):  # Any other exception, and anything that runs, fails the test.
        unpickle(bytes(content), "batch")


POINTER = (1).to_bytes(8, "little")
OBJECTS = [
    # An array of objects whose type says by its flags that it holds none: bytes become pointers.
    pytest.param("O8", (3, "|", None, None, None, -1, -1, 0), (1,), POINTER, id="object type"),
    pytest.param("u1", (3, "|", None, None, None, -1, -1, 0), (-1,), b"1", id="negative side"),
    pytest.param("u1", (3, "|", None, None, None, -1, -1, 0), (2**62,), b"1", id="huge side"),
    pytest.param("i8", (3, "<", None, None, None, -1, -1, 0), (2,), b"12345678", id="too short"),
    pytest.param("u1", (3, "O", None, None, None, -1, -1, 0), (1,), b"1", id="byte order"),
    pytest.param("V8", (3, "|", None, ("a",), {}, 8, 1, 0), (1,), POINTER, id="fields"),
]


def forged(code: str, state: tuple[Any, ...], shape: tuple[int, ...], content: bytes) -> bytes:
    """An array's pickle, opcode by opcode: NumPy itself would not write all of them."""
    parts = [pickle.dumps(part, 2)[2:-1] for part in (code, state, shape)]
    parts.append(b"U" + bytes([len(content)]) + content)
    kind = b"cnumpy\ndtype\n(" + parts[0] + b"I00\nI01\ntR" + parts[1] + b"b"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + b"U\x01btR"
    return b"\x80\x02" + empty + b"(I1\n" + parts[2] + kind + b"I00\n" + parts[3] + b"tb."


@pytest.mark.parametrize(("code", "state", "shape", "content"), OBJECTS)
def test_arrays_of_anything_but_numbers_are_refused(
    code: str, state: tuple[Any, ...], shape: tuple[int, ...], content: bytes
) -> None:
    with pytest.raises(DataError, match="file: must be a pickle of plain values and arrays"):
        unpickle(forged(code, state, shape, content), "file")


def test_a_sound_array_in_the_same_form_is_read() -> None:
    state = (3, ">", None, None, None, -1, -1, 0)
    read = unpickle(forged("i2", state, (2, 1), b"\x00\x01\x01\x00"), "file")
    assert read.tolist() == [[1], [256]]
    assert read.dtype == np.int16


def test_a_few_bytes_reserve_no_memory() -> None:
    """LONG_BINPUT with the highest index, of which the C unpickler makes room for 2^33 pointers."""
    assert unpickle(b"\x80\x02Nr\xff\xff\xff\xff.", "file") is None


DEEP = b"N" + b"\x85" * 200_000
"""A tuple in a tuple and so on: its hash overflows the stack."""

SETS_AND_KEYS = [
    pytest.param(b"}" + DEEP + b"Ns.", "a key must be a text or a number", id="key"),
    pytest.param(b"}(" + DEEP + b"Nu.", "a key must be a text or a number", id="some keys"),
    pytest.param(b"(" + DEEP + b"Nd.", "a key must be a text or a number", id="dictionary"),
    pytest.param(b"}N" + b"2\x86" * 60 + b"Ns.", "a key must be", id="key of 2^60 leaves"),
    pytest.param(b"\x8f(" + DEEP + b"\x90.", "holds a set or a bytearray", id="set"),
    pytest.param(b"(" + DEEP + b"\x91.", "holds a set or a bytearray", id="frozen set"),
    pytest.param(b"\x96" + b"\xff" * 6 + b"\0\0.", "a set or a bytearray", id="bytearray"),
]


@pytest.mark.parametrize(("opcodes", "rule"), SETS_AND_KEYS)
def test_what_would_crash_hang_or_fill_memory_is_refused(opcodes: bytes, rule: str) -> None:
    with pytest.raises(DataError, match=f"file: must be a pickle of plain values.*{rule}"):
        unpickle(b"\x80\x05" + opcodes, "file")


def test_deep_lists_and_long_lengths_are_read_or_refused() -> None:
    assert unpickle(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", "file")
    with pytest.raises(DataError, match="file: must be a pickle of plain values"):
        unpickle(b"\x80\x04\x8e" + b"\xff" * 7 + b"\0.", "file")


def test_arrays_of_the_same_bytes_do_not_outgrow_the_file() -> None:
    """A few opcodes an array, all of which name the same 240 bytes."""
    kept = b"U\xf0" + b"a" * 240
    state = (3, ">", None, None, None, -1, -1, 0)
    array = forged("i2", state, (120,), b"a" * 240)[2:-1].replace(kept, b"h\xc8")
    arrays = b"".join(b"K" + bytes([key]) + array for key in range(200))
    alone, many = (
        b"\x80\x02" + kept + b"q\xc80}(" + items + b"u." for items in (b"K\0" + array, arrays)
    )
    assert unpickle(alone, "file")[0].tolist() == [0x6161] * 120
    with pytest.raises(DataError, match=f"its arrays hold 48000 bytes, the file has {len(many)}"):
        unpickle(many, "file")


def test_a_pickle_leaves_nothing_behind() -> None:
    """BUILD on what it may name: a function would take the attributes."""
    for name in (b"numpy.core.multiarray\n_reconstruct", b"numpy\nndarray", b"numpy\ndtype"):
        with pytest.raises(DataError, match="file: must be a pickle of plain values"):
            unpickle(b"\x80\x02c" + name + b"\n}U\x01aNsb.", "file")


def test_names_are_shown_without_control_characters() -> None:
    with pytest.raises(DataError, match=r"it names '\\x1b\[31mos.system', which is not allowed"):
        unpickle(b"\x80\x02c\x1b[31mos\nsystem\n.", "file")
