import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    ScoreSdeVeScheduler,
    TCDScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from small_models import UNET
from torch import nn

from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.models import cards
from gradscope.models.diffusion import load_denoiser
from gradscope.models.schedulers import make_scheduler
from gradscope.sampling.denoiser import UNCONDITIONAL, refuse_unfit
from gradscope.sampling.process import refuse_inexact

T = torch.tensor([10, 900])


@pytest.fixture
def x_t():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def outputs(unet: nn.Module, x_t: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return unet.eval()(x_t, T).sample


def test_a_saved_pipeline_gives_the_outputs_of_the_original(tmp_path, unet, x_t):
    scheduler = DDPMScheduler(num_train_timesteps=500, beta_end=0.01, prediction_type="v_prediction")
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    denoiser = load_denoiser(str(tmp_path))
    torch.testing.assert_close(outputs(denoiser.unet, x_t), outputs(unet, x_t))
    assert torch.equal(denoiser.scheduler.alphas_cumprod, scheduler.alphas_cumprod)
    assert denoiser.scheduler.config.prediction_type == "v_prediction"


def test_another_unconditional_pipeline(tmp_path, unet, scheduler, x_t):
    DDIMPipeline(unet, scheduler).save_pretrained(tmp_path)
    torch.testing.assert_close(outputs(load_denoiser(str(tmp_path)).unet, x_t), outputs(unet, x_t))


def write_card(folder, unet, **changes):
    path = folder / "mine.yaml"
    content = {
        "kind": "denoiser",
        "architecture": {"unet": UNET, "scheduler": {"beta_end": 0.03}},
        "classes": ["a"],
        "data": {"name": "sportballs", "size": 8},
        "train_on": "x_t",
        "seed": 0,
        "steps": 1,
        "batch_size": 1,
        "duration": 0.0,
        "device": "cpu",
        "versions": {},
        "sha256": cards.save_weights(path, unet),
    }
    cards.write(path, cards.Card.model_validate(content | changes))
    return path


def test_a_card_gives_the_model_with_its_float16_weights(tmp_path, unet, x_t):
    denoiser = load_denoiser(str(write_card(tmp_path, unet)))
    rounded = UNet2DModel(sample_size=8, **UNET)
    rounded.load_state_dict({k: v.half().float() for k, v in unet.state_dict().items()})
    torch.testing.assert_close(outputs(denoiser.unet, x_t), outputs(rounded, x_t))
    assert denoiser.unet.config.sample_size == 8
    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.03, 1000), 0)
    torch.testing.assert_close(denoiser.scheduler.alphas_cumprod, alphas_cumprod)


def test_a_classifiers_card_is_no_denoiser(tmp_path, unet):
    changes = {"kind": "classifier", "architecture": {"timm": "resnet10t", "options": {}}}
    path = write_card(tmp_path, unet, **changes)
    with pytest.raises(GradscopeError, match=rf"^denoiser: {path} is the card of a classifier"):
        load_denoiser(str(path))


@pytest.fixture
def users_module(tmp_path, monkeypatch, unet, scheduler):
    """A module in the current folder with a callable for each form of denoiser."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "saved")
    (tmp_path / "users_denoiser.py").write_text(
        "from diffusers import DDPMPipeline\n"
        "def pipeline():\n    return DDPMPipeline.from_pretrained('saved')\n"
        "def pair():\n    made = pipeline()\n    return made.unet, made.scheduler\n"
        "def triple():\n    return (*pair(), 3)\n"
        "def unet():\n    return pair()[0]\n"
        "def swapped():\n    return pair()[::-1]\n"
    )
    yield
    sys.modules.pop("users_denoiser", None)


@pytest.mark.parametrize("name", ["pipeline", "pair"])
def test_ones_own_callable(users_module, unet, x_t, name):
    denoiser = load_denoiser(f"users_denoiser:{name}")
    torch.testing.assert_close(outputs(denoiser.unet, x_t), outputs(unet, x_t))
    assert isinstance(denoiser.scheduler, DDPMScheduler)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("triple", r"\(UNet2DModel, DDPMScheduler, int\)"),
        ("unet", "UNet2DModel"),
        ("swapped", r"\(DDPMScheduler, UNet2DModel\)"),
    ],
)
def test_a_callable_that_gives_something_else(users_module, name, got):
    with pytest.raises(
        GradscopeError, match=rf"^denoiser: users_denoiser:{name} must give \(unet, scheduler\) or .*gave {got}$"
    ):
        load_denoiser(f"users_denoiser:{name}")


def write_index(folder, **parts):
    """A pipeline's list of parts, without the parts: who refuses it has not loaded them."""
    (folder / "model_index.json").write_text(json.dumps(parts))
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "further"),
    [
        ("LDMPipeline", {"vqvae": ["diffusers", "VQModel"], "bert": ["latent_diffusion", "LDMBertModel"]}),
        ("StableDiffusionPipeline", {"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIP"]}),
        ("AudioDiffusionPipeline", {"mel": ["audio_diffusion", "Mel"]}),
    ],
)
def test_latent_and_conditioned_pipelines_are_refused_by_name(tmp_path, kind, further):
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    spec = write_index(tmp_path, _class_name=kind, _diffusers_version="0.35.0", **further, **parts)
    with pytest.raises(
        GradscopeError, match=rf"^denoiser: {spec} is a {kind} with .*; .*gradscope\.watch\(path, pipe\)"
    ):
        load_denoiser(spec)


OTHERS = [LCMScheduler, ScoreSdeVeScheduler, TCDScheduler]


@pytest.mark.parametrize("kind", OTHERS)
def test_another_scheduler_is_refused_by_name_from_a_pipeline_and_from_a_callable(tmp_path, monkeypatch, unet, kind):
    """They once ran as DDPM, silently."""
    DDPMPipeline(unet, kind()).save_pretrained(tmp_path / "saved")
    Path(tmp_path / "made_elsewhere.py").write_text(
        "import diffusers\n\ndef make():\n    saved = diffusers.DDPMPipeline.from_pretrained('saved')"
        f"\n    return saved.unet, diffusers.{kind.__name__}()\n"
    )
    refused = rf"^scheduler: {kind.__name__} cannot be treated exactly; one of: DDPMScheduler, DDIMScheduler, "
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "made_elsewhere", raising=False)
    for spec in ("saved", "made_elsewhere:make"):
        with pytest.raises(GradscopeError, match=refused):
            load_denoiser(spec)


def test_settings_that_the_other_scheduler_does_not_take_are_no_reason_to_refuse(tmp_path, unet):
    """DDIM has no variance type; whether DDPM's can be treated is asked where DDPM runs."""
    DDPMPipeline(unet, DDPMScheduler(variance_type="fixed_large_log")).save_pretrained(tmp_path)
    born_as_ddpm = load_denoiser(str(tmp_path)).scheduler
    refuse_inexact(DDIMScheduler.from_config(born_as_ddpm.config))
    with pytest.raises(GradscopeError, match="variance_type 'fixed_large_log' is not supported"):
        refuse_inexact(DDPMScheduler.from_config(born_as_ddpm.config))


def test_absent_parts_do_not_count(tmp_path, unet, scheduler, x_t):
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"vae": [None, None]}))
    torch.testing.assert_close(outputs(load_denoiser(str(tmp_path)).unet, x_t), outputs(unet, x_t))


def test_a_pipeline_without_a_unet_is_refused_by_name(tmp_path):
    spec = write_index(tmp_path, _class_name="UnCLIPPipeline", prior=["diffusers", "PriorTransformer"])
    with pytest.raises(GradscopeError, match=rf"^denoiser: {spec} is a .*, which has no unet and no transformer"):
        load_denoiser(spec)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot load it"),
        (json.dumps({"_class_name": "NoSuchPipeline", "unet": ["diffusers", "UNet2DModel"]}), "NoSuchPipeline"),
        (json.dumps({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}), "cannot load it"),
    ],
)
def test_a_damaged_pipeline_says_what_diffusers_says(tmp_path, content, reason):
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(GradscopeError, match=rf"^denoiser: '{tmp_path}' is neither in the zoo, .*{reason}"):
        load_denoiser(str(tmp_path))


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(GradscopeError, match=rf"^denoiser: {tmp_path} has no model_index\.json"):
        load_denoiser(str(tmp_path))


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument")
def test_a_name_that_means_nothing(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(GradscopeError, match=r"^denoiser: 'no/such-model' is neither in the zoo, nor a card, nor"):
        load_denoiser("no/such-model")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_class_embeds": 4}, "UNet2DModel is class-conditional; set sampling.condition"),
        ({"class_embed_type": "identity"}, "UNet2DModel takes an embedding of classes"),
        ({"out_channels": 5}, "has 3 input and 5 output channels; it must give as many, or twice as many"),
    ],
)
def test_unets_that_want_or_give_more_are_refused(options, reason):
    with pytest.raises(GradscopeError, match=rf"^denoiser: .*{reason}"):
        refuse_unfit(UNet2DModel(sample_size=8, **UNET, **options), UNCONDITIONAL, False)


def test_unets_conditioned_on_a_text_are_refused():
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    with pytest.raises(GradscopeError, match="^denoiser: UNet2DConditionModel is conditioned"):
        refuse_unfit(unet, UNCONDITIONAL, False)


def test_an_unconditional_unet_is_not_refused(unet):
    refuse_unfit(unet, UNCONDITIONAL, False)
    refuse_unfit(nn.Identity(), UNCONDITIONAL, False)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_pipeline_of_one_variant_runs_in_float32(tmp_path, unet, scheduler, x_t, variant):
    """Half of the hub's folders have the half-precision files alone."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    DDPMPipeline(unet.to(dtype), scheduler).save_pretrained(tmp_path, variant=variant)
    assert (tmp_path / "unet" / f"diffusion_pytorch_model.{variant}.safetensors").is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradscopeWarning)  # the file's type is none of the user's doing
        loaded = load_denoiser(str(tmp_path)).unet
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(outputs(loaded, x_t), outputs(unet.float(), x_t))


def test_a_pipeline_of_one_variant_in_several_files(tmp_path, unet, scheduler, x_t):
    """Where the variant stands in the index's name behind the ending."""
    DDPMPipeline(unet.half(), scheduler).save_pretrained(tmp_path, variant="fp16", max_shard_size="10KB")
    assert len(list((tmp_path / "unet").glob("*.index.fp16.json"))) == 1
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    torch.testing.assert_close(outputs(load_denoiser(str(tmp_path)).unet, x_t), outputs(unet.float(), x_t))


def test_the_files_without_a_variant_come_first(tmp_path, unet, scheduler, x_t):
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    halved = UNet2DModel(sample_size=8, **UNET)
    halved.half().save_pretrained(tmp_path / "unet", variant="fp16")
    torch.testing.assert_close(outputs(load_denoiser(str(tmp_path)).unet, x_t), outputs(unet, x_t))


def test_several_variants_and_none_without_are_named(tmp_path, unet, scheduler):
    for variant in ("ema", "fp16"):
        DDPMPipeline(unet, scheduler).save_pretrained(tmp_path, variant=variant)
    with pytest.raises(GradscopeError, match=rf"^denoiser: {tmp_path} has its denoiser only in .* ema, fp16; "):
        load_denoiser(str(tmp_path))


def test_a_scheduler_that_does_not_clamp_is_not_replaced_by_one_that_does():
    """Diffusers' default for DDPM and DDIM is to clamp, which cuts latents off."""
    for name in ("ddpm", "ddim", "heun"):
        assert make_scheduler(name, {}, EulerDiscreteScheduler()).config.clip_sample is False
        assert make_scheduler(name, {}, DDPMScheduler(clip_sample=True)).config.clip_sample is True
        assert make_scheduler(name, {"clip_sample": True}, EulerDiscreteScheduler()).config.clip_sample is True
