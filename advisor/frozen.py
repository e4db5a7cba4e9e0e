"""Frozen value classes: closed, checked when they are made, and cheap to load.

A class states its fields once, as annotations. pydantic is the authority on what they allow and it does all reading
and writing of JSON, but building its schemas takes longer than a whole answer. So a value that has exactly the
annotated type and lies in its range is taken as it is, and only what does not (a list for a tuple, an int for a float,
a mistake) goes to pydantic, which converts it or refuses it. A test checks that the two agree. What is refused is one
of this package's errors, in one line; pydantic's own ValidationError stays inside, except where a spec is a field of a
pydantic model, which reports it in its own way.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from inspect import get_annotations
from operator import itemgetter
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

from advisor.errors import BadValue, InputError, UnknownName
from advisor.json_text import json_text

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
    from pydantic_core import CoreSchema

Check = Callable[[Any], bool]


class Range(NamedTuple):
    """Allowed numbers, never infinity; `open_low` and `open_high` exclude the end itself."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is a finite number in the range."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and -math.inf < value < math.inf

    def text(self, whole: bool) -> str:
        """The range in words, as messages and help texts print it."""
        low, high = _plain(self.low), _plain(self.high)
        if whole:
            return f"must be an integer from {low} to {high}"
        above = f"greater than {low}" if self.open_low else f"at least {low}"
        below = f"less than {high}" if self.open_high else f"at most {high}"
        return f"must be a number {above} and {below}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        limits: dict[str, Any] = {"gt" if self.open_low else "ge": self.low}
        if self.high < math.inf:
            limits["lt" if self.open_high else "le"] = self.high
        schema: Any = handler(source)
        if schema["type"] == "float":
            limits["allow_inf_nan"] = False
        return cast("CoreSchema", schema | limits)


def _plain(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


class Pattern(NamedTuple):
    """Texts that a regular expression matches from end to end."""

    expression: str

    def holds(self, value: str) -> bool:
        """Whether all of `value` matches."""
        import re

        return re.fullmatch(self.expression, value) is not None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        return cast("CoreSchema", schema | {"pattern": f"^(?:{self.expression})$"})


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Frozen:
    """Base of all specs: immutable, and an unknown key is an error. Methods are named as those of pydantic's models."""

    __slots__ = ("__dict__", "__weakref__", "_hashed")
    model_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields, in order."""

    _defaults: ClassVar[dict[str, Any]] = {}
    _values: ClassVar[Callable[[dict[str, Any]], Any]]
    _derived: ClassVar[Mapping[str, Callable[[dict[str, Any]], Any]]] = {}
    """Defaults that depend on the fields before them, by name."""
    _checks: ClassVar[dict[str, Check]]
    _sure: ClassVar[dict[str, frozenset[type]]]
    """Classes whose every value is allowed, by field: there nothing is checked."""
    _adapter: ClassVar[TypeAdapter[Any] | None]

    def __init_subclass__(cls) -> None:
        names = [name for name in get_annotations(cls) if name not in cls.model_fields]
        cls.model_fields = (*cls.model_fields, *names)
        cls._defaults = {name: getattr(cls, name) for name in cls.model_fields if hasattr(cls, name)}
        cls._values = itemgetter(*cls.model_fields)
        cls._checks, cls._sure, cls._adapter = {}, {}, None  # made when they are first needed

    def __init__(self, **values: Any) -> None:
        """Raises InputError for a missing field, UnknownName for a strange one, BadValue for a value not allowed."""
        cls = self.__class__
        if cls._allows(values):
            state = cls._defaults | values
            if len(state) == len(cls.model_fields):
                for name, default in cls._derived.items():
                    if name not in values:
                        state[name] = default(state)
                self.__dict__.update(state)
                if wrong := self._contradiction():
                    raise InputError(f"{cls.__name__}: {wrong}")
                return
        self.__dict__.update(_validated(cls, "validate_python", values).__dict__)

    @classmethod
    def _allows(cls, values: Mapping[str, Any]) -> bool:
        """Whether every value is certainly allowed and needs no conversion; one of a strange name never is."""
        checks, sure = cls._checks or _make_checks(cls), cls._sure
        for name, value in values.items():
            if value.__class__ in sure.get(name, ()):
                continue
            check = checks.get(name)
            if check is None or not check(value):
                return False
        return True

    def _contradiction(self) -> str:
        """What is wrong between fields that are each allowed; '' for nothing."""
        return ""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: make another with model_copy(update={{{name!r}: ...}})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        hashed: int | None = getattr(self, "_hashed", None)
        if hashed is None:  # asked for dozens of times in an answer: specs are the keys of what is computed once
            hashed = hash(self.__class__._values(self.__dict__))
            object.__setattr__(self, "_hashed", hashed)
        return hashed

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__  # not the hash, which another process would not share

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Pairs of name and value, so that dict(spec) holds the fields."""
        return ((name, self.__dict__[name]) for name in self.model_fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self)})"

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """A copy with other values for some fields, checked like a new one: what is kept was checked before."""
        cls = type(self)
        changes = update if update.__class__ is dict else _by_name(cls, update)
        if not cls._allows(changes):
            return cls(**self.__dict__ | _by_name(cls, changes))
        made = cls.__new__(cls)
        made.__dict__.update(self.__dict__, **changes)
        if wrong := made._contradiction():
            raise InputError(f"{cls.__name__}: {wrong}")
        return made

    def model_dump(self, *, mode: Literal["json", "python"] = "python") -> dict[str, Any]:
        """The fields as a dict, nested specs as dicts too."""
        dumped: dict[str, Any] = _adapter(type(self)).dump_python(self, mode=mode)
        return dumped

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The fields as a JSON object."""
        return json_text(self, indent)

    @classmethod
    def model_validate(cls, values: Mapping[str, Any]) -> Self:
        """A spec from a dict. Raises as the class itself does."""
        return cls(**_by_name(cls, values))

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> Self:
        """A spec from a JSON object. Raises as the class itself does."""
        made: Self = _validated(cls, "validate_json", text)
        return made

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of what `model_dump_json` writes."""
        dialect = "https://json-schema.org/draft/2020-12/schema"
        return {"$schema": dialect, **_adapter(cls).json_schema(mode="serialization")}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        schemas = {name: handler.generate_schema(annotation) for name, annotation in annotations_of(cls).items()}
        fields = [
            core_schema.dataclass_field(
                name,
                _with_default(cls, name, schema),
                kw_only=True,
            )
            for name, schema in schemas.items()
        ]
        items = {name: core_schema.typed_dict_field(schema) for name, schema in schemas.items()}
        made = core_schema.dataclass_schema(
            cls,
            core_schema.dataclass_args_schema(cls.__name__, fields, extra_behavior="forbid"),
            list(cls.model_fields),
            frozen=True,
            # pydantic writes only real dataclasses by itself.
            serialization=core_schema.plain_serializer_function_ser_schema(
                dict, return_schema=core_schema.typed_dict_schema(items, cls=cls, extra_behavior="forbid")
            ),
        )
        return core_schema.no_info_after_validator_function(
            _consistent, made, ref=f"{cls.__module__}.{cls.__qualname__}", serialization=made["serialization"]
        )


def _with_default(spec: type[Frozen], name: str, schema: CoreSchema) -> CoreSchema:
    from pydantic_core import core_schema

    if name in spec._derived:
        return core_schema.with_default_schema(
            schema, default_factory=spec._derived[name], default_factory_takes_data=True
        )
    if name in spec._defaults:
        return core_schema.with_default_schema(schema, default=spec._defaults[name])
    return schema


def _by_name(spec: type[Frozen], values: object) -> dict[str, Any]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise BadValue(spec.__name__, values, "must be a mapping of field names to values")
    return dict(values)


def _consistent(spec: Frozen) -> Frozen:
    """The spec itself. Raises ValueError, which pydantic reports, where its fields contradict each other."""
    if wrong := spec._contradiction():
        raise ValueError(wrong)
    return spec


def _validated(spec: type[Frozen], how: Literal["validate_python", "validate_json"], given: Any) -> Any:
    """What pydantic makes of `given`. Raises InputError, UnknownName or BadValue for the first field it refuses."""
    try:
        from pydantic import ValidationError
    except ImportError:  # in a browser
        raise _unconverted(spec, given) from None
    try:
        return getattr(_adapter(spec), how)(given)
    except ValidationError as error:
        raise _refusal(spec, error) from None


def _refusal(spec: type[Frozen], error: ValidationError) -> InputError:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    what = f"{name} of {spec.__name__}" if name else spec.__name__
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("missing", "missing_keyword_only_argument"):
        return InputError(f"{what} is missing; give it")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return UnknownName(f"field of {spec.__name__}", name, spec.model_fields)
    if first["type"] == "value_error":
        return InputError(f"{spec.__name__}: {message}")
    said = message.removeprefix("Input should be ")
    return BadValue(what, first["input"], f"must be {said}" if said != message else message)


def _unconverted(spec: type[Frozen], given: object) -> InputError:
    """The refusal where pydantic is not installed: nothing is converted, only values as annotated are taken."""
    checks = spec._checks or _make_checks(spec)
    values = given if isinstance(given, Mapping) else {}
    for name, value in values.items():
        if name not in checks:
            return UnknownName(f"field of {spec.__name__}", str(name), spec.model_fields)
        if not checks[name](value):
            return BadValue(f"{name} of {spec.__name__}", value, f"must be {annotations_of(spec)[name]}")
    missing = (name for name in spec.model_fields if name not in {**spec._defaults, **values})
    return InputError(f"{next(missing, 'a value')} of {spec.__name__} is missing; give it")


def annotations_of(spec: type[Frozen]) -> dict[str, Any]:
    """The annotation of each field, with its Range where it has one."""
    bases = [base for base in reversed(spec.__mro__) if issubclass(base, Frozen) and base is not Frozen]
    return {
        name: _evaluated(base.__module__, found) if isinstance(found, str) else found
        for base in bases
        for name, found in get_annotations(base).items()
    }


@cache
def _evaluated(module: str, annotation: str) -> Any:
    """What an annotation means in its module; most are used for many fields."""
    return eval(annotation, vars(sys.modules[module]))


def _adapter(spec: type[Frozen]) -> TypeAdapter[Any]:
    if spec._adapter is None:
        from pydantic import TypeAdapter

        spec._adapter = TypeAdapter(spec)
    return spec._adapter


def _make_checks(spec: type[Frozen]) -> dict[str, Check]:
    annotations = annotations_of(spec)
    spec._checks = {name: _check(annotation) for name, annotation in annotations.items()}
    spec._sure = {name: frozenset(_sure(annotation)) for name, annotation in annotations.items()}
    return spec._checks


def _sure(annotation: Any) -> Iterator[type]:
    """The classes of which every value is allowed and needs no conversion."""
    kind = get_origin(annotation)
    if kind in (UnionType, Union):
        for option in get_args(annotation):
            yield from _sure(option)
    elif isinstance(annotation, type) and kind is None:
        yield annotation


def _check(annotation: Any) -> Check:
    """Whether a value is certainly allowed and needs no conversion; what is not understood never is."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if annotation in (bool, int, float, str):
        return lambda value: value.__class__ is annotation
    if kind is Literal:
        kinds = {part.__class__ for part in parts}
        return lambda value: value.__class__ in kinds and value in parts
    if kind is Annotated and len(parts) == 2 and isinstance(parts[1], (Range, Pattern)):
        typed, holds = _check(parts[0]), parts[1].holds
        return lambda value: typed(value) and holds(value)
    if kind in (UnionType, Union):
        options = [_check(part) for part in parts]
        return lambda value: any(option(value) for option in options)
    if kind is tuple and parts[-1:] == (Ellipsis,):
        each = _check(parts[0])
        return lambda value: value.__class__ is tuple and all(map(each, value))
    if kind is tuple:
        checks = [_check(part) for part in parts]
        return lambda value: (
            value.__class__ is tuple
            and len(value) == len(checks)
            and all(check(one) for check, one in zip(checks, value, strict=True))
        )
    if annotation is NoneType or (isinstance(annotation, type) and kind is None):
        return lambda value: isinstance(value, annotation)
    return lambda value: False
