"""The configuration of `gradscope oracle`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gradscope.config.fields import Count, Options, Positive, Strict, Text
from gradscope.config.run import SchedulerSpec, _distinct, _named

GuideKind = Literal["exact", "clean_exact", "clean", "noisy", "timed", "overconfident", "smoothed"]


class OracleConfig(Strict):
    """Mixtures, guides, methods and stabilisers that are scored against the exact gradient."""

    mixtures: Annotated[list[Text], Field(min_length=1), AfterValidator(_distinct)]
    """The Gaussian mixtures, by name: kind (points, vectors, images), overlap (separated, overlapping) and number of
    classes (2 to 10), for example images-overlapping-10."""
    guides: Annotated[list[GuideKind], Field(min_length=1), AfterValidator(_distinct)]
    """Kinds of guide: the exact p(y | x_t) and p(y | x_0), and networks trained on clean samples (clean, overconfident,
    smoothed) or on x_t (noisy, timed)."""
    methods: Annotated[dict[Text, Options], Field(min_length=1), AfterValidator(_named)]
    """The guidance methods, by their name in the store, METHOD@INPUT, with settings. `method` (one of ours, or
    package.module:Class) and `classifier_input` take the place of the name's parts."""
    stabilizers: Annotated[dict[Text, Options], AfterValidator(_named)] | None = None
    """The stabilisers, by their name in the store, with settings, as in a run. null: all methods and presets."""
    guidance_scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Strength of guidance: 1 gives the shifts of every cell the root mean square of exact guidance's own."""
    scheduler: SchedulerSpec = "ddpm"
    """The sampler, as in a run."""
    num_inference_steps: Positive = 50
    """Number of steps."""
    samples: Annotated[int, Field(ge=2, le=100_000)] = 64
    """Number of trajectories in each cell. The targets go through all classes in turn."""
    replicates: Annotated[int, Field(ge=1, le=1000)] = 2
    """Number of training seeds of the guides and of draws of the methods' own noise, for bias and variance."""
    seed: Count = 0
    """Seed of the mixtures, of all noise, and, counted on, of the trainings."""
