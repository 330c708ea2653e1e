"""The report of a store: findings and the numbers behind them, as data, as JSON and as one HTML page."""
