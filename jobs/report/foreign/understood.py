"""What the command line says of a table, and notes on how its cells are understood."""

from dataclasses import dataclass, field

from jobs.report.foreign import units


@dataclass(frozen=True)
class Told:
    """What the command line says of a whole table, where its lines do not.

    `gpus` are several where the table is to be seen on each.
    """

    gpus: tuple[str, ...] = ()
    model: str | None = None
    precision: str | None = None
    engine: str | None = None
    batch_size: int | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    context: int | None = None
    energy_unit: str | None = None
    quantity: str | None = None


@dataclass
class Notes:
    """How the cells of a table were understood, gathered as they are read.

    Attributes:
        renamed: Name in the table -> ours.
        aside: Why lines were set aside -> how many, by the precision or the value.
        problems: Cells that cannot be read, in words.
        assumed: A column that does not say its unit, or of what it is -> how it was read.
        used: Options of the command line that a line needed.
        runs: Most lines that are runs of one thing.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    aside: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    assumed: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    runs: int = 1

    def name(self, written: str, ours: str) -> str:
        """Ours, noted where it is not but another case of what is written."""
        if units.plain(written).lower() != ours.lower():
            self.renamed.setdefault(units.plain(written), ours)
        return ours


class Unreadable(Exception):
    """A cell that cannot be read: its text says which and why."""
