"""Training: optimizers, the loop over epochs, its memory, model files and checkpoints. Knows no series, no terminal."""

from gru_xp.training.stream import train_on_stream
from gru_xp.training.trainer import TrainingConfig
from gru_xp.training.truncated import train_on_chunks

__all__ = ["TrainingConfig", "train_on_chunks", "train_on_stream"]
