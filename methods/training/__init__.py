"""Training from fresh weights: optimizers, losses, reparameterizations."""
