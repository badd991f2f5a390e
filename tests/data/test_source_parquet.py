"""parquet: tables of features, against what pandas reads from the same file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import write_parquet, write_table

from spatl_ray.config import Data
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.holdout import stratified
from spatl_ray.errors import ConfigError, DataError


def load(root: Path | None, **options: Any) -> Dataset:
    return load_dataset(Data(name="parquet", root=root and str(root), options=options), seed=0)


def table(path: Path, **columns: Any) -> Path:
    """Six rows of a feature x and a label, some columns replaced or added; None drops one."""
    own = {"x": np.arange(6.0), "label": [0, 1, 0, 1, 0, 1]} | columns
    return write_table(path, {name: values for name, values in own.items() if values is not None})


def test_two_files_are_the_parts_standardised_by_the_training_rows(tmp_path: Path) -> None:
    root = write_parquet(tmp_path, rows=50, groups=5)
    test = write_parquet(tmp_path, rows=20, name="test.parquet", seed=1)
    loaded = load(root, test=str(test), group="group")
    frame, other = pd.read_parquet(root), pd.read_parquet(test)
    names = ["x0", "x1", "x2", "x3"]
    mean, std = frame[names].mean(), frame[names].std(ddof=0)
    np.testing.assert_allclose(loaded.train_x, (frame[names] - mean) / std, atol=1e-5)
    np.testing.assert_allclose(loaded.test_x, (other[names] - mean) / std, atol=1e-5)
    assert loaded.train_y.tolist() == frame["label"].tolist()
    assert loaded.test_y.tolist() == other["label"].tolist()
    assert loaded.groups is not None
    assert loaded.groups.tolist() == frame["group"].tolist()
    assert loaded.classes == 3


def test_the_test_file_may_be_named_beside_the_root(tmp_path: Path) -> None:
    root = write_parquet(tmp_path)
    beside = write_parquet(tmp_path, name="test.parquet", seed=1)
    by_name, by_path = load(root, test="test.parquet"), load(root, test=str(beside))
    assert by_name.fingerprint == by_path.fingerprint
    with pytest.raises(
        DataError, match=rf"data\.options\.test must be.*and {tmp_path}/no\.parquet"
    ):
        load(root, test="no.parquet")


def test_one_file_gives_both_parts(tmp_path: Path) -> None:
    root = write_parquet(tmp_path, rows=60, groups=5)
    loaded = load(root, normalise=False, group="group")
    frame = pd.read_parquet(root)
    assert np.bincount(loaded.test_y).tolist() == [4, 4, 4]  # A fifth of 20 each.
    rows = np.concatenate([loaded.train_x, loaded.test_x])
    names = ["x0", "x1", "x2", "x3"]
    expected = frame[names].to_numpy(np.float32)
    order = [int(np.flatnonzero((expected == row).all(axis=1))[0]) for row in rows]
    assert sorted(order) == list(range(60))
    assert frame["label"].to_numpy()[order[:48]].tolist() == loaded.train_y.tolist()
    assert loaded.groups is not None
    assert frame["group"].to_numpy()[order[:48]].tolist() == loaded.groups.tolist()


def test_texts_are_numbered_in_their_order(tmp_path: Path) -> None:
    texts = load(write_parquet(tmp_path, groups=5, text=True), group="group")
    numbers = load(write_parquet(tmp_path / "numbers", groups=5), group="group")
    assert texts.fingerprint == numbers.fingerprint
    path = table(tmp_path / "c.parquet", label=pd.Categorical(list("zazaza")))
    assert load(path, test=str(path)).train_y.tolist() == [1, 0, 1, 0, 1, 0]


def test_labels_may_leave_out_a_class(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", label=[0, 3, 0, 3, 0, 3])
    assert load(path, test=str(path)).classes == 4


def test_other_columns_of_numbers_are_the_features_in_their_order(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.parquet",
        name=list("abcdef"),
        flag=[True, False] * 3,
        count=np.arange(6, dtype=np.uint8),
    )
    loaded = load(path, test=str(path), normalise=False)
    assert loaded.train_x.tolist() == [[i, i % 2 == 0, i] for i in range(6)]
    chosen = load(path, test=str(path), normalise=False, features=["count"])
    assert chosen.train_x.tolist() == [[i] for i in range(6)]


def test_rows_can_be_reshaped(tmp_path: Path) -> None:
    root = write_parquet(tmp_path, features=12)
    flat, shaped = load(root), load(root, shape=[1, 3, 4])
    assert shaped.shape == (1, 3, 4)
    assert np.array_equal(shaped.train_x.reshape(-1, 12), flat.train_x)
    with pytest.raises(ConfigError, match=r"shape must have the product 12, .*got \[3, 5\]"):
        load(root, shape=[3, 5])


def test_a_column_that_is_constant_in_training_becomes_0(tmp_path: Path) -> None:
    root = table(tmp_path / "a.parquet", constant=[0.1] * 6)
    test = table(tmp_path / "b.parquet", constant=[0.1] * 5 + [7.0])
    loaded = load(root, test=str(test))
    assert loaded.train_x[:, 1].tolist() == [0] * 6
    assert loaded.test_x[:, 1].tolist() == [0] * 6


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"label": None}, r"must have a column 'label', got \['x'\]"),
        ({"x": None}, "must have a column of numbers beside 'label', got none"),
        ({"label": [0, 1, -2, 1, 0, 1]}, r"'label' must hold labels in .*, got -2 in row 2"),
        ({"label": [0, 1, 10**9, 1, 0, 1]}, r"'label' must hold labels in .*1000000000 in row 2"),
        ({"label": [0, 1, None, 1, 0, 1]}, "'label' must hold a value in each row, .*row 2"),
        ({"label": [0.0, 1.0] * 3}, "'label' must hold whole numbers or texts, got double"),
        ({"x": [0, 1, 2, 3, float("nan"), 5]}, "'x' must hold finite.*, got NaN.* in row 4"),
        ({"x": [0, 1, 2, 1e300, 4, 5]}, "'x' must hold finite.* too large in row 3"),
        ({"x": [0, None, 2, 3, 4, 5]}, "'x' must hold a value in each row, got none in row 1"),
        ({"x": [], "label": []}, "must hold at least one row, got none"),
    ],
)
def test_tables_that_break_a_rule_are_named(
    tmp_path: Path, columns: dict[str, Any], rule: str
) -> None:
    path = table(tmp_path / "a.parquet", **columns)
    with pytest.raises(DataError, match=f"{path}: .*{rule}"):
        load(path)


def test_chosen_columns_must_be_there_and_hold_numbers(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", name=list("abcdef"))
    with pytest.raises(DataError, match=f"{path}: must have a column 'y', got"):
        load(path, features=["x", "y"])
    with pytest.raises(DataError, match=f"{path}: column 'name' must hold numbers, got string"):
        load(path, features=["name"])
    with pytest.raises(DataError, match=f"{path}: must have a column 'owner', got"):
        load(path, group="owner")
    with pytest.raises(DataError, match=f"{path}: column 'x' must hold whole numbers or texts"):
        load(path, label="x")


def test_the_test_file_must_have_known_labels_of_the_same_kind(tmp_path: Path) -> None:
    numbers = table(tmp_path / "numbers.parquet")
    more = table(tmp_path / "more.parquet", label=[0, 1, 2, 0, 1, 2])
    texts = table(tmp_path / "texts.parquet", label=list("ababab"))
    other = table(tmp_path / "other.parquet", label=list("abcabc"))
    with pytest.raises(DataError, match=f"{more}: .*classes of the training file, got 2 in row 2"):
        load(numbers, test=str(more))
    with pytest.raises(DataError, match=f"{other}: .*training file, got 'c' in row 2"):
        load(texts, test=str(other))
    with pytest.raises(DataError, match=f"{texts}: column 'label' must hold numbers"):
        load(numbers, test=str(texts))
    with pytest.raises(DataError, match=f"{numbers}: column 'label' must hold texts"):
        load(texts, test=str(numbers))


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = write_parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{path}: must be a readable Parquet file, got Arrow"):
        load(path)


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: must be a readable Parquet file"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root must be a Parquet file.*parquet, got None"):
        load(None)
    with pytest.raises(DataError, match=f"{tmp_path}/no.parquet: no such file"):
        load(tmp_path / "no.parquet")
    with pytest.raises(DataError, match=f"{tmp_path}: is a folder, a Parquet file is needed"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"label": 3}, "label must be the name of a column, got 3"),
        ({"group": 3}, "group must be text or null, got 3"),
        ({"features": []}, r"features must be a list of columns, each once, got \[\]"),
        ({"features": ["x", "x"]}, "features must be a list of columns, each once"),
        (
            {"features": ["x", "label"]},
            "features must leave out the labels and the owners, 'label'",
        ),
        ({"normalise": "no"}, "normalise must be true or false, got 'no'"),
        ({"test_fraction": 0}, r"test_fraction must be in \(0, 1\), got 0"),
        ({"test_fraction": 0.1}, "test_fraction must leave a test sample of 6 samples"),
        ({"shape": [1, -1]}, r"shape must be a list of some positive integers, got \[1, -1\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.options\.{rule}"):
        load(table(tmp_path / "a.parquet"), **options)


def test_the_index_of_a_frame_is_no_feature(tmp_path: Path) -> None:
    """A filtered frame keeps the numbers of its rows, which may tell the label."""
    frame = pd.DataFrame({"x": np.arange(20.0) % 7, "label": np.arange(20) // 10})
    unnamed, named = tmp_path / "unnamed.parquet", tmp_path / "named.parquet"
    frame[frame["x"] != 3].to_parquet(unnamed)
    frame.set_index(pd.Index(np.arange(20), name="row")).to_parquet(named)
    for path in (unnamed, named):
        assert load(path).shape == (1,)


def test_large_numbers_keep_their_differences(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=200)
    path = tmp_path / "large.parquet"
    pd.DataFrame({"x": 1e8 + values, "label": np.arange(200) % 2}).to_parquet(path)
    small = tmp_path / "small.parquet"
    pd.DataFrame({"x": values, "label": np.arange(200) % 2}).to_parquet(small)
    large = load(path)
    np.testing.assert_allclose(large.train_x, load(small).train_x, atol=1e-5)


def test_the_moments_are_those_of_the_training_rows_in_float64(tmp_path: Path) -> None:
    """An outlier among the held-out rows, even in the first, costs the others no precision."""
    labels = np.arange(200) % 2
    held = stratified(labels, 0.6, "parquet test set")
    assert held[0]
    values = 1e8 + np.random.default_rng(0).normal(size=200)
    values[0] = 0
    path = write_table(tmp_path / "a.parquet", {"x": values, "label": labels})
    loaded = load(path, test_fraction=0.6)
    training = values[~held]
    expected = (training - training.mean()) / training.std()
    np.testing.assert_allclose(loaded.train_x[:, 0], expected, atol=1e-6)


def test_numbers_too_small_to_square_are_constant(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", x=np.arange(6) * 1e-300)
    assert load(path, test=str(path)).train_x.tolist() == [[0]] * 6


@pytest.mark.parametrize("column", ["label", "group"])
def test_integers_beyond_int64_are_reported_as_they_are(tmp_path: Path, column: str) -> None:
    path = table(tmp_path / "a.parquet", **{column: np.full(6, 2**63 + 5, np.uint64)})
    rule = f"{path}: column '{column}' must hold integers below 2\\^63, got 9223372036854775813"
    with pytest.raises(DataError, match=rule):
        load(path, group="group" if column == "group" else None)


def test_a_header_of_pandas_that_is_too_deep_is_none(tmp_path: Path) -> None:
    columns = pa.table({"x": np.arange(20.0), "label": np.arange(20) % 2})
    path = tmp_path / "deep.parquet"
    pq.write_table(columns.replace_schema_metadata({b"pandas": b"[" * 100_000}), path)
    assert load(path).shape == (1,)


def test_a_column_is_taken_by_its_whole_name(tmp_path: Path) -> None:
    path = tmp_path / "struct.parquet"
    columns = pa.table(
        {"s": [{"b": "no number"}] * 20, "s.b": np.arange(20.0), "label": np.arange(20) % 2}
    )
    pq.write_table(columns, path)
    assert load(path, features=["s.b"]).shape == (1,)


def test_damage_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    frame = pd.DataFrame({"x": np.arange(50.0), "label": ["ant", "bee"] * 25})
    frame.to_parquet(path, compression=None)
    sound, generator = path.read_bytes(), np.random.default_rng(0)
    for place in generator.integers(4, len(sound), 150):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        with suppress(DataError):
            load(path)
