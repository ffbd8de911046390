"""Compare our backward functions, on NumPy, with the gradients that JAX derives from our forward functions."""

from functools import partial
from typing import Any

from benchmarks.conformance.cases import LIMITS, Arrays, Case, Problem, differences, draw_problem
from gru_xp.nn.params import named_arrays
from gru_xp.nn.stack import gru_stack_backward, gru_stack_forward

VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("1 layer", {}),
    ("2 layers, both directions, lengths", {"num_layers": 2, "directions": 2, "lengths": "zeros"}),
)


def cases() -> list[Case]:
    """One of each variant, in both forms and precisions."""
    found = []
    for variant, sizes in VARIANTS:
        for reset in ("before", "after"):
            name = f'reset="{reset}", {variant}'
            for dtype, limit in LIMITS.items():
                draw = partial(draw_problem, f"jax {name}", order="zrn", reset=reset, dtype=dtype, **sizes)
                found.append(Case(name, "", dtype, limit, partial(_compare, draw)))
    return found


def _compare(draw: Any) -> dict[str, float]:
    problem = draw()
    h, h_last, cache = gru_stack_forward(problem.x, problem.h0, problem.layers, lengths=problem.lengths)
    assert cache is not None
    dx, dh0, dlayers = gru_stack_backward(problem.dh, cache, dh_last=problem.dh_last)
    ours = {"h": h, "h_last": h_last}, {"x": dx, "h0": dh0, **dict(named_arrays(dlayers))}
    return differences(ours, jax_gradients(problem))


def jax_gradients(problem: Problem) -> tuple[Arrays, Arrays]:
    """Outputs, and gradients by reverse-mode differentiation (``jax.vjp``)."""
    import jax

    def forward(x: Any, h0: Any, layers: Any) -> tuple[Any, Any]:
        h, h_last, _ = gru_stack_forward(x, h0, layers, lengths=problem.lengths)
        return h, h_last

    @jax.jit
    def forward_and_back(x: Any, h0: Any, layers: Any, dh: Any, dh_last: Any) -> tuple[Any, Any]:
        states, back = jax.vjp(forward, x, h0, layers)
        return states, back((dh, dh_last))

    with jax.enable_x64(True):
        arrays = problem.x, problem.h0, problem.layers, problem.dh, problem.dh_last
        on_cpu = jax.device_put(arrays, jax.devices("cpu")[0])
        (h, h_last), (dx, dh0, dlayers) = jax.device_get(forward_and_back(*on_cpu))
    return {"h": h, "h_last": h_last}, {"x": dx, "h0": dh0, **dict(named_arrays(dlayers))}
