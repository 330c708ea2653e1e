"""The same samples and gradients on every device; on the CPU this rehearses what a GPU runs."""

import numpy as np
import pytest
import torch
import watched_loops as loops
from diffusers import DDPMScheduler

import gradscope

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("through_x0", [False, True])
def test_watching_changes_no_bit_and_records_what_autograd_gave(tmp_path, device, through_x0):
    unet, guide = loops.unet().to(device), loops.classifier().to(device)
    scheduler, labels = DDPMScheduler(num_train_timesteps=200), loops.LABELS.to(device)

    def loop():
        generator = torch.Generator(device).manual_seed(0)
        x, used = torch.randn(4, 3, 8, 8, generator=generator, device=device), []
        scheduler.set_timesteps(6, device=device)
        for t in scheduler.timesteps:
            x = x.detach().requires_grad_()
            with torch.set_grad_enabled(through_x0):
                stepped = scheduler.step(unet(x, t).sample, t, x, generator=generator)
            log_p = guide(stepped.pred_original_sample if through_x0 else x).log_softmax(dim=1)
            used.append(torch.autograd.grad(log_p[range(4), labels].sum(), x)[0])
            x = stepped.prev_sample.detach() + 0.1 * used[-1]
        return x.detach(), torch.stack(used, 1)

    torch.backends.cudnn.deterministic = True
    plain, _ = loop()
    with gradscope.watch(tmp_path / "w.zarr", denoiser=unet, guide=guide, scheduler=scheduler) as watched:
        samples, used = loop()
        watched.final(samples)
    assert torch.equal(plain, samples)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], used.cpu())
    np.testing.assert_array_equal(ds["image"].values[0, 0, 0, 0], samples.cpu())
    assert ds["label"].values.tolist() == loops.LABELS.tolist()
    assert ds["classifier_input"].values.tolist() == ["x0" if through_x0 else "x_t"]
