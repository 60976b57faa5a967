"""From a bundle and photos to predictions."""
