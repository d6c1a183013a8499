#!/usr/bin/env python3
"""Compares maps that models made with simulated ones, in a table, and in pictures.

  benchmarks/generative/compare_maps.py halo_fresh.h5 flow=halo_flow.h5 diffusion=halo_diffusion.h5 \\
    --pixel-arcmin 2 --pictures docs/images/halo

Files are those of `umbriel simulate kappa` and `umbriel generate kappa`. For each ensemble the table has the largest
deviations from the simulated one: of the mean power in 12 bands of multipoles from 160 to 5,400, of its variance over
maps and of its correlations between bands; and, after smoothing by 2 arcmin, of the density in 20 bins from -2 to 4
standard deviations and of peak counts in 14 bins from -1 to 6. In brackets is the standard error of that one difference,
by the jackknife over 50 parts of each ensemble: the largest of n differences is expected to be two or three of them.
The lowest band has four modes a map and the highest peaks are rare, so that their rows may show noise alone. In the rows
beside them bands are joined, from the lowest up, until each has 64 modes, as those of `umbriel stats` have, and bins of
peaks, from the highest down, until the simulated counts are known to 1 %. Then the first four moments of the pixels. `--pictures PREFIX` draws PREFIX_maps.png and PREFIX_statistics.png, for which
it needs matplotlib.
"""
import argparse

import h5py
import numpy as np

SMOOTHING, PARTS = 2.0, 50  # arcmin; of the jackknife
BANDS = np.geomspace(160, 5400, 13)
DENSITY, PEAKS = np.linspace(-2, 4, 21), np.linspace(-1, 6, 15)


def load(path):
    with h5py.File(path) as file:
        return (file["generated/kappa"] if "generated" in file else file["simulation/kappa"])[:]


def measure(maps, pixel_arcmin, sigma):
    """Of each map: band powers, density and peak counts of the smoothed map in units of sigma (or of its own standard
    deviation, which comes last), and the first four moments."""
    n = maps.shape[-1]
    pixel = np.radians(pixel_arcmin / 60)
    kx, ky = 2 * np.pi * np.fft.rfftfreq(n) / pixel, 2 * np.pi * np.fft.fftfreq(n) / pixel
    l = np.hypot(ky[:, None], kx[None])
    weight = np.where((kx == 0) | (np.arange(kx.size) == n // 2), 1.0, 2.0)[None] * np.ones_like(l)
    band = np.digitize(l, BANDS) - 1
    window = np.stack([(band == b) * weight for b in range(len(BANDS) - 1)]).reshape(len(BANDS) - 1, -1)
    modes_of_bands = window.sum(1)
    window /= modes_of_bands[:, None]
    gauss = np.exp(-0.5 * (l * np.radians(SMOOTHING / 60)) ** 2)
    power, moments, smooth = [], [], []
    for part in np.array_split(maps, max(1, len(maps) // 200)):
        modes = np.fft.rfft2(part.astype(float))
        power.append((np.abs(modes) ** 2).reshape(len(part), -1) @ window.T * pixel**2 / n**2)
        moments.append(np.stack([(part.astype(float) ** p).mean((1, 2)) for p in (1, 2, 3, 4)], 1))
        smooth.append(np.fft.irfft2(modes * gauss, s=(n, n)).astype(np.float32))
    smooth = np.concatenate(smooth)
    sigma = sigma or smooth.std(dtype=float)
    density, peaks = [], []
    for x in smooth / sigma:
        density.append(np.histogram(x, DENSITY)[0] / x.size / np.diff(DENSITY))
        centre, top = x[1:-1, 1:-1], np.ones((n - 2, n - 2), bool)
        for dy in range(3):
            for dx in range(3):
                if dy != 1 or dx != 1:
                    top &= centre > x[dy : dy + n - 2, dx : dx + n - 2]
        peaks.append(np.histogram(centre[top], PEAKS)[0])
    return {"power": np.concatenate(power), "density": np.array(density), "peaks": np.array(peaks, float),
            "moments": np.concatenate(moments), "sigma": sigma, "modes": modes_of_bands}


def join(groups, weights):
    """The matrix that takes values of bins to means of groups, with these weights; of None, to sums."""
    matrix = np.zeros((sum(len(g) for g in groups), len(groups)))
    for i, group in enumerate(groups):
        matrix[group, i] = 1 if weights is None else weights[group] / weights[group].sum()
    return matrix


def join_bins(truth, models):
    """Adds "joined power" and "joined peaks" to each ensemble."""
    groups = [[]]
    for band, modes in enumerate(truth["modes"]):
        if groups[-1] and truth["modes"][groups[-1]].sum() >= 64:
            groups.append([])
        groups[-1].append(band)
    bands = join(groups, truth["modes"])
    counts, groups = truth["peaks"], []
    for peak in reversed(range(counts.shape[1])):
        known = groups and counts[:, groups[-1]].sum(1).std(ddof=1) / len(counts) ** 0.5 <= 0.01 * counts[
            :, groups[-1]].sum(1).mean()
        if known or not groups:
            groups.append([])
        groups[-1].insert(0, peak)
    peaks = join(groups[::-1], None)
    for ensemble in (truth, *models.values()):
        ensemble["joined power"], ensemble["joined peaks"] = ensemble["power"] @ bands, ensemble["peaks"] @ peaks
    print(f"power in {bands.shape[1]} joined bands, peaks in {peaks.shape[1]} joined bins, the highest from "
          f"{PEAKS[groups[0][0]]:g} standard deviations on\n")


def correlation(values):
    return np.corrcoef(values.T)[np.triu_indices(values.shape[1], 1)]


def shape(moments):
    """Mean, standard deviation, skewness and excess kurtosis."""
    m, m2, m3, m4 = moments.mean(0)
    variance = m2 - m**2
    third, fourth = m3 - 3 * m * m2 + 2 * m**3, m4 - 4 * m * m3 + 6 * m**2 * m2 - 3 * m**4
    return np.array([m, np.sqrt(variance), third / variance**1.5, fourth / variance**2 - 3])


def jackknife(values, statistic):
    """A statistic of all maps, and its standard error."""
    parts = np.array_split(np.arange(len(values)), PARTS)
    left = np.array([statistic(np.delete(values, part, 0)) for part in parts])
    return statistic(values), np.sqrt((PARTS - 1) / PARTS * ((left - left.mean(0)) ** 2).sum(0))


ROWS = [  # name, statistic of each map, what is taken over maps, its entries, relative
    ("mean power spectrum", "power", lambda v: v.mean(0), slice(None), True),
    ("beyond multipole 385", "power", lambda v: v.mean(0), slice(3, None), True),
    ("in bands of 64 modes or more", "joined power", lambda v: v.mean(0), slice(None), True),
    ("density", "density", lambda v: v.mean(0), slice(None), True),
    ("peaks", "peaks", lambda v: v.mean(0), slice(None), True),
    ("in bins known to 1 %", "joined peaks", lambda v: v.mean(0), slice(None), True),
    ("variance of band powers", "power", lambda v: v.var(0, ddof=1), slice(None), True),
    ("correlation of band powers", "power", correlation, slice(None), False),
]


def table(truth, models):
    print("| | " + " | ".join(models) + " |\n|---|" + "---|" * len(models))
    for name, which, statistic, entries, relative in ROWS:
        fresh, fresh_error = jackknife(truth[which], statistic)
        cells = []
        for model in models.values():
            made, error = jackknife(model[which], statistic)
            scale = fresh if relative else np.ones_like(fresh)
            difference = ((made - fresh) / scale)[entries]
            error = (np.hypot(error, fresh_error) / scale)[entries]
            worst = np.nanargmax(np.abs(difference))
            cells.append(f"{100 * abs(difference[worst]):.2g} % ({100 * error[worst]:.2g})" if relative
                         else f"{abs(difference[worst]):.3f} ({error[worst]:.3f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    fresh, fresh_error = jackknife(truth["moments"], shape)
    for i, name in enumerate(("mean", "standard deviation", "skewness", "excess kurtosis")):
        cells = []
        for model in models.values():
            made, error = jackknife(model["moments"], shape)
            cells.append(f"{made[i]:.3g} ({error[i]:.2g})")
        print(f"| {name}: simulated {fresh[i]:.3g} ({fresh_error[i]:.2g}) | " + " | ".join(cells) + " |")


def pictures(prefix, truth, models, maps, pixel_arcmin):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    columns = 6
    figure, axes = plt.subplots(len(maps), columns, figsize=(columns * 1.35, len(maps) * 1.42), layout="constrained")
    low, high = -2 * truth["sigma"], 6 * truth["sigma"]
    for row, (name, some) in zip(axes, maps.items()):
        for axis, kappa in zip(row, some):
            axis.imshow(kappa, origin="lower", vmin=low, vmax=high, cmap="inferno", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
    figure.savefig(prefix + "_maps.png", dpi=85)
    Image.open(prefix + "_maps.png").convert("RGB").quantize(64).save(prefix + "_maps.png", optimize=True)

    middle = lambda edges: (edges[1:] + edges[:-1]) / 2
    panels = [("power", middle(BANDS), "multipole", "mean power", lambda v: v.mean(0)),
              ("power", middle(BANDS), "multipole", "variance of power over maps", lambda v: v.var(0, ddof=1)),
              ("density", middle(DENSITY), "convergence / standard deviation", "density", lambda v: v.mean(0)),
              ("peaks", middle(PEAKS), "height / standard deviation", "peak counts", lambda v: v.mean(0))]
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 5.6), layout="constrained")
    for axis, (which, x, label, title, statistic) in zip(axes.flat, panels):
        fresh, fresh_error = jackknife(truth[which], statistic)
        axis.fill_between(x, 1 - fresh_error / fresh, 1 + fresh_error / fresh, color="0.85", label="simulated")
        axis.axhline(1, color="0.5", lw=0.8)
        for i, (name, model) in enumerate(models.items()):
            made, error = jackknife(model[which], statistic)
            shift = x * 1.015 ** (i - 1) if which == "power" else x + 0.06 * (i - 1)
            axis.errorbar(shift, made / fresh, error / fresh, fmt=".", ms=4, lw=0.9, color=f"C{i}", label=name)
        axis.set(xlabel=label, title=title + ": ratio to simulated")
        axis.title.set_fontsize(9)
        if which == "power":
            axis.set_xscale("log")
            axis.set_xticks([200, 500, 1000, 2000, 5000], ["200", "500", "1,000", "2,000", "5,000"], minor=False)
            axis.tick_params(axis="x", which="minor", labelbottom=False)
    axes[1, 0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.savefig(prefix + "_statistics.png", dpi=85)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulated", help="maps that no model has seen")
    parser.add_argument("made", nargs="+", metavar="NAME=FILE", help="maps of models")
    parser.add_argument("--pixel-arcmin", type=float, required=True)
    parser.add_argument("--pictures", metavar="PREFIX")
    arguments = parser.parse_args()
    simulated = load(arguments.simulated)
    truth = measure(simulated, arguments.pixel_arcmin, None)
    models, maps = {}, {"simulated": simulated[:6]}
    for item in arguments.made:
        name, path = item.split("=", 1)
        made = load(path)
        maps[name] = made[:6]
        models[name] = measure(made, arguments.pixel_arcmin, truth["sigma"])
    join_bins(truth, models)
    table(truth, models)
    if arguments.pictures:
        pictures(arguments.pictures, truth, models, maps, arguments.pixel_arcmin)


if __name__ == "__main__":
    main()
