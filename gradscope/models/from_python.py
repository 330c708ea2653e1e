"""Load a classifier in Python by the name that a configuration gives it."""

from collections.abc import Mapping
from typing import Any

import torch

from gradscope.config import classifier_mapping
from gradscope.models import classifiers


def load_classifier(
    spec: str | Mapping[str, Any], image_shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> classifiers.Classifier:
    """Load a classifier by a value of the configuration's key `classifiers`, and check it.

    Parameters
    ----------
    spec
        ``zoo:SET/NAME``, ``CARD.yaml``, ``package.module:callable``, timm's keys, for example
        ``{"timm": "resnet18", "checkpoint": "weights.safetensors", "num_classes": 4}``, or
        ``{"module": "package.module:callable", "takes_timestep": True}``.
    image_shape
        Channel, height and width of its images.
    device
        Where to load it.

    Returns
    -------
    Classifier
        Its ``module``, ``num_classes``, and ``classes``, the names on its card or None.

    Raises
    ------
    GradscopeError
        The classifier cannot be loaded, or does not take such images.

    Examples
    --------
    >>> robust = gradscope.load_classifier("zoo:sportballs32/robust", (3, 32, 32))
    >>> robust.classes
    ('baseball', 'basketball', 'soccer ball', 'volleyball')
    """
    checked = spec if isinstance(spec, str) else classifier_mapping(spec, "classifier")
    return classifiers.load_classifier(checked, "classifier", image_shape, device)
