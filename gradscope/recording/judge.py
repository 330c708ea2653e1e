"""Load the judge and check its classes before recording starts."""

from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.recording.prepare import Run, check_classes
from gradscope.sampling.sampler import image_shape


def load_judge(run: Run) -> Classifier | None:
    """Load the judge that the configuration names; None for ``judge: none``.

    Raises
    ------
    GradscopeError
        The judge cannot be loaded, or its classes differ from those of the guides.
    """
    if run.config.judge == "none":
        return None
    judge = load_classifier(run.config.judge, "judge", image_shape(run.denoiser.unet), run.device)
    check_classes({f"classifiers.{name}": guide for name, guide in run.classifiers.items()} | {"judge": judge})
    return judge
