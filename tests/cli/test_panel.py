"""Several series in one file, told apart by ``--id-column``."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest

SHORT = ("--horizon", 3, "--num-steps", 8, "--hidden-size", 4, "--seq-length", 8, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def stores():
    """Three stores with different sizes, starts and lengths."""
    rng, frames = np.random.default_rng(3), []
    for name, first, rows, size in (("North", "2020-01", 60, 1), ("South", "2021-03", 45, 1000), ("Tiny", "2022-01", 9, 5)):
        sales = size * (10 + 3 * np.sin(np.arange(rows)) + rng.normal(size=rows))
        months = pd.period_range(first, periods=rows, freq="M").astype(str)
        frames.append(pd.DataFrame({"store": name, "month": months, "sales": sales.round(3)}))
    return pd.concat(frames)


@pytest.fixture(scope="module")
def trained(app_in, stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    stores.to_csv(folder / "stores.csv", index=False)
    result = app_in(folder, "train", "stores.csv", "--id-column", "store", *SHORT, "--out", "run", "--json")
    assert result.code == 0, result.err
    return folder, json.loads(result.out)
