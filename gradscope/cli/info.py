"""`gradscope info`."""

from gradscope.cli.options import StorePath


def info(store: StorePath) -> None:
    """Print the contents and the origin of a store."""
    from rich.console import Console

    from gradscope.cli.display import tables as display
    from gradscope.recording.resume import advice
    from gradscope.store import open_store
    from gradscope.store.locations.location import locate

    console, ds = Console(markup=False), open_store(store, dask=False)
    display.print_info(console, ds)
    if ds.attrs.get("status") == "interrupted" and "classifiers" in ds.attrs.get("configuration", ""):
        console.print(advice(locate(store)), highlight=False, soft_wrap=True)
