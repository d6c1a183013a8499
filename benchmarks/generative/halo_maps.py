#!/usr/bin/env python3
"""Draws convergence maps that are far from lognormal, a hard test for models of maps.

  benchmarks/generative/halo_maps.py --samples 1000 --seed 1 -o halo_train.h5
  benchmarks/generative/halo_maps.py --samples 10000 --seed 2 -o halo_fresh.h5

A map is the sum of a Gaussian field and of haloes. The Gaussian field has power C_l ~ (l + 300)^-2. Haloes have masses m
from 1 to 300 with dn/dm ~ m^-1.8 exp(-m / 200), are Poisson draws about a mean density that follows the Gaussian field,
1 + bias delta (0 where that is negative), and each has the projected modified Hubble profile (like that of Navarro, Frenk
& White, it falls as theta^-2 far out), kappa_s m^(1/3) / (1 + theta^2 / theta_s^2) with theta_s ~ m^(1/3). Maps are
periodic, [sample, y, x] float32, with mean zero over the ensemble; they go to /simulation/kappa, where `umbriel train` and
`umbriel stats` look for them. Skewness and excess kurtosis are printed beside the kurtosis of the shifted lognormal
density of that skewness. Needs NumPy and h5py.
"""
import argparse

import h5py
import numpy as np

SIDE, PIXEL = 64, 2.0                      # pixels, arcmin
GAUSSIAN_STD, BIAS = 0.010, 0.4           # of the Gaussian part; of the haloes, in units of its standard deviation
HALOES, SLOPE, CUT = 40.0, -1.8, 200.0      # a map; of the mass function
KAPPA_S, THETA_S = 0.04, 0.6               # at m = 1: convergence, arcmin
MASSES = np.geomspace(1, 300, 25)          # edges of mass bins


def periodic_distance():
    axis = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE)) * PIXEL
    return np.hypot(axis[:, None], axis[None])


def maps(samples, seed):
    rng = np.random.default_rng(seed)
    frequency = 2 * np.pi / np.radians(PIXEL / 60)
    l = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) * frequency
    amplitude = 1 / (l + 300)
    amplitude[0, 0] = 0
    norm = np.sqrt((np.abs(np.fft.irfft2(amplitude**2, s=(SIDE, SIDE)))[0, 0]))
    theta = periodic_distance()
    middle = np.sqrt(MASSES[1:] * MASSES[:-1])
    share = middle ** (SLOPE + 1) * np.exp(-middle / CUT)  # n in a logarithmic bin is m dn/dm
    share *= HALOES / share.sum()
    profiles = np.fft.rfft2([KAPPA_S * m ** (1 / 3) / (1 + (theta / (THETA_S * m ** (1 / 3))) ** 2) for m in middle])
    mean = sum(n * p[0, 0].real for n, p in zip(share, profiles)) / SIDE**2
    for _ in range(samples):
        delta = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * amplitude, s=(SIDE, SIDE)) / norm
        density = np.maximum(1 + BIAS * delta, 0)
        density /= density.sum()
        counts = rng.poisson(share[:, None, None] * density)
        kappa = np.fft.irfft2((np.fft.rfft2(counts) * profiles).sum(0), s=(SIDE, SIDE))
        yield (GAUSSIAN_STD * delta + kappa - mean).astype(np.float32)


def lognormal_kurtosis(skewness):
    """Excess kurtosis of a shifted lognormal density of this skewness."""
    low, high = 1.0, 10.0  # of w = exp(sigma^2); skewness = (w + 2) sqrt(w - 1)
    for _ in range(100):
        w = (low + high) / 2
        low, high = (w, high) if (w + 2) * np.sqrt(w - 1) < skewness else (low, w)
    return w**4 + 2 * w**3 + 3 * w**2 - 6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", default="halo_maps.h5")
    arguments = parser.parse_args()
    kappa = np.stack(list(maps(arguments.samples, arguments.seed)))
    with h5py.File(arguments.output, "w") as file:
        data = file.create_dataset("simulation/kappa", data=kappa, chunks=(1, SIDE, SIDE))
        data.attrs["units"] = "1"
    x = (kappa.astype(float) - kappa.mean()) / kappa.std()
    skewness, kurtosis = (x**3).mean(), (x**4).mean() - 3
    print(f"{len(kappa)} maps: std {kappa.std():.4f}, from {kappa.min():.3f} to {kappa.max():.3f}, skewness {skewness:.2f}, "
          f"excess kurtosis {kurtosis:.1f} (lognormal of this skewness: {lognormal_kurtosis(skewness):.1f})")


if __name__ == "__main__":
    main()
