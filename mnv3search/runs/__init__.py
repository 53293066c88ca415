"""Runs and prunings: what was asked, the folder that it fills, the stages that fill it, and how they resume."""
