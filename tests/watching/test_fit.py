"""Which of two predictions is conditional, and with which scale they are combined."""

import pytest
import torch

from gradscope.watching.classifier_free import Undecidable, guided_by, halved, parts_of


def predictions(dtype=torch.float32, n=3, change=0.3):
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(n, 4, 8, 8, generator=generator)
    c = u + change * torch.randn(n, 4, 8, 8, generator=generator)
    return u.to(dtype), c.to(dtype)


@pytest.mark.parametrize("scale", [1.01, 1.5, 7.5, 40.0])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("conditional_first", [False, True])
def test_scale_order_and_sign_are_found(scale, sign, conditional_first):
    u, c = predictions()
    parts = [c, u] if conditional_first else [u, c]
    found = guided_by(sign * (u + scale * (c - u)), parts)
    assert found.scale == pytest.approx(scale, rel=1e-4)
    assert torch.equal(found.conditional, sign * c)
    assert torch.equal(found.unconditional, sign * u)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_rescaled_guidance_and_narrow_types(dtype, rel, rescale):
    u, c = predictions(dtype)
    guided = u + 5 * (c - u)
    std = [x.float().std(dim=(1, 2, 3), keepdim=True) for x in (c, guided)]
    guided = (rescale * guided.double() * (std[0] / std[1]) + (1 - rescale) * guided.double()).to(dtype)
    found = guided_by(guided, [u, c])
    assert found.scale == pytest.approx(5, rel=rel)
    assert torch.equal(found.conditional, c)


@pytest.mark.parametrize("scale", [-2.0, 0.0, 0.4, 1.0])
def test_a_step_whose_order_is_undecidable_takes_that_of_another_step(scale):
    u, c = predictions()
    guided = u + scale * (c - u)
    found = guided_by(guided, [c, u], order=0)
    assert found.scale == pytest.approx(scale, abs=1e-5)
    assert torch.equal(found.conditional, c)
    if scale >= 0:
        with pytest.raises(Undecidable, match="which one is conditional is not known"):
            guided_by(guided, [c, u])


def test_what_cannot_be_decided_is_refused():
    u, c = predictions()
    with pytest.raises(Undecidable, match="one of the denoiser's two or lies between them"):
        guided_by(u + 0.4 * (c - u), [u, c])
    with pytest.raises(Undecidable, match="no sum of the denoiser's two"):
        guided_by(u + 3 * (c - u) + 0.01 * torch.randn_like(u), [u, c])
    with pytest.raises(Undecidable, match="3 predictions"):
        guided_by(u, [u, c, c])
    with pytest.raises(Undecidable, match="another prediction than the denoiser's one"):
        guided_by(u + 0.1 * c, [u])
    assert guided_by(u, [u]) is None
    assert guided_by(-u, [u]) is None
    with pytest.raises(Undecidable, match="predictions are the same"):
        guided_by(u, [u, u.clone()])


def test_outputs_are_cut_into_parts():
    u, c = predictions()
    both = torch.cat([u, c])
    assert [torch.equal(a, b) for a, b in zip(parts_of([both], 3, u.shape[1:]), [u, c], strict=True)] == [True, True]
    assert len(parts_of([u, c], 3, u.shape[1:])) == 2
    learned = torch.cat([both, torch.zeros_like(both)], dim=1)  # variances beside the prediction
    assert torch.equal(parts_of([learned], 3, u.shape[1:])[1], c)
    with pytest.raises(Undecidable, match="the denoiser gave"):
        parts_of([both[:5]], 3, u.shape[1:])
    assert torch.equal(halved(torch.cat([u, u])), u)
    assert halved(both) is None
    assert halved(u) is None
