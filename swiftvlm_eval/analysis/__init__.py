"""What pruning does to a model, layer by layer: the profile of its layers, and the layers that it recommends."""
