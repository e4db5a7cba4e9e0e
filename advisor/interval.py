"""A quantity with its uncertainty: low, likely, high."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


class Interval(NamedTuple):
    """`low <= likely <= high`, all in the same base unit as the field that holds it.

    Serialized as an object with these three keys.
    """

    low: float
    likely: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """An interval of width zero."""
        return cls(value, value, value)

    @classmethod
    def around(cls, likely: float, relative_low: float, relative_high: float) -> Interval:
        """`likely` with its bounds at `likely * (1 - relative_low)` and `likely * (1 + relative_high)`."""
        return cls(likely * (1 - relative_low), likely, likely * (1 + relative_high))

    def plus(self, other: Interval) -> Interval:
        """The sum, bounds added (fully dependent errors: the cautious choice)."""
        return Interval(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> Interval:
        """All three values times a factor that is not negative."""
        return Interval(self.low * factor, self.likely * factor, self.high * factor)

    @classmethod
    def spanning(cls, low: Interval, likely: Interval, high: Interval) -> Interval:
        """What a quantity may be if its cause is itself an interval: `likely`, as low and high as at any end."""
        items = (low, likely, high)
        return cls(min(i.low for i in items), likely.likely, max(i.high for i in items))

    @classmethod
    def hull(cls, intervals: Iterable[Interval]) -> Interval:
        """The smallest interval that holds all of `intervals`; `likely` is the middle one's."""
        items = sorted(intervals, key=lambda i: i.likely)
        return cls(min(i.low for i in items), items[len(items) // 2].likely, max(i.high for i in items))

    @property
    def is_exact(self) -> bool:
        """Whether it is one value."""
        return self.low == self.high

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        number = core_schema.float_schema()
        fields = {name: core_schema.typed_dict_field(number) for name in cls._fields}
        from_dict = core_schema.no_info_after_validator_function(
            lambda d: cls(**d), core_schema.typed_dict_schema(fields, extra_behavior="forbid")
        )
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), from_dict],
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda i: i._asdict() if isinstance(i, cls) else i
            ),
        )
