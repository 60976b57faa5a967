"""The two-stage recipe: plan, features, loop, checkpoints."""
