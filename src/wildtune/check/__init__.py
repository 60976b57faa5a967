"""Faults that no single photo shows: probable label errors, giveaways beside the animal, and their page."""
