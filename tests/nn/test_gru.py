import warnings

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ArgumentError
from gru_xp.nn import (
    GRUParams,
    gradcheck,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    init_gru_params,
)
from gru_xp.nn.params import arrays_of, map_arrays, named_arrays

SHAPES = [(1, 1, 1, 1), (3, 1, 3, 2), (2, 3, 1, 4), (3, 4, 3, 1)]  # B, T, input size, H
BEFORE = ["params.weight_ih", "params.weight_hh", "params.bias"]
PARAMETERS = {"before": BEFORE, "after": [*BEFORE, "params.bias_hn"]}


@pytest.fixture
def host_call(rng, draw_params):
    """A right call, by argument: B = 2, T = 4, I = 3, H = 5."""
    params = draw_params(np, 3, 5)
    arrays = dict(named_arrays(params, "params."))
    shapes = {"x": (2, 4, 3), "h0": (2, 5), "dh": (2, 4, 5), "dh_last": (2, 5)}
    return arrays | {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def forward(call, **options):
    params = GRUParams(*(call.get(f"params.{name}") for name in GRUParams._fields))
    return gru_forward(call["x"], call["h0"], params, **options)


def backward(call, cache):
    return gru_backward(call["dh"], cache, dh_last=call["dh_last"])


def forward_and_backward(call, **options):
    """All results, by name."""
    h, h_last, cache = forward(call, **options)
    dx, dh0, dparams = backward(call, cache)
    return {"h": h, "h_last": h_last, "dx": dx, "dh0": dh0} | dict(named_arrays(dparams, "d"))


def added(params, others):
    """The sums of their arrays."""
    others = iter(arrays_of(others))
    return map_arrays(lambda array: array + next(others), params)


# --- gradients --------------------------------------------------------------------------------------------------


def test_gradients(xp, check_mode, draw, draw_params, reset):
    for B, T, n_in, H in SHAPES:
        report = gradcheck(
            lambda x, h0, params: gru_forward(x, h0, params, reset=reset),
            lambda dh, dh_last, cache: gru_backward(dh, cache, dh_last=dh_last),
            {"x": draw(xp, (B, T, n_in)), "h0": draw(xp, (B, H)), "params": draw_params(xp, n_in, H)},
            mode=check_mode,
        )
        assert [row.name for row in report.rows] == ["x", "h0", *PARAMETERS[reset]]
        assert report.ok, ((B, T, n_in, H), report)


def test_gradients_from_one_output(xp, check_mode, draw, draw_params, reset):
    for given in ("dh", "dh_last"):

        def forward(x, h0, params, given=given):
            h, h_last, cache = gru_forward(x, h0, params, reset=reset)
            return (h if given == "dh" else h_last), cache

        def backward(gradient, cache, given=given):
            return gru_backward(gradient, cache) if given == "dh" else gru_backward(None, cache, dh_last=gradient)

        inputs = {"x": draw(xp, (2, 3, 2)), "h0": draw(xp, (2, 3)), "params": draw_params(xp, 2, 3)}
        report = gradcheck(forward, backward, inputs, mode=check_mode)
        assert report.ok, (given, report)


def test_gradients_without_initial_state(xp, check_mode, draw, draw_params, reset):
    def forward(x, params):
        return gru_forward(x, None, params, reset=reset)

    def backward(dh, dh_last, cache):
        dx, _, dparams = gru_backward(dh, cache, dh_last=dh_last)
        return dx, dparams

    inputs = {"x": draw(xp, (2, 3, 2)), "params": draw_params(xp, 2, 3)}
    report = gradcheck(forward, backward, inputs, mode=check_mode)
    assert [row.name for row in report.rows] == ["x", *PARAMETERS[reset]]
    assert report.ok, report


def test_no_initial_state_is_a_state_of_zeros(xp, draw, draw_params, reset):
    x, params, dh_last = draw(xp, (2, 3, 2)), draw_params(xp, 2, 3), draw(xp, (2, 3))
    results = []
    for h0 in (None, xp.zeros((2, 3), dtype=xp.float64)):
        h, h_last, cache = gru_forward(x, h0, params, reset=reset)
        dx, dh0, dparams = gru_backward(None, cache, dh_last=dh_last)
        results.append([to_host(array).tolist() for array in (h, h_last, dx, dh0, *arrays_of(dparams))])
    assert results[0] == results[1]


@pytest.mark.compat
def test_gradients_against_the_complex_step(host_call, reference_gru, complex_step_gradients, reset):
    names = ["x", "h0", *PARAMETERS[reset]]

    def scalar(*arrays):
        h = reference_gru(*arrays)
        return np.sum(host_call["dh"] * h) + np.sum(host_call["dh_last"] * h[:, -1])

    expected = complex_step_gradients(scalar, [host_call[name] for name in names])
    results = forward_and_backward(host_call, reset=reset)
    for name, desired in zip(names, expected, strict=True):
        actual = results["d" + name.removeprefix("params.")]
        np.testing.assert_allclose(actual, desired, rtol=1e-9, atol=1e-13, err_msg=name)


def test_gradients_add_up(host_call, reset):
    """The backward pass is linear in the gradients it is given."""
    _, _, cache = forward(host_call, reset=reset)
    dh, dh_last = host_call["dh"], host_call["dh_last"]
    both = gru_backward(dh, cache, dh_last=dh_last)
    first, second = gru_backward(dh, cache), gru_backward(None, cache, dh_last=dh_last)
    at_the_end = dh.copy()
    at_the_end[:, -1] += dh_last
    merged = gru_backward(at_the_end, cache)
    for whole, a, b, m in zip(*((*g[:2], *arrays_of(g[2])) for g in (both, first, second, merged)), strict=True):
        np.testing.assert_allclose(whole, a + b, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(whole, m, rtol=1e-10, atol=1e-12)


# --- references -------------------------------------------------------------------------------------------------


def test_forward_against_the_equations(xp, draw, draw_params, reference_gru, reset):
    for B, T, n_in, H in (*SHAPES, (1, 5, 2, 3), (5, 11, 3, 7)):
        x, h0, params = draw(xp, (B, T, n_in)), draw(xp, (B, H)), draw_params(xp, n_in, H)
        h, h_last, _ = gru_forward(x, h0, params, reset=reset)
        expected = reference_gru(to_host(x), to_host(h0), *map(to_host, arrays_of(params)))
        np.testing.assert_allclose(to_host(h), expected, rtol=1e-11, atol=1e-13, err_msg=str((B, T, n_in, H)))
        np.testing.assert_array_equal(to_host(h_last), to_host(h)[:, -1])


@pytest.mark.peer
@pytest.mark.parametrize(
    ("dtype", "tolerance", "shape"),
    [("float64", 1e-11, (1, 1, 1, 1)), ("float64", 1e-11, (4, 9, 5, 16)), ("float32", 2e-5, (3, 6, 2, 5))],
)
def test_parity_with_pytorch(xp, rng, draw_params, dtype, tolerance, shape):
    """PyTorch stacks r, z, n, its z is our 1 - z, and it adds two biases where we have one."""
    torch = pytest.importorskip("torch")
    B, T, n_in, H = shape

    def to_torch(rows):
        z, r, n = np.split(rows, 3)
        return torch.asarray(np.concatenate([r, -z, n]), dtype=getattr(torch, dtype))

    def from_torch(rows):
        r, z, n = np.split(rows.detach().numpy(), 3)
        return np.concatenate([-z, r, n])

    params = draw_params(np, n_in, H, reset="after")
    x, h0 = rng.standard_normal((B, T, n_in)), rng.standard_normal((B, H))
    dh, dh_last = rng.standard_normal((B, T, H)), rng.standard_normal((B, H))
    recurrent_bias = np.concatenate([rng.standard_normal(2 * H), params.bias_hn])
    input_bias = params.bias - np.concatenate([recurrent_bias[: 2 * H], np.zeros(H)])

    peer = torch.nn.GRU(n_in, H, batch_first=True, dtype=getattr(torch, dtype))
    with torch.no_grad():
        peer.weight_ih_l0.copy_(to_torch(params.weight_ih))
        peer.weight_hh_l0.copy_(to_torch(params.weight_hh))
        peer.bias_ih_l0.copy_(to_torch(input_bias))
        peer.bias_hh_l0.copy_(to_torch(recurrent_bias))
    torch_x, torch_h0, torch_dh, torch_dh_last = (
        torch.asarray(array, dtype=getattr(torch, dtype)) for array in (x, h0, dh, dh_last)
    )
    torch_x.requires_grad_(True)
    torch_h0.requires_grad_(True)
    torch_h, torch_h_last = peer(torch_x, torch_h0[None])
    (torch.sum(torch_h * torch_dh) + torch.sum(torch_h_last[0] * torch_dh_last)).backward()
    expected = {
        "h": torch_h.detach().numpy(),
        "h_last": torch_h_last[0].detach().numpy(),
        "dx": torch_x.grad.numpy(),
        "dh0": torch_h0.grad.numpy(),
        "dweight_ih": from_torch(peer.weight_ih_l0.grad),
        "dweight_hh": from_torch(peer.weight_hh_l0.grad),
        "dbias": from_torch(peer.bias_ih_l0.grad),
        "dbias_hn": peer.bias_hh_l0.grad.numpy()[2 * H :],
    }

    call = {"x": x, "h0": h0, "dh": dh, "dh_last": dh_last}
    call |= {f"params.{name}": array for name, array in params._asdict().items()}
    call = {name: xp.asarray(array, dtype=getattr(xp, dtype)) for name, array in call.items()}
    results = forward_and_backward(call)
    assert results.keys() == expected.keys()
    for name, array in results.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(to_host(array), expected[name], rtol=tolerance, atol=tolerance * scale, err_msg=name)


def test_single_precision_is_near_double_precision(host_call, reset):
    double = forward_and_backward(host_call, reset=reset)
    single = forward_and_backward({name: array.astype(np.float32) for name, array in host_call.items()}, reset=reset)
    for name, array in single.items():
        scale = np.abs(double[name]).max()
        np.testing.assert_allclose(array, double[name], rtol=1e-4, atol=1e-5 * scale, err_msg=name)


# --- other ways to differentiate, and lazily ------------------------------------------------------------------------


@pytest.fixture(params=["plain", "everything"])
def options(request, rng):
    """Those of `gru_forward`, for B = 2, T = 4, H = 5."""
    masks = {"candidate_mask": rng.uniform(0.0, 2.0, (2, 5)), "update_mask": rng.uniform(0.0, 1.0, (2, 4, 5))}
    everything = {"lengths": [3, 1], "reverse": True, "keep_every": 2} | masks
    return {} if request.param == "plain" else everything


def converted(convert, values):
    """The same by name, with each array converted."""
    return {name: convert(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}


def inputs_of(call):
    """What our backward pass has a gradient of, in its order."""
    return {name: call[name] for name in ("x", "h0", *(name for name in call if name.startswith("params.")))}


def loss(h, h_last, call):
    return (h * call["dh"]).sum() + (h_last * call["dh_last"]).sum()


def assert_gradients_close(actual, desired):
    """By argument, those of another way; and by name, our results."""
    for name, array in actual.items():
        ours = desired["d" + name.removeprefix("params.")]
        np.testing.assert_allclose(array, ours, rtol=0, atol=1e-13 * max(1.0, np.abs(ours).max()), err_msg=name)


@pytest.mark.peer
def test_autograd_of_pytorch_gives_our_gradients(host_call, options, reset):
    torch = pytest.importorskip("torch")
    call = converted(torch.asarray, host_call)
    inputs = {name: array.clone().requires_grad_() for name, array in inputs_of(call).items()}
    h, h_last, _ = forward(call | inputs, **converted(torch.asarray, options))
    loss(h, h_last, call).backward()
    gradients = {name: array.grad.numpy() for name, array in inputs.items()}
    assert_gradients_close(gradients, forward_and_backward(host_call, **options))


@pytest.mark.peer
def test_jax(jax, host_call, options, reset):
    """As it is, compiled, and its own gradient of our forward pass."""
    call, given = (converted(jax.numpy.asarray, value) for value in (host_call, options))
    expected = forward_and_backward(host_call, **options)
    compiled = jax.jit(lambda call, masks: forward_and_backward(call, **given | masks))
    masks = {name: value for name, value in given.items() if hasattr(value, "shape")}
    for results in (forward_and_backward(call, **given), compiled(call, masks)):
        for name, array in expected.items():
            assert array_namespace(results[name]).__name__ == "jax.numpy"
            np.testing.assert_allclose(results[name], array, rtol=1e-12, atol=1e-13, err_msg=name)

    def scalar(inputs):
        h, h_last, _ = forward(call | inputs, **given)
        return loss(h, h_last, call)

    assert_gradients_close(jax.jit(jax.grad(scalar))(inputs_of(call)), expected)


@pytest.mark.peer
def test_jax_over_batches(jax, host_call, options, reset):
    """An ensemble of parameters, and one sequence at a time, with lengths that are not known when it is traced."""
    call, given = (converted(jax.numpy.asarray, value) for value in (host_call, options))
    h, h_last, _ = forward(call, **given)
    names = [name for name in call if name.startswith("params.")]
    ensemble = {name: jax.numpy.stack([call[name], 0.5 * call[name]]) for name in names}
    several = jax.vmap(lambda params: forward(call | params, **given)[0])(ensemble)
    np.testing.assert_allclose(several[0], h, rtol=1e-12, atol=1e-14)
    assert not np.allclose(several[1], h)

    own = {name: jax.numpy.asarray(value) for name, value in given.items() if name.endswith(("lengths", "mask"))}

    def one(x, h0, own):
        own = {name: value[None] for name, value in own.items()}
        return forward(call | {"x": x[None], "h0": h0[None]}, **given | own)[1][0]

    last = jax.jit(jax.vmap(one))(call["x"], call["h0"], own)
    np.testing.assert_allclose(last, h_last, rtol=1e-12, atol=1e-14)


@pytest.mark.peer
def test_jax_in_single_precision(host_call, reset):
    """As it is without a setting; nothing is turned into numbers of 64 bits, and nothing warns."""
    jax = pytest.importorskip("jax")
    call = {name: jax.numpy.asarray(array.astype(np.float32)) for name, array in host_call.items()}
    results = forward_and_backward(call, lengths=[3, 1], update_mask=0.75)
    assert {str(array.dtype) for array in results.values()} == {"float32"}
    for name, array in forward_and_backward(host_call, lengths=[3, 1], update_mask=0.75).items():
        np.testing.assert_allclose(results[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.peer
def test_dask_computes_when_it_is_asked_to(host_call, options, reset):
    dask = pytest.importorskip("dask")
    from dask.array import Array, from_array

    def refuse(*arguments, **options):
        pytest.fail("something is computed")

    call, given = (converted(lambda a: from_array(a, chunks=2), value) for value in (host_call, options))
    with dask.config.set(scheduler=refuse):
        results = forward_and_backward(call, **given)
    assert {type(array) for array in results.values()} == {Array}
    (actual,) = dask.compute(results, scheduler="synchronous")
    for name, array in forward_and_backward(host_call, **options).items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-12, atol=1e-13, err_msg=name)


# --- what must hold among calls ---------------------------------------------------------------------------------


def test_cell_steps_are_the_layer(xp, draw, draw_params, assert_params_close, reset):
    B, T, n_in, H = 3, 4, 2, 5
    x, h0, params = draw(xp, (B, T, n_in)), draw(xp, (B, H)), draw_params(xp, n_in, H)
    dh, dh_last = draw(xp, (B, T, H)), draw(xp, (B, H))
    h, h_last, cache = gru_forward(x, h0, params, reset=reset)
    dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)

    state, caches = h0, []
    for t in range(T):
        state, cell_cache = gru_cell_forward(x[:, t, :], state, params, reset=reset)
        caches.append(cell_cache)
        np.testing.assert_allclose(to_host(state), to_host(h[:, t, :]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(to_host(state), to_host(h_last), rtol=1e-12, atol=1e-14)

    carry, total = dh_last, None
    for t in reversed(range(T)):
        dx_t, carry, step = gru_cell_backward(carry + dh[:, t, :], caches[t])
        np.testing.assert_allclose(to_host(dx_t), to_host(dx[:, t, :]), rtol=1e-11, atol=1e-13)
        total = step if total is None else added(total, step)
    np.testing.assert_allclose(to_host(carry), to_host(dh0), rtol=1e-11, atol=1e-13)
    assert_params_close(dparams, total, rtol=1e-11, atol=1e-12)


def test_sequences_of_a_batch_are_independent(xp, draw, draw_params, assert_params_close, reset):
    B, T, n_in, H = 3, 4, 2, 5
    x, h0, params = draw(xp, (B, T, n_in)), draw(xp, (B, H)), draw_params(xp, n_in, H)
    dh, dh_last = draw(xp, (B, T, H)), draw(xp, (B, H))
    h, h_last, cache = gru_forward(x, h0, params, reset=reset)
    dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
    total = None
    for b in range(B):
        one = slice(b, b + 1)
        h_b, h_last_b, cache_b = gru_forward(x[one, ...], h0[one, ...], params, reset=reset)
        dx_b, dh0_b, step = gru_backward(dh[one, ...], cache_b, dh_last=dh_last[one, ...])
        for whole, part in ((h, h_b), (h_last, h_last_b), (dx, dx_b), (dh0, dh0_b)):
            np.testing.assert_allclose(to_host(whole[one, ...]), to_host(part), rtol=1e-11, atol=1e-13)
        total = step if total is None else added(total, step)
    assert_params_close(dparams, total, rtol=1e-11, atol=1e-12)


def test_a_sequence_in_two_parts(xp, draw, draw_params, assert_params_close, reset):
    B, T, n_in, H = 2, 5, 3, 4
    x, h0, params = draw(xp, (B, T, n_in)), draw(xp, (B, H)), draw_params(xp, n_in, H)
    dh, dh_last = draw(xp, (B, T, H)), draw(xp, (B, H))
    h, h_last, cache = gru_forward(x, h0, params, reset=reset)
    dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)

    for cut in (1, 2, 4):
        h_first, middle, cache_first = gru_forward(x[:, :cut, :], h0, params, reset=reset)
        h_second, end, cache_second = gru_forward(x[:, cut:, :], middle, params, reset=reset)
        dx_second, dmiddle, dparams_second = gru_backward(dh[:, cut:, :], cache_second, dh_last=dh_last)
        dx_first, start, dparams_first = gru_backward(dh[:, :cut, :], cache_first, dh_last=dmiddle)
        for whole, parts in ((h, (h_first, h_second)), (dx, (dx_first, dx_second)), (h_last, (end,)), (dh0, (start,))):
            joined = np.concatenate([to_host(part) for part in parts], axis=1 if len(parts) == 2 else 0)
            np.testing.assert_allclose(to_host(whole), joined, rtol=1e-11, atol=1e-13)
        total = added(dparams_first, dparams_second)
        assert_params_close(dparams, total, rtol=1e-11, atol=1e-12)


def test_later_inputs_do_not_change_earlier_states(host_call, reset):
    h, _, _ = forward(host_call, reset=reset)
    earlier = h.copy()
    host_call["x"][:, 2:] += 1.0
    h, _, _ = forward(host_call, reset=reset)
    assert h[:, :2].tolist() == earlier[:, :2].tolist()
    assert np.all(h[:, 2:] != earlier[:, 2:])


def test_results_stay_after_later_calls(host_call, reset):
    first = forward_and_backward(host_call, reset=reset)
    copies = {name: array.copy() for name, array in first.items()}
    host_call["x"] = host_call["x"] + 1.0
    second = forward_and_backward(host_call, reset=reset)
    for name, array in first.items():
        assert array.tolist() == copies[name].tolist()
        assert not np.shares_memory(array, second[name])


def test_backward_can_be_called_twice(host_call, reset):
    _, _, cache = forward(host_call, reset=reset)
    first, second = (gru_backward(host_call["dh"], cache, dh_last=host_call["dh_last"]) for _ in range(2))
    for a, b in zip((*first[:2], *arrays_of(first[2])), (*second[:2], *arrays_of(second[2])), strict=True):
        assert a.tolist() == b.tolist()


# --- arrays -----------------------------------------------------------------------------------------------------


def test_namespace_dtype_and_shapes(xp, host_call, reset):
    shapes = {
        "h": (2, 4, 5),
        "h_last": (2, 5),
        "dx": (2, 4, 3),
        "dh0": (2, 5),
        "dweight_ih": (15, 3),
        "dweight_hh": (15, 5),
        "dbias": (15,),
    }
    shapes |= {"dbias_hn": (5,)} if reset == "after" else {}
    for dtype in (xp.float32, xp.float64):
        call = {name: xp.asarray(array, dtype=dtype) for name, array in host_call.items()}
        for h0 in (call["h0"], None):
            results = forward_and_backward(call | {"h0": h0}, reset=reset)
            assert {name: tuple(array.shape) for name, array in results.items()} == shapes
            for array in results.values():
                assert array_namespace(array) is array_namespace(call["x"])
                assert array.dtype == dtype


def test_results_stay_on_the_device(host_call, reset):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    call = {name: strict.asarray(array, device=device) for name, array in host_call.items()}
    expected = forward_and_backward(host_call, reset=reset)
    for name, array in forward_and_backward(call, reset=reset).items():
        assert array.device == device
        on_cpu = array.to_device(strict.Device("CPU_DEVICE"))
        np.testing.assert_allclose(to_host(on_cpu), expected[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_inputs_are_not_modified(xp, host_call, reset):
    call = {name: xp.asarray(array, copy=True) for name, array in host_call.items()}
    forward_and_backward(call, reset=reset)
    for name, array in call.items():
        assert to_host(array).tolist() == host_call[name].tolist()


def test_read_only_inputs(host_call, reset):
    expected = forward_and_backward(host_call, reset=reset)
    for array in host_call.values():
        array.setflags(write=False)
    for name, array in forward_and_backward(host_call, reset=reset).items():
        assert array.tolist() == expected[name].tolist()


def test_inputs_in_any_memory_order(host_call, reset):
    expected = forward_and_backward(host_call, reset=reset)
    strided = {name: np.repeat(np.asfortranarray(array), 2, axis=-1)[..., ::2] for name, array in host_call.items()}
    assert not any(array.flags.c_contiguous for name, array in strided.items())
    for name, array in forward_and_backward(strided, reset=reset).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_large_inputs(xp, host_call, reset):
    for dtype in (xp.float32, xp.float64):
        call = {name: xp.asarray(array, dtype=dtype) for name, array in host_call.items()}
        call["x"] = 1e4 * call["x"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results = forward_and_backward(call, reset=reset)
        for name, array in results.items():
            assert np.all(np.isfinite(to_host(array))), (name, dtype)
        bound = np.maximum(np.abs(host_call["h0"]), 1.0)[:, None, :] * (1.0 + 1e-6)
        assert np.all(np.abs(to_host(results["h"])) <= bound), dtype


def test_long_sequences_keep_their_states_bounded(rng, reset):
    x = 10.0 * rng.standard_normal((2, 500, 3))
    h, _, cache = gru_forward(x, None, init_gru_params(3, 8, reset=reset, xp=np, seed=1))
    dx, dh0, dparams = gru_backward(None, cache, dh_last=np.ones((2, 8)))
    assert np.abs(h).max() < 1.0
    assert all(np.all(np.isfinite(array)) for array in (dx, dh0, *arrays_of(dparams)))


# --- what it must refuse ----------------------------------------------------------------------------------------


def test_wrong_shapes(host_call, refuses, reset):
    for name, shape, *expected in (
        ("x", (4, 3), "(B, T, I)"),
        ("x", (1, 2, 4, 3), "(B, T, I)"),
        ("x", (2, 0, 3), "(B, T, I)", "at least 1"),
        ("x", (0, 4, 3), "(B, T, I)", "at least 1"),
        ("h0", (1, 5), "(2, 5)"),
        ("h0", (2, 1), "(2, 5)"),
        ("h0", (5,), "(2, 5)"),
        ("h0", (1, 2, 5), "(2, 5)"),
        ("params.weight_ih", (15, 1), "(15, 3)", "x is 3"),
        ("params.weight_ih", (3, 15), "(15, 3)", "x is 3"),
        ("params.weight_hh", (5, 5), "(15, 5)"),
        ("params.weight_hh", (16, 5), "(15, 5)"),
        ("params.weight_hh", (75,), "(3H, H)"),
        ("params.bias", (1,), "(15,)"),
        ("params.bias", (5,), "(15,)"),
        ("params.bias", (15, 1), "(15,)"),
        ("params.bias_hn", (1,), "(5,)"),
        ("params.bias_hn", (15,), "(5,)"),
        ("dh", (2, 5), "(2, 4, 5)"),
        ("dh", (2, 1, 5), "(2, 4, 5)"),
        ("dh", (4, 2, 5), "(2, 4, 5)"),
        ("dh_last", (1, 5), "(2, 5)"),
        ("dh_last", (2, 4, 5), "(2, 5)"),
    ):
        with refuses(name, "shape", str(shape), *expected):
            forward_and_backward(host_call | {name: np.ones(shape)}, reset=reset)
    # The recurrent weights of H = 4 among parameters of H = 5.
    with refuses("params.weight_ih", "(15, 3)", "(12, 3)", "x is 3"):
        forward(host_call | {"params.weight_hh": np.ones((12, 4))}, reset=reset)


@pytest.mark.parametrize("reset", ["after"])
def test_wrong_kinds(host_call, misfits, refuses, reset):
    for name, expected in (
        ("h0", "(2, 5)"),
        ("params.weight_ih", "(15, 3)"),
        ("params.weight_hh", "(3H, H)"),
        ("params.bias", "(15,)"),
        ("params.bias_hn", "(5,)"),
        ("dh", "(2, 4, 5)"),
        ("dh_last", "(2, 5)"),
    ):
        for bad, parts in misfits(name, host_call[name], expected):
            with refuses(*parts):
                forward_and_backward(host_call | {name: bad})
    x = host_call["x"]
    for bad, *parts in (
        (x.tolist(), "x", "list", "(B, T, I)"),
        (x.astype(np.int64), "x", "int64", "float32 or float64"),
        (x.astype(np.float32), "params.weight_hh", "float64", "x, float32"),
    ):
        with refuses(*parts):
            forward(host_call | {"x": bad})


def test_wrong_params_cache_and_reset(host_call, refuses):
    _, _, cache = forward(host_call)
    with refuses("dh", "dh_last", "None", "one gradient must be given"):
        gru_backward(None, cache)
    with refuses("params", "NoneType", "a GRUParams"):
        gru_forward(host_call["x"], None, None)
    for cache in (None, (host_call["x"],)):
        with refuses("cache", type(cache).__name__, "the cache", "gru_forward returned"):
            gru_backward(host_call["dh"], cache)
    with refuses(
        "reset is 'after'", "must be 'before'", "params", "leave out reset", "form 'after'", error=ArgumentError
    ):
        forward(host_call, reset="after")
    with refuses("reset", "'Before'", "'before', 'after'", error=ValueError):
        forward(host_call, reset="Before")
    for name in ("reverse", "with_h", "with_cache"):
        with refuses(name, "array([ True])", "True or False", error=ArgumentError):
            forward(host_call, **{name: np.ones(1, bool)})
    _, _, cache = forward(host_call)
    with refuses("with_dx", "None", "True or False", error=ArgumentError):
        gru_backward(host_call["dh"], cache, with_dx=None)
    for ops in ("x", 0, NumpyOps):
        with refuses("ops", type(ops).__name__, "a Scan, such as PlainScan(xp), or None", error=ArgumentError):
            forward(host_call, ops=ops)
