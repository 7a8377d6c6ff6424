"""The names that scoring scripts import from Azure's inference server; the yard's model server stands behind them."""
