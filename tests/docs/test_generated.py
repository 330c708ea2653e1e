"""The parts of the pages that are generated."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import fields
from html.parser import HTMLParser

import pytest
from documentation import ROOT
from every_probe import make

import gradscope
from gradscope import ClassifierGuidance, Energy, GuidedSampler, config
from gradscope.analysis.signatures import _NAMES, untested
from gradscope.methods import METHODS as GUIDANCE_METHODS
from gradscope.stabilizers import METHODS
from probes import NAMED, FiniteFraction, Layers, Trace


@pytest.fixture(scope="module", autouse=True)
def _generators():
    """The modules of docs/generate, found as mkdocs finds them."""
    sys.path.insert(0, str(ROOT / "docs" / "generate"))
    yield
    sys.path.remove(str(ROOT / "docs" / "generate"))


def rows(text: str) -> list[list[str]]:
    """The cells of every table, without their markup."""
    plain = re.sub(r"</?[a-z][^>]*>", "", text)
    plain = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])) if found[1] != "124" else "\0", plain)
    lines = [line for line in plain.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("\0", "|") for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_diagnostic_is_in_the_table_with_the_probe_that_records_it():
    import diagnostics

    expected = {v.name: "" for v in FiniteFraction.variables}
    for name in NAMED:
        expected |= {v.name: name for probe in make(name) for v in probe.variables}
    found, probe = {}, ""
    for part in diagnostics.text().split("## ")[1:]:
        probe = re.sub(r"<[^>]+>", "", part.splitlines()[0]).replace("&#95;", "_")
        found |= {row[0]: probe.replace("Always recorded", "") for row in rows(part)[2:]}
    assert found == expected
    shown = {row[0]: row for row in rows(diagnostics.text())}
    assert shown["gradient_cosine"][2:5] == ["1", "[-1, 1]", "cos(gradient_t, gradient_prev)"]
    assert shown["gradient_norm"][3] == "[0, inf), logarithmic"
    assert "unstable" in shown["gradient_lag_cosine"][6]


def test_every_verdict_is_in_the_table():
    import verdicts

    from gradscope.checking.verdicts import VERDICTS

    found = rows(verdicts.text())[2:]
    assert [row[0] for row in found] == list(VERDICTS)
    assert all(row[1] and row[2] for row in found)
    assert next(row for row in found if row[0] == "at_x0")[3] == "denoiser=, scheduler="


@pytest.mark.slow
def test_every_signature_has_its_threshold_advice_and_an_example():
    import signatures

    entries = {entry.name: entry for entry in signatures.signatures()}
    assert set(entries) == set(_NAMES)
    assert all(entry.advice and entry.example and entry.looks_at and entry.needs for entry in entries.values())
    assert entries["unstable"].threshold == "below 0.4 over at least 25 % of the guided timesteps"
    assert (entries["ineffective"].severity, entries["ineffective"].threshold) == ("alarm", "0.35")
    assert not re.search(r"`[A-Z]+`", "".join(entry.looks_at for entry in entries.values()))


def test_every_key_of_a_configuration_is_described():
    import configuration

    listed = {row[0]: row for row in rows(configuration.text().split("## An audit")[0])}
    plain = config.RunConfig.model_json_schema()
    for section, model in {"": plain, "sampling.": plain["$defs"]["SamplingConfig"]}.items():
        assert {f"{section}{name}" for name in model["properties"]} <= set(listed)
    assert listed["sampling.samples"][1:3] == ["whole number >= 1, <= 10000000", "64"]
    assert listed["guidance.guidance_scale"][1:3] == ["list of numbers", "required"]
    assert listed["guidance.objective"][1:3] == ["log_prob or logit", "log_prob"]
    assert listed["guidance.interval"][1:3] == ["list of 2: numbers or null", "null"]
    assert listed["sampling"][1:3] == ["the keys below", "-"]
    assert listed["judge"][1:3] == [
        "text or [mapping with timm](#timmclassifier) or [mapping with module](#moduleclassifier)",
        "none",
    ]
    assert listed["classifiers"][1].startswith("mapping of NAME to text or [mapping with timm](#timmclassifier) or ")
    assert listed["classifiers"][1].endswith("[mapping with sum](#sumguide)")
    assert listed["evaluation.data"][1] == "[mapping](#dataconfig) or null"
    assert "evaluation.data.size" not in listed  # it has the table of its section
    assert all(row[3] for row in listed.values())


ENERGY = ClassifierGuidance(Energy(lambda x, t, x_0: -(x - x_0).square().flatten(1).sum(dim=1)), "x0", 0.4)


def test_the_probes_that_need_a_classifier_are_those_that_cannot_measure_an_energy(unet, scheduler):
    import needs

    sampler = GuidedSampler(unet, scheduler, ENERGY)
    fails = set()
    for name in NAMED:
        probes = [Layers(["unet.mid_block"])] if name == "layers" else make(name)
        try:
            with sampler.register_step_hook(Trace(probes)):
                sampler.sample([0, 0], 2)
        except ValueError as error:
            fails.add((name, str(error).partition(",")[0]))
    assert fails == {
        ("belief", "probe Belief needs GuidedStep.logits"),
        ("classifier_free", "probe GuidanceWeight needs GuidedStep.guidance_weight"),
    }
    shown = {name: needs.guide_of_probe(fields) for name, fields in needs.probes().items()}
    assert {name: guide for name, guide in shown.items() if guide != needs.ANY} == {
        "belief": needs.CLASSIFIER,
        "classifier_free": needs.FREE,
    }
    listed = {row[0]: row[1:] for row in rows(needs.text().split("## Signatures")[0])}
    assert listed["snr"] == ["pred_original_sample, label, alphas_cumprod, objective", "any"]
    assert set(NAMED) <= set(listed)


@pytest.mark.slow
def test_the_signatures_that_need_a_classifier_cannot_be_tested_on_an_energys_store(unet, scheduler, tmp_path):
    import needs

    probes = [probe for name in NAMED if name not in ("layers", "belief", "classifier_free") for probe in make(name)]
    with gradscope.record(GuidedSampler(unet, scheduler, ENERGY), tmp_path / "a.zarr", probes) as recorder:
        recorder.sample([0, 0, 0], 30)
    untestable = untested(gradscope.open(tmp_path / "a.zarr"))
    lacking = {name for name, why in untestable.items() if re.search(r"`belief`|\bown_", why)}
    shown = {name: needs.guide_of_signature(variables) for name, variables in needs.signatures().items()}
    assert set(shown) == set(_NAMES)
    assert lacking == {name for name, guide in shown.items() if guide == needs.CLASSIFIER}
    listed = {re.sub(r"[\[\]]|\(.*", "", row[0]): row[1:] for row in rows(needs.text().split("## Signatures")[1])}
    assert listed["adversarial"] == [
        "judge_prediction, own_prediction",
        "a judge, `gradscope evaluate`",
        "a classifier",
    ]
    assert listed["unstable"][1:] == ["cosines", "any"]


def test_every_command_and_option_is_listed():
    import command_line

    text = command_line.text()
    done = subprocess.run(
        [sys.executable, "-m", "gradscope", "record", "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"--[\w-]+", done.stdout.split("Examples:")[0])) - {"--help"}
    section = text.split("record</code>")[1].split("## ")[0]
    assert options == {row[0].split()[0] for row in rows(section)[2:]}
    headings = set(re.findall(r"^## <code>gradscope (.*)</code>$", text, re.M))
    assert {"record", "audit", "check", "oracle", "train ddpm", "train temperature"} <= headings


def test_every_method_and_setting_is_described():
    import methods

    text = methods.text()
    sections = {section.split("\n")[0]: section for section in text.split("## ")[1:]}
    assert set(sections) == set(GUIDANCE_METHODS)
    for name, kind in GUIDANCE_METHODS.items():
        listed = {row[0]: row[1:] for row in rows(sections[name])}
        assert {field.name for field in fields(kind)} <= set(listed)
        assert all(listed[field.name][1] for field in fields(kind))
        assert all(f"<code>{code}</code>" in sections[name].replace("&#95;", "_") for code in kind.inputs)
        assert re.search(r"arxiv.org/abs/|proceedings.mlr.press|openreview.net", sections[name])
        said = [listed[field.name][1] for field in fields(kind)]
        assert len(set(said)) == len(said)  # each setting has an entry of its own
    assert ["draws", "4", "K, at least 1."] in rows(sections["lgd"])
    assert ["between", "null"] in [row[:2] for row in rows(sections["freedom"])]
    assert all("that are repeated; null: all." in sections[name] for name in ("freedom", "universal", "tfg"))


def test_every_stabiliser_and_preset_is_listed():
    import presets
    import stabilizers

    assert {row[0] for row in rows(stabilizers.text())} >= set(METHODS)
    listed = {name for name in re.findall(r"\[([\w/]+\.yaml)\]", presets.text())}
    folder = ROOT / "runs"
    assert listed == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml") if "models" not in path.parts
    }


def test_equations_become_mathml():
    import mathematics

    html = mathematics.as_mathml(r'<p><span class="arithmatex">\(\frac{a}{b} &lt; c\)</span></p>')
    (equation,) = ET.fromstring(html)
    tags = [element.tag.rpartition("}")[2] for element in equation.iter()]
    assert tags[0] == "math"
    assert tags.count("mfrac") == 1
    assert "".join(equation.itertext()) == "ab<c"


class Asked(HTMLParser):
    """What a page asks for when it is opened: scripts, styles, pictures, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        loads = tag in ("script", "img", "iframe", "source", "video", "audio", "embed") or (
            tag == "link" and given.get("rel") not in ("canonical", "next", "prev")
        )
        if loads:
            self.addresses += [given[name] for name in ("src", "href", "srcset") if given.get(name)]


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_and_asks_no_other_host(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = Asked()
        asked.feed(text)
        assert [address for address in asked.addresses if re.match(r"(https?:)?//", address)] == [], page
        assert "arithmatex" not in text
        assert "<!-- generated" not in text
    reference = (tmp_path / "reference" / "api" / "gradscope.html").read_text(encoding="utf-8")
    missing = {name for name in gradscope.__all__ if f'id="gradscope.{name}"' not in reference}
    assert missing == {"GuidedStep", "methods", "stability", "stabilizers"}  # which have pages of their own
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", style.read_text(encoding="utf-8")), style
