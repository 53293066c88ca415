"""How long networks take: estimated, summed from measured units, or measured whole."""
