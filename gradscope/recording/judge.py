"""Load the judge and check its classes before recording starts."""

from gradscope.errors import GradscopeError
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.recording.prepare import Run, check_classes, classifiers_of


def load_judge(run: Run) -> Classifier | None:
    """Load the judge that the configuration names; None for ``judge: none``.

    Raises
    ------
    GradscopeError
        The judge cannot be loaded, its classes differ from those of the guides, or it lacks a target class.
    """
    if run.config.judge == "none":
        return None
    judge = load_classifier(run.config.judge, "judge", run.image_shape, run.device)
    check_classes(classifiers_of(run.guides) | {"judge": judge})
    if run.grid.label.max() >= judge.num_classes:  # guides without classes take any label
        raise GradscopeError(
            f"sampling.labels: the judge has classes 0 to {judge.num_classes - 1}, got {run.grid.label.max()}"
        )
    return judge
