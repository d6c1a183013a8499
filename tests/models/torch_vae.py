#!/usr/bin/env python3
"""The autoencoder of src/models/vae.hpp in PyTorch, on weights that umbriel wrote, for test_vae.cpp to compare with.

    torch_vae.py FOLDER

FOLDER holds weights.safetensors, for 32 x 32 pixels, and input.safetensors: maps x [n, y, x] and latent z [n, latent].
Writes output.safetensors: statistics [n, 2 latent] of x, and maps [n, y, x] of z.
"""
import sys

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

folder = sys.argv[1]
w = load_file(f"{folder}/weights.safetensors")
data = load_file(f"{folder}/input.safetensors")


def layers(part):
    return sum(name.startswith(f"{part}.") and name.endswith(".convolution.weight") for name in w)


def norm(x, name):
    if f"{name}.running_mean" in w:
        return F.batch_norm(x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"],
                            w[f"{name}.bias"])
    groups = x.shape[1] // 8 if x.shape[1] % 8 == 0 else 1
    return F.group_norm(x, groups, w[f"{name}.weight"], w[f"{name}.bias"])


def dense(x, name):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


x = data["x"][:, None]
for i in range(layers("encoder")):
    x = F.conv2d(x, w[f"encoder.{i}.convolution.weight"], w[f"encoder.{i}.convolution.bias"], stride=2, padding=1)
    x = norm(F.relu(x), f"encoder.{i}.norm")
x = x.permute(0, 2, 3, 1).flatten(1)  # channels are the last axis in umbriel
statistics = dense(F.relu(dense(x, "encoder.dense")), "encoder.statistics")

side = 32 >> layers("decoder")
base = w["decoder.norm.weight"].numel()
y = F.relu(dense(data["z"], "decoder.dense")).reshape(-1, side, side, base).permute(0, 3, 1, 2)
y = norm(y, "decoder.norm")
for i in range(layers("decoder")):
    y = F.conv_transpose2d(y, w[f"decoder.{i}.convolution.weight"], w[f"decoder.{i}.convolution.bias"], stride=2,
                           padding=1)
    y = norm(F.relu(y), f"decoder.{i}.norm")
y = F.conv2d(y, w["decoder.last.weight"], w["decoder.last.bias"])
save_file({"statistics": statistics.contiguous(), "maps": y[:, 0].contiguous()}, f"{folder}/output.safetensors")
