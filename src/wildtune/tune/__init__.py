"""The one way back: what values a recipe should have, found on the training and validation photos alone."""
