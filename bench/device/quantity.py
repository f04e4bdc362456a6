"""What a GPU tells of itself, described once: which questions, in which order, in which unit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Asks the driver about a handle; the answer is in the driver's unit.
Question = Callable[[Any], Any]


class Quantity(Generic[T]):
    """The first answer to some questions, in our unit; of the whole board unless `of_slice`.

    Its name in the class, `bench.device.nvml.Gpu`, is its key in `reasons`. Where `convert` gives
    None, the driver has answered that it does not know.
    """

    def __init__(
        self,
        *questions: Question,
        convert: Callable[[Any], T | None] = lambda answer: answer,
        of_slice: bool = False,
    ) -> None:
        self.questions, self.convert, self.of_slice = questions, convert, of_slice

    def __set_name__(self, owner: object, name: str) -> None:
        self.name = name

    def of(self, gpu: Any) -> T | None:
        """Its value now; None where the GPU or its driver does not tell."""
        answer = gpu.ask(self.name, *self.questions, of_slice=self.of_slice)
        if answer is None:
            return None
        if (value := self.convert(answer)) is None:
            gpu.reasons[self.name] = "the driver does not know it"
        return value


class Fact(Quantity[T]):
    """What stays as it is while a row is measured: an attribute."""

    def __get__(self, gpu: Any, owner: object) -> T | None:
        return self.of(gpu)


class Live(Quantity[T]):
    """What changes from moment to moment: a method."""

    def __get__(self, gpu: Any, owner: object) -> Callable[[], T | None]:
        return partial(self.of, gpu)
