"""From labelled images to a trained network: data, recipes, the loop, checkpoints."""
