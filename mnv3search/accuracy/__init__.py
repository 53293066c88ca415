"""How accurate networks are: evaluators."""
