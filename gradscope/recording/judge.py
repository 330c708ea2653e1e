"""The judge of a run, before the run: so that one that does not fit is told before anything is recorded."""

from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.recording.prepare import Run, check_classes
from gradscope.sampling.sampler import image_shape


def load_judge(run: Run) -> Classifier | None:
    """The judge that the configuration names; None where it names none.

    Raises
    ------
    GradscopeError
        It cannot be loaded, or its classes are not those of the guides.
    """
    if run.config.judge == "none":
        return None
    judge = load_classifier(run.config.judge, "judge", image_shape(run.denoiser.unet), run.device)
    check_classes({f"classifiers.{name}": guide for name, guide in run.classifiers.items()} | {"judge": judge})
    return judge
