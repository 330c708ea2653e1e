"""`gradscope info`."""

from gradscope.cli.options import StorePath


def info(store: StorePath) -> None:
    """Print the contents and the origin of a store."""
    from rich.console import Console

    from gradscope.cli.display.contents import print_contents
    from gradscope.store.contents import contents

    console, found = Console(markup=False), contents(store)
    print_contents(console, found)
    attributes = found.attributes
    if attributes.get("status") == "interrupted" and "classifiers" in attributes.get("configuration", ""):
        from gradscope.recording.resume import advice
        from gradscope.store.locations.location import locate

        console.print(advice(locate(store)), highlight=False, soft_wrap=True)
