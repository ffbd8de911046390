"""The maths: forward and backward passes as Array API expressions; README.md beside this file derives them."""

from gru_xp.nn.activation import gelu_backward, gelu_forward
from gru_xp.nn.cell import gru_cell_backward, gru_cell_forward, gru_step
from gru_xp.nn.dropout import dropout_mask
from gru_xp.nn.gradcheck import GradcheckReport, gradcheck
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.linear import linear_backward, linear_forward
from gru_xp.nn.losses import (
    gaussian_loss,
    huber_loss,
    mae_loss,
    mse_loss,
    poisson_loss,
    quantile_loss,
    softmax_cross_entropy,
)
from gru_xp.nn.network import NetworkParams, init_network_params
from gru_xp.nn.normalization import (
    LayerNormParams,
    init_layer_norm_params,
    layer_norm_backward,
    layer_norm_forward,
)
from gru_xp.nn.params import GRUParams, LinearParams, init_gru_params, init_linear_params
from gru_xp.nn.stack import gru_stack_backward, gru_stack_forward, gru_stack_step, init_gru_stack_params

__all__ = [
    "GRUInference",
    "GRUParams",
    "GradcheckReport",
    "LayerNormParams",
    "LinearParams",
    "NetworkParams",
    "dropout_mask",
    "gaussian_loss",
    "gelu_backward",
    "gelu_forward",
    "gradcheck",
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "gru_stack_backward",
    "gru_stack_forward",
    "gru_stack_step",
    "gru_step",
    "huber_loss",
    "init_gru_params",
    "init_gru_stack_params",
    "init_layer_norm_params",
    "init_linear_params",
    "init_network_params",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_backward",
    "linear_forward",
    "mae_loss",
    "mse_loss",
    "poisson_loss",
    "quantile_loss",
    "softmax_cross_entropy",
]
