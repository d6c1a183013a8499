#!/usr/bin/env python3
"""Times umbriel's flow and a PyTorch flow of the same shape in one run, on one core.

  benchmarks/networks/compare_flow_torch.py --program build/release/bin/flow_time

The flow is the Glow of jobs/configs/flow.toml: 3 levels of 4 steps, each an actnorm, a 1 x 1 convolution kept as LU
factors, and an affine coupling by convolutions of 3 x 3, 1 x 1 and 3 x 3 with 32 channels and periodic padding. Timed are
a training step (likelihood, its gradient, Adam) and the generation of maps; both programs in turn, seconds a map, the
ratio is PyTorch's median over umbriel's. Writes all samples as JSON. Run it with a Python that has PyTorch, pinned to an
idle core.
"""
import argparse
import datetime
import json
import platform
import statistics
import subprocess
import time

import torch
from torch import nn
from torch.nn import functional as F

LEVELS, STEPS, WIDTH, LIMIT = 3, 4, 32, 2.0


class Step(nn.Module):
    def __init__(self, channels):
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", torch.sign(torch.diagonal(upper)))
        self.lower = nn.Parameter(torch.tril(lower, -1))
        self.upper = nn.Parameter(torch.triu(upper, 1))
        self.log_diagonal = nn.Parameter(torch.log(torch.abs(torch.diagonal(upper))))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        half = channels // 2
        conv = lambda i, o, k: nn.Conv2d(i, o, k, padding=k // 2, padding_mode="circular" if k > 1 else "zeros")
        self.net = nn.Sequential(conv(half, WIDTH, 3), nn.ReLU(), conv(WIDTH, WIDTH, 1), nn.ReLU(), conv(WIDTH, channels, 3))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def matrix(self):
        lower = torch.tril(self.lower, -1) + torch.eye(len(self.bias))
        upper = torch.triu(self.upper, 1) + torch.diag(self.sign * torch.exp(self.log_diagonal))
        return self.permutation @ lower @ upper @ torch.diag(torch.exp(self.log_scale))

    def couple(self, stays):
        raw, shift = self.net(stays).chunk(2, 1)
        return LIMIT * torch.tanh(raw / LIMIT), shift

    def forward(self, x):
        matrix = self.matrix()
        x = F.conv2d(x, matrix[:, :, None, None], matrix @ self.bias)
        log_det = x.shape[2] * x.shape[3] * (self.log_diagonal.sum() + self.log_scale.sum())
        stays, changes = x.chunk(2, 1)
        s, shift = self.couple(stays)
        return torch.cat([stays, changes * torch.exp(s) + shift], 1), log_det + s.sum((1, 2, 3))

    def inverse(self, x):
        stays, changes = x.chunk(2, 1)
        s, shift = self.couple(stays)
        x = torch.cat([stays, (changes - shift) * torch.exp(-s)], 1)
        return F.conv2d(x, torch.linalg.inv(self.matrix())[:, :, None, None], -self.bias)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList(nn.ModuleList(Step(4 << level) for _ in range(STEPS)) for level in range(LEVELS))

    def loss(self, x):
        square, log_det = 0, 0
        for i, level in enumerate(self.levels):
            x = F.pixel_unshuffle(x, 2)
            for step in level:
                x, d = step(x)
                log_det = log_det + d
            if i + 1 < LEVELS:
                x, latent = x.chunk(2, 1)
                square = square + (latent**2).sum((1, 2, 3))
        square = square + (x**2).sum((1, 2, 3))
        return (0.5 * square - log_det).mean()

    @torch.no_grad()
    def generate(self, latents):
        x = latents[-1]
        for i in reversed(range(LEVELS)):
            if i + 1 < LEVELS:
                x = torch.cat([x, latents[i]], 1)
            for step in reversed(self.levels[i]):
                x = step.inverse(x)
            x = F.pixel_shuffle(x, 2)
        return x


def torch_seconds(which, flow, optimiser, size, batch, repeats, warm_up):
    maps = torch.randn(batch, 1, size, size)
    latents, channels, side = [], 4, size // 2
    for i in range(LEVELS):
        latents.append(torch.randn(batch, channels if i + 1 == LEVELS else channels // 2, side, side))
        channels, side = 2 * channels, side // 2
    took = []
    for i in range(-warm_up, repeats):
        start = time.perf_counter()
        if which == "training":
            optimiser.zero_grad()
            flow.loss(maps).backward()
            optimiser.step()
        else:
            flow.generate(latents)
        if i >= 0:
            took.append((time.perf_counter() - start) / batch)
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/flow_time")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7, help="turns that each program gets (default 7)")
    parser.add_argument("--repeats", type=int, default=3, help="samples in a turn (default 3)")
    parser.add_argument("-o", "--output", default="compare_flow_torch.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flow = Flow()
    optimiser = torch.optim.Adam(flow.parameters(), 1e-4)
    points = {}
    for _ in range(arguments.rounds):
        for which in ("training", "generate"):
            point = points.setdefault(which, {"torch": [], "umbriel": []})
            point["torch"] += torch_seconds(which, flow, optimiser, arguments.size, arguments.batch, arguments.repeats, 1)
            line = subprocess.run(
                [arguments.program, "--pass", which, "--size", str(arguments.size), "--batch", str(arguments.batch),
                 "--repeats", str(arguments.repeats), "--warm-up", "1"], check=True, capture_output=True, text=True).stdout
            result = json.loads(line)
            point["umbriel"] += [seconds / arguments.batch for seconds in result["wall"]]
            point["parameters"] = {"umbriel": result["parameters"],
                                   "torch": sum(p.numel() for p in flow.parameters())}
    for which, point in points.items():
        point["ratio"] = statistics.median(point["torch"]) / statistics.median(point["umbriel"])
        print(f"{which:9s} torch {1e3 * statistics.median(point['torch']):.3f} ms, umbriel "
              f"{1e3 * statistics.median(point['umbriel']):.3f} ms a map: {point['ratio']:.2f} times as fast")
    with open(arguments.output, "w") as file:
        json.dump({"date": datetime.datetime.now(datetime.timezone.utc).isoformat(), "processor": platform.processor(),
                   "torch": torch.__version__, "size": arguments.size, "batch": arguments.batch, "unit": "seconds a map",
                   "revision": result["revision"], "points": points}, file, indent=1)


if __name__ == "__main__":
    main()
