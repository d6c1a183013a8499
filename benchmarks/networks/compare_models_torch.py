#!/usr/bin/env python3
"""Times umbriel's models of maps and PyTorch models of the same shape in one run, on one core.

  benchmarks/networks/compare_models_torch.py --program build/release/bin/model_time

The flow is the Glow of jobs/configs/flow.toml: 3 levels of 4 steps, each an actnorm, a 1 x 1 convolution kept as LU
factors, and an affine coupling by convolutions of 3 x 3, 1 x 1 and 3 x 3 with 32 channels and periodic padding. Timed are
a training step (likelihood, its gradient, Adam) and the generation of maps. The diffusion model is the U-Net of
jobs/configs/diffusion.toml: widths of 16, 32 and 32, a block a scale, 32 numbers of the noise level. Timed are its
evaluation without gradients, a training step (forward, gradient, Adam) and the generation of maps in 10 steps of Heun's
rule. The autoencoder is that of jobs/configs/dust_vae.toml (or --vae-config) with its latent flow: steps of `umbriel train
vae`, as many as the other models' repeats, reading, turning and flipping of maps included, against steps in PyTorch with the
maps at hand. Both programs take turns; seconds are those of a map, wall and processor, and ratios are PyTorch's median over
umbriel's. On a busy machine trust the ratio of processor times, which there is not of the autoencoder. Writes all samples as
JSON. Run it with a Python that has PyTorch, pinned to a core.
"""
import argparse
import datetime
import json
import math
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time
import tomllib

import numpy
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


def periodic(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="circular")


class Block(nn.Module):
    def __init__(self, width, embedding):
        super().__init__()
        self.first, self.second = periodic(width, width), periodic(width, width)
        self.modulation = nn.Linear(embedding, 2 * width)

    def forward(self, x, embedding):
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        return x + self.second(F.silu(self.first(F.silu(x)) * (1 + scale) + shift))


class UNet(nn.Module):
    def __init__(self, widths=(16, 32, 32), embedding=32):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(4, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.head, self.tail = periodic(1, widths[0]), periodic(widths[0], 1)
        self.down = nn.ModuleList(Block(w, embedding) for w in widths)
        self.up = nn.ModuleList(Block(w, embedding) for w in widths[:-1])
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.widen = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(widths, widths[1:]))

    def forward(self, x, sigma):
        t = torch.log(sigma / 0.03)
        embedding = self.embed(torch.stack([0.4 * t, torch.sin(t), torch.cos(t), 0.16 * t * t - 0.5], 1))
        x, levels = self.head(x), []
        for i, block in enumerate(self.down):
            x = block(x, embedding)
            if i + 1 < len(self.down):
                levels.append(x)
                x = self.narrow[i](F.avg_pool2d(x, 2))
        for i in reversed(range(len(self.up))):
            x = self.up[i](levels[i] + F.interpolate(self.widen[i](x), scale_factor=2), embedding)
        return self.tail(x)

    @torch.no_grad()
    def generate(self, batch, size, steps):
        """Noise to maps by Heun's rule for dx/dphi = v; the last step is Euler's."""
        x = torch.randn(batch, 1, size, size).to(memory_format=torch.channels_last)
        angles = [math.pi / 2 * (1 - i / steps) for i in range(steps + 1)]
        level = lambda phi: torch.full((batch,), max(math.tan(min(phi, 1.57)), 1e-3))
        for phi, after in zip(angles, angles[1:]):
            v = self(x, level(phi))
            ahead = x + (after - phi) * v
            x = ahead if after == 0 else x + 0.5 * (after - phi) * (v + self(ahead, level(after)))
        # Colours the field and takes the exponential, as the lognormal transform wants it.
        return torch.exp(torch.fft.irfft2(torch.fft.rfft2(x) * 0.3, s=(size, size)) - 3) - 0.05


class Autoencoder(nn.Module):
    """Loss of both parts: -ELBO a pixel of the autoencoder, -ln p a latent variable of the flow, which learns from z as it is."""

    def __init__(self, config, size):
        super().__init__()
        network, latent = config["network"], config.get("latent", {})
        self.latent, self.base, dense = network["latent"], network["base"], network["dense"]
        batch_norm = network.get("norm", "batch") == "batch"
        norm = lambda c: nn.BatchNorm2d(c) if batch_norm else nn.GroupNorm(c // 8 if c % 8 == 0 else 1, c)
        layers, c = [], 1
        for width in network["encoder"]:
            layers += [nn.Conv2d(c, width, 4, 2, 1), nn.ReLU(), norm(width)]
            c = width
        inner = (size >> len(network["encoder"])) ** 2 * c
        layers += [nn.Flatten(), nn.Linear(inner, dense), nn.ReLU(), nn.Linear(dense, 2 * self.latent)]
        self.encoder = nn.Sequential(*layers)
        self.side, c = size >> len(network["decoder"]), self.base
        self.first, self.first_norm = nn.Linear(self.latent, self.side**2 * c), norm(c)
        layers = []
        for width in network["decoder"]:
            layers += [nn.ConvTranspose2d(c, width, 4, 2, 1), nn.ReLU(), norm(width)]
            c = width
        self.decoder = nn.Sequential(*layers, nn.Conv2d(c, 1, 1))
        self.components = network.get("components", False)
        if self.components:  # random ones serve to measure time
            self.register_buffer("vectors", torch.randn(size**2, self.latent) / size)
            self.register_buffer("factors", torch.rand(2, self.latent))
        self.log_deviation = nn.Parameter(torch.tensor(math.log(0.5)))
        half, width = self.latent // 2, latent.get("width", 256)
        self.flow = nn.ModuleList(
            nn.Sequential(nn.Linear(half, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                          nn.Linear(width, 2 * (self.latent - half))) for _ in range(latent.get("layers", 8)))
        self.orders = [torch.randperm(self.latent) for _ in self.flow]

    def loss(self, x):
        mean, log_deviation = self.encoder(x).chunk(2, 1)
        if self.components:
            mean = mean + (x.flatten(1) @ self.vectors) * self.factors[0]
        z = mean + torch.exp(log_deviation) * torch.randn_like(mean)
        kl = (0.5 * (mean**2 + torch.exp(2 * log_deviation) - 1) - log_deviation).sum(1)
        small = self.first_norm(torch.relu(self.first(z)).view(-1, self.base, self.side, self.side))
        maps = self.decoder(small)
        if self.components:
            maps = maps + ((z * self.factors[1]) @ self.vectors.T).view_as(x)
        square = ((maps - x) ** 2).sum((1, 2, 3))
        pixels = x[0].numel()
        elbo = self.log_deviation + (0.5 * square * torch.exp(-2 * self.log_deviation) + kl) / pixels
        u, log_det = z.detach(), 0
        for order, net in zip(self.orders, self.flow):
            stays, changes = u[:, order].split([self.latent // 2, self.latent - self.latent // 2], 1)
            raw, shift = net(stays).chunk(2, 1)
            s = LIMIT * torch.tanh(raw / LIMIT)
            u, log_det = torch.cat([stays, changes * torch.exp(s) + shift], 1), log_det + s.sum(1)
        return elbo.mean() + ((0.5 * u**2).sum(1) - log_det).mean() / self.latent


def make_torch(model, which, arguments):
    """What is timed, as a function without arguments, and the number of parameters."""
    size, batch = arguments.size, arguments.batch
    maps = torch.randn(batch, 1, size, size)
    if model == "vae":
        net = Autoencoder(tomllib.loads(pathlib.Path(arguments.vae_config).read_text()), size)
    else:
        net = Flow() if model == "flow" else UNet()
    if model != "flow":
        net = net.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(net.parameters(), 1e-4)
    parameters = sum(p.numel() for p in net.parameters())
    latents, channels, side = [], 4, size // 2
    for i in range(LEVELS):
        latents.append(torch.randn(batch, channels if i + 1 == LEVELS else channels // 2, side, side))
        channels, side = 2 * channels, side // 2
    sigma = torch.full((batch,), 0.1)
    if model != "flow":
        maps = maps.to(memory_format=torch.channels_last)

    def train():
        optimiser.zero_grad()
        ((net(maps, sigma) ** 2).mean() if model == "diffusion" else net.loss(maps)).backward()
        optimiser.step()

    @torch.no_grad()
    def forward():
        net(maps, sigma)

    def generate():
        net.generate(latents) if model == "flow" else net.generate(batch, size, arguments.steps)

    return {"training": train, "forward": forward, "generate": generate}[which], parameters


def torch_samples(call, arguments):
    wall, cpu = [], []
    for i in range(-1, arguments.repeats):
        start = time.perf_counter(), time.process_time()
        call()
        if i >= 0:
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
    return {"wall": wall, "cpu": cpu}


def umbriel_training_samples(arguments):
    """Steps of `umbriel train vae` on white maps, by the clocks of their ends: of each step no processor time is known."""
    with tempfile.TemporaryDirectory() as folder:
        maps = numpy.random.default_rng(1).standard_normal((8 * arguments.batch, arguments.size, arguments.size))
        numpy.save(folder + "/maps.npy", maps.astype(numpy.float32))

        stem = f"{folder}/model"
        subprocess.run(
            [arguments.umbriel, "train", "vae", arguments.vae_config, "--set", f"data.maps={folder}/maps.npy", "--set",
             f"run.output={stem}.safetensors", "--set", f"train.steps={2 + 4 * arguments.repeats}", "--set",
             f"train.batch={arguments.batch}", "--set", "train.validate_every=0", "--set", "train.warm_up=0"],
            check=True, capture_output=True)
        ends = numpy.loadtxt(f"{stem}.metrics.csv", delimiter=",", skiprows=1, usecols=4, ndmin=1)
        with open(f"{stem}.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        revision = subprocess.run([arguments.umbriel, "--version"], capture_output=True, text=True).stdout.strip()
        trained = [e for name, e in header.items() if not name.startswith(("__metadata__", "components.")) and "running" not in name]
        return {"wall": list(numpy.diff(ends)[1:]), "revision": revision,
                "parameters": sum(math.prod(e["shape"]) for e in trained)}


def umbriel_samples(model, which, arguments):
    if model == "vae":
        return umbriel_training_samples(arguments)
    line = subprocess.run(
        [arguments.program, "--model", model, "--pass", which, "--size", str(arguments.size), "--batch",
         str(arguments.batch), "--repeats", str(arguments.repeats), "--warm-up", "1", "--steps", str(arguments.steps)],
        check=True, capture_output=True, text=True).stdout
    return json.loads(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/model_time")
    parser.add_argument("--umbriel", default="build/release/bin/umbriel", help="for the autoencoder")
    parser.add_argument("--vae-config", default="jobs/configs/dust_vae.toml")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="of the diffusion model's generation (default 10)")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each program gets (default 7)")
    parser.add_argument("--repeats", type=int, default=3, help="samples in a turn (default 3)")
    parser.add_argument("--models", nargs="+", choices=["flow", "diffusion", "vae"],
                        default=["flow", "diffusion", "vae"])
    parser.add_argument("-o", "--output", default="compare_models_torch.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    cases = [(model, which) for model in arguments.models
             for which in {"flow": ("training", "generate"), "diffusion": ("forward", "training", "generate"),
                           "vae": ("training",)}[model]]
    points = {}
    for _ in range(arguments.rounds):
        for model, which in cases:
            point = points.setdefault(f"{model} {which}", {"torch": {"wall": [], "cpu": []},
                                                           "umbriel": {"wall": [], "cpu": []}})
            call, parameters = make_torch(model, which, arguments)
            result = umbriel_samples(model, which, arguments)
            for program, samples in (("torch", torch_samples(call, arguments)), ("umbriel", result)):
                for clock, seconds in samples.items():
                    if clock in ("wall", "cpu"):
                        point[program][clock] += [s / arguments.batch for s in seconds]
            point["parameters"] = {"umbriel": result["parameters"], "torch": parameters}
    for name, point in points.items():
        print(f"{name:18s}", end="")
        point["ratio"] = {}
        for clock in ("cpu", "wall"):
            if not point["umbriel"][clock]:
                continue
            theirs, ours = (statistics.median(point[program][clock]) for program in ("torch", "umbriel"))
            point["ratio"][clock] = theirs / ours
            print(f"  {clock}: torch {1e3 * theirs:.3f} ms a map, umbriel {1e3 * ours:.3f}, {theirs / ours:.2f} times as fast", end="")
        print()
    with open(arguments.output, "w") as file:
        json.dump({"date": datetime.datetime.now(datetime.timezone.utc).isoformat(), "processor": processor(),
                   "torch": torch.__version__, "size": arguments.size, "batch": arguments.batch, "steps": arguments.steps,
                   "unit": "seconds a map", "revision": result["revision"], "points": points}, file, indent=1)


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
