"""Dictionaries on a model's hook points for the length of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from torch import Tensor

from sparse_circuits.dictionary.insert import Insert
from sparse_circuits.errors import InputError


class Running:
    """Dictionaries in place for one run of a model. Outside of it nothing of them is on the model.

    A hook point's own hooks run first and see, and may change, what goes into the dictionary; what goes on from there is the
    dictionary's. Hook points are called by name from many modules, so it is their call that is redirected: for the run, a
    hook point is of a subclass of its class.

    Args:
        inserts: the dictionaries.
        before: modules and the hook point that their input goes through.
    """

    def __init__(self, inserts: Iterable[Insert], before: Iterable[tuple[Any, Any]]) -> None:
        self._inserts, self._before = list(inserts), list(before)
        self._read: dict[int, Tensor] = {}
        self._changes: dict[int, Tensor] = {}
        self.done: set[int] = set()

    @contextmanager
    def __call__(self) -> Iterator[Running]:
        """Put them in place, and take them away whatever happens."""
        with ExitStack() as stack:
            for module, point in self._before:
                handle = module.register_forward_pre_hook(lambda _, args, p=point: (p(args[0]), *args[1:]))
                stack.callback(handle.remove)
            for insert in self._inserts:
                stack.enter_context(_redirected(insert.point, self._write(insert)))
            for insert in self._inserts:  # after the SAEs, so that a transcoder reads what goes on from one
                if insert.reads_elsewhere:
                    stack.enter_context(_redirected(insert.read_point, self._keep(insert)))
                if insert.beside is not None:
                    stack.enter_context(_redirected(insert.beside, self._carry(insert), before=True))
            try:
                yield self
            finally:
                self._read.clear()
                self._changes.clear()

    def _write(self, insert: Insert) -> Callable[[Tensor], Tensor]:
        def write(value: Tensor) -> Tensor:
            conversion = insert.point.hook_conversion  # a bridge has z flat; hooks see it by heads
            y = value if conversion is None else conversion.convert(value)
            if not insert.reads_elsewhere:
                x = y
            elif id(insert) in self._read:
                x = self._read.pop(id(insert))
            else:
                raise InputError(
                    f"Nothing passed hook point {insert.read_name!r} before {insert.name!r}, so the transcoder between them "
                    "has no input; give its metadata the hook name of what it reads."
                )
            out = insert(y, x)
            self.done.add(id(insert))
            out = out if conversion is None else conversion.revert(out)
            if insert.beside is not None:
                self._changes[id(insert)] = out - value
            return out

        return write

    def _keep(self, insert: Insert) -> Callable[[Tensor], Tensor]:
        def keep(value: Tensor) -> Tensor:
            conversion = insert.read_point.hook_conversion
            self._read[id(insert)] = value if conversion is None else conversion.convert(value)
            return value

        return keep

    def _carry(self, insert: Insert) -> Callable[[Tensor], Tensor]:
        def carry(value: Tensor) -> Tensor:
            change = self._changes.pop(id(insert), None)
            return value if change is None else value + change

        return carry


@contextmanager
def _redirected(point: Any, step: Callable[[Tensor], Tensor], before: bool = False) -> Iterator[None]:
    steps = point.__dict__.get("_steps")
    if steps is None:
        steps = point.__dict__["_steps"] = ([], [])
        point.__class__ = _redirecting(type(point))
    mine = steps[0 if before else 1]
    mine.append(step)
    try:
        yield
    finally:
        mine.remove(step)
        if not any(steps):
            point.__class__ = type(point).__bases__[0]
            del point.__dict__["_steps"]


@lru_cache
def _redirecting(kind: type) -> type:
    class Redirecting(kind):
        def __call__(self, value: Any) -> Any:
            before, after = self.__dict__["_steps"]
            for step in before:
                value = step(value)
            value = super().__call__(value)
            for step in after:
                value = step(value)
            return value

    Redirecting.__name__ = Redirecting.__qualname__ = kind.__name__
    return Redirecting
