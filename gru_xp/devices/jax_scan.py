"""How JAX runs steps: ``lax.scan``, a loop that is compiled, differentiated and batched as one."""

import sys
from collections.abc import Callable
from typing import Any

from gru_xp.nn.scan import Arrays, PlainScan, Step


class JaxScan(PlainScan):
    """`gru_xp.nn.scan.Scan` for JAX, inside of ``jax.jit``, ``jax.grad`` and ``jax.vmap`` and outside of them."""

    def __init__(self) -> None:
        self._jax = sys.modules["jax"]  # whoever has its arrays has imported it
        super().__init__(self._jax.numpy)
        self._scan = self._jax.jit(self._traced, static_argnames=("step", "reverse"))
        self._call = self._jax.jit(super().call, static_argnums=0)

    def scan(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, *, rows: Arrays = (), reverse: bool = False
    ) -> tuple[Any, Arrays, Arrays]:
        result: tuple[Any, Arrays, Arrays] = self._scan(step, weights, carry, xs, rows, reverse)
        return result

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._call(function, *arguments)

    def _traced(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, rows: Arrays, reverse: bool
    ) -> tuple[Any, Arrays, Arrays]:
        def body(carry: Any, xs_t: Arrays) -> tuple[Any, tuple[Any, Any]]:
            carry, ys, pairs = step(self.xp, weights, carry, xs_t, rows)
            return carry, (ys, pairs)

        carry, (ys, pairs) = self._jax.lax.scan(body, carry, xs, reverse=reverse)
        return carry, ys, tuple(self.contract(*pair) for pair in pairs)


def new_ops() -> JaxScan:
    """A scan for JAX arrays."""
    return JaxScan()
