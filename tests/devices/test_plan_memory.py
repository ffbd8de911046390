import tracemalloc

import numpy as np
import pytest

from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.plan_memory import CALL_BYTES, PlannedMemory, shape_alone
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.losses import mse_loss
from gru_xp.nn.network import init_network_params, network_backward, network_forward
from gru_xp.nn.params import map_arrays
from gru_xp.nn.stack import draw_masks

LIKE = np.empty(0, "float32")


def test_an_array_that_is_a_shape_alone():
    tracemalloc.start()
    array = shape_alone((10**5, 10**5, 3), "float32")
    assert tracemalloc.get_traced_memory()[1] < 10_000
    tracemalloc.stop()
    assert (array.shape, array.dtype) == ((10**5, 10**5, 3), np.float32)
    memory = shape_alone((1,), "float64")
    assert np.shares_memory(shape_alone((5, 3), "float64", memory)[2:, 1], memory)


def test_memory_that_is_let_go_of_serves_again():
    planned = PlannedMemory(NumpyOps())
    first = planned.array((1000, 3), LIKE.dtype)
    assert planned.nbytes == 12_032  # whole cache lines
    view = first[5:, 1]
    del first
    second = planned.array((1000,), LIKE.dtype)
    assert planned.nbytes == 12_032 + 4032
    del view
    third = planned.array((900, 3), LIKE.dtype)
    assert planned.nbytes == 12_032 + 4032
    assert [a.shape for a in (second, third)] == [(1000,), (900, 3)]


def passes(ops, params, x, y, masks, keep_every, *, backward):
    y_pred, cache = network_forward(x, params, masks=masks, keep_every=keep_every, ops=ops, with_cache=backward)
    _, dpred = mse_loss(y_pred, y, reduction="sum", ops=ops)
    if backward:
        network_backward(dpred, cache, with_dx=False)


@pytest.mark.parametrize("keep_every", [None, 7])
@pytest.mark.parametrize("layers", [(1, False), (2, True)], ids=["one layer", "two in both directions"])
def test_what_is_counted_is_what_numpy_takes(reset, layers, keep_every, draw):
    """Of a forward pass, and then one and its way back in the same memory, with dropout."""
    L, both = layers
    params = init_network_params(3, 12, 2, num_layers=L, bidirectional=both, reset=reset, xp=np, dtype=np.float32)
    x, y = draw(np, (33, 40, 3), "float32"), draw(np, (33, 2), "float32")
    masks = draw_masks(params.gru, x, DropoutRates(0.2, 0.1, 0.3), 0)
    real, planned = NumpyOps(threads=0), PlannedMemory(NumpyOps(threads=0))
    shapes = map_arrays(lambda a: shape_alone(a.shape, a.dtype), (params, x, y, masks))
    replays = []
    for backward in (False, True):
        replays.append(real.capture(lambda b=backward: passes(real, params, x, y, masks, keep_every, backward=b)))
        planned.count(lambda ops, b=backward: passes(ops, *shapes, keep_every, backward=b))
    noted = CALL_BYTES * sum(len(replay.program) for replay in replays)
    assert planned.array_bytes == pytest.approx(real._arena.nbytes, rel=0.01)
    assert planned.noted_bytes == pytest.approx(noted, rel=0.05)
    temporaries = planned.nbytes - planned.array_bytes - planned.noted_bytes
    assert temporaries == real._scratch.nbytes + real._products.nbytes
