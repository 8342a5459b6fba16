"""One program for what is equal: policies, learners and losses that are built anew find what was compiled before.

`jax.jit` compares static arguments by `==`, and functions are equal only to themselves. Policies and learners are
tuples of closures, so one that is built again by the same words would be traced and compiled again. `canonical` puts in
the place of each function a *stand-in*, one for all functions that are equal by structure (`engine.structure` says what
is compared):

    run(canonical(policy), canonical(learner), world, state, steps)

A wrong merge would silently train something else, a missed one costs a compilation. So functions are compared as they
are *now*, at every call, and whatever cannot be looked into is equal to nothing but itself.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading
import weakref
from types import FunctionType, MethodType
from typing import Any, TypeVar

from jax.tree_util import Partial

from dbwjax.engine.structure import Memo, digest, is_frozen_dataclass, is_named_tuple

_T = TypeVar("_T")

# Stand-ins by what they stand for. JAX keeps static arguments as long as their programs, so an entry lives as long as
# a program does, or somebody who holds the stand-in; `jax.clear_caches` empties this, too.
_known: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def canonical(tree: _T) -> _T:
    """The same for everything that is equal by structure, as the module says; for `jax.jit`'s static arguments.

    Args:
      tree: a function, a bound method or a `functools.partial`, or tuples (policies, learners), lists, dicts, frozen
        dataclasses and `jax.tree_util.Partial`s of such; everything else in it stays the object it is.

    Returns:
      A tree of the same kind whose functions are stand-ins: they do what the first of their equals did, with its
      captured variables. A stand-in is made when its contents are first seen, so that a function whose captured
      variables have changed gets another one, and is traced again.
    """
    with _lock:
        return _canonical(tree, {})


def _canonical(tree: Any, memo: Memo) -> Any:
    kind = type(tree)
    if kind in (FunctionType, MethodType, functools.partial):
        return _stand_in(tree, memo)
    if kind is Partial:
        func, args, keywords = (_canonical(part, memo) for part in (tree.func, tree.args, tree.keywords))
        return Partial(func, *args, **keywords)
    if is_named_tuple(tree):
        return kind._make(_canonical(item, memo) for item in tree)
    if kind in (tuple, list):
        return kind(_canonical(item, memo) for item in tree)
    if kind is dict:
        return {key: _canonical(value, memo) for key, value in tree.items()}
    if is_frozen_dataclass(kind):
        return _with_fields(tree, memo)
    return tree


def _with_fields(whole: Any, memo: Memo) -> Any:
    """A frozen dataclass with canonical fields, without running its `__init__` again."""
    old = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole) if hasattr(whole, field.name)}
    new = {name: _canonical(value, memo) for name, value in old.items()}
    if all(new[name] is old[name] for name in old):
        return whole
    made = copy.copy(whole)
    for name, value in new.items():
        object.__setattr__(made, name, value)
    return made


def _stand_in(function: Any, memo: Memo) -> Any:
    key = digest(function, memo)
    if key is None:
        return function
    first = _known.get(key)
    # Its captured variables may have changed since it was made.
    if first is not None and digest(first, memo) == key:
        return first
    made = _copied(function)
    _known[key] = made
    return made


def _copied(function: Any) -> Any:
    """Another function object of the same code, over the same captured variables."""
    if type(function) is MethodType:
        return functools.partial(function.__func__, function.__self__)
    if type(function) is functools.partial:
        made: Any = functools.partial(function.func, *function.args, **function.keywords)
    else:
        code, closure = function.__code__, function.__closure__
        made = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
        made.__kwdefaults__ = function.__kwdefaults__
        made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    made.__dict__.update(function.__dict__)
    return made
