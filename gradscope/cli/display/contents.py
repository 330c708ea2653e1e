"""Output of `gradscope info`."""

import numpy as np
from rich.console import Console
from rich.table import Table

from gradscope.cli.display.plain import plain
from gradscope.store.contents import Contents

_ORIGIN = ("run_id", "configuration_hash", "created", "device", "threads", "versions", "command", "configuration")


def print_contents(console: Console, found: Contents) -> None:
    """Print sizes, variables and origin of a store."""
    sizes = Table("dimension", "size", "values", box=None, header_style="bold")
    for dim, size in found.sizes.items():
        values = found.coordinates.get(dim, np.arange(size))
        text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        sizes.add_row(plain(dim), str(size), plain(text if len(text) < 60 else f"{values[0]} ... {values[-1]}"))
    console.print(sizes)
    variables = Table("variable", "dtype", "unit", "what it is", box=None, header_style="bold")
    for name, variable in found.variables.items():
        about = (variable.attributes.get(key, "-") for key in ("units", "long_name"))
        variables.add_row(plain(name), variable.dtype, *map(plain, about))
    console.print(variables)
    status = found.attributes.get("status", "unknown")
    console.print(plain(f"written: {found.written:.1%} of all samples and timesteps; status: {status}"))
    for key in _ORIGIN:
        if key in found.attributes:
            console.print(plain(f"{key}: {found.attributes[key]}"), highlight=False, soft_wrap=True)
