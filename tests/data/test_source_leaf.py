"""femnist and shakespeare: LEAF's JSON files, whose order does not matter and whose faults are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import (
    LEAF_ALPHABET,
    write_leaf,
    write_leaf_femnist,
    write_leaf_shakespeare,
)

from spatl_ray.config import Data
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.sources.leaf import ALPHABET
from spatl_ray.errors import DataError


def load(name: str, root: Path | None) -> Dataset:
    return load_dataset(Data(name=name, root=root and str(root)), seed=0)


def by_user(folder: Path) -> dict[str, dict[str, list[Any]]]:
    """{user: {x, y}} of all files of a folder, users in the order of their names."""
    users: dict[str, dict[str, list[Any]]] = {}
    for path in folder.glob("*.json"):
        users |= json.loads(path.read_text())["user_data"]
    return dict(sorted(users.items()))


def test_femnist_holds_the_files_samples_by_writer(tmp_path: Path) -> None:
    loaded = load("femnist", write_leaf_femnist(tmp_path, users=5, samples=7, files=3))
    assert (loaded.shape, loaded.classes, loaded.vocabulary) == ((1, 28, 28), 62, None)
    assert loaded.groups is not None
    assert loaded.groups.tolist() == np.repeat(np.arange(5), 7).tolist()
    users = by_user(tmp_path / "train").values()
    pixels = np.array([x for user in users for x in user["x"]])
    assert loaded.train_y.tolist() == [y for user in users for y in user["y"]]
    expected = (pixels - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(loaded.train_x.reshape(35, 784), expected, atol=1e-5)
    test = [x for user in by_user(tmp_path / "test").values() for x in user["x"]]
    expected = (np.array(test) - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(loaded.test_x.reshape(15, 784), expected, atol=1e-5)


def test_paper_stays_brighter_than_ink(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_leaf(tmp_path / part, "all", {"f0": ([[0.0] * 784, [1.0] * 784], [0, 61])})
    loaded = load("femnist", tmp_path)
    assert loaded.train_x[:, 0, 0, 0].tolist() == [-1, 1]


def test_shakespeare_gives_back_the_text(tmp_path: Path) -> None:
    loaded = load("shakespeare", write_leaf_shakespeare(tmp_path, users=3, samples=9, files=2))
    assert (loaded.shape, loaded.classes, loaded.vocabulary) == ((80,), 80, 80)
    assert loaded.groups is not None
    assert loaded.groups.tolist() == np.repeat(np.arange(3), 9).tolist()
    assert loaded.train_x.dtype == np.int64
    for part, xs, ys in (
        ("train", loaded.train_x, loaded.train_y),
        ("test", loaded.test_x, loaded.test_y),
    ):
        users = by_user(tmp_path / part).values()
        assert ["".join(LEAF_ALPHABET[i] for i in x) for x in xs] == [
            text for user in users for text in user["x"]
        ]
        assert [LEAF_ALPHABET[i] for i in ys] == [text for user in users for text in user["y"]]


def test_the_alphabet_has_80_symbols() -> None:
    assert ALPHABET == LEAF_ALPHABET
    assert len(set(ALPHABET)) == len(ALPHABET) == 80
    assert list(ALPHABET) == sorted(ALPHABET)


@pytest.mark.parametrize("name", ["femnist", "shakespeare"])
def test_users_may_lie_in_any_files(tmp_path: Path, name: str) -> None:
    write = {"femnist": write_leaf_femnist, "shakespeare": write_leaf_shakespeare}[name]
    write(tmp_path / "one", files=2)
    for part in ("train", "test"):
        users = {user: (d["x"], d["y"]) for user, d in by_user(tmp_path / "one" / part).items()}
        for number, user in enumerate(users):
            write_leaf(tmp_path / "two" / part, f"{9 - number}", {user: users[user]})
    assert load(name, tmp_path / "two").fingerprint == load(name, tmp_path / "one").fingerprint


def test_test_users_may_be_others_and_some_may_have_nothing(tmp_path: Path) -> None:
    row = [0.5] * 783 + [1.0]
    users = {"f2": ([row], [3]), "f1": ([], []), "f0": ([row, row], [1, 2])}
    write_leaf(tmp_path / "train", "all", users)
    write_leaf(tmp_path / "test", "all", {"f9": ([row], [4])})
    loaded = load("femnist", tmp_path)
    assert loaded.train_y.tolist() == [1, 2, 3]
    assert loaded.groups is not None
    assert loaded.groups.tolist() == [0, 0, 1]
    assert loaded.test_y.tolist() == [4]


@pytest.mark.parametrize("below", ["", "femnist", "data", "femnist/data"])
def test_files_are_found_below_the_usual_folders(tmp_path: Path, below: str) -> None:
    write_leaf_femnist(tmp_path / below)
    assert len(load("femnist", tmp_path).train_y) == 72


def test_missing_files_are_named_with_the_cure(no_other_place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="femnist needs its JSON files as LEAF makes them") as error:
        load("femnist", None)
    assert f"{no_other_place / 'data/femnist/data'}: no such folder" in str(error.value)
    assert "LEAF's data/femnist/preprocess.sh" in str(error.value)
    write_leaf_femnist(tmp_path / "half")
    for path in (tmp_path / "half/test").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"{tmp_path / 'half'}: lacks test/\*\.json\n"):
        load("femnist", tmp_path / "half")


ROW = [0.5] * 784
GOOD: dict[str, Any] = {
    "users": ["f0", "f1"],
    "num_samples": [1, 1],
    "user_data": {"f0": {"x": [ROW], "y": [0]}, "f1": {"x": [ROW], "y": [61]}},
}


def with_f1(**samples: Any) -> dict[str, Any]:
    return GOOD | {"user_data": GOOD["user_data"] | {"f1": {"x": [ROW], "y": [61]} | samples}}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ([], "must hold a list users, got none"),
        ({"users": []}, "must hold a list num_samples, got none"),
        (GOOD | {"user_data": [1]}, "must hold a dict user_data, got a list"),
        (GOOD | {"num_samples": [1]}, "num_samples must be as long as users, 2, got 1"),
        (GOOD | {"users": ["f0", "f7"]}, "user 'f7' must have x and y in user_data, got no such"),
        (GOOD | {"users": ["f0", 7]}, "user 7 must have x and y in user_data"),
        (GOOD | {"users": ["f0", "f0"]}, "user 'f0' must be in one file only"),
        (GOOD | {"num_samples": [1, 2]}, "'f1' must have as many x and y as num_samples says, 2"),
        (with_f1(y=[1, 2]), "user 'f1' must have as many x and y .*, 1, got 1 and 2"),
        (with_f1(x="text"), "user 'f1' must have lists as x and y, got a str"),
        (with_f1(x=[[0.5] * 783]), r"user 'f1': x must be 784 numbers.*got shape \(1, 783\)"),
        (with_f1(x=[[*ROW[1:], None]]), r"user 'f1': x must be in \[0, 1\]"),
        (with_f1(x=[[*ROW[1:], "ink"]]), "user 'f1': x must be 784 numbers a sample"),
        (with_f1(x=[[*ROW[1:], [1]]]), "user 'f1': x must be 784 numbers a sample"),
        (with_f1(x=[[*ROW[1:], 1.5]]), r"'f1': x must be in \[0, 1\], got values from 0.5 to 1.5"),
        (with_f1(x=[[*ROW[1:], -0.5]]), r"user 'f1': x must be in \[0, 1\]"),
        (with_f1(x=[[*ROW[1:], float("nan")]]), r"user 'f1': x must be in \[0, 1\]"),
        (with_f1(x=[[*ROW[1:], 10**400]]), "user 'f1': x must be 784 numbers a sample"),
        (with_f1(x=[[*ROW[1:], 1e39]]), r"'f1': x must be in \[0, 1\], got values from 0.5 to inf"),
        (with_f1(y=[62]), r"user 'f1': y must be integers in \[0, 62\), got 62"),
        (with_f1(y=[-1]), r"user 'f1': y must be integers in \[0, 62\), got -1"),
        (with_f1(y=[1.0]), r"user 'f1': y must be integers in \[0, 62\), got 1\.0"),
    ],
)
def test_faults_of_femnist_are_named(tmp_path: Path, content: Any, rule: str) -> None:
    write_leaf_femnist(tmp_path)
    path = tmp_path / "test/zzz.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"{path}: .*{rule}"):
        load("femnist", tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "rule"),
    [
        (["a" * 79], ["b"], "x must be texts of 80 symbols, got 79"),
        ([7], ["b"], "x must be texts of 80 symbols, got a int"),
        (["a" * 80], ["bc"], "y must be texts of 1 symbols, got 2"),
        (["a" * 79 + "{"], ["b"], "x must be of LEAF's 80 symbols, got '{'"),
        (["a" * 79 + "é"], ["b"], "x must be of LEAF's 80 symbols, got 'é'"),
        (["a" * 79 + "中"], ["b"], "x must be of LEAF's 80 symbols, got '中'"),
        (["a" * 80], ["#"], "y must be of LEAF's 80 symbols, got '#'"),
    ],
)
def test_faults_of_shakespeare_are_named(tmp_path: Path, x: Any, y: Any, rule: str) -> None:
    write_leaf_shakespeare(tmp_path)
    write_leaf(tmp_path / "train", "zzz", {"THE_PLAY_ROMEO": (x, y)})
    path = tmp_path / "train/zzz.json"
    with pytest.raises(DataError, match=f"{path}: user 'THE_PLAY_ROMEO': {rule}"):
        load("shakespeare", tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    write_leaf_femnist(tmp_path)
    path = next((tmp_path / "train").iterdir())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{path}: must be readable as JSON, got JSONDecodeError"):
        load("femnist", tmp_path)


def test_no_samples_at_all_are_refused(tmp_path: Path) -> None:
    write_leaf_femnist(tmp_path, test=0)
    with pytest.raises(DataError, match=f"{tmp_path / 'test'}: must hold at least one sample"):
        load("femnist", tmp_path)
