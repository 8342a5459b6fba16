"""What a function is, as a digest: by its code and by everything that its code can name.

Compared by contents: code (with file and line), defaults, attributes, captured variables, numbers (by type, too; -0.0
is not 0.0, True is not 1), strings, tuples, lists, dicts, sets, frozen dataclasses, `functools.partial` and
`jax.tree_util.Partial`, bound methods, NumPy arrays and small JAX arrays. Of a function's globals: the dict is the same
one, and so are, by contents, those that its code names, through the functions and modules that it names in turn.

Compared by identity: large JAX arrays, which cannot change. Modules, classes and objects of any other class: by
identity *and* by contents (of a module, what the code names), so that they may be changed between two calls. Installed
packages (but not this one) and the standard library are taken as fixed: their globals are not read.

Not seen: what a function reads from files, from the environment or by names made as it runs, and state that Python
cannot see, such as a random generator's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import sys
import types
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

LARGE_JAX = 1 << 20
"""Bytes; beyond, JAX arrays that a function captured are compared by identity."""

LARGE_NUMPY = 64 << 20
"""Bytes; NumPy arrays can be changed in place and are compared by contents, and beyond are equal to nothing."""

MOST_WORDS, MOST_OBJECTS = 50_000, 5_000
"""A function that takes more words, or refers to more objects, is equal to nothing. (A policy of this library takes
some hundreds of words and some tens of objects.)"""

Memo = dict[Any, tuple[Any, bytes, list[tuple[Any, Any]]]]
"""What was read of the objects that are compared by identity, so that several digests at one time read them once:
the object, the digest of what it is by itself, and what it refers to."""


def digest(value: Any, memo: Memo | None = None) -> bytes | None:
    """A digest of what a value is now: equal digests, equal by structure.

    It is to be compared only with digests of values that are alive: identities are part of it.

    Args:
      value: anything.
      memo: shared by digests between which nothing changes.

    Returns:
      `None` for what is equal to nothing but itself: too large, or not to be looked into.
    """
    memo = {} if memo is None else memo
    try:
        own, waiting = _read(value, memo, whole=False)
        parts, found = [own], set()
        while waiting:
            mark, referred = waiting.pop()
            if mark not in found:
                found.add(mark)
                if mark not in memo:
                    memo[mark] = referred, *_read(referred, memo, whole=True)
                parts.append(memo[mark][1])
                waiting += memo[mark][2]
                if len(found) > MOST_OBJECTS:
                    return None
    except Exception:  # objects of users may raise anything when they are looked at
        return None
    return hashlib.sha256(b"".join(parts)).digest()


def _read(value: Any, memo: Memo, whole: bool) -> tuple[bytes, list[tuple[Any, Any]]]:
    """The digest of one value, and what it refers to by identity; `whole` reads such a one itself."""
    words = _Words(memo)
    if whole:
        words.add_referred(value)
    else:
        words.add(value)
    return hashlib.sha256(repr(words.words).encode("utf-8", "surrogatepass")).digest(), words.waiting


class _Lookup(NamedTuple):
    """A module, and the names that some code may look up in it."""

    module: types.ModuleType
    names: tuple[str, ...]


_MADE = frozenset(vars(NamedTuple("_Empty", []))) - {"__doc__"}
"""What Python makes for every `NamedTuple`."""


class _TooLarge(Exception):
    """Takes too long to compare."""


class _Words:
    """A value in words: a flat list of constants, in which every node says what and how many follow.

    What is compared by identity is only named, and waits to be read by itself.
    """

    def __init__(self, memo: Memo) -> None:
        self.words: list[Any] = []
        self.waiting: list[tuple[Any, Any]] = []  # each with what it is known by in a `Memo`
        self._memo = memo
        self._seen: dict[int, tuple[int, Any]] = {}  # the values are kept, so that no identity is used twice

    def add(self, value: Any, names: tuple[str, ...] = ()) -> None:
        """Adds the words of a value.

        Args:
          value: anything.
          names: all that the code which holds it names: what it may look up in a module.
        """
        if len(self.words) > MOST_WORDS:
            raise _TooLarge
        kind = type(value)
        if value is None or value is Ellipsis or value is NotImplemented:
            self.words.append(repr(value))
        elif kind in (bool, int, str, bytes):
            self.words += kind.__name__, value
        elif kind is float:
            self.words += "float", value.hex()
        elif kind is complex:
            self.words += "complex", value.real.hex(), value.imag.hex()
        elif isinstance(value, types.ModuleType):
            self.words += "module", id(value)
            self.waiting.append(((id(value), names), _Lookup(value, names)))
        elif isinstance(value, type):
            self._refer(value)
        elif id(value) in self._seen:  # cycles end, and what is shared differs from what is not
            self.words += "again", self._seen[id(value)][0]
        else:
            self._seen[id(value)] = len(self._seen), value
            self._object(value, names)

    def add_referred(self, value: Any) -> None:
        """Adds the words of what is compared by identity."""
        if isinstance(value, _Lookup):
            if not _is_installed(value.module.__name__):
                self._look_up(vars(value.module), value.names)
        elif isinstance(value, type):
            self._class(value)
        elif type(value) is types.FunctionType:
            self._function(value)
        else:
            self._instance(value)

    def _refer(self, value: Any) -> None:
        self.words += "one", id(value)
        self.waiting.append((id(value), value))

    def _look_up(self, scope: Mapping[str, Any], names: Iterable[str]) -> None:
        """What a scope holds under some names now; its functions are not made anew, so they are compared by identity
        and read once."""
        for name in names:
            if name in scope:
                self.words += "name", name
                value = scope[name]
                if type(value) is types.FunctionType:
                    self._refer(value)
                else:
                    self.add(value, tuple(names))

    def _class(self, kind: type) -> None:
        """Its methods and its attributes."""
        if _is_installed(kind.__module__):
            return
        made = _MADE.union(kind._fields) if issubclass(kind, tuple) and hasattr(kind, "_fields") else ()
        held = vars(kind)
        names = [name for name in held if type(held[name]) is types.FunctionType or not name.startswith("__")]
        self._look_up(held, sorted(set(names).difference(made)))
        for base in kind.__mro__[1:]:
            self.add(base)

    def _object(self, value: Any, names: tuple[str, ...]) -> None:
        kind = type(value)
        if kind is types.FunctionType:
            self._function(value)
        elif kind is types.CodeType:
            self._code(value)
        elif kind is types.MethodType:  # as what stands in for it
            self._items(functools.partial, [value.__func__, (value.__self__,), {}, {}], names)
        elif kind is types.BuiltinFunctionType:
            self._items(kind, [value.__name__, value.__self__], names)
        elif kind is functools.partial or kind is Partial:
            self._items(kind, [value.func, value.args, value.keywords, vars(value)], names)
        elif kind is types.CellType:
            self._items(kind, _contents(value), names)
        elif kind in (tuple, list) or is_named_tuple(value):
            self._items(kind, value, names)
        elif kind is dict:
            self._items(kind, _flat(value.items()), names)
        elif kind in (set, frozenset):
            self._items(kind, self._sorted(value), names)
        elif isinstance(value, jax.Array | np.ndarray | np.generic | np.dtype):
            self._array(value, names)
        elif is_frozen_dataclass(kind):
            self._items(kind, _flat(_attributes(value)), names)
        else:
            self._refer(value)

    def _instance(self, value: Any) -> None:
        """What an object of any other class holds now."""
        if isinstance(value, logging.Logger):  # holds all others, and no numbers
            return
        self._items(type(value), _flat(_attributes(value)), ())
        if isinstance(value, tuple | list | deque):
            self._items(list, tuple(value), ())
        elif isinstance(value, dict | types.MappingProxyType):
            self._items(dict, _flat(value.items()), ())
        elif isinstance(value, set | frozenset):
            self._items(set, self._sorted(value), ())
        else:
            with contextlib.suppress(TypeError):  # it is no buffer
                self.words.append(memoryview(value).tobytes())

    def _sorted(self, items: Collection[Any]) -> list[bytes]:
        digests = [digest(item, self._memo) for item in items]
        if None in digests:
            raise _TooLarge
        return sorted(filter(None, digests))

    def _items(self, kind: type, items: Collection[Any], names: tuple[str, ...]) -> None:
        self.words += "items", len(items)
        self.add(kind)
        for item in items:
            self.add(item, names)

    def _function(self, function: types.FunctionType) -> None:
        """A function, with the globals that its code names as they are now."""
        code, scope = function.__code__, function.__globals__
        names = tuple(sorted({name for one in _codes(code) for name in one.co_names}))
        self.words += "function", id(scope)
        self._code(code)
        cells = function.__closure__ or ()
        self._items(types.FunctionType, [function.__defaults__, function.__kwdefaults__, vars(function), *cells], names)
        if _is_installed(scope.get("__name__")):
            return
        self._look_up(scope, names)
        for name in names:
            module = sys.modules.get(name)  # of imports inside the function
            if module is not None and name not in scope and not _is_installed(name):
                self.words += "import", name
                self.add(module, names)

    def _code(self, code: types.CodeType) -> None:
        self.words += "code", code.co_filename, code.co_firstlineno, code.co_qualname, code.co_flags, code.co_code
        self.words += code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_exceptiontable
        self.words += code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, len(code.co_consts)
        for constant in code.co_consts:
            self.add(constant)

    def _array(self, value: Any, names: tuple[str, ...]) -> None:
        if isinstance(value, np.dtype):
            self.words += "dtype", repr(value)
        elif isinstance(value, jax.Array):
            self._jax_array(value)
        else:
            self.words += "array", id(type(value)), repr(value.dtype), value.shape
            if value.dtype.hasobject:
                self._items(list, value.ravel().tolist(), names)
            elif value.nbytes > LARGE_NUMPY:
                raise _TooLarge
            else:
                self.words.append(hashlib.sha256(np.ascontiguousarray(value).view(np.uint8)).digest())
            self._items(dict, _flat(_attributes(value)), names)

    def _jax_array(self, value: jax.Array) -> None:
        self.words += "jax", str(value.dtype)
        traced = isinstance(value, jax.core.Tracer) or jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)
        if traced or value.nbytes > LARGE_JAX or not value.is_fully_addressable:
            self.words.append(id(value))
        else:
            self.words += value.shape, value.weak_type, repr(value.sharding), np.asarray(value).tobytes()


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # nothing was put into it yet
        return []


def _flat(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    return [part for pair in pairs for part in pair]


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Attributes in `__dict__` and in slots, past any `__getattr__`."""
    try:
        found = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        found = {}
    kind: Any = type(value)
    for name, slot in _slots(kind):
        with contextlib.suppress(AttributeError):  # a slot that was never filled
            found[name] = slot.__get__(value)
    return sorted(found.items())


@functools.lru_cache(1024)
def _slots(kind: Any) -> list[tuple[str, types.MemberDescriptorType]]:
    return [
        (f"{base.__name__}.{name}", member)
        for base in kind.__mro__
        for name, member in vars(base).items()
        if type(member) is types.MemberDescriptorType
    ]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@functools.cache
def _is_installed(module: str | None) -> bool:
    """Whether a module is of the standard library or an installed package, whose globals do not change."""
    top = (module or "").partition(".")[0]
    if top == __package__.partition(".")[0]:
        return False
    if top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def is_named_tuple(value: Any) -> bool:
    """Whether a value is a `NamedTuple` that is nothing but its items."""
    return isinstance(value, tuple) and hasattr(value, "_fields") and not getattr(value, "__dict__", None)


def is_frozen_dataclass(kind: Any) -> bool:
    """Whether a class is a dataclass whose instances are values: equal where their fields are, for good."""
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen and parameters.eq
