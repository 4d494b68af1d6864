"""Train models: the loop, one step, optimisers, checkpoints, the run folder."""
