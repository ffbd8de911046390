"""Training: optimizers, the loop over epochs, and model files. Knows nothing of files' contents or the terminal."""

from gru_xp.training.trainer import TrainingConfig
from gru_xp.training.truncated import train_on_chunks

__all__ = ["TrainingConfig", "train_on_chunks"]
