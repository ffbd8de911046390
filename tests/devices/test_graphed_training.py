"""Trainings whose steps are captured once and replayed for each mini-batch, beside the plain path."""

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.devices import cuda_graph, resolve_device, to_host
from gru_xp.nn.params import named_arrays

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "mae"},
        {"loss": "gaussian"},
        {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9), "bidirectional": True},
    ],
    ids=lambda settings: settings["loss"],
)
def test_patches_with_features_replay_to_the_plain_parameters(settings, rng, monkeypatch):
    """Three columns in windows of 11 rows, which are filled up to 4 patches; the last mini-batch is smaller."""
    values = np.cumsum(rng.standard_normal((90, 3)), axis=0)
    settings = {"patches": 4, "seq_length": 11, "horizon": 3, "batch_size": 16, "num_epochs": 3} | settings
    settings |= {"hidden_size": 5, "dtype": "float64", "guard": False}
    launches, launch = [], cuda_graph._Replay.__call__

    def counted(self):
        launches.append(self)
        return launch(self)

    def trained(device):
        forecaster = Forecaster(**settings).fit(values, device=resolve_device(device, fallback=False))
        assert forecaster.params.gru[0][0].input_size == 9
        return {name: to_host(array) for name, array in named_arrays(forecaster.params)}

    monkeypatch.setattr(cuda_graph._Replay, "__call__", counted)
    replayed = trained("cuda")
    assert len(launches) >= 3 * 5 - 2  # batches of 77 windows, of two sizes, whose first step is captured
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    count = len(launches)
    for device in ("cuda", "cpu"):
        for name, array in trained(device).items():
            np.testing.assert_allclose(replayed[name], array, rtol=0, atol=1e-9, err_msg=f"{device} {name}")
    assert len(launches) == count
