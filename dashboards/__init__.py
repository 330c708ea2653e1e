"""The dashboard: one cursor through every gradient of a recorded run.

Reads stores through `gradscope.store` and `gradscope.analysis`; never loads torch. `create_app` and `serve` are loaded
on first use, so that `gradscope.plots` needs no web server in a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dashboards.app import create_app
    from dashboards.server import serve

_MODULES = {"create_app": "dashboards.app", "serve": "dashboards.server"}

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'dashboards' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
