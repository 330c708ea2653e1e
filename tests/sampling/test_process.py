import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler, TCDScheduler

from gradscope.errors import GradscopeError
from gradscope.models.schedulers import configuration_of
from gradscope.sampling.process import VARIANCE_TYPES, Schedule, Walk

FIXED = [kind for kind in VARIANCE_TYPES if kind.startswith("fixed")]
SPACINGS = ["leading", "trailing", "linspace"]


def step(schedule, native, x_t, times, generator):
    """One step without a change, with the generator's noise."""
    walk = Walk(schedule, [generator] * len(x_t), lambda: torch.randn(x_t.shape, generator=generator))
    return walk.step(schedule.predict(native, x_t, times), x_t, times)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_sigma_is_the_standard_deviation_of_the_step(spacing, variance_type):
    """Measured: the spread of the scheduler's own samples around its mean."""
    scheduler = DDPMScheduler(variance_type=variance_type, timestep_spacing=spacing)
    schedule = Schedule(scheduler, 20)
    x_t, epsilon = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    for times in schedule.times[:-1:5]:
        spread = step(schedule, epsilon, x_t, times, torch.Generator().manual_seed(0)).std()
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


@pytest.mark.parametrize("variance_type", FIXED)
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
        ours = step(schedule, native, x_t, times, torch.Generator().manual_seed(times.step))
        assert torch.equal(ours, theirs.prev_sample)


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 10), ("trailing", 7), ("linspace", 30)])
@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
def test_ddims_gain_is_the_published_change_of_epsilon(spacing, steps, beta_schedule):
    """Algorithm 2 of arXiv 2105.05233 in float64: one step with epsilon, one with epsilon - sqrt(1 - a) A, without a
    clamp; the difference over A.
    """
    scheduler = DDIMScheduler(beta_schedule=beta_schedule, timestep_spacing=spacing)
    schedule = Schedule(scheduler, steps)
    scheduler.set_timesteps(steps)
    rng = np.random.default_rng(0)
    x_t, epsilon, amount = rng.normal(size=(3, 1000))
    for times, t in zip(schedule.times, scheduler.timesteps.tolist(), strict=True):
        a, before = float(scheduler.alphas_cumprod[t]), t - 1000 // steps
        b = float(scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod)

        def published(e, a=a, b=b):
            return b**0.5 * (x_t - (1 - a) ** 0.5 * e) / a**0.5 + (1 - b) ** 0.5 * e

        shift = published(epsilon - (1 - a) ** 0.5 * amount) - published(epsilon)
        np.testing.assert_allclose(  # alphas have 24 bits
            times.gains["process"] * amount, shift, rtol=5e-6, atol=1e-12 * abs(x_t).max() / a**0.5
        )
        assert times.gains["process"] > 0
        assert times.noise_added == 0


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_gain_with_noise_leaves_less_for_epsilon(eta):
    """With eta the direction to x_t has sqrt(1 - b - sigma^2) for sqrt(1 - b)."""
    scheduler = DDIMScheduler()
    with_noise, without = Schedule(scheduler, 10, eta=eta), Schedule(scheduler, 10)
    for times, plain in zip(with_noise.times[:-1], without.times, strict=False):
        a, b, sigma = times.alphas_cumprod, times.following.alphas_cumprod, eta * times.sigma
        expected = b**0.5 * (1 - a) / a**0.5 - ((1 - b - sigma**2) * (1 - a)) ** 0.5
        assert times.gains["process"] == pytest.approx(expected, rel=1e-4)
        assert times.gains["process"] > plain.gains["process"] > 0
        assert times.noise_added == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("total", [100, 400, 1000, 4000])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("offset", [0, 1])
def test_any_number_of_steps_is_taken_exactly_or_refused(kind, total, spacing, offset):
    """As many as asked for, descending, inside of training; the counts refused are those where diffusers' own fail."""
    scheduler = kind(num_train_timesteps=total, timestep_spacing=spacing, steps_offset=offset)
    for count in [1, 7, 13, 61, 97, total // 3, total // 2 + 1, total]:
        scheduler.set_timesteps(count)
        theirs = scheduler.timesteps.tolist()
        sound = len(theirs) == count and all(0 <= t < total for t in theirs) and theirs == sorted({*theirs})[::-1]
        if sound and count < 200:
            assert [times.timestep for times in Schedule(scheduler, count).times] == theirs
        elif not sound:
            with pytest.raises(GradscopeError, match=f"num_inference_steps: with timestep_spacing '{spacing}'"):
                Schedule(scheduler, count)


@pytest.mark.parametrize(
    ("scheduler", "steps", "message"),
    [
        (DDPMScheduler(timestep_spacing="trailing"), 61, "'trailing', 61 steps lead to timestep -1.*; 60 steps fit"),
        (DDIMScheduler(timestep_spacing="leading", steps_offset=1), 1000, "steps_offset 1, 1000 steps lead to.*1000"),
        (
            DDPMScheduler(trained_betas=np.linspace(1e-4, 0.02, 100)),
            10,
            "num_train_timesteps is 1000, but there are 100",
        ),
        (DDPMScheduler(), 0, "at least 1, got 0"),
        (DDPMScheduler(), 2.5, "at least 1, got 2.5"),
        (DDPMScheduler(), 1001, "at most the scheduler's 1000, got 1001"),
    ],
)
def test_timesteps_that_cannot_be_are_refused(scheduler, steps, message):
    with pytest.raises(GradscopeError, match=message):
        Schedule(scheduler, steps)


class Changed(DDPMScheduler):
    def step(self, *args, **kwargs):
        return super().step(*args, **kwargs)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (TCDScheduler(), "TCDScheduler cannot be treated exactly; one of: DDPMScheduler, DDIMScheduler"),
        (LCMScheduler(), "LCMScheduler cannot be treated exactly"),
        (Changed(), "Changed changes DDPMScheduler's step"),
        (DDPMScheduler(thresholding=True), "thresholding"),
        (DDPMScheduler(variance_type="fixed_large_log"), "fixed_large_log"),
    ],
)
def test_what_is_not_exact_is_refused_by_name(scheduler, message):
    with pytest.raises(GradscopeError, match=message):
        Schedule(scheduler, 10)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_at_signal_0_an_epsilon_prediction_is_refused_where_it_is_visited(kind):
    scheduler = kind(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(GradscopeError, match="at timestep 999 alphas_cumprod is 0"):
        Schedule(scheduler, 50)
    leading = kind(rescale_betas_zero_snr=True, timestep_spacing="leading")
    assert Schedule(leading, 50).times[0].alphas_cumprod > 0


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_at_signal_0_x0_hat_is_what_the_scheduler_says(kind, prediction_type):
    """v: x0-hat = -v, epsilon = x_t; sample: x0-hat is the output."""
    scheduler = kind(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type=prediction_type, clip_sample=False
    )
    schedule = Schedule(scheduler, 50)
    first = schedule.times[0]
    assert first.alphas_cumprod == 0
    torch.manual_seed(0)
    x_t, native = torch.randn(2, 2, 3, 8, 8).unbind()
    prediction = schedule.predict(native, x_t, first)
    assert torch.equal(prediction.pred_original_sample, -native if prediction_type == "v_prediction" else native)
    assert torch.equal(prediction.model_output, x_t)
    assert (first.gains["process"] is None) == (kind is DDIMScheduler)
    scheduler.set_timesteps(50)
    options = {"generator": torch.Generator().manual_seed(1)} if kind is DDPMScheduler else {}
    theirs = scheduler.step(native, 999, x_t, **options).prev_sample
    assert torch.equal(step(schedule, native, x_t, first, torch.Generator().manual_seed(1)), theirs)


@pytest.mark.parametrize("variance_type", FIXED)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_noise_added_is_the_spread_of_the_schedulers_own_steps(variance_type, spacing):
    scheduler = DDPMScheduler(variance_type=variance_type, timestep_spacing=spacing, clip_sample=False)
    schedule = Schedule(scheduler, 8)
    scheduler.set_timesteps(8)
    zeros = torch.zeros(1, 3, 64, 64)
    for times in schedule.times:
        generator = torch.Generator().manual_seed(0)
        spread = float(scheduler.step(zeros, times.timestep, zeros, generator=generator).prev_sample.std())
        assert times.noise_added == pytest.approx(spread, rel=0.03, abs=1e-9)


def test_a_configuration_holds_what_the_class_takes_and_nothing_of_other_classes():
    born_as_ddpm = DDIMScheduler.from_config(DDPMScheduler(variance_type="fixed_large", beta_end=0.03).config)
    told = configuration_of(born_as_ddpm)
    assert told["class"] == "DDIMScheduler"
    assert told["beta_end"] == 0.03
    assert "variance_type" not in told
    assert configuration_of(DDPMScheduler(trained_betas=np.full(1000, 0.01)))["trained_betas"] == [0.01] * 1000
