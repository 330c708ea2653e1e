"""Labels and the direction of descent, read off the gradient with respect to the guide's logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from gradscope.watching.evaluation import GuideCall
from gradscope.watching.gradient import target

LABELS = torch.tensor([2, 0, 3, 1])
OBJECTIVES = {
    "log p": (lambda z, y: z.log_softmax(dim=1)[range(len(y)), y].sum(), False),
    "logit": (lambda z, y: z[range(len(y)), y].sum(), False),
    "mean of log p": (lambda z, y: z.log_softmax(dim=1)[range(len(y)), y].mean() * 3.7, False),
    "cross-entropy": (cross_entropy, True),
    "negative logit": (lambda z, y: -z[range(len(y)), y].sum(), True),
}


def seen(logits, objective, labels):
    logits = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(logits, labels), logits)
    return GuideCall(value=torch.zeros(len(labels), 1), output=logits.detach(), of_output=slope)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("classes", [4, 10])
def test_labels_and_direction(name, classes):
    objective, is_loss = OBJECTIVES[name]
    logits = torch.randn(4, classes, generator=torch.Generator().manual_seed(0))
    label, descends = target(seen(logits, objective, LABELS))
    assert label.tolist() == LABELS.tolist()
    assert descends == is_loss


@pytest.mark.parametrize("name", ["log p", "cross-entropy"])
def test_a_certain_guide_tells_the_class_it_predicts(name):
    """1 - p rounds to 0 in float32, so the target's own slope is 0."""
    objective, is_loss = OBJECTIVES[name]
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    logits[1, 0] += 60
    logits[2, 3] += 200
    call = seen(logits, objective, LABELS)
    assert not call.of_output[2].any()
    label, descends = target(call)
    assert label.tolist() == LABELS.tolist()
    assert descends == is_loss


def test_what_does_not_tell():
    two = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert target(seen(two, OBJECTIVES["log p"][0], LABELS % 2)) == (None, None)
    label, descends = target(seen(two, OBJECTIVES["logit"][0], LABELS % 2))
    assert label.tolist() == (LABELS % 2).tolist()
    assert descends is False
    entropy = seen(torch.randn(4, 5), lambda z, y: torch.special.entr(z.softmax(dim=1)).sum(), LABELS)
    assert target(entropy)[0] is None or entropy.of_output is not None
    assert target(None) == (None, None)
