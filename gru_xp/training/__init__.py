"""Training: optimizers, the loop over epochs, its memory, model files and checkpoints. Knows no series, no terminal."""

from gru_xp.training.trainer import TrainingConfig
from gru_xp.training.truncated import train_on_chunks

__all__ = ["TrainingConfig", "train_on_chunks"]
