import numpy as np
import pytest

from gru_xp.forecasting.choosing import LookBack, choose_look_back, choose_penalty
from gru_xp.forecasting.ridge import PENALTIES, PENALTY

WEEK = np.array([5.0, 6.0, 5.0, 7.0, 9.0, 12.0, 11.0])


def windows_of(values):
    """Windows less their last value, in units of the series."""

    class Relative:
        def __init__(self, length, origins, horizon=3):
            self.length, self.origins, self.horizon, self.n = length, origins, horizon, len(origins)
            self.read = []

        def gather(self, index):
            at = self.origins[index][:, None]
            z, y = values[at + np.arange(-self.length, 0)], values[at + np.arange(self.horizon)]
            return (z - z[:, -1:])[:, :, None], y - z[:, -1:], np.ones((len(index), 1))

    return Relative


def choose(values, **how):
    rows = len(values)
    return choose_look_back(windows_of(values), np.arange(1, rows - 2), rows, 3, **how)


def length_and_season(chosen):
    return chosen.seq_length, chosen.season


def test_a_longer_window_where_a_longer_season_hides(rng):
    daily = np.resize([1.0, 0.2, -0.8, 0.1], 24 * 80)
    weekly = daily + np.resize(np.repeat(3 * rng.standard_normal(7), 4), daily.size)
    assert choose(daily, seasons=[4]).seq_length == 8
    assert choose(weekly, seasons=[4]).seq_length >= 28
    assert length_and_season(choose(weekly, seasons=[4, 28], seq_length=30)) == (30, 28)


def test_what_is_given_holds(rng):
    values = np.resize(WEEK, 200) + 0.1 * rng.standard_normal(200)
    assert length_and_season(choose(values, seasons=[7], seq_length=5)) == (5, 1)
    assert length_and_season(choose(values, seasons=[7], seq_length=9)) == (9, 7)


def test_few_weights_differ_from_the_naive_forecast_where_that_is_hard_to_beat(rng):
    changes = rng.standard_normal(400)
    walk, wave = changes[:60].cumsum(), np.sin(0.9 * np.arange(400)) + 0.1 * changes
    penalties = [
        choose_penalty(windows_of(values), np.arange(1, len(values) - 2), 3, LookBack(24, 1)).penalty
        for values in (walk, wave)
    ]
    assert penalties[0] == max(PENALTIES)
    assert penalties[1] <= PENALTY


@pytest.mark.parametrize("rows", [4, 8, 12, 20])
def test_too_few_rows_to_choose_by(rows, rng):
    chosen = choose(rng.standard_normal(rows), seasons=[4])
    assert chosen.penalty == PENALTY or rows == 20
    assert 1 <= chosen.seq_length <= max(rows // 2 - 3, 1)
    assert chosen.season in (1, 4)


def test_rows_after_the_last_origin_are_not_looked_at(rng):
    values = np.resize(WEEK, 300) + rng.standard_normal(300)
    changed = np.r_[values[:250], 1e6 * rng.standard_normal(50)]
    chosen = [choose_look_back(windows_of(v), np.arange(1, 248), 250, 3, seasons=[7]) for v in (values, changed)]
    assert chosen[0] == chosen[1]
