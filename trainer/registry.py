"""Functions that a recipe names, and the parameters that they declare: advantages, losses, rewards.

A method is a function. Its parameters, beyond those that the trainer passes, are what a recipe may
set: their names, types, bounds (`Annotated[int, Field(ge=1)]`), descriptions and defaults are read
from its signature, and a recipe is validated against them. Built-in methods, those of a `--plugin`
and any `package.module:function` are the same kind of thing:

    @ADVANTAGES.register("power", paper="arXiv …")
    def power(rewards, groups, *, exponent: Annotated[float, Field(gt=0)] = 2.0): ...

    advantage: {name: power, exponent: 1.5}
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator

from franken import plugins
from franken.errors import UsageError, did_you_mean, unknown

LARGEST = 2**63 - 1


class Strict(BaseModel):
    """A frozen record that takes no unknown keys and no numbers that are not finite or that no
    tensor could count: the base of everything that is read from YAML.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(f"{name} is larger than {LARGEST}")
        return self


class Settings(Strict):
    """A method by name with its parameters, as a recipe gives them. Every method has a subclass
    with a field for each parameter.
    """

    name: str

    def parameters(self) -> dict[str, Any]:
        """The method's keyword arguments."""
        keys = (*type(self).model_fields, *(self.model_extra or {}))
        return {key: getattr(self, key) for key in keys if key != "name"}


@dataclass(frozen=True)
class Method:
    """A function under the name by which recipes know it. `shared` are parameters that the stage
    gives to all methods of this kind.
    """

    name: str
    function: Callable[..., Any] = field(repr=False)
    settings: type[Settings] = field(repr=False)
    shared: tuple[str, ...] = ()
    paper: str = ""

    def __call__(self, *args: Any, **parameters: Any) -> Any:
        return self.function(*args, **parameters)

    @property
    def summary(self) -> str:
        """The first sentence of the function's docstring."""
        return " ".join((inspect.getdoc(self.function) or "").split()).partition(". ")[0]


M = TypeVar("M", bound=Method)
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[M]):
    """The methods of one kind: built in, of plugins, and by import path."""

    def __init__(
        self, kind: str, method: type[M], *, passed: int, shared: tuple[str, ...] = ()
    ) -> None:
        """The trainer passes `passed` arguments by position, the stage the `shared` parameters."""
        self.kind, self._method, self._passed, self._shared = kind, method, passed, shared
        self._built_in: dict[str, M] = {}
        self._own = lru_cache(maxsize=None)(self.method)

    def register(self, name: str, **facts: Any) -> Callable[[F], F]:
        """Enter a function under `name`; `facts` are fields of the kind's method."""

        def enter(function: F) -> F:
            self._built_in[name] = self.method(name, function, **facts)
            return function

        return enter

    def names(self) -> list[str]:
        """Those built in, then those of plugins."""
        return [*self._built_in, *plugins.names(self.kind)]

    def get(self, name: str) -> M:
        """A method by name or `package.module:function`. Raises UsageError where there is none."""
        own = plugins.find(self.kind, name, self._built_in)
        if isinstance(own, self._method):
            return own
        if own is not None:
            return self._own(name, own)
        if name in self._built_in:
            return self._built_in[name]
        if ":" in name:
            return self._own(name, self._import(name))
        known = self.names()
        why = f"there are {', '.join(known)}; your own is package.module:function"
        raise unknown(self.kind, name, known, why=why)

    def read(self, raw: object, default: str = "") -> Settings:
        """What a recipe says, `NAME` or `{name: NAME, parameter: value}`, with defaults filled in.

        Raises ValueError (which pydantic reports beside the recipe's other errors) that names the
        method, the parameter and the nearest known one.
        """
        if isinstance(raw, Settings):
            return raw
        if not isinstance(raw, str | Mapping):
            raise ValueError(f"write the name of one of {', '.join(self.names())}")
        values: dict[str, Any] = {"name": raw} if isinstance(raw, str) else dict(raw)
        name = str(values.pop("name", default))
        settings = self._method_or_value_error(name).settings
        if name not in self._built_in:  # the older way to write the parameters of one's own
            values |= values.pop("options", {})
        try:
            return settings(name=name, **values)
        except ValidationError as e:
            raise ValueError("; ".join(_explain(name, settings, x) for x in e.errors())) from e

    def _method_or_value_error(self, name: str) -> M:
        try:
            return self.get(name)
        except UsageError as e:
            raise ValueError(", ".join(filter(None, (e.what, e.why, e.fix)))) from e

    def method(self, name: str, function: Callable[..., Any], **facts: Any) -> M:
        """A function as a method; a plugin that states more than parameters registers one."""
        try:
            signature = inspect.signature(function, eval_str=True)
        except (TypeError, ValueError, NameError) as e:
            raise UsageError(
                f"cannot read the parameters of the {self.kind} {name}", why=str(e)
            ) from e
        fields: dict[str, Any] = {}
        shared = []
        loose = False
        for parameter in list(signature.parameters.values())[self._passed :]:
            if parameter.kind is parameter.VAR_KEYWORD:
                loose = True
            elif parameter.name in self._shared:
                shared.append(parameter.name)
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                kind = Any if parameter.annotation is parameter.empty else parameter.annotation
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[parameter.name] = (kind, default)
        base = Settings
        if loose:
            base = type("LooseSettings", (Settings,), {"model_config": ConfigDict(extra="allow")})
        settings = create_model(f"{self.kind}:{name}", __base__=base, **fields)
        return self._method(name, function, settings, tuple(shared), **facts)

    def _import(self, name: str) -> Callable[..., Any]:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as e:
            raise UsageError(
                f"cannot import the {self.kind} {name}",
                why=str(e),
                fix="write package.module:function, and check PYTHONPATH",
            ) from e
        if not callable(function):
            raise UsageError(f"{name} is not a function", why=f"it is a {type(function).__name__}")
        return function


def _explain(name: str, settings: type[Settings], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{name}: {where}: {error['msg']}"
    known = [key for key in settings.model_fields if key != "name"]
    nearest = did_you_mean(str(error["loc"][-1]), known).replace("'", "")
    reads = f"it reads {', '.join(known)}" if known else "it has no parameters"
    return f"{name} does not read {where}, {nearest or reads}"
