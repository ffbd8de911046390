"""Training: optimizers, the loop over epochs, and model files. Knows nothing of files' contents or the terminal."""
