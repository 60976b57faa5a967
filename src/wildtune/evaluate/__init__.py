"""The honest numbers behind a run."""
