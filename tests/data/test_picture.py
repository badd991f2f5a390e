"""The picture of who holds what: what it shows, and where it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from spatl_ray.data.picture import check_picture, draw, save_picture
from spatl_ray.errors import ConfigError, ResultsError

pytestmark = pytest.mark.integration


def counts(clients: int, classes: int = 10, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 50, (clients, classes))
    drawn[:, 0] += 1
    return drawn


def panels(table: np.ndarray, title: str = "digits, iid"):
    figure = draw(table, title)
    left, right, _ = figure.axes
    return figure, left, right


def test_few_clients_have_a_row_and_a_bar_each() -> None:
    table = counts(8, 5)
    figure, left, right = panels(table)
    assert figure.get_suptitle() == "digits, iid: 8 clients"
    shares = left.images[0].get_array()
    assert np.allclose(shares, table / table.sum(axis=1, keepdims=True))
    assert [bar.get_width() for bar in right.patches] == table.sum(axis=1).tolist()
    bars = [bar.get_y() + bar.get_height() / 2 for bar in right.patches]
    assert np.allclose(bars, np.arange(8))
    assert left.get_ylim() == right.get_ylim() == (7.5, -0.5)
    assert (left.get_xlabel(), left.get_ylabel()) == ("class", "client")
    assert right.get_xlabel() == "samples"


def test_few_cells_show_their_samples() -> None:
    table = np.array([[3, 0], [0, 4_000]])
    _, left, _ = panels(table)
    written = {(*map(int, text.get_position()),): text.get_text() for text in left.texts}
    assert written == {(0, 0): "3", (1, 1): "4000"}


@pytest.mark.parametrize("table", [counts(13), counts(5, 13), 1_000_000 * counts(3, 3)])
def test_cells_too_small_for_their_numbers_show_none(table: np.ndarray) -> None:
    assert not panels(table)[1].texts


def test_many_clients_are_shown_by_100_of_them_and_all_sizes() -> None:
    """Each of a class of its own size, so that the samples name the client."""
    table = np.ones((2000, 4), np.int64)
    table[:, 2] = np.random.default_rng(0).permutation(2000)
    figure, left, right = panels(table)
    assert figure.get_suptitle() == "digits, iid: 2,000 clients (100 shown)"
    shares = np.asarray(left.images[0].get_array())
    assert shares.shape == (100, 4)
    held = {size: client for client, size in enumerate(table[:, 2].tolist())}
    shown = np.array([held[round(1 / share) - 3] for share in shares[:, 0]])
    assert np.array_equal(shown // 20, np.arange(100)), "one of each hundredth, in order"
    named = [label.get_text() for label in left.get_yticklabels()]
    assert named == [f"{shown[round(row)]:,}" for row in left.get_yticks()]
    assert len(named) == 11
    sizes = right.lines[0].get_ydata()
    assert np.array_equal(np.sort(sizes), np.sort(table.sum(axis=1)))
    assert (np.diff(sizes) <= 0).all()
    assert (left.get_ylabel(), right.get_ylabel()) == ("client", "samples")
    assert right.get_xlabel() == "clients, from the largest to the smallest"


def test_many_iid_clients_show_no_pattern() -> None:
    """Sorted by what they hold, they looked as if each had a class of its own."""
    table = np.random.default_rng(1).multinomial(100, [0.1] * 10, size=500)
    shares = np.asarray(panels(table)[1].images[0].get_array())
    blocks = shares.reshape(10, 10, 10).mean(axis=1)
    assert np.abs(blocks - 0.1).max() < 0.04  # four standard errors, sqrt(0.1 * 0.9 / 100 / 10)


def test_clients_that_alternate_are_not_all_of_one_kind() -> None:
    table = np.eye(10, dtype=np.int64)[np.arange(1000) % 10]
    shares = np.asarray(panels(table)[1].images[0].get_array())
    assert (shares.sum(axis=0) >= 3).all()


@pytest.mark.parametrize("clients", [7, 100, 350])
def test_noise_has_a_bar_in_each_row(clients: int) -> None:
    noise = np.linspace(0, 0.5, clients)
    left, middle, _, _ = draw(counts(clients), "digits, feature_noise", noise).axes
    assert middle.get_xlabel() == "noise (std)"
    assert left.get_ylim() == middle.get_ylim()
    widths = [bar.get_width() for bar in middle.patches]
    assert len(widths) == min(clients, 100)
    assert np.allclose(widths, np.linspace(0, 0.5, len(widths)), atol=0.005)


def test_an_only_client_without_noise_is_drawn() -> None:
    draw(counts(1), "digits, feature_noise", np.zeros(1)).canvas.draw()


def test_colours_mean_the_same_in_all_pictures() -> None:
    for table in (counts(3), np.eye(3, dtype=np.int64)):
        _, left, _ = panels(table)
        assert left.images[0].get_clim() == (0, 1)


def test_one_client_is_drawn() -> None:
    assert panels(counts(1))[0].get_suptitle() == "digits, iid: 1 client"


@pytest.mark.parametrize("clients", [1, 10, 101])
def test_it_is_written_and_has_something_on_it(clients: int, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "who.png"
    save_picture(counts(clients), "digits, " + "a very long partition " * 20, path)
    image = imread(path)
    assert image.shape[1] == 1200
    assert 0.05 < (image[..., :3].min(axis=2) < 0.9).mean() < 0.9


def test_an_ending_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"--picture must end in one of .*\.pdf.*, got 'who\.doc'"
    ):
        check_picture(Path("who.doc"))


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"the picture .*who\.png cannot be written"):
        save_picture(counts(2), "digits", tmp_path / "file" / "who.png")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'spatl_ray\[analysis\]'"):
        check_picture(Path("who.png"))
