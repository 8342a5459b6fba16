"""How tests compile. Most of a small program's time is the compiler's optimisation, of which no claim but those marked
`optimised` depends: all others compile with as little of it as XLA allows, in a third of the time."""

from __future__ import annotations

import functools
import os
from typing import Any

import jax

try:  # not a public place: where it is gone, tests only take longer
    from jax._src import compiler

    _as_users_do = compiler.get_compile_options
except (ImportError, AttributeError):
    compiler = None
_now = {"lightly": False}


@functools.cache
def light_options() -> dict[str, Any]:
    """What makes the compiler three times as quick as without optimisation alone, where this XLA has the option."""
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}
    return options


def compile_lightly(lightly: bool) -> None:
    """From now on, in this process; what was compiled in the other way is let go."""
    if lightly == _now["lightly"]:
        return
    options = light_options()

    def get_compile_options(*arguments: Any, env_options_overrides: Any = None, **named: Any) -> Any:
        overrides = {**options, **(env_options_overrides or {})}
        return _as_users_do(*arguments, env_options_overrides=overrides, **named)

    if compiler is not None:
        compiler.get_compile_options = get_compile_options if lightly else _as_users_do
    jax.config.update("jax_disable_most_optimizations", lightly)
    jax.clear_caches()
    _now["lightly"] = lightly


def light_environment() -> dict[str, str]:
    """Variables with which a started process compiles lightly, too."""
    flags = [f"--{name}={str(value).lower()}" for name, value in light_options().items()]
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip(),
    }
