"""The components of Mantine that the pages use, and no others.

Loading `dash_mantine_components` loads all of its 190 modules, which takes half a second: a quarter of the time until
the dashboard listens. Here the package is loaded without them. What else it holds is loaded when somebody asks it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_NAME = "dash_mantine_components"
_LIST = f"{_NAME}._imports_"
"""The module that a package which Dash generated takes its components from."""


def _package() -> ModuleType:
    if _NAME in sys.modules:  # somebody loaded all of it
        return sys.modules[_NAME]
    none = ModuleType(_LIST)
    vars(none)["__all__"] = []
    sys.modules[_LIST] = none
    try:
        package = import_module(_NAME)
    finally:
        del sys.modules[_LIST]
    vars(package)["__getattr__"] = _component
    return package


def _component(name: str) -> Any:
    component = vars(_PACKAGE).get(name)
    if not isinstance(component, type):
        try:
            component = getattr(import_module(f"{_NAME}.{name}"), name)
        except ModuleNotFoundError:
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r}") from None
        setattr(_PACKAGE, name, component)  # where importing put the module of this name
    return component


_PACKAGE = _package()
Alert = _component("Alert")
Badge = _component("Badge")
Button = _component("Button")
ColorSchemeToggle = _component("ColorSchemeToggle")
MantineProvider = _component("MantineProvider")
MultiSelect = _component("MultiSelect")
NumberInput = _component("NumberInput")
Pagination = _component("Pagination")
Paper = _component("Paper")
SegmentedControl = _component("SegmentedControl")
Select = _component("Select")
Skeleton = _component("Skeleton")
VisuallyHidden = _component("VisuallyHidden")
