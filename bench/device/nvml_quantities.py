"""What a GPU tells of itself, described once: which questions, and in which order."""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Asks the driver about a handle; the answer is in our unit, None where the driver does not know it.
Question = Callable[[Any], Any]


class Quantity(Generic[T]):
    """The first answer to some questions; of the whole board unless `of_slice`.

    Its name in the class, `bench.device.nvml.Gpu`, is its key in `reasons`.
    """

    def __init__(self, *questions: Question, of_slice: bool = False) -> None:
        self.questions, self.of_slice = questions, of_slice

    def __set_name__(self, owner: object, name: str) -> None:
        self.name = name

    def of(self, gpu: Any) -> Callable[[], T | None]:
        """Asks for its value; None where the GPU or its driver does not tell."""
        return partial(gpu.ask, self.name, *self.questions, of_slice=self.of_slice)


class Fact(Quantity[T]):
    """What stays as it is while a row is measured: an attribute."""

    def __get__(self, gpu: Any, owner: object) -> T | None:
        return self.of(gpu)()


class Live(Quantity[T]):
    """What changes from moment to moment: a method."""

    def __get__(self, gpu: Any, owner: object) -> Callable[[], T | None]:
        return self.of(gpu)
