"""Named methods: one decorator registers a function with its paper; command line, docs, cards and tests read it."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_shrink.errors import ShrinkError


@dataclass(frozen=True)
class Method:
    """One registered method."""

    name: str
    function: Callable[..., Any]
    paper: str  # "arXiv:1503.02531", or the address of the documentation where there is no paper
    facts: Mapping[str, Any] = field(default_factory=dict)  # what its registry records beside that, such as an extra

    @property
    def summary(self) -> str:
        """First sentence of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword-only parameters with their defaults; `inspect.Parameter.empty` marks a required one."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


class Registry(Mapping[str, Method]):
    """Methods by name.

    Args:
        argument: The argument by which users choose a method; errors name it.
        package: Dotted name of the package whose modules hold the methods, one a file; they are imported at first use.
    """

    def __init__(self, argument: str, package: str) -> None:
        self.argument = argument
        self._package = package
        self._methods: dict[str, Method] = {}
        self._loaded = False

    def add(self, name: str, *, paper: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function.

        Args:
            name: What users write; the file bears the same name where it holds one method.
            paper: arXiv number or address of the source.
            **facts: Anything else that the registry's readers use.

        Returns:
            A decorator that hands the function back unchanged.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            if name in self._methods:
                raise ShrinkError(f"`{self.argument}` has a method named {name!r} already. Choose another name.")
            self._methods[name] = Method(name, function, paper, facts)
            return function

        return register

    def resolve(self, method: str | Callable[..., Any]) -> Callable[..., Any]:
        """The function that a name stands for; a callable is its own method.

        Args:
            method: Registered name, or a callable of the same signature.

        Returns:
            The function to call.
        """
        return method if callable(method) else self[method].function

    def __getitem__(self, name: str) -> Method:
        self._load()
        if name not in self._methods:
            close = difflib.get_close_matches(str(name), self._methods, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Choose one of these."
            raise ShrinkError(f"`{self.argument}` must be one of {sorted(self._methods)}, got {name!r}. {hint}")
        return self._methods[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._methods

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._methods))

    def __len__(self) -> int:
        self._load()
        return len(self._methods)

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._loaded = True
