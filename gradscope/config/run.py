"""The configuration of `gradscope record`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag

from gradscope.config.classifiers import ClassifierSpec
from gradscope.config.evaluation import EvaluationConfig
from gradscope.config.fields import Count, Options, PathText, Positive, Strict, Text, Times, Whole, form_of
from gradscope.config.guides import GuideSpec
from gradscope.errors import GradscopeError
from gradscope.text import check_name

ClassifierInput = Literal["x_t", "x0", "x0_detached"]
Objective = Literal["log_prob", "logit"]
Normalize = Literal["l2", "none"]
Weight = Literal["one", "sigma", "variance"]
Labels = Annotated[
    Annotated[Literal["cycle"], Tag("<text>")] | Annotated[list[Whole], Field(min_length=1), Tag("<list>")],
    form_of("`cycle` or a list of class indices"),
]


def _in_float32(value: float) -> float:
    if abs(value) > 3.4e38:
        raise ValueError(f"must lie within float32, in which the shift is added, got {value:g}")
    return value


Scale = Annotated[float, AfterValidator(_in_float32)]


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError(f"names a value twice: {values}")
    return values


def _one_entry(entry: dict[str, Options]) -> dict[str, Options]:
    if len(entry) != 1:
        raise ValueError(f"is a name, or one name with its options, got {entry}")
    return entry


def _named(entries: dict[str, Any]) -> dict[str, Any]:
    for name in entries:
        try:
            check_name(name, "its names")
        except GradscopeError as error:
            raise ValueError(str(error)) from None
    return entries


MethodSpec = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[dict[Text, Options], AfterValidator(_one_entry), Tag("<mapping>")],
    form_of("a name, or a name with its settings, for example {lgd: {draws: 8}}"),
]
SchedulerName = Literal[
    "ddpm",
    "ddim",
    "pndm",
    "dpm_solver_multistep",
    "dpm_solver_singlestep",
    "unipc_multistep",
    "deis_multistep",
    "sa_solver",
    "euler",
    "euler_ancestral",
    "heun",
    "lms",
    "kdpm2",
    "kdpm2_ancestral",
    "edm_euler",
    "edm_dpm_solver_multistep",
    "flow_match_euler",
    "flow_match_heun",
]
SchedulerSpec = Annotated[
    Annotated[SchedulerName, Tag("<text>")]
    | Annotated[dict[SchedulerName, Options], AfterValidator(_one_entry), Tag("<mapping>")],
    form_of("a name, or a name with its options, for example {dpm_solver_multistep: {solver_order: 3}}"),
]
ProbeSpec = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[dict[Text, Options], AfterValidator(_one_entry), Tag("<mapping>")],
    form_of("a name, or a name with its options, for example {snr: {draws: 8}}"),
]


class SmoothGradConfig(Strict):
    """See `gradscope.sampling.guidance.smoothgrad.SmoothGrad`."""

    samples: Positive
    """Number of noised inputs of the classifier per step, each with a forward and a backward pass."""
    std: Annotated[float, Field(ge=0)]
    """Standard deviation of the Gaussian noise on the classifier's input, whose images lie in [-1, 1]."""


class GuidanceConfig(Strict):
    """How the gradient of a guide shifts the samples."""

    method: MethodSpec = "classifier"
    """How the guide becomes a vector that shifts a step: classifier, dps, lgd, mpgd, pigdm, freedom, universal, tfg, or
    package.module:Class, alone or with settings, for example {lgd: {draws: 8}}."""
    classifier_input: Annotated[list[ClassifierInput], Field(min_length=1), AfterValidator(_distinct)] = ["x_t"]
    """Inputs of the classifier: the noisy sample (x_t), x0-hat differentiated through the denoiser (x0), or x0-hat
    with the predicted noise held constant (x0_detached, no backward pass through the denoiser). At x_t an energy's
    x0-hat is constant."""
    guidance_scale: Annotated[list[Scale], Field(min_length=1), AfterValidator(_distinct)]
    """Factors of the shift. 0 is an unguided control; below 0 guidance steers away from the target class."""
    objective: Objective = "log_prob"
    """Function of a classifier to differentiate: the log-probability of the target class, or its logit."""
    normalize: Normalize = "l2"
    """l2 divides each sample's update by its norm, so that every stabiliser shifts by the same length."""
    weight: Weight = "one"
    """Factor of the shift at each timestep: 1, the standard deviation (sigma) or the variance of DDPM's noise,
    which other schedulers do not have."""
    interval: Times | None = None
    """Timesteps [first, end) that are guided: first <= t < end. null: all."""
    smoothgrad: SmoothGradConfig | None = None
    """Mean gradient over noised inputs of the classifier (arXiv 1706.03825), for example {samples: 4, std: 0.2}."""
    timestep_at_x0: Count = 0
    """Timestep at which a noise-aware classifier f(x, t) is asked about x0-hat. At x_t it is that of the noise."""


class SamplingConfig(Strict):
    """Scheduler, steps, samples, labels and seed."""

    scheduler: SchedulerSpec = "ddpm"
    """The sampler that runs the denoiser's noise schedule: a diffusers scheduler, alone or with options of its class,
    for example {dpm_solver_multistep: {use_karras_sigmas: true}}."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of DDPM's noise that DDIM adds: 0 none, 1 all."""
    use_clipped_model_output: bool = False
    """Whether DDIM derives epsilon from the clamped x0-hat, as guided-diffusion does."""
    condition: Literal["none", "label", "unconditional"] = "none"
    """Which class a class-conditional denoiser gets: the target (label), or that of no condition (unconditional)."""
    null_label: Count | None = None
    """The denoiser's class of no condition. null: the last one that it knows."""
    classifier_free_scale: float = 1.0
    """w of classifier-free guidance, u + w (c - u), with condition label; 1: the conditional prediction alone."""
    num_inference_steps: Positive = 50
    """Number of steps, at most the number that the denoiser was trained with. Second-order solvers evaluate it more
    often."""
    samples: Annotated[int, Field(ge=1, le=10**7)] = 64
    """Number of samples in each cell. All cells share labels, initial noise and step noise."""
    batch_size: Positive = 32
    """Number of samples that go through the models together. Bit-identical runs have the same one."""
    labels: Labels = "cycle"
    """Target classes: cycle goes through all of them in turn (0 alone where no guide has classes); a list of class
    indices is repeated."""
    seed: Count = 0
    """Seed of all noise. Sample i has its own generator, seeded by (seed, i)."""


class ExecutionConfig(Strict):
    """How the models run. Deviations from float32 in eager mode are measured before the first step."""

    autocast: Literal["none", "bfloat16", "float16"] = "none"
    """Lower precision for the denoiser, by torch.autocast."""
    compile: bool = False
    """Compile denoiser and classifiers with torch.compile: the first step then takes minutes, later ones less time."""
    gradient_checkpointing: bool = False
    """Let the denoiser recompute activations instead of storing them: less memory for x0 with large ones."""
    tolerance: Annotated[float, Field(gt=0)] = 0.05
    """Largest deviation of a gradient from float32 in eager mode, relative to its norm. Beyond it no run starts."""


class RecordingConfig(Strict):
    """Where a run is recorded, and how much of it."""

    path: PathText
    """The zarr store: a path or URL."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of recorded tensors. float16 has one exponent per sample and timestep."""
    codec: Literal["auto", "none", "lz4"] = "auto"
    """Compression of tensors. auto tries lz4 on the first gradients and keeps it if it gains more than 1.5 times."""
    tensor_samples: Count = 64
    """Number of samples per cell whose tensors are recorded. Scalars are recorded for all samples."""
    tensor_every: Positive = 1
    """Record tensors at every n-th timestep. Scalars are recorded at all timesteps."""
    sample_dims: list[Text] | None = None
    """Names of a sample's dimensions in the store. null: by their number, axis; channel, time; channel, height, width;
    or channel, frame, height, width."""
    durable: bool = False
    """Wait until data are on the disk before they are marked as written: survives power failures, but is slower."""


class RunConfig(Strict):
    """One run: a grid of cells over the same samples."""

    denoiser: PathText
    """The denoiser: zoo:SET/NAME, CARD.yaml, a diffusers folder or hub id, or package.module:callable."""
    classifiers: Annotated[dict[Text, GuideSpec], Field(min_length=1), AfterValidator(_named)]
    """The guides, by their name in the store: classifiers (zoo:SET/NAME, CARD.yaml, package.module:callable,
    {module: ...} or timm's keys), energies {energy: ...}, measurements {measurement: ...}, and sums
    {sum: [...]}."""
    judge: ClassifierSpec = "none"
    """Classifier that judges the final samples and guides none of them, or none."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Real images that `gradscope evaluate` compares the final samples with."""
    guidance: GuidanceConfig
    """How the gradient shifts the samples."""
    stabilizers: Annotated[dict[Text, Options], Field(min_length=1), AfterValidator(_named)] = {"none": {}}
    """The stabilisers, by their name in the store, with settings. The name is the method, or `method` gives it: one of
    ours or package.module:Class."""
    sampling: SamplingConfig = SamplingConfig()
    """Scheduler, steps, samples, labels and seed."""
    execution: ExecutionConfig = ExecutionConfig()
    """How the models run."""
    probes: list[ProbeSpec] = ["gradient", "update", "norms", "cosines", "strength", "belief"]
    """The probes, which measure every step: a name or package.module:Class, alone or with options, for example
    {snr: {draws: 8}}."""
    recording: RecordingConfig
    """Where the run is recorded, and how much of it."""
