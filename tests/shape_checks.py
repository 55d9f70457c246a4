"""Type and shape checks of the flow library while tests run, made once for calls that are alike.

jaxtyping and beartype judge a call by the types of its values and by the shapes and dtypes of its
arrays, which takes longer than what most functions compute. Here a call is judged when it differs in
one of these from every call of the function before; jaxtyping's own import hook judges each call.
"""

import ast
import dataclasses
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from beartype import beartype
from jaxtyping import jaxtyped

T = TypeVar("T")

_PACKAGE = "flows"
_SUFFIX = ".checked-1.pyc"  # another number where `_Decorate` changes
_CONTAINERS = (dict, list, tuple, set, frozenset)
_FEW = 8
_MORE = object()

_plain: set[type[Any]] = set()  # types that tell all of their values
_nested: dict[tuple[object, ...], "_Checks"] = {}


def checked(function: Callable[..., T]) -> Callable[..., T]:
    """Add checks to a function; one that is defined again shares what was found right before."""
    checks = _checks_of(function)
    right = checks.right

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        __tracebackhide__ = True
        given = (*map(_kind, args), *[(name, _kind(value)) for name, value in kwargs.items()])
        if given not in right:
            checks.of_arguments(*args, **kwargs)
        answer = function(*args, **kwargs)
        both = (given, _kind(answer))
        if both not in right:
            checks.judge(answer, args, kwargs)
            if not _is_too_much(both):
                right.update((given, both))
        return answer

    return call


def checked_fields(cls: type[T]) -> type[T]:
    """Add checks of the fields to a dataclass."""
    if dataclasses.is_dataclass(cls) and "__init__" in vars(cls):
        type.__setattr__(cls, "__init__", checked(vars(cls)["__init__"]))
    return cls


class _Checks:
    """Checks of one function, made when it is first called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.right: set[object] = set()
        self._function = function
        self._answer: Any = None
        self._turn = threading.RLock()

    @cached_property
    def of_arguments(self) -> Callable[..., Any]:
        """Raise a `TypeCheckError` for arguments that do not fit."""
        return self._stub(return_annotation=Any)

    @cached_property
    def _of_all(self) -> Callable[..., Any]:
        return self._stub(return_annotation=inspect.signature(self._function).return_annotation)

    def judge(self, answer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise a `TypeCheckError` for an answer that does not fit to these arguments."""
        with self._turn:
            self._answer = answer
            self._of_all(*args, **kwargs)
            self._answer = None

    def _stub(self, *, return_annotation: Any) -> Callable[..., Any]:
        """Return a checked function with the same arguments, which returns the answer at hand."""

        def stub(*_args: Any, **_kwargs: Any) -> Any:
            return self._answer

        # The names in its annotations are those of the function's module.
        there = FunctionType(stub.__code__, self._function.__globals__, closure=stub.__closure__)
        made = wraps(self._function)(there)
        signature = inspect.signature(self._function)
        vars(made)["__signature__"] = signature.replace(return_annotation=return_annotation)
        return jaxtyped(made, typechecker=beartype)


def _checks_of(function: Callable[..., Any]) -> _Checks:
    if "<locals>" not in function.__qualname__:
        return _Checks(function)
    key = (function.__module__, function.__qualname__, *function.__annotations__.items())
    if key not in _nested:
        _nested[key] = _Checks(function)
    return _nested[key]


def _kind(value: Any) -> Any:
    """Return all of a value that decides how it is judged; `_MORE` where that is too much."""
    kind = type(value)
    if kind in _plain:
        return kind
    if isinstance(value, torch.Tensor | np.ndarray):
        return kind, value.shape, value.dtype
    if isinstance(value, str | type):
        return value  # it may have to be one of a few
    if not isinstance(value, _CONTAINERS):
        _plain.add(kind)
        return kind
    if len(value) > _FEW:
        return _MORE
    held = value.items() if isinstance(value, dict) else value
    return kind, *map(_kind, held)


def _is_too_much(key: object) -> bool:
    if isinstance(key, tuple):
        return any(map(_is_too_much, key))
    return key is _MORE


class _Decorate(ast.NodeTransformer):
    """Decorates every function and class, those inside others too, but those without checks."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        [load] = ast.parse(f"import {__name__}").body
        node.body.insert(ast.get_docstring(node) is not None, load)
        return ast.fix_missing_locations(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if any(ast.unparse(decorator) == "no_type_check" for decorator in node.decorator_list):
            return node
        self.generic_visit(node)
        # What other decorators make of it has no annotations.
        node.decorator_list.append(_decorator(checked, node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        # `dataclass` makes what is checked.
        node.decorator_list.insert(0, _decorator(checked_fields, node))
        return node


def _decorator(function: Callable[..., Any], node: ast.stmt) -> ast.expr:
    made = ast.parse(f"{__name__}.{function.__name__}", mode="eval").body
    return ast.copy_location(made, node)


class _Loader(SourceFileLoader):
    """Compiles a module with checks, and keeps the result beside that without."""

    def source_to_code(  # type: ignore[override]  # it is no static method, nor that of others
        self, data: Any, path: Any, *, _optimize: int = -1
    ) -> CodeType:
        tree = _Decorate().visit(ast.parse(data))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_kept_at(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(_kept_at(path), data, _mode=_mode)


def _kept_at(path: str) -> str:
    return path.removesuffix(".pyc") + _SUFFIX if path.endswith(".pyc") else path


class _Finder:
    """Finds the modules of the flow library."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module with checks, None for those of others."""
        if name.partition(".")[0] != _PACKAGE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


assert _PACKAGE not in sys.modules, "what is imported before is not checked"
sys.meta_path.insert(0, _Finder())
