import numpy as np
import pytest

from gru_xp.training.schedules import DEFAULT_WARMUPS, SCHEDULES, rate_factor


def factors(schedule, warmup, total):
    return [rate_factor(schedule, warmup, step, total) for step in range(total)]


@pytest.mark.peer
def test_schedules_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    total, rise = 1000, 201
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)

    def rising():  # up to 1 after 200 steps; LinearLR has no 0 to begin with
        return schedulers.LinearLR(optimizer, start_factor=1e-3 / 0.201, total_iters=200)

    def falling(steps):
        return schedulers.CosineAnnealingLR(optimizer, T_max=steps)

    def both():
        return schedulers.SequentialLR(optimizer, [rising(), falling(total - rise)], milestones=[rise])

    for schedule, warmup, theirs in (
        ("constant", 0.0, lambda: schedulers.ConstantLR(optimizer, factor=1.0)),
        ("constant", rise / total, rising),
        ("cosine", 0.0, lambda: falling(total)),
        ("cosine", rise / total, both),
        ("one-cycle", rise / total, both),
    ):
        optimizer.param_groups[0].update(lr=0.5, initial_lr=0.5)
        scheduler, expected = theirs(), []
        for _ in range(total):
            expected.append(optimizer.param_groups[0]["lr"] / 0.5)
            optimizer.step()
            scheduler.step()
        np.testing.assert_allclose(factors(schedule, warmup, total), expected, rtol=0, atol=1e-12, err_msg=schedule)


def test_every_schedule_stays_above_zero_and_reaches_one():
    assert DEFAULT_WARMUPS.keys() == set(SCHEDULES)
    for schedule, warmup in DEFAULT_WARMUPS.items():
        for total in (1, 2, 7, 300):
            rates = factors(schedule, warmup, total)
            assert min(rates) > 0.0, (schedule, total)
            assert max(rates) <= 1.0, (schedule, total)
        assert max(rates) == 1.0
        assert rates[-1] == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=1e-3)), schedule
