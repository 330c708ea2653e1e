"""Settings that all figures share, and the contrast of their colours on both pages."""

import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import dashboards
from gradscope import plots
from gradscope.analysis.cells import cell_name
from gradscope.plots.alarm_scale import ALARM, CALM
from gradscope.plots.belief import _FAINT, _ON_COLOUR
from gradscope.plots.style import DIFFERENCE, GREY, INK, LABEL, PALETTE, pastel

LIGHT, DARK = "#ffffff", "#242424"
"""Backgrounds of the dashboard's pages."""
ASSETS = Path(dashboards.__file__).parent / "assets"
TEXT, LINE = 4.5, 3.0
"""Smallest contrast of text, and of lines (Web Content Accessibility Guidelines 2.2, 1.4.3 and 1.4.11)."""


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_configuration_sends_nothing_to_other_hosts():
    assert plots.PLOTLY_CONFIG == {"showSendToCloud": False, "displaylogo": False}


def test_contrast_is_that_of_known_pairs():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("page", [LIGHT, DARK])
def test_lines_are_seen_on_both_pages(page):
    assert [colour for colour in (*PALETTE, DIFFERENCE, GREY) if contrast(colour, page) < LINE] == []


def test_texts_of_figures_are_legible():
    assert min(contrast(INK, page) for page in ("#ffffff", "#000000")) >= TEXT  # a page recolours them, a file does not
    assert contrast(LABEL["bgcolor"], LABEL["font"]["color"]) >= TEXT
    for colour in PALETTE:  # names of classes on their colours
        on = "#ffffff" if _ON_COLOUR.get(colour) == "white" else "#000000"
        assert contrast(colour, on) >= TEXT
        assert contrast(pastel(colour, _FAINT), "#000000") >= TEXT


def css_colours(css):
    """Colours of texts and of the cursor in the light and in the dark scheme, by selector or variable."""
    light, dark = {}, {}
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)):
        scheme = dark if 'color-scheme="dark"' in selector else light
        key = selector.split("]")[-1].strip()
        for name, colour in re.findall(r"(?:^|;|\s)(color|--mark|--right|--wrong):\s*(#[0-9a-f]{3,6})", body):
            colour = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
            scheme[name if name.startswith("--") else key] = colour
    return light, light | dark


def test_coloured_texts_of_the_pages_are_legible_in_both_schemes():
    texts = "\n".join((ASSETS / name).read_text() for name in ("style.css", "tables.css"))
    for page, found in zip((LIGHT, DARK), css_colours(texts), strict=True):
        assert {".badge-alarm", ".badge-warning", ".badge-remark", "--mark", "--right", "--wrong"} <= set(found)
        for name, colour in found.items():
            assert contrast(colour, page) >= (LINE if name == "--mark" else TEXT), (name, colour, page)


def test_each_colour_has_one_meaning():
    alarm = css_colours((ASSETS / "tables.css").read_text())[0][".badge-alarm"]
    marks = [scheme["--mark"] for scheme in css_colours((ASSETS / "style.css").read_text())]
    groups = [PALETTE, [DIFFERENCE], [GREY], CALM, [*ALARM, alarm], marks]
    every = [colour.lower() for colour in chain(*groups)]
    assert len(set(every)) == len(every)
    hue = {colour: np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float) for colour in every}
    for mark in marks:  # the cursor resembles no line
        assert min(np.linalg.norm(hue[mark.lower()] - hue[colour.lower()]) for colour in (*PALETTE, DIFFERENCE)) > 60


def test_names_of_cells_say_their_dimensions():
    cell = {"classifier": "robust", "classifier_input": "x0", "stabilizer": "none", "guidance_scale": 0.5}
    assert cell_name(cell) == "robust, x0, no stabiliser, s = 0.5"
    assert (
        cell_name(cell | {"guidance_scale": 0.0, "method": "dps"}) == "robust, x0, no stabiliser, unguided, method dps"
    )
    assert cell_name(cell | {"guidance_scale": -2.0}).endswith("s = -2")
    assert cell_name(cell | {"classifier": "none"}).startswith("none, x0")  # only a stabiliser can be absent
