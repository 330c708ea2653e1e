import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler

from gradscope.errors import GradscopeError
from gradscope.schedule import VARIANCE_TYPES, Schedule

SPACINGS = ["leading", "trailing", "linspace"]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_sigma_is_the_standard_deviation_of_the_step(spacing, variance_type):
    """Measured: the spread of the scheduler's own samples around its mean."""
    scheduler = DDPMScheduler(variance_type=variance_type, timestep_spacing=spacing)
    schedule = Schedule(scheduler, 20)
    x_t, epsilon = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    for times in schedule.times[:-1:5]:
        noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        spread = schedule.unguided(epsilon, x_t, times, noise).std()
        assert float(spread) == pytest.approx(times.sigma_step, rel=0.03)
        if variance_type == "fixed_small":
            assert times.sigma == times.sigma_step


@pytest.mark.parametrize("spacing", SPACINGS)
def test_posterior_variance_is_that_of_ddpm_scheduler(spacing):
    scheduler = DDPMScheduler(timestep_spacing=spacing)
    schedule = Schedule(scheduler, 50)
    scheduler.set_timesteps(50)
    for times in schedule.times[:-1]:
        assert times.sigma**2 == pytest.approx(float(scheduler._get_variance(times.timestep)), rel=1e-4)
        assert times.alphas_cumprod == pytest.approx(float(scheduler.alphas_cumprod[times.timestep]))
    assert schedule.times[-1].sigma == 0


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip_sample", [True, False])
def test_prediction_agrees_with_the_scheduler_and_inverts_the_forward_process(kind, prediction_type, clip_sample):
    scheduler = kind(prediction_type=prediction_type, clip_sample=clip_sample)
    schedule = Schedule(scheduler, 10)
    torch.manual_seed(0)
    x_0, noise = torch.rand(4, 3, 8, 8) * 2 - 1, torch.randn(4, 3, 8, 8)
    for times in schedule.times[3:]:
        a, s = times.alphas_cumprod**0.5, (1 - times.alphas_cumprod) ** 0.5
        x_t = a * x_0 + s * noise
        native = {"epsilon": noise, "sample": x_0, "v_prediction": a * noise - s * x_0}[prediction_type]
        prediction = schedule.predict(native, x_t, times)
        torch.testing.assert_close(prediction.pred_original_sample, x_0, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(prediction.model_output, noise, atol=1e-3, rtol=1e-3)
        stepped = schedule.scheduler.step(native, times.timestep, x_t)
        torch.testing.assert_close(prediction.pred_original_sample, stepped.pred_original_sample, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(("spacing", "steps", "clip_sample"), [("leading", 50, True), ("trailing", 7, False)])
def test_unguided_step_is_the_schedulers_to_the_bit(variance_type, prediction_type, spacing, steps, clip_sample):
    scheduler = DDPMScheduler(
        variance_type=variance_type,
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        clip_sample=clip_sample,
        beta_schedule="squaredcos_cap_v2",
    )
    schedule = Schedule(scheduler, steps)
    scheduler.set_timesteps(steps)
    torch.manual_seed(0)
    for times in schedule.times:
        native, x_t = torch.randn(2, 2, 3, 8, 8).unbind()
        theirs = scheduler.step(native, times.timestep, x_t, generator=torch.Generator().manual_seed(times.step))
        noise = None
        if schedule.adds_noise(times):
            noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(times.step))
        assert torch.equal(schedule.unguided(native, x_t, times, noise), theirs.prev_sample)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_guided_ddim_is_the_published_change_of_epsilon(prediction_type):
    """Algorithm 2 of arXiv 2105.05233, written out for an unclipped scheduler."""
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    schedule = Schedule(scheduler, 10)
    torch.manual_seed(0)
    x_t, native, amount = torch.randn(3, 2, 3, 8, 8).unbind()
    for i, times in enumerate(schedule.times):
        prediction = schedule.predict(native, x_t, times)
        a, s = times.alphas_cumprod**0.5, (1 - times.alphas_cumprod) ** 0.5
        epsilon = prediction.model_output - s * amount
        before = schedule.times[i + 1].alphas_cumprod if i < 9 else float(scheduler.final_alpha_cumprod)
        expected = before**0.5 * (x_t - s * epsilon) / a + (1 - before) ** 0.5 * epsilon
        got = schedule.guided_ddim(prediction, x_t, times, amount)
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (PNDMScheduler(), "PNDMScheduler cannot be treated exactly; one of: DDPMScheduler, DDIMScheduler"),
        (DDPMScheduler(thresholding=True), "thresholding"),
        (DDPMScheduler(variance_type="learned_range"), "learned_range"),
        (DDPMScheduler(rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
    ],
)
def test_what_is_not_exact_is_refused_by_name(scheduler, message):
    with pytest.raises(GradscopeError, match=message):
        Schedule(scheduler, 10)


def test_more_steps_than_the_training_had_are_refused():
    with pytest.raises(GradscopeError, match="at most the scheduler's 1000, got 1001"):
        Schedule(DDPMScheduler(), 1001)
