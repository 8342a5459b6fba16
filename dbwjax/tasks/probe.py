"""Whether a user's functions and data can be a task: asked by `jax.eval_shape`, nothing is computed or compiled.

What JAX would say in its own words, deep in a trace, is said here in one line about the value that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dbwjax.limits import shown
from dbwjax.types import COLUMNS

_TRACED = "it is traced by JAX: use jnp in place of np and float(), jnp.where in place of if"


def shapes_of(name: str, words: str, function: Any, *args: Any) -> Any:
    """The shapes that a function returns, found without running it.

    Args:
      name: what the function is called, for errors.
      words: how it is called, as in `loss(params, batch)`.
      function: a user's.
      *args: arrays, or their shapes.

    Raises:
      ValueError: it is no function, cannot be called so, or fails.
    """
    if not callable(function):
        raise ValueError(f"{name}={shown(function)} is not a function; give one that is called as {words}")
    try:
        # A callable pytree is an argument, so that JAX remembers what its equals returned.
        if any(leaf is function for leaf in jax.tree.leaves(function)):
            return jax.eval_shape(function, *args)
        return jax.eval_shape(_call, function, *args)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(f"{name} cannot be traced as {words}; {_TRACED}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {_line(error)}") from error
    except Exception as error:  # functions of users may raise anything
        raise ValueError(f"{name} cannot be called as {words}: {fault_of(error)}") from error


def _call(function: Any, *args: Any) -> Any:
    return function(*args)


def fault_of(error: Exception) -> str:
    """An error of a user's function, in one line."""
    return f"{type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return first if len(first) <= 200 else f"{first[:200]} ..."


def kind_of(found: Any) -> str:
    """A result in words: `float32[3, 2]`, or the type of what is no array."""
    if hasattr(found, "shape") and hasattr(found, "dtype"):
        return f"{found.dtype}[{', '.join(map(str, found.shape))}]" if found.shape else str(found.dtype)
    size = f" of {len(found)}" if isinstance(found, tuple | list | dict) else ""
    return f"a {type(found).__name__}{size}" if found is not None else "nothing"


def is_real(found: Any) -> bool:
    """Whether a result is one real number."""
    return getattr(found, "shape", None) == () and (
        jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)
    )


def require_params(init: Any) -> PyTree:
    """One worker's parameters, as shapes.

    Raises:
      ValueError: `init` is no function of a key, or returns no arrays of floats.
    """
    params = shapes_of("init", "init(key)", init, jax.random.key(0))
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(f"init returns {kind_of(params)} without any array; return one worker's parameters")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"init returns {kind_of(leaf)}; parameters are arrays of floats, as in jnp.zeros(3)")
    return params


def require_loss(loss: Any, params: PyTree, batch: PyTree) -> None:
    """Refuses a loss that is not one float.

    Raises:
      ValueError: one line.
    """
    found = shapes_of("loss", "loss(params, batch)", loss, params, batch)
    if not hasattr(found, "shape"):
        raise ValueError(f"loss returns {kind_of(found)}; return one number (other figures belong to metrics=)")
    if found.shape != ():
        raise ValueError(f"loss returns {kind_of(found)}; return one number, the mean over the batch, as by .mean()")
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"loss returns {kind_of(found)}, of which there is no gradient; return a float")


def require_metrics(metrics: Any, params: PyTree, batch: PyTree) -> None:
    """Refuses metrics that are not numbers by name; `loss` is taken.

    Raises:
      ValueError: one line.
    """
    found = shapes_of("metrics", "metrics(params, batch)", metrics, params, batch)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"metrics returns {kind_of(found)}; return a dict of numbers, as {{'accuracy': ...}}")
    if "loss" in found:
        raise ValueError("metrics returns 'loss', and test_loss is the loss itself; give it another name")
    for name, value in found.items():
        if getattr(value, "shape", None) != () or jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise ValueError(f"metrics returns '{name}' of {kind_of(value)}; return one number, a mean over the batch")


def require_functions(
    loss: Any, init: Any, train: PyTree, batch_size: int, metrics: Any, preprocess: Callable[[PyTree], PyTree]
) -> None:
    """Refuses functions that cannot learn from these data.

    Args:
      loss, init, metrics: a user's (`metrics` may be `None`).
      train: arrays with a leading axis of samples.
      batch_size: B.
      preprocess: applied to batches.

    Raises:
      ValueError: one line about the first that is wrong.
    """
    raw = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch_size, *np.shape(leaf)[1:]), _dtype(leaf)), train)
    batch = shapes_of("preprocess", "preprocess(batch)", preprocess, raw)
    params = require_params(init)
    require_loss(loss, params, batch)
    if metrics is not None:
        require_metrics(metrics, params, batch)


def require_data(tree: PyTree, what: str, finite: bool) -> None:
    """Refuses arrays that the device would not hold as they are.

    Args:
      tree: arrays; leading axes have been checked.
      what: their name.
      finite: whether NaN and infinity are refused.

    Raises:
      ValueError: arrays of objects, text or times; numbers beyond the device's types; NaN.
    """
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = f"{what}{jax.tree_util.keystr(path)}"
        kind = _own_dtype(leaf)
        if not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.bool_)):
            raise ValueError(f"{name} is an array of {kind}; give numbers, as by np.asarray(..., np.float32)")
        _require_held(name, leaf, finite)


def _require_held(name: str, leaf: Any, finite: bool) -> None:
    kind, held = _own_dtype(leaf), _dtype(leaf)
    floats = jnp.issubdtype(kind, jnp.floating)
    if not (floats or jnp.issubdtype(kind, jnp.integer)) or not np.size(leaf):
        return
    if not (floats and finite) and kind == held:
        return
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    low, high = float(array.min()), float(array.max())  # NaN where one is
    if not np.isfinite([low, high]).all():
        if not finite:
            return
        where = int(np.argmax(~np.isfinite(np.asarray(array, np.float64)).reshape(len(array), -1).all(axis=1)))
        raise ValueError(f"{name} is not finite in sample {where}; leave it out, or replace it in preprocess=")
    limit = jnp.finfo(held) if floats else jnp.iinfo(held)
    if low < float(limit.min) or high > float(limit.max):
        worst = low if low < float(limit.min) else high
        raise ValueError(f"{name} holds {worst:g}, which {held} does not; scale it")


def _dtype(leaf: Any) -> Any:
    """The type in which the device holds an array."""
    return jax.dtypes.canonicalize_dtype(_own_dtype(leaf))


def _own_dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def require_task(task: Any) -> PyTree:
    """Refuses a `Task` whose parts do not fit each other; one worker's parameters, as shapes.

    Raises:
      ValueError: one line about the first part that does not.
    """
    sizes = np.asarray(task.sizes)
    if sizes.ndim != 1 or not sizes.size or not np.issubdtype(sizes.dtype, np.integer):
        raise ValueError(
            f"the task's sizes are {kind_of(sizes)}; give how many samples each worker holds, [N] integers"
        )
    params = require_params(task.init)
    worker = jax.ShapeDtypeStruct((), jnp.int32)
    batch = shapes_of("batches", "batches(key, worker, started)", task.batches, jax.random.key(0), worker, worker)
    require_loss(task.loss, params, batch)
    found = shapes_of("evaluate", "evaluate(params)", task.evaluate, params)
    if not isinstance(found, dict) or "test_loss" not in found:
        raise ValueError(f"evaluate returns {kind_of(found)}; return a dict of numbers with 'test_loss' in it")
    for name, value in found.items():
        if getattr(value, "shape", None) != ():
            raise ValueError(f"evaluate returns '{name}' of {kind_of(value)}; return one number")
        if name in COLUMNS and name not in ("test_loss", "test_accuracy"):
            raise ValueError(f"evaluate returns '{name}', which is a column of every row; give it another name")
    return params
