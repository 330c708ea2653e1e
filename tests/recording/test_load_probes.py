"""Probes by name and with options."""

import torch

from gradscope.recording.load_probes import load_probes


def test_probes_by_name_give_fresh_probes():
    first, again = (load_probes("norms", no_module) for _ in range(2))
    assert [type(p).__name__ for p in first] == ["Norm", "Norm"]
    assert first[0] is not again[0]


def test_options_reach_the_probe():
    (snr,) = load_probes({"snr": {"draws": 3}}, no_module)
    assert (snr.draws, snr.seed) == (3, 0)
    (reference,) = load_probes({"reference": {"classifier": "zoo:a/b"}}, lambda spec, where: Named(f"{where}={spec}"))
    assert reference.classifier.name == "probes.reference.classifier=zoo:a/b"


class Named(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name


def no_module(spec, where):
    raise AssertionError(where)
