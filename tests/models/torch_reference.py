#!/usr/bin/env python3
"""Weights, outputs and gradients of a PyTorch score network, for test_uresnet18.cpp to compare with.

    torch_reference.py NETWORK.py FOLDER

NETWORK.py defines ScoreUNet, the network of Remy et al. 2022 in PyTorch. Writes weights.safetensors (its state),
tensors.safetensors (input [n, y, x, c], sigma, outputs) and gradients.safetensors (d mean(output^2) / d parameter, under
the parameters' names).
"""
import importlib.util
import sys

import torch
from safetensors.torch import save_file

spec = importlib.util.spec_from_file_location("network", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
folder = sys.argv[2]

torch.manual_seed(3)
torch.set_num_threads(1)
net = module.ScoreUNet()
with torch.no_grad():  # moments and affine maps that differ from one and zero
    for name, tensor in list(net.named_parameters()) + list(net.named_buffers()):
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.2)
        elif tensor.dim() == 1:
            tensor.add_(0.2 * torch.randn_like(tensor))
state = {name: tensor.clone().contiguous() for name, tensor in net.state_dict().items()}
save_file(state, f"{folder}/weights.safetensors")

x = torch.randn(3, 2, 40, 24)
sigma = torch.tensor([0.05, 0.2, 0.7]).reshape(3, 1, 1, 1)
channels_last = lambda t: t.detach().permute(0, 2, 3, 1).contiguous()
net.eval()
frozen = channels_last(net(x, sigma))
net.train()
output = net(x, sigma)
(output**2).mean().backward()
save_file({"x": channels_last(x), "sigma": sigma.flatten().contiguous(), "frozen": frozen,
           "trained": channels_last(output)}, f"{folder}/tensors.safetensors")
gradients = {name: tensor.clone() for name, tensor in state.items()}
gradients.update({name: p.grad.contiguous() for name, p in net.named_parameters()})
save_file(gradients, f"{folder}/gradients.safetensors")
