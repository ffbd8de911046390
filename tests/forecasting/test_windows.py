import re
from dataclasses import replace

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.errors import DataError
from gru_xp.forecasting import windows as module
from gru_xp.forecasting.scaling import SCALINGS, Scaler
from gru_xp.forecasting.windows import Split, WindowSequences, make_windows, split_rows

PARTS = ("train", "validation", "test")


def numbered(rows, columns=2):
    """A series whose target is the number of its row."""
    return np.arange(float(rows))[:, None] + 0.25 * np.arange(columns)


def test_windows_and_what_comes_after_them(rng):
    values = rng.standard_normal((13, 3))
    windows, targets = make_windows(values, 4)
    assert windows.shape == (9, 4, 3)
    assert targets.shape == (9,)
    for i in range(9):
        for step in range(4):
            for column in range(3):
                assert windows[i, step, column] == values[i + step, column]
        assert targets[i] == values[i + 4, 0]


def test_short_series():
    for rows, seq_length in ((2, 1), (5, 4), (4, 4)):
        windows, targets = make_windows(numbered(rows), seq_length)
        assert windows.shape == (rows - seq_length, seq_length, 2)
        assert targets.tolist() == list(range(seq_length, rows))


def test_windows_cannot_be_written():
    windows, _ = make_windows(numbered(6), 2)
    assert not windows.flags.writeable


def random_splits(rng, count=400, horizons=(1,)):
    """Number of rows, window length, and the split that was made of them, where one can be, and its horizon."""
    made = 0
    while made < count:
        rows, seq_length = int(rng.integers(2, 120)), int(rng.integers(1, 15))
        split_ratio = float(rng.choice([1.0, rng.uniform(0.05, 0.99)]))
        validation_ratio = float(rng.choice([0.0, rng.uniform(0.01, 0.6)]))
        try:
            horizon = int(rng.choice(horizons))
            split = split_rows(rows, seq_length, split_ratio, validation_ratio, horizon)
        except DataError:
            continue
        made += 1
        yield rows, seq_length, split_ratio, validation_ratio, split, horizon


def test_no_window_looks_ahead(rng):
    for rows, seq_length, split_ratio, validation_ratio, split, _ in random_splits(rng):
        windows, targets = make_windows(numbered(rows), seq_length)
        seen = []
        for name in PARTS:
            part, own = split.part(name), split.targets(name, seq_length)
            for window, target in zip(windows[own], targets[own], strict=True):
                assert part.start <= target < part.stop
                assert window[:, 0].tolist() == list(range(int(target) - seq_length, int(target)))
                seen.append(int(target))
        # every row that has a whole window before it is a target, once, in the order of time
        assert seen == list(range(seq_length, rows))
        assert targets[split.targets("train", seq_length)].max() < split.train_end
        assert (split.part("test").stop - split.part("test").start > 0) == (split_ratio < 1)
        assert (split.train_end < split.fit_end) == (validation_ratio > 0)


def test_no_target_is_in_another_part(rng):
    """Of several steps: each part has all windows whose targets are all in it, and no other."""
    for rows, seq_length, _, _, split, horizon in random_splits(rng, 100, horizons=(2, 3, 7)):
        for name in PARTS:
            part, own = split.part(name), split.targets(name, seq_length, horizon)
            expected = [
                start
                for start in range(rows)
                if all(
                    row in range(part.start, part.stop)
                    for row in (start + seq_length, start + seq_length + horizon - 1)
                )
            ]
            assert list(range(own.start, own.stop)) == expected


def test_parts_are_as_large_as_asked_for(rng):
    for rows, _, split_ratio, validation_ratio, split, _ in random_splits(rng):
        assert split.rows == rows
        assert abs(split.fit_end - rows * split_ratio) <= 0.5
        assert abs((split.fit_end - split.train_end) - split.fit_end * validation_ratio) <= 0.5


def test_a_split_by_hand():
    split = split_rows(100, 10, 0.7, 0.2)
    assert split == Split(train_end=56, fit_end=70, rows=100)
    assert [split.part(name) for name in PARTS] == [slice(0, 56), slice(56, 70), slice(70, 100)]
    assert [split.targets(name, 10) for name in PARTS] == [slice(0, 46), slice(46, 60), slice(60, 90)]


def test_the_number_of_rows_that_is_needed_is_right(rng):
    checked = 0
    for _ in range(100):
        seq_length, horizon = int(rng.integers(1, 20)), int(rng.choice([1, 1, 4]))
        ratios = float(rng.choice([1.0, rng.uniform(0.2, 0.95)])), float(rng.choice([0.0, rng.uniform(0.05, 0.5)]))
        try:
            split_rows(1, seq_length, *ratios, horizon)
        except DataError as error:
            needed = int(re.search(r"at least (\d+) ", str(error))[1])
        split = split_rows(needed, seq_length, *ratios, horizon)
        wanted = [
            name for name, is_wanted in zip(PARTS, (True, ratios[1] > 0, ratios[0] < 1), strict=True) if is_wanted
        ]
        for name in wanted:
            own = split.targets(name, seq_length, horizon)
            assert own.stop > own.start
        for rows in range(2, needed):
            with pytest.raises(DataError, match=f"^{rows} rows .*at least {needed} "):
                split_rows(rows, seq_length, *ratios, horizon)
            checked += 1
    assert checked > 1000


def test_no_number_of_rows_is_enough(refusal):
    for ratios in ((0.0, 0.0), (0.0, 0.2), (1.0, 1.0)):
        refusal(lambda ratios=ratios: split_rows(50, 3, *ratios), "no number of rows is enough")


def test_a_great_number_of_rows_is_needed():
    assert split_rows(200_000, 10, 0.0001, 0.0).train_end == 20
    with pytest.raises(DataError, match=r"at least 10[0-9]{4} are needed"):
        split_rows(100, 10, 0.0001, 0.0)


# --- sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "counts"), [*((kind, False) for kind in SCALINGS), ("last", True), ("standard", True)]
)
def test_windows_are_gathered_and_scaled_by_number(xp, rng, monkeypatch, kind, counts):
    """In parts, or at once; with what was observed beside them."""
    monkeypatch.setattr(module, "MAX_GATHERED", 4)
    values = 1e6 + np.cumsum(rng.standard_normal((40, 2)), axis=0)
    observed = rng.integers(0, 2, (40, 2)).astype(float)
    scaler, starts = Scaler.fit(kind, values[:20], ("a", "b")), np.array([30, 2, 17, 3, 9, 0])
    scaler = replace(scaler, counts=counts)
    there = xp.asarray(observed)
    sequences = WindowSequences(xp.asarray(values), xp.asarray(starts), 5, 3, scaler, observed=there, dtype=xp.float32)
    assert sequences.n == 6
    index = [5, 0, 1, 4, 3, 0]
    x, y, weight = sequences.gather(xp.asarray(index))
    assert all(array.dtype == xp.float32 for array in (x, y, weight))
    windows = np.stack([values[start : start + 5] for start in starts])
    targets = np.stack([values[start + 5 : start + 8, 0] for start in starts])
    marks = np.stack([observed[start : start + 5] for start in starts])
    expected_x = np.concatenate([scaler.scale_windows(windows), marks], axis=2)[index].astype(np.float32)
    np.testing.assert_allclose(to_host(x), expected_x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(to_host(y), scaler.scale_targets(targets, windows)[index], rtol=1e-6, atol=1e-7)
    units = np.broadcast_to(scaler.target_scales(windows)[1], (6, 1))
    np.testing.assert_allclose(to_host(weight), (units / units.mean())[index], rtol=1e-6)
    assert sequences.mean_unit == pytest.approx(units.mean(), rel=1e-10)
    other = WindowSequences(xp.asarray(values), xp.asarray(starts), 5, 3, scaler, mean_unit=2 * sequences.mean_unit)
    if kind == "window":
        np.testing.assert_allclose(to_host(other.gather(xp.asarray(index))[2]), to_host(weight) / 2, rtol=1e-6)


def test_small_changes_of_large_values_are_kept(rng):
    """In float32, at a level where that cannot tell them apart."""
    changes = np.cumsum(rng.uniform(-0.01, 0.01, 60))
    for kind in ("last", "window", "standard"):
        results = []
        for level in (0.0, 1e6):
            rows = (level + changes)[:, None]
            sequences = WindowSequences(rows, np.arange(50), 6, 2, Scaler.fit(kind, rows, ("a",)), dtype=np.float32)
            results.append(sequences.gather(np.arange(50)))
        for array, other in zip(*results, strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-5, err_msg=kind)


@pytest.mark.parametrize(("kind", "seq_length", "horizon"), [(kind, 9, 4) for kind in SCALINGS] + [("window", 1, 1)])
def test_products_are_summed_without_gathering(rng, kind, seq_length, horizon):
    values = 1e5 + np.cumsum(rng.standard_normal((90, 2)), axis=0)
    scaler, starts = Scaler.fit(kind, values[:50], ("a", "b")), np.arange(3, 60)
    sequences = WindowSequences(values, starts, seq_length, horizon, scaler)
    x, y, weight = sequences.gather(np.arange(sequences.n))
    weighted = np.concatenate([x[:, :, 0], y], axis=1) * weight
    expected = weighted.T @ weighted
    np.testing.assert_allclose(sequences.sum_products(), expected, rtol=1e-9, atol=1e-9 * expected.max())
    values[[2, 59 + seq_length + horizon]] = 1e9  # of no window
    again = WindowSequences(values, starts, seq_length, horizon, scaler, mean_unit=sequences.mean_unit)
    np.testing.assert_array_equal(again.sum_products(), sequences.sum_products())
    with_a_gap, of_counts = np.delete(starts, 7), replace(scaler, counts=True)
    for other_scaler, other_starts in ((scaler, with_a_gap), (of_counts, starts)):
        assert WindowSequences(values, other_starts, seq_length, horizon, other_scaler).sum_products() is None
