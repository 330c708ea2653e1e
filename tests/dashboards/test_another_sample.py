"""After a change of sample, a page draws what the sample changes, and nothing else."""

import base64
import json
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from small_store import BAD, GOOD

from dashboards.data.open_run import OpenRun
from dashboards.widgets.export import Call
from gradscope import plots
from gradscope.analysis.by_class import of_class
from gradscope.plots.curves import curves_numbers, draw_curves, summarised


def of(name, sample, focus=GOOD, label=None):
    own = {} if sample is None else {"sample": sample}
    return Call("curves", {"name": name, "cells": [GOOD, BAD], **own, "focus": focus}, label)


def decoded(value):
    """A figure as a browser reads it."""
    if isinstance(value, dict) and "bdata" in value:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    if isinstance(value, dict):
        return {key: decoded(each) for key, each in value.items()}
    return [decoded(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", ["gradient_norm", "gradient_cosine", "log_prob"])
@pytest.mark.parametrize("focus", [GOOD, BAD, None], ids=["good", "bad", "no focus"])
def test_every_sample_has_its_own_numbers_and_its_own_figure(stored, name, focus):
    run = OpenRun(stored)
    focused = {} if focus is None else {"focus": focus}
    for sample in (None, 0, 3, 7, 0):
        call = of(name, sample, focus)
        numbers = curves_numbers(run.ds, name, [GOOD, BAD], sample, **focused)
        pd.testing.assert_frame_equal(call.numbers(run), numbers)
        assert call.numbers(run).attrs == numbers.attrs
        shown, drawn = call.page(run), draw_curves(numbers).to_dict()
        assert json.dumps(decoded(shown["layout"]), sort_keys=True) == json.dumps(
            decoded(drawn["layout"]), sort_keys=True
        )
        for trace, other in zip(decoded(shown["data"]), decoded(drawn["data"]), strict=True):
            assert trace.keys() == other.keys()
            for key in ("x", "y", "customdata"):
                np.testing.assert_array_equal(trace.pop(key, []), np.ravel(other.pop(key, [])))
            assert json.dumps(trace, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_a_class_has_its_own_means(stored):
    run = OpenRun(stored)
    label = int(run.ds["label"][0])
    sample = int(run.ds["sample"].values[run.ds["label"].values == label][0])
    expected = curves_numbers(of_class(run.ds, label), "log_prob", [GOOD, BAD], sample, GOOD)
    of("log_prob", sample).page(run)
    pd.testing.assert_frame_equal(of("log_prob", sample, label=label).numbers(run), expected)


def test_means_are_computed_and_drawn_once_for_all_samples(stored):
    run = OpenRun(stored)
    shared = plots.FIGURES["curves"].of_sample.shared
    with patch("gradscope.plots.curves.summarised", wraps=summarised) as computed:
        counting = []
        counted = plots.FIGURES["curves"]._replace(
            of_sample=plots.FIGURES["curves"].of_sample._replace(shared=lambda n: counting.append(n) or shared(n))
        )
        with patch.dict(plots.FIGURES, {"curves": counted}):
            for sample in range(5):
                of("log_prob", sample).page(run)
    assert (computed.call_count, len(counting)) == (2, 1)  # two cells
