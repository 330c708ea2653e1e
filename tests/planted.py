"""A guided problem whose gradient is known, and gradients of it that are wrong in one respect each."""

import torch

from gradscope.models.mixture import Clean, Mixture, denoiser_of

SHAPES = {"image": (3, 8, 8), "points": (2,), "trajectory": (8, 2)}


def derivative(f):
    """The gradient of f(x, t) by autograd, as a cond_fn."""

    def cond_fn(x, t):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(f(x, t).sum(), x)[0]

    return cond_fn


class Problem:
    """A mixture of overlapping classes, guided by its exact classifier of x0-hat."""

    def __init__(self, seed=0, kind="image", n=4, classes=4, t=300, spread=0.7, clamp=None):
        generator = torch.Generator().manual_seed(seed)
        shape = SHAPES[kind]
        scale = 0.1 if kind == "image" else 0.6
        self.mixture = Mixture(scale * torch.randn(classes, 1, *shape, generator=generator), spread)
        self.denoiser, self.scheduler = denoiser_of(self.mixture)
        self.guide, self.alphas, self.clamp = Clean(self.mixture), self.scheduler.alphas_cumprod, clamp
        self.labels = torch.arange(n) % classes
        self.t, self.generator = t, generator
        self.clean = self.mixture.draw(self.labels, generator)
        self.x = self.noised(t)
        self.previous = (self.noised(t + 20), t + 20)
        self.right = derivative(self.energy)

    def noised(self, t):
        a = self.alphas[t]
        return a**0.5 * self.clean + (1 - a) ** 0.5 * torch.randn(self.clean.shape, generator=self.generator)

    def x_0(self, x, t, epsilon=None, alpha_t=None):
        a = self.alphas[t if alpha_t is None else alpha_t]
        epsilon = self.denoiser(x, t) if epsilon is None else epsilon
        x_0 = (x - (1 - a) ** 0.5 * epsilon) / a**0.5
        return x_0 if self.clamp is None else x_0.clamp(-self.clamp, self.clamp)

    def log_prob(self, logits, labels=None):
        labels = self.labels if labels is None else labels
        return logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]

    def energy(self, x, t):
        return self.log_prob(self.guide(self.x_0(x, t)))

    @property
    def known(self):
        """What the user may give besides."""
        return {
            "denoiser": self.denoiser,
            "scheduler": self.scheduler,
            "guide": self.guide,
            "labels": self.labels,
            "previous": self.previous,
        }

    def at_x0(self, x, t):
        return derivative(lambda x_0, t: self.log_prob(self.guide(x_0)))(self.x_0(x, t), t)

    def detached(self, x, t):
        epsilon = self.denoiser(x, t).detach()
        return derivative(lambda x, t: self.log_prob(self.guide(self.x_0(x, t, epsilon))))(x, t)

    def mean(self, x, t):
        a, b = self.alphas[t], self.alphas[t - 1]
        beta = 1 - a / b
        return (b**0.5 * beta * self.x_0(x, t) + (a / b) ** 0.5 * (1 - b) * x) / (1 - a)

    def of(self, energy):
        return derivative(energy)

    def faults(self):
        """By name: a wrong gradient, the verdict, and a word of the cause."""
        right, a, guide, labels = self.right, self.alphas, self.guide, self.labels

        def scaled(factor):
            return lambda x, t: factor(t) * right(x, t)

        def guided(change):
            return derivative(lambda x, t: self.log_prob(guide(change(self.x_0(x, t)))))

        def for_labels(other):
            return derivative(lambda x, t: self.log_prob(guide(self.x_0(x, t)), other))

        def unit(x, t):
            g = right(x, t)
            return g / g.flatten(1).norm(dim=1).view(-1, *[1] * (g.ndim - 1))

        n = len(labels)
        sigma = lambda t: ((1 - a[t] / a[t - 1]) * (1 - a[t - 1]) / (1 - a[t])) ** 0.5  # noqa: E731
        return {
            "sign": (scaled(lambda t: -1), "wrong_sign", ""),
            "doubled": (scaled(lambda t: 2), "doubled", ""),
            "batch mean": (scaled(lambda t: 1 / n), "batch_mean", f"n = {n}"),
            "descended mean": (scaled(lambda t: -1 / n), "wrong_sign", f"n = {n}"),
            "range factor": (scaled(lambda t: 0.5), "scaled", "[0, 1]"),
            "noise_t": (scaled(lambda t: (1 - a[t]) ** 0.5), "scaled", "noise_t"),
            "1/signal": (scaled(lambda t: a[t] ** -0.5), "scaled", "1/sqrt(alphas_cumprod)"),
            "sigma": (scaled(sigma), "scaled", "sigma of the step"),
            "sigma^2": (scaled(lambda t: sigma(t) ** 2), "scaled", "variance of the step"),
            "other factor": (scaled(lambda t: 0.37), "scaled", "0.37"),
            "at x0-hat": (self.at_x0, "at_x0", ""),
            "detached": (self.detached, "jacobian_missing", ""),
            "detached, turned": (lambda x, t: -self.detached(x, t), "jacobian_missing", "wrong_sign"),
            "off by one": (lambda x, t: right(x, t - 1), "wrong_timestep", "t - 1"),
            "off by one up": (lambda x, t: right(x, t + 1), "wrong_timestep", "t + 1"),
            "reversed time": (lambda x, t: right(x, 999 - t), "wrong_timestep", "reversed"),
            "fixed time": (lambda x, t: right(x, 0), "wrong_timestep", "0: fixed"),
            "denoiser's time": (
                derivative(lambda x, t: self.log_prob(guide(self.x_0(x, t, self.denoiser(x, t - 1))))),
                "wrong_timestep",
                "denoiser alone: t - 1",
            ),
            "alphas' time": (
                derivative(lambda x, t: self.log_prob(guide(self.x_0(x, t, alpha_t=t - 1)))),
                "wrong_timestep",
                "all but the denoiser: t - 1",
            ),
            "logit": (derivative(lambda x, t: guide(self.x_0(x, t)).gather(1, labels[:, None])[:, 0]), "logit", ""),
            "probability": (derivative(lambda x, t: self.energy(x, t).exp()), "probability", ""),
            "label + 1": (for_labels((labels + 1) % 4), "wrong_target", "label + 1"),
            "null label": (for_labels(torch.full_like(labels, 3)), "wrong_target", "null label"),
            "some labels": (for_labels(torch.tensor([1, 1, 0, 2, 3, 3])[:n]), "wrong_target", "classes 1, 1, 0, 2"),
            "normalised": (unit, "normalized", "l2"),
            "signs": (lambda x, t: right(x, t).sign(), "sign_only", ""),
            "batch norm": (lambda x, t: right(x, t) / right(x, t).norm(), "batch_mixed", ""),
            "stale x": (lambda x, t: right(self.previous[0], t), "stale_x", "x of the step before"),
            "stale x and t": (lambda x, t: right(*self.previous), "stale_x", "x and timestep"),
            "mean": (lambda x, t: right(self.mean(x, t), t), "at_mean", f"DDPM's mean at timestep {self.t - 1}"),
            "range": (guided(lambda x_0: (x_0 + 1) / 2), "wrong_range", "[0, 1] in place of [-1, 1]"),
            "range up": (guided(lambda x_0: 2 * x_0 - 1), "wrong_range", "[-1, 1] in place of [0, 1]"),
            "clamped": (guided(lambda x_0: x_0.clamp(-1, 1)), "dead_by_clamping", "[-1, 1]"),
            "reversed rows": (lambda x, t: right(x, t).flip(0), "rows_permuted", "reversed"),
            "rolled rows": (lambda x, t: right(x, t).roll(1, 0), "rows_permuted", "rolled"),
            "zero": (lambda x, t: torch.zeros_like(x), "zero", ""),
            "x_t": (derivative(lambda x, t: self.log_prob(guide(x))), "at_another_point", "the guide gets x_t"),
            "x_t / signal": (
                derivative(lambda x, t: self.log_prob(guide(x / a[t] ** 0.5))),
                "at_another_point",
                "x_t / sqrt(alphas_cumprod)",
            ),
            "random": (lambda x, t: right(x, t) + torch.randn(x.shape), "random", ""),
            "not finite": (lambda x, t: right(x, t).index_fill(0, torch.tensor([1]), torch.nan), "not_finite", "1"),
            "half": (lambda x, t: (1e-7 * right(x, t)).half().to(x), "not_the_gradient", ""),
            "unrelated": (lambda x, t: right(x, t).roll(1, -1).flip(1) + 0.1, "not_the_gradient", ""),
        }
