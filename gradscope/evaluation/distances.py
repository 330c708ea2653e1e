"""Distances between sets of images, in the features of a classifier."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from gradscope.errors import GradscopeError


class Features(nn.Module):
    """The pooled features of a timm classifier: images in [-1, 1] of `image_shape` -> ``(n, num_features)``."""

    def __init__(self, classifier: nn.Module, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if not hasattr(classifier, "forward_head"):
            raise GradscopeError(
                "evaluation.extractor: an extractor is a timm classifier, whose forward_head gives pooled features"
            )
        self.classifier = classifier.eval()
        self.device = next(classifier.parameters()).device
        self.num_features = self(torch.zeros(1, *image_shape, device=self.device)).shape[1]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        classifier: Any = self.classifier
        return classifier.forward_head(classifier.forward_features(x), pre_logits=True)


def frechet_distance(extractor: Features, real: Iterable[Tensor], fake: Iterable[Tensor]) -> float:
    """Frechet distance of two sets of images, given in batches ``(n, *image_shape)``, in the extractor's features.

    It is FID (arXiv 1706.08500) only with Inception's features.
    """
    metric = FrechetInceptionDistance(feature=extractor, normalize=True).to(extractor.device)
    for images, is_real in ((real, True), (fake, False)):
        for batch in images:
            metric.update(batch, real=is_real)
    return float(metric.compute())
