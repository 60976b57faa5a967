"""The network: backbone, weights, preprocessing, and the bundle it becomes."""
