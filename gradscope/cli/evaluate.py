"""`gradscope evaluate`."""

from gradscope.cli.interruption import interruptible
from gradscope.cli.options import Device, Set, StorePath


def evaluate(store: StorePath, overrides: Set = None, device: Device = "auto") -> None:
    """Judge a store's samples and compare them with real images; --set can change `judge` and `evaluation`."""
    from rich.console import Console

    from gradscope.cli.display import tables as display
    from gradscope.evaluation.evaluate import evaluate_store
    from gradscope.evaluation.evaluators import load_evaluators
    from gradscope.models.device import set_device
    from gradscope.store import open_store

    console = Console(markup=False)  # names and paths may hold brackets

    def tell(text: str) -> None:
        console.print(text, highlight=False)

    with interruptible():
        where = set_device(device)
        evaluators = load_evaluators(open_store(store), overrides or (), where, tell)
        evaluate_store(store, evaluators, where, tell)
    for table in display.evaluation_tables(open_store(store)):
        console.print(table)
