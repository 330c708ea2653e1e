"""Sampling loops in the styles of public code, in our own words. Each returns its samples and the gradients it used."""

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

LABELS = torch.tensor([2, 0, 1, 3])


def unet():
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip


class Noisy(nn.Module):
    """A noise-aware classifier f(x, t)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(512, 4))

    def forward(self, x, timesteps):
        return self.body(x) * (1 + timesteps.float()[:, None] / 1000)


def classifier():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(512, 4)).eval()


def start(*shape, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (4, 3, 8, 8), generator=generator), generator


class Plain:
    """nrCG's pipeline: scheduler.step, then a shift; the gradient at x_t, or through x0-hat."""

    def __init__(self, through_x0=False, scheduler=None, steps=6, scale=3.0, scheduler_class=DDPMScheduler, **settings):
        self.unet, self.guide = unet(), classifier()
        self.scheduler = scheduler or scheduler_class(num_train_timesteps=200, **settings)
        self.through_x0, self.steps, self.scale = through_x0, steps, scale
        self.watched = {"denoiser": self.unet, "guide": self.guide, "scheduler": self.scheduler}

    @torch.no_grad()
    def __call__(self, labels=LABELS, seed=5):
        x, generator = start(len(labels), 3, 8, 8, seed=seed)
        gradients = []
        self.scheduler.set_timesteps(self.steps)
        for t in self.scheduler.timesteps:
            with torch.set_grad_enabled(self.through_x0):
                if self.through_x0:
                    x = x.detach().requires_grad_(True)
                stepped = self.scheduler.step(self.unet(x, t).sample, t, x, generator=generator)
            with torch.enable_grad():
                logits = self.guide(stepped.pred_original_sample if self.through_x0 else x.requires_grad_(True))
                log_p = logits.log_softmax(dim=1)[range(len(labels)), labels].sum()
                gradient = torch.autograd.grad(log_p, x)[0].detach()
            gradients.append(gradient)
            x = (stepped.prev_sample + self.scale * 0.05 * gradient).detach()
        return x, gradients


class Process:
    """guided-diffusion's process: tables, and no scheduler object."""

    def __init__(self, steps=6):
        betas = torch.linspace(1e-4, 0.05, 200, dtype=torch.float64)
        whole = torch.cumprod(1 - betas, dim=0)
        self.timestep_map = [round(i * 199 / (steps - 1)) for i in range(steps)]
        self.alphas_cumprod = whole[self.timestep_map].numpy()
        self.num_timesteps = steps
        self.original_num_steps = 200

        class EPSILON:
            name = "EPSILON"

        self.model_mean_type = EPSILON


class GuidedDiffusion:
    """guided-diffusion's p_sample_loop (DDPM) and ddim_sample_loop with a cond_fn."""

    def __init__(self, ddim=False, backward=False, minimize=False, steps=6):
        self.unet, self.guide, self.process = unet(), Noisy().eval(), Process(steps)
        self.ddim, self.backward, self.minimize = ddim, backward, minimize
        self.watched = {"denoiser": self.unet, "guide": self.guide, "scheduler": self.process}

    def cond_fn(self, x, t, y):
        with torch.enable_grad():
            x_in = x.detach().requires_grad_(True)
            log_probs = self.guide(x_in, t).log_softmax(dim=-1)
            selected = log_probs[range(len(y)), y.view(-1)]
            if self.minimize:
                loss = -selected.sum()
                return -torch.autograd.grad(loss, x_in)[0]
            if self.backward:
                selected.sum().backward()
                return x_in.grad
            return torch.autograd.grad(selected.sum(), x_in)[0]

    @torch.no_grad()
    def __call__(self, labels=LABELS, seed=5):
        x, generator = start(len(labels), 3, 8, 8, seed=seed)
        gradients = []
        table = torch.as_tensor(self.process.alphas_cumprod)
        before = torch.cat([torch.ones(1, dtype=torch.float64), table[:-1]])
        for i in reversed(range(self.process.num_timesteps)):
            a, b = float(table[i]), float(before[i])
            t = torch.full((len(x),), self.process.timestep_map[i])
            eps = self.unet(x, t).sample
            gradient = self.cond_fn(x, t, labels)
            gradients.append(gradient.clone())
            if self.ddim:
                eps = eps - (1 - a) ** 0.5 * gradient
                x_0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
                x = b**0.5 * x_0 + (1 - b) ** 0.5 * eps
                continue
            x_0 = ((x - (1 - a) ** 0.5 * eps) / a**0.5).clamp(-1, 1)
            beta = 1 - a / b
            variance = beta * (1 - b) / (1 - a)
            mean = b**0.5 * beta / (1 - a) * x_0 + (a / b) ** 0.5 * (1 - b) / (1 - a) * x + variance * gradient
            noise = torch.randn(x.shape, generator=generator)
            x = mean + (i > 0) * variance**0.5 * noise
        return x, gradients


class Energy(nn.Module):
    """-|mean of x - target|^2 for each sample."""

    def forward(self, x_0):
        return -(x_0.flatten(1).mean(dim=1) - 0.3).square() * 10


class DPS:
    """Posterior sampling: the gradient of a norm through the denoiser; the denoiser runs twice a step."""

    def __init__(self, steps=6):
        self.unet, self.guide, self.scheduler = unet(), Energy(), DDPMScheduler(num_train_timesteps=200)
        self.scheduler.set_timesteps(steps)
        self.watched = {
            "denoiser": self.unet,
            "guide": self.guide,
            "alphas_cumprod": self.scheduler.alphas_cumprod,
            "timesteps": self.scheduler.timesteps,
            "prediction_type": "epsilon",
        }

    @torch.no_grad()
    def __call__(self, n=4, seed=5):
        x, generator = start(n, 3, 8, 8, seed=seed)
        gradients = []
        for t in self.scheduler.timesteps:
            a = float(self.scheduler.alphas_cumprod[t])
            eps = self.unet(x, t).sample
            with torch.enable_grad():
                z = x.clone().detach().requires_grad_()
                x_0 = (z - (1 - a) ** 0.5 * self.unet(z, t).sample) / a**0.5
                gradient = torch.autograd.grad(self.guide(x_0).sum(), z)[0]
            gradients.append(gradient)
            x = self.scheduler.step(eps, t, x, generator=generator).prev_sample + 0.5 * gradient
        return x, gradients


class Recurrence:
    """FreeDoM: every timestep is repeated; between, the sample is noised again."""

    def __init__(self, repeats=3, steps=4):
        self.dps, self.repeats = DPS(steps), repeats
        self.watched = self.dps.watched

    @torch.no_grad()
    def __call__(self, n=4, seed=5):
        loop, scheduler = self.dps, self.dps.scheduler
        x, generator = start(n, 3, 8, 8, seed=seed)
        gradients = []
        for t in scheduler.timesteps:
            a = float(scheduler.alphas_cumprod[t])
            for _ in range(self.repeats):
                with torch.enable_grad():
                    z = x.clone().detach().requires_grad_()
                    eps = loop.unet(z, t).sample
                    x_0 = (z - (1 - a) ** 0.5 * eps) / a**0.5
                    gradient = torch.autograd.grad(loop.guide(x_0).sum(), z)[0]
                gradients.append(gradient)
                below = scheduler.step(eps.detach(), t, x, generator=generator).prev_sample + 0.5 * gradient
                x = 0.9 * below + 0.3 * torch.randn(x.shape, generator=generator)
            x = below
        return x, gradients


class KDenoiser(nn.Module):
    """k-diffusion's wrapper: the denoised sample for x and sigma."""

    def __init__(self):
        super().__init__()
        self.inner = unet()

    def forward(self, x, sigma):
        scale = (1 + sigma**2) ** -0.5
        return x - sigma.view(-1, 1, 1, 1) * self.inner(x * scale.view(-1, 1, 1, 1), sigma * 100).sample


class KDiffusion:
    """k-diffusion's samplers with guidance through the denoised sample; Heun evaluates the denoiser twice a step."""

    def __init__(self, heun=False, steps=5):
        self.denoiser, self.guide, self.heun = KDenoiser(), Energy(), heun
        self.sigmas = torch.cat([torch.linspace(10, 0.1, steps), torch.zeros(1)])
        self.watched = {"denoiser": self.denoiser, "guide": self.guide, "steps": steps}

    def denoised(self, x, sigma, gradients):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = self.denoiser(x, sigma * x.new_ones(len(x)))
            gradient = torch.autograd.grad(self.guide(found).sum(), x)[0]
        gradients.append(gradient)
        return found.detach() + gradient * sigma**2

    @torch.no_grad()
    def __call__(self, n=4, seed=5):
        x = 10 * start(n, 3, 8, 8, seed=seed)[0]
        gradients = []
        for sigma, following in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            slope = (x - self.denoised(x, sigma, gradients)) / sigma
            ahead = x + slope * (following - sigma)
            if self.heun and following > 0:
                again = (ahead - self.denoised(ahead, following, gradients)) / following
                ahead = x + (slope + again) / 2 * (following - sigma)
            x = ahead
        return x, gradients


class Policy(nn.Module):
    """A flow policy: velocities of action chunks ``(n, horizon, action)``, time from 1 to 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 7))

    def forward(self, x_t, time):
        return self.net(torch.cat([x_t, time.expand(*x_t.shape[:-1], 1)], dim=-1))


class RealTimeChunking:
    """lerobot's guidance by a prefix of actions: a vector-Jacobian product with an error, without a guide."""

    def __init__(self, steps=5):
        self.policy, self.steps = Policy(), steps
        self.watched = {
            "denoiser": self.policy,
            "steps": steps,
            "sample_dims": ("horizon", "action"),
        }

    @torch.no_grad()
    def __call__(self, n=3, seed=5):
        x_t = start(n, 16, 7, seed=seed)[0]
        before = torch.linspace(-1, 1, 16)[:, None].expand(n, 16, 7)
        weights = (torch.arange(16) < 6).float()[:, None]
        gradients = []
        for i in range(self.steps):
            time = torch.tensor(1 - i / self.steps)
            with torch.enable_grad():
                x_t = x_t.clone().detach().requires_grad_(True)
                velocity = self.policy(x_t, time)
                x_1 = x_t - time * velocity
                error = ((before - x_1) * weights).detach()
                gradient = torch.autograd.grad(x_1, x_t, error)[0]
            gradients.append(gradient)
            x_t = x_t.detach() - (velocity.detach() - 0.5 * gradient) / self.steps
        return x_t, gradients


class ProtocolGuidance(nn.Module):
    """physicsnemo's protocol: a callable (x, t, x_0) that gives the guidance itself."""

    def forward(self, x, t, x_0):
        return torch.autograd.grad(-(x_0.mean(dim=(1, 2, 3)) - 0.5).square().sum(), x)[0]


class Protocol:
    """A weather model's loop: denoiser (x, t), guidance (x, t, x_0), Euler steps in sigma."""

    def __init__(self, steps=5):
        self.denoiser, self.guidance, self.steps = KDenoiser(), ProtocolGuidance(), steps
        self.watched = {"denoiser": self.denoiser, "steps": steps}

    def __call__(self, n=4, seed=5):
        x = 10 * start(n, 3, 8, 8, seed=seed)[0]
        sigmas = torch.cat([torch.linspace(10, 0.5, self.steps), torch.zeros(1)])
        gradients = []
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = x.detach().requires_grad_(True)
            x_0 = self.denoiser(x, sigma.expand(n))
            gradient = self.guidance(x, sigma, x_0)
            gradients.append(gradient)
            score = (x_0.detach() - x.detach()) / sigma**2 + gradient
            x = x.detach() - sigma * score * (following - sigma)
        return x.detach(), gradients


class AtX0:
    """MPGD: the gradient is taken with respect to x0-hat, which moves by it; no Jacobian of the denoiser."""

    def __init__(self, steps=6):
        self.dps = DPS(steps)
        self.watched = {**self.dps.watched, "scheduler": self.dps.scheduler}
        self.watched.pop("timesteps")

    @torch.no_grad()
    def __call__(self, n=4, seed=5):
        loop, scheduler = self.dps, self.dps.scheduler
        x, generator = start(n, 3, 8, 8, seed=seed)
        gradients = []
        for t in scheduler.timesteps:
            a = float(scheduler.alphas_cumprod[t])
            eps = loop.unet(x, t).sample
            x_0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
            with torch.enable_grad():
                z = x_0.clamp(-1, 1).detach().requires_grad_()
                gradient = torch.autograd.grad(loop.guide(z).sum(), z)[0]
            gradients.append(gradient)
            moved = (x - a**0.5 * (x_0 + gradient)) / (1 - a) ** 0.5
            x = scheduler.step(moved, t, x, generator=generator).prev_sample
        return x, gradients
