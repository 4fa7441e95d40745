"""Modules that are called by their own name.

`repops.capture` and `repops.lift` are a module each and a function each. Python binds a submodule's name in its package
whenever anybody imports it, so the module itself must answer a call.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that, called, calls its function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)
