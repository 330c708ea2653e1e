import numpy as np
import pytest
import torch

from gradscope.recording.ring import Ring
from gradscope.sampling.noise import BlockNoise

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LAYOUT = {
    "gradient": ((4, 3, 5, 5), torch.float16),
    "gradient_exponent": ((4,), torch.int16),
    "gradient_norm": ((4,), torch.float32),
    "radial_spectrum": ((4, 7), torch.float32),
    "predicted_class": ((4,), torch.int16),
}


def values(n, device):
    generator = torch.Generator().manual_seed(n)
    made = {name: torch.randn(n, *shape[1:], generator=generator) * 9 for name, (shape, _) in LAYOUT.items()}
    made["gradient"] = made["gradient"].to(memory_format=torch.channels_last)
    made["predicted_class"] = made["predicted_class"].long()
    return {name: value.to(device) for name, value in made.items()}


@pytest.mark.parametrize("device", DEVICES)
def test_a_slot_holds_the_values_in_the_types_of_the_layout(device):
    ring = Ring(LAYOUT, torch.device(device), slots=2)
    for n, left_out in ((4, ()), (3, ("gradient",)), (1, ("radial_spectrum", "gradient_exponent"))):
        put = {name: value for name, value in values(n, device).items() if name not in left_out}
        slot = ring.put(put)
        slot.wait()
        assert list(sorted(slot.arrays)) == sorted(put)
        for name, array in slot.arrays.items():
            np.testing.assert_array_equal(array, put[name].cpu().to(LAYOUT[name][1]).numpy(), strict=True)
        ring.release(slot)


@pytest.mark.parametrize("device", DEVICES)
def test_later_changes_by_the_sampler_do_not_reach_a_slot(device):
    ring = Ring(LAYOUT, torch.device(device))
    put = values(4, device)
    expected = put["gradient_norm"].cpu().numpy().copy()
    slot = ring.put(put)
    put["gradient_norm"].zero_()
    slot.wait()
    np.testing.assert_array_equal(slot.arrays["gradient_norm"], expected)


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_that_of_each_samples_own_generator(device):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 2**62)]
    with BlockNoise([3, 2**62], (3, 8, 8), torch.device(device)) as noise:
        for _ in range(5):
            expected = torch.stack([torch.randn(3, 8, 8, generator=g) for g in generators])
            drawn = noise.draw()
            assert drawn.device.type == device
            assert torch.equal(drawn.cpu(), expected)
