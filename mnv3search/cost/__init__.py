"""MAdds, parameters, activations and peak memory: analytic, exact, by layer."""
