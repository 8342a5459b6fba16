"""What a function is, as a digest: by its code and by everything that its code can name.

Compared by contents: code (with file and line), defaults, attributes, captured variables, numbers (by type, too; -0.0
is not 0.0, True is not 1), strings, tuples, lists, dicts, sets, frozen dataclasses, `functools.partial` and
`jax.tree_util.Partial`, bound methods, NumPy arrays and small JAX arrays. Of a function's globals: the dict is the same
one, and so are, by contents, those that its code names, through the functions and modules that it names in turn.

Compared by identity: large JAX arrays, which cannot change. Modules, classes and objects of any other class: by
identity *and* by contents (of a module, what the code names), so that they may be changed between two calls. Installed
packages (but not this one) and the standard library are taken as fixed: their globals are not read.

Not seen: what a function reads from files or the environment, and state that Python cannot see, such as a random
generator's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import sys
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

LARGE_JAX = 1 << 20
"""Bytes; beyond, JAX arrays that a function captured are compared by identity."""

LARGE_NUMPY = 64 << 20
"""Bytes; NumPy arrays can be changed in place and are compared by contents, and beyond are equal to nothing."""

MOST_WORDS = 50_000
"""A function that takes more words to tell is equal to nothing. (A policy of this library takes some hundreds.)"""


def fingerprint(value: Any) -> bytes | None:
    """A digest of what a value is now: equal digests, equal by structure.

    Returns:
      `None` for what is equal to nothing but itself: too large, or not to be looked into.
    """
    telling = _Telling()
    try:
        telling.tell(value)
    except Exception:  # objects of users may raise anything when they are looked at
        return None
    return hashlib.sha256(repr(telling.words).encode("utf-8", "surrogatepass")).digest()


class _TooLarge(Exception):
    """Takes too long to compare."""


class _Telling:
    """Tells a value in words: a flat list of constants, in which every node says what and how many follow.

    Identities are numbers here. That is enough because a fingerprint is compared only with that of a value that is
    alive, and so is what it refers to.
    """

    def __init__(self) -> None:
        self.words: list[Any] = []
        self._told: dict[Any, tuple[int, Any]] = {}  # the values are kept, so that no identity is used twice
        self._names: dict[int, tuple[tuple[str, ...], CodeType]] = {}

    def tell(self, value: Any, names: tuple[str, ...] = ()) -> None:
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
        elif isinstance(value, ModuleType):
            if self._is_new((id(value), names), value):
                self._module(value, names)
        elif self._is_new(id(value), value):
            self._object(value, names)

    def _is_new(self, mark: Any, value: Any) -> bool:
        """What was told before is only referred to, so that cycles end and what is shared differs from what is not."""
        if mark in self._told:
            self.words += "again", self._told[mark][0]
            return False
        self._told[mark] = len(self._told), value
        return True

    def _module(self, module: ModuleType, names: tuple[str, ...]) -> None:
        """A module: itself, and what the code that holds it can look up in it."""
        self.words += "module", id(module)
        if not _is_installed(module.__name__):
            for name in names:
                if name in vars(module):
                    self.words += "name", name
                    self.tell(vars(module)[name], names)

    def _class(self, kind: type) -> None:
        """A class: itself, its methods and its attributes."""
        self.words += "class", id(kind)
        if not _is_installed(kind.__module__):
            for name, value in sorted(vars(kind).items()):
                if type(value) is FunctionType or not name.startswith("__"):
                    self.words += "name", name
                    self.tell(value)
            for base in kind.__mro__[1:]:
                self.tell(base)

    def _object(self, value: Any, names: tuple[str, ...]) -> None:
        kind = type(value)
        if kind is FunctionType:
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif kind is CodeType:
            self._code(value)
        elif kind is MethodType:  # told as what stands in for it
            self._items(functools.partial, [value.__func__, (value.__self__,), {}, {}], names)
        elif kind is BuiltinFunctionType:
            self._items(kind, [value.__name__, value.__self__], names)
        elif kind is functools.partial or kind is Partial:
            self._items(kind, [value.func, value.args, value.keywords, vars(value)], names)
        elif kind is CellType:
            self._items(kind, _contents(value), names)
        elif kind in (tuple, list) or is_named_tuple(value):
            self._items(kind, value, names)
        elif kind is dict:
            self._items(kind, [part for item in value.items() for part in item], names)
        elif kind in (set, frozenset):
            self._items(kind, sorted(_digest_of(item) for item in value), names)
        elif isinstance(value, jax.Array | np.ndarray | np.generic | np.dtype):
            self._array(value, names)
        elif is_frozen_dataclass(kind):
            self._items(kind, [part for item in _attributes(value) for part in item], names)
        else:
            self._instance(value, names)

    def _instance(self, value: Any, names: tuple[str, ...]) -> None:
        """An object of any other class: itself, and what it holds now."""
        self.words += "object", id(value)
        if isinstance(value, logging.Logger):  # holds all others, and no numbers
            return
        self.tell(type(value))
        self._items(dict, [part for item in _attributes(value) for part in item], names)
        if isinstance(value, tuple | list | deque):
            self._items(list, tuple(value), names)
        elif isinstance(value, dict | MappingProxyType):
            self._items(dict, [part for item in value.items() for part in item], names)
        elif isinstance(value, set | frozenset):
            self._items(set, sorted(_digest_of(item) for item in value), names)
        elif isinstance(value, bytearray):
            self.words.append(bytes(value))

    def _items(self, kind: type, items: Collection[Any], names: tuple[str, ...]) -> None:
        self.words += "items", len(items)
        self.tell(kind)
        for item in items:
            self.tell(item, names)

    def _function(self, function: FunctionType) -> None:
        """A function, with the globals that its code names as they are now."""
        code, scope = function.__code__, function.__globals__
        names = self._named(code)
        self.words += "function", id(scope)
        self._code(code)
        cells = function.__closure__ or ()
        self._items(FunctionType, [function.__defaults__, function.__kwdefaults__, vars(function), *cells], names)
        if _is_installed(scope.get("__name__")):
            return
        for name in names:
            module = sys.modules.get(name)  # of imports inside the function
            if name in scope:
                self.words += "global", name
                self.tell(scope[name], names)
            elif module is not None and not _is_installed(name):
                self.words += "import", name
                self.tell(module, names)

    def _named(self, code: CodeType) -> tuple[str, ...]:
        """Every name that is not local to `code` or to the functions that it makes."""
        if id(code) not in self._names:
            self._names[id(code)] = tuple(sorted({name for one in _codes(code) for name in one.co_names})), code
        return self._names[id(code)][0]

    def _code(self, code: CodeType) -> None:
        self.words += "code", code.co_filename, code.co_firstlineno, code.co_qualname, code.co_flags, code.co_code
        self.words += code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_exceptiontable
        self.words += code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, len(code.co_consts)
        for constant in code.co_consts:
            self.tell(constant)

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
            self._items(dict, [part for item in _attributes(value) for part in item], names)

    def _jax_array(self, value: jax.Array) -> None:
        self.words += "jax", str(value.dtype)
        traced = isinstance(value, jax.core.Tracer) or jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)
        if traced or value.nbytes > LARGE_JAX or not value.is_fully_addressable:
            self.words.append(id(value))
        else:
            self.words += value.shape, value.weak_type, repr(value.sharding), np.asarray(value).tobytes()


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # nothing was put into it yet
        return []


def _digest_of(item: Any) -> bytes:
    digest = fingerprint(item)
    if digest is None:
        raise _TooLarge
    return digest


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Attributes in `__dict__` and in slots, past any `__getattr__`."""
    try:
        found = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        found = {}
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if type(member) is MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # a slot that was never filled
                    found[f"{kind.__name__}.{name}"] = member.__get__(value)
    return sorted(found.items())


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
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
