import gc
import weakref

import numpy as np
import pytest

from gru_xp.devices import cuda_graph, graphed_scans, resolve_device, to_device, to_host
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.params import map_arrays

pytestmark = pytest.mark.cuda


@pytest.fixture
def device():
    device = resolve_device("cuda", fallback=False)
    with device.use():
        yield device


@pytest.fixture
def launches(draw, draw_params, device, monkeypatch):
    """A list to which each launch of a graph adds something, once the device has been checked."""
    layers(draw_params, device)[1](to_device(draw(np, (1, 2, 2)), device, "float64"))
    launches = []
    launch = cuda_graph._Replay.__call__

    def counted(self):
        launches.append(self)
        return launch(self)

    monkeypatch.setattr(cuda_graph._Replay, "__call__", counted)
    return launches


def layers(draw_params, device):
    params = draw_params(np, 2, 5)
    on_device = map_arrays(lambda a: to_device(a, device, "float64"), params)
    return GRUInference(params), GRUInference(on_device)


def assert_close(actual, desired):
    for a, d in zip(actual, desired, strict=True):
        np.testing.assert_allclose(to_host(a), d, rtol=0, atol=1e-12)


def test_one_launch_from_the_third_call_on(draw, draw_params, reset, device, launches):
    """For other numbers each time; results that were given out stay as they are."""
    plain, layer = layers(draw_params, device)
    held, expected = [], []
    for number in range(5):
        x, h = draw(np, (3, 4, 2)), draw(np, (3, 5))
        held.append(layer(to_device(x, device, "float64"), to_device(h, device, "float64")))
        expected.append(plain(x, h))
        assert len(launches) == max(0, number - 1)
    for found, desired in zip(held, expected, strict=True):
        assert_close(found, desired)
    del launches[:]
    h = np.zeros((3, 5))
    for number in range(5):
        x = draw(np, (3, 2))
        h = plain.step(x, h)
        assert_close([layer.step(to_device(x, device, "float64"))], [h])
        assert len(launches) == max(0, number - 1)


def test_graphs_are_bounded_in_number_and_size(draw, draw_params, device, launches, monkeypatch):
    monkeypatch.setattr(graphed_scans, "MAX_GRAPHS", 2)
    plain, layer = layers(draw_params, device)
    for T in (1, 2, 3, 4):
        x = draw(np, (2, T, 2))
        for _ in range(4):
            assert_close(layer(to_device(x, device, "float64")), plain(x))
    assert len(launches) == 8
    assert len({id(graph) for graph in launches}) == 4
    gc.collect()
    graphs = {id(graph): weakref.ref(graph) for graph in launches}
    del launches[:]
    gc.collect()
    assert sum(ref() is not None for ref in graphs.values()) == 2
    monkeypatch.setattr("gru_xp.devices.cupy_ops.MAX_NUMBERS", 4 * 2 * 5)
    x = draw(np, (3, 4, 2))
    for _ in range(4):
        assert_close(layer(to_device(x, device, "float64")), plain(x))
    assert not launches


def test_arrays_are_let_go(draw, draw_params, device):
    _, layer = layers(draw_params, device)
    x = to_device(draw(np, (2, 3, 2)), device, "float64")
    for _ in range(4):
        h, _ = layer(x)
    gone = [weakref.ref(x), weakref.ref(h)]
    del x, h
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_no_graph_where_none_is_possible(draw, draw_params, device, launches, monkeypatch):
    monkeypatch.setattr(cuda_graph, "is_on", lambda path: path != "graphs")
    plain, layer = layers(draw_params, device)
    x = draw(np, (3, 4, 2))
    for _ in range(5):
        assert_close(layer(to_device(x, device, "float64")), plain(x))
    assert not launches
