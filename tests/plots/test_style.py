"""Settings that all figures share."""

from gradscope import plots


def test_the_configuration_sends_nothing_to_other_hosts():
    assert plots.PLOTLY_CONFIG == {"showSendToCloud": False, "displaylogo": False}
