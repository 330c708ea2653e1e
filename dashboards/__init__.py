"""The dashboard: one cursor through every gradient of a recorded run.

It reads stores through `gradscope.store` and `gradscope.analysis` and never loads torch. `create_app` and `serve` are
loaded on first use, so that other rooms can use parts of the dashboard without a web server.
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
