import dataclasses
import json
import statistics
from itertools import pairwise

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.errors import DataError
from gru_xp.forecasting.baselines import naive_forecast
from gru_xp.forecasting.scaling import SCALINGS, Scaler
from gru_xp.forecasting.windows import make_windows

COLUMNS = ("a", "b", "c")


@pytest.fixture(params=SCALINGS)
def kind(request):
    return request.param


@pytest.fixture
def rows(walk):
    """Three columns of quite different sizes."""
    return walk(60, 3) * np.array([1.0, 1e6, 1e-4])


def test_statistics(rows, kind):
    scaler = Scaler.fit(kind, rows, COLUMNS)
    assert scaler.kind == kind
    for column in range(3):
        numbers = rows[:, column].tolist()
        changes = [b - a for a, b in pairwise(numbers)]
        mean, mean_change = sum(numbers) / 60, sum(changes) / 59
        assert scaler.mean[column] == pytest.approx(mean, rel=1e-12)
        assert scaler.std[column] == pytest.approx((sum((v - mean) ** 2 for v in numbers) / 60) ** 0.5, rel=1e-12)
        expected = (sum((v - mean_change) ** 2 for v in changes) / 59) ** 0.5
        assert scaler.change_std[column] == pytest.approx(expected, rel=1e-10)


def test_standard_windows(rows):
    scaler = Scaler.fit("standard", rows, COLUMNS)
    windows, targets = make_windows(rows, 5)
    expected, _ = make_windows((rows - rows.mean(axis=0)) / rows.std(axis=0), 5)
    np.testing.assert_allclose(scaler.scale_windows(windows), expected, rtol=1e-9, atol=1e-12)
    z = (targets - rows[:, 0].mean()) / rows[:, 0].std()
    np.testing.assert_allclose(scaler.scale_targets(targets, windows), z, rtol=1e-12)


def test_windows_less_their_last_row(rows):
    scaler = Scaler.fit("last", rows, COLUMNS)
    windows, targets = make_windows(rows, 5)
    unit = np.diff(rows, axis=0).std(axis=0)
    scaled = scaler.scale_windows(windows)
    assert (scaled[:, -1] == 0.0).all()
    for i in (0, 7, 54):
        np.testing.assert_allclose(scaled[i], (rows[i : i + 5] - rows[i + 4]) / unit, rtol=1e-12)
    change = (rows[5:, 0] - rows[4:-1, 0]) / unit[0]
    np.testing.assert_allclose(scaler.scale_targets(targets, windows), change, rtol=1e-12)
    assert np.std(change) == pytest.approx(1.0, rel=0.2)


def test_windows_in_units_of_their_own(xp, rows):
    scaler = Scaler.fit("window", rows[:40], COLUMNS)
    windows = xp.asarray(make_windows(rows, 5)[0].copy())
    scaled, (level, unit) = to_host(scaler.scale_windows(windows)), map(to_host, scaler.target_scales(windows))
    assert scaled.shape == (55, 5, 3)
    assert level.shape == unit.shape == (55, 1)
    for i in (0, 7, 54):
        window = rows[i : i + 5]
        s = [statistics.pstdev(window[:, c].tolist()) + 0.05 * rows[:40, c].std() for c in range(3)]
        np.testing.assert_allclose(scaled[i], (window - window[-1]) / s, rtol=1e-11)
        assert (level[i, 0], unit[i, 0]) == (window[-1, 0], pytest.approx(s[0], rel=1e-12))
    flat = np.full((1, 5, 3), 7.0)
    assert scaler.target_scales(flat)[1] == pytest.approx(0.05 * rows[:40, 0].std(), rel=1e-12)


def test_median_and_interquartile_range(xp, rows):
    """An outlier counts for nothing; where most values are the same, the standard deviation is the unit."""
    rows[11, 0] = 1e9
    scaler = Scaler.fit("robust", rows, COLUMNS)
    quartiles = [statistics.quantiles(column, n=4, method="inclusive") for column in rows.T.tolist()]
    assert scaler.median == pytest.approx([q[1] for q in quartiles], rel=1e-12)
    assert scaler.iqr == pytest.approx([q[2] - q[0] for q in quartiles], rel=1e-9)
    windows, targets = (xp.asarray(a.copy()) for a in make_windows(rows, 5))
    scaled = to_host(scaler.scale_windows(windows))
    np.testing.assert_allclose(scaled[4], (rows[4:9] - scaler.median) / scaler.iqr, rtol=1e-12)
    expected = (rows[5:, 0] - scaler.median[0]) / scaler.iqr[0]
    np.testing.assert_allclose(to_host(scaler.scale_targets(targets, windows)), expected, rtol=1e-12)
    mostly = np.where(np.arange(60) % 5, 3.0, np.arange(60.0))[:, None]
    scaler = Scaler.fit("robust", mostly, ("a",))
    assert (scaler.median, scaler.iqr) == ((3.0,), pytest.approx((mostly.std(),)))


def test_targets_come_back(rows, kind):
    scaler = Scaler.fit(kind, rows[:30], COLUMNS)
    windows, targets = make_windows(rows, 4)
    scaled = scaler.scale_targets(targets, windows)
    np.testing.assert_allclose(scaler.unscale_predictions(scaled, windows), targets, rtol=1e-13)
    assert (np.abs(scaled - targets).min() > 0.1) == (kind != "none")
    several = np.stack([targets, targets[::-1]], axis=1)
    scaled = scaler.scale_targets(several, windows)
    assert scaled[3, 1] == scaler.scale_targets(several[:, 1], windows)[3]
    np.testing.assert_allclose(scaler.unscale_predictions(scaled, windows), several, rtol=1e-13)


def test_predicting_no_change_is_the_naive_forecast(rows):
    scaler = Scaler.fit("last", rows, COLUMNS)
    windows, _ = make_windows(rows, 4)
    expected = rows[3:-1, 0]
    np.testing.assert_array_equal(scaler.unscale_predictions(np.zeros(56), windows), expected)
    np.testing.assert_array_equal(naive_forecast(windows), expected)


def test_the_level_does_not_matter_to_last(rows):
    scaler = Scaler.fit("last", rows, COLUMNS)
    windows, targets = make_windows(rows, 4)
    scaled = scaler.scale_windows(windows[..., :1]), scaler.scale_targets(targets, windows)
    standard = Scaler.fit("standard", rows, COLUMNS)
    for level in (-300.0, 1e5):
        lifted = Scaler.fit("last", rows + level, COLUMNS)
        assert lifted.change_std == pytest.approx(scaler.change_std, rel=1e-6)
        np.testing.assert_allclose(scaler.scale_windows(windows[..., :1] + level), scaled[0], atol=1e-8)
        np.testing.assert_allclose(scaler.scale_targets(targets + level, windows + level), scaled[1], atol=1e-8)
        changes = standard.scale_targets(targets + level, windows) - standard.scale_targets(targets, windows)
        assert np.abs(changes).min() > 1


def test_a_straight_line(kind):
    rows = 5.0 + 0.3 * np.arange(40.0)[:, None]
    scaler = Scaler.fit(kind, rows, ("a",))
    assert scaler.change_std[0] == pytest.approx(0.3)
    windows, targets = make_windows(rows, 3)
    scaled = scaler.scale_targets(targets, windows)
    assert np.isfinite(scaler.scale_windows(windows)).all()
    if kind == "last":
        np.testing.assert_allclose(scaled, 1.0, rtol=1e-9)


def test_a_constant_column_is_refused(rows, refusal):
    rows[:, 1] = 7.0
    for kind in SCALINGS:
        refusal(lambda kind=kind: Scaler.fit(kind, rows, COLUMNS), "column b ", "is constant in all")
        for value in (0.1, 1 / 3, 1e10 / 7):
            for count in range(2, 100):
                constant = np.full((count, 1), value)
                with pytest.raises(DataError, match="is constant in all"):
                    Scaler.fit(kind, constant, ("a",))


def test_what_is_fitted_can_be_read_again(rows, kind):
    for size in (1e-148, 1.0, 1e148):
        scaler = Scaler.fit(kind, rows[:, :1] * size, ("a",))
        assert Scaler.from_dict(json.loads(json.dumps(scaler.to_dict()))) == scaler, size


def test_the_largest_values_there_may_be(kind):
    rows = np.array([1e150, -1e150] * 20)[:, None]
    scaler = Scaler.fit(kind, rows, ("a",))
    assert Scaler.from_dict(scaler.to_dict()) == scaler
    assert scaler.change_std[0] == pytest.approx(2e150, rel=1e-2)


def test_a_column_that_changes_too_little(refusal):
    """Also where it is the standard deviation alone that is too small."""
    for kind in SCALINGS:
        for spread in (1e-160, 1e-151, 3e-150, 1e-320):
            rows = np.zeros((40, 2))
            rows[:, 0] = np.arange(40)
            rows[7, 1] = spread
            fit = lambda kind=kind, rows=rows: Scaler.fit(kind, rows, ("a", "b\x1b"))  # noqa: E731
            refusal(fit, r"column b\x1b ", f" {spread:g} ", "scale")


def test_values_that_are_too_large(rows, refusal):
    for kind in SCALINGS:
        for value in (1.1e150, -1e308, np.inf, np.nan):
            rows[3, 1] = value
            refusal(lambda kind=kind: Scaler.fit(kind, rows, COLUMNS), "column b ", f"{value:g}", "1e+150", "scale")


def test_numbers_that_no_scaler_has(rows):
    scaler = Scaler.fit("last", rows, COLUMNS)
    for name, numbers in (
        ("mean", (1e308, -1e308, np.nan, -np.inf)),
        ("std", (1e308, 1e-320, 0.0, -1.0, np.nan, np.inf)),
        ("change_std", (1e308, 1e-320, 0.0, -1.0, np.nan, np.inf)),
    ):
        for number in numbers:
            with pytest.raises(ValueError, match=rf"^{name} of the scaler holds .*; it must be from \S+ to 4e\+150$"):
                dataclasses.replace(scaler, **{name: (1.0, 1.0, number)})
        with pytest.raises(ValueError, match="as many numbers"):
            dataclasses.replace(scaler, **{name: (1.0,)})
    robust = Scaler.fit("robust", rows, COLUMNS)
    assert "iqr" not in scaler.to_dict()
    for one, changes, match in (
        (robust, {"iqr": (1.0, 0.0, 1.0)}, "^iqr of the scaler holds 0.0"),
        (robust, {"median": ()}, "as many numbers"),
        (robust, {"kind": "last"}, "as many numbers"),
        (scaler, {"kind": "robust"}, "as many numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            dataclasses.replace(one, **changes)
    with pytest.raises(ValueError, match="kind is 'first'"):
        dataclasses.replace(scaler, kind="first")
    with pytest.raises(ValueError, match="mean of the scaler holds True"):
        Scaler.from_dict(scaler.to_dict() | {"mean": [1.0, 1.0, True]})


@pytest.mark.parametrize("counts", [False, True])
def test_gradients_of_windows_by_central_differences(rng, kind, counts):
    rows = np.abs(rng.standard_normal((60, 2))) * [3.0, 40.0] + 5
    scaler = dataclasses.replace(Scaler.fit(kind, rows, ("a", "b")), counts=counts)
    windows = rng.standard_normal((4, 7, 2)) * [3.0, 40.0] + 4
    dscaled, (dlevel, dunit) = rng.standard_normal((4, 7, 2)), rng.standard_normal((2, 4, 1))

    def value(windows):
        level, unit = scaler.target_scales(windows)
        return np.sum(dscaled * scaler.scale_windows(windows)) + np.sum(dlevel * level) + np.sum(dunit * unit)

    gradient = scaler.scale_windows_backward(dscaled, windows)
    gradient[:, :, :1] += scaler.target_scales_backward(dlevel, dunit, windows)
    for _ in range(3):
        step = 1e-5 * rng.standard_normal(windows.shape)
        expected = (value(windows + step) - value(windows - step)) / 2
        assert np.sum(gradient * step) == pytest.approx(expected, rel=1e-6, abs=1e-10)


def test_a_window_that_does_not_change_has_a_gradient(walk):
    scaler, flat = Scaler.fit("window", walk(60), ("a",)), np.full((1, 5, 1), 3.0)
    gradient = scaler.scale_windows_backward(np.ones_like(flat), flat)
    np.testing.assert_allclose(gradient[0, :, 0] * 0.05 * scaler.std[0], [1, 1, 1, 1, -4], rtol=1e-12)
