"""Features of images, from a classifier, any other module, or Inception."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.config import Inception, TimmClassifier
from gradscope.errors import GradscopeError
from gradscope.models.classifiers import Normalized, load_classifier
from gradscope.models.logits import Logits
from gradscope.models.weights import state_hash

Shape = tuple[int, ...]


class Features(nn.Module):
    """Maps images in [-1, 1], ``(n, *image_shape)``, to features ``(n, num_features)``.

    The features are the input of the last layer of a timm classifier (any module with `forward_head`), or the output of
    any other module.
    """

    def __init__(self, module: nn.Module, image_shape: Shape) -> None:
        super().__init__()
        self.weights = state_hash(module)
        """SHA-256 of the module's weights."""
        self.module = _pooled(module).eval()
        self.device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            self.num_features = self.module(torch.zeros(1, *image_shape, device=self.device)).shape[1]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.clone())  # a copy, in case the module works in place

    def of(self, batches: Iterable[Tensor]) -> NDArray[np.float64]:
        """Features of the images of all batches, ``(n, num_features)``.

        Raises
        ------
        GradscopeError
            A feature is not finite.
        """
        found = [self(batch.to(self.device)).double().cpu().numpy() for batch in batches]
        features = np.concatenate([np.empty((0, self.num_features)), *found])
        if not np.isfinite(features).all():
            wrong = int((~np.isfinite(features).all(axis=1)).sum())
            raise GradscopeError(
                f"evaluation.extractor: its features are not finite for {wrong} of {len(features)} images"
            )
        return features


class _Pooled(nn.Module):
    """The input of the last layer of a timm classifier."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.forward_head(self.classifier.forward_features(x), pre_logits=True)


def _pooled(module: nn.Module) -> nn.Module:
    if isinstance(module, Logits):
        pooled = _pooled(module.module)
        return module if pooled is module.module else pooled
    if isinstance(module, Normalized):
        return Normalized(_pooled(module.module), module.mean.flatten().tolist(), module.std.flatten().tolist()).to(
            module.mean.device
        )
    return _Pooled(module) if hasattr(module, "forward_head") else module


class InceptionFeatures(nn.Module):
    """The 2,048 features of FID (arXiv 1706.08500), from uint8 images resized to 299 x 299 as in the original."""

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception

    def forward(self, x: Tensor) -> Tensor:
        bytes_ = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return self.inception(bytes_.expand(-1, 3, -1, -1))[0]


def load_extractor(
    spec: str | TimmClassifier | Inception, where: str, image_shape: Shape, device: torch.device | str = "cpu"
) -> Features:
    """Load the features of a configuration; `where` is the key, for errors.

    Raises
    ------
    GradscopeError
        The model cannot be loaded, or does not take such images.
    """
    if isinstance(spec, Inception):
        return Features(
            InceptionFeatures(_inception(Path(spec.inception), f"{where}.inception")).to(device), image_shape
        )
    return Features(load_classifier(spec, where, image_shape, device).module, image_shape)


def distance_names(spec: str | TimmClassifier | Inception) -> tuple[str, str]:
    """Names of the Frechet and of the kernel distance: fid and kid for Inception, else fd_NAME and kd_NAME."""
    if isinstance(spec, Inception):
        return "fid", "kid"
    last = re.split("[/:]", spec.removesuffix(".yaml"))[-1] if isinstance(spec, str) else spec.timm
    name = re.sub(r"\W", "_", last)
    return f"fd_{name}", f"kd_{name}"


def _inception(path: Path, where: str) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise GradscopeError(f"{where}: torch-fidelity is not installed: pip install 'gradscope[inception]'") from None
    if not path.is_file():
        raise GradscopeError(f"{where}: no file {str(path)!r}")
    try:
        torch.load(
            path, map_location="cpu", weights_only=True
        )  # refuses other objects, which the class below would unpickle
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    except Exception as error:
        raise GradscopeError(
            f"{where}: {path} does not hold the weights of torch-fidelity's Inception: {error}"
        ) from error
