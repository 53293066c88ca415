"""Block search with Optuna."""
