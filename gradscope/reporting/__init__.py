"""A store's report: the findings and the numbers behind them, as data, JSON and one HTML page."""
