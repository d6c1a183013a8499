#!/usr/bin/env python3
"""Compares patches of dust that models made with the test patches of `umbriel cutouts`, in a table, and in a picture.

  benchmarks/generative/compare_patches.py patches.h5 flow=new.h5 normal=plain.h5 --pixel-arcmin 7.5 --picture new.png

Every patch is standardised: less its mean, over its deviation. For each ensemble the table has the mean power over that
of the test patches in bands of multipoles, behind C1 apodisation of one degree; by how much the quartiles, over patches,
of the density in 20 bins from -3 to 5 differ from those of the test patches, at most; and the mean density over theirs,
the lowest and the highest ratio among the bins where theirs is above two per cent of its peak. The training patches stand
beside them: what differs there is the scatter of patches of sky. Needs NumPy and h5py, for the picture matplotlib.
"""
import argparse

import h5py
import numpy as np

BANDS = np.array([68, 135, 225, 360, 540, 810, 1125, 1440])
DENSITY = np.linspace(-3, 5, 21)


def three_dimensional(file):
    """The first array of maps in a file."""
    found = []
    file.visititems(lambda name, item: found.append(name) if getattr(item, "ndim", 0) == 3 else None)
    return file[found[0]][:].astype(float)


def measure(patches, pixel_arcmin):
    """Patches, standardised, and of each its band powers and its density."""
    patches = patches - patches.mean((1, 2), keepdims=True)
    patches /= patches.std((1, 2), keepdims=True)
    n = patches.shape[-1]
    rise = np.clip((np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) * pixel_arcmin / 60, 0, 1)
    rise -= np.sin(2 * np.pi * rise) / (2 * np.pi)
    l = 2 * np.pi / np.radians(pixel_arcmin / 60) * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)[None])
    power = np.abs(np.fft.fft2(patches * np.outer(rise, rise))) ** 2
    bands = [power[:, (low <= l) & (l < high)].mean(1) for low, high in zip(BANDS[:-1], BANDS[1:])]
    density = [np.histogram(patch, DENSITY)[0] / patch.size / np.diff(DENSITY) for patch in patches]
    return {"patches": patches, "power": np.stack(bands, 1), "density": np.array(density)}


def table(test, ensembles):
    print("| | " + " | ".join(f"{low}–{high}" for low, high in zip(BANDS[:-1], BANDS[1:]))
          + " | quartiles of the density off by | mean density, where it is above 2 % of its peak |")
    print("|---" * (len(BANDS) + 2) + "|")
    quartiles = lambda density: np.quantile(density, (0.25, 0.5, 0.75), axis=0)
    mean = test["density"].mean(0)
    seen = mean > 0.02 * mean.max()
    for name, ensemble in ensembles.items():
        power = ensemble["power"].mean(0) / test["power"].mean(0)
        off = np.abs(quartiles(ensemble["density"]) - quartiles(test["density"])).max(1)
        ratio = ensemble["density"].mean(0)[seen] / mean[seen]
        print(f"| {name} | " + " | ".join(f"{p:.2f}" for p in power) + " | " + ", ".join(f"{q:.3f}" for q in off)
              + f" | {ratio.min():.2f} to {ratio.max():.2f} |")
    edges = DENSITY[:-1][seen][0], DENSITY[1:][seen][-1]
    relative = test["power"].std(0, ddof=1) / test["power"].mean(0) / len(test["power"]) ** 0.5
    print(f"\n{len(test['power'])} test patches; standard errors of their mean power, were patches independent: "
          + ", ".join(f"{100 * e:.1f}" for e in relative) + f" %; density from {edges[0]:g} to {edges[1]:g}")


def picture(path, test, ensembles):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    shown = {"test": test, **{name: e for name, e in ensembles.items() if name != "training"}}
    figure = plt.figure(figsize=(8.4, 1.45 * len(shown) + 2.8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.45 * len(shown), 2.8))
    for row, (name, ensemble) in zip(np.atleast_2d(above.subplots(len(shown), 6)), shown.items()):
        for axis, patch in zip(row, ensemble["patches"][:: max(1, len(ensemble["patches"]) // 6)]):
            axis.imshow(patch, origin="lower", vmin=-2, vmax=5, cmap="inferno", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8)
    left, right = below.subplots(1, 2)
    l, x = np.sqrt(BANDS[1:] * BANDS[:-1]), (DENSITY[1:] + DENSITY[:-1]) / 2
    for i, (name, ensemble) in enumerate(shown.items()):
        colour = "black" if name == "test" else f"C{i - 1}"
        left.plot(l, ensemble["power"].mean(0) / test["power"].mean(0), color=colour, label=name, lw=1.2)
        for q in (0.25, 0.5, 0.75):
            right.plot(x, np.quantile(ensemble["density"], q, axis=0), color=colour, lw=1.2 if q == 0.5 else 0.5)
    left.fill_between(l, 0.85, 1.15, color="0.92")
    left.set(xscale="log", xlabel="multipole", title="mean power over that of test patches", ylim=(0, 1.4))
    left.legend(fontsize=7)
    right.set(xlabel="value / deviation of the patch", title="density: median and quartiles over patches")
    for axis in (left, right):
        axis.title.set_fontsize(9)
    figure.savefig(path, dpi=85)
    Image.open(path).convert("RGB").quantize(160).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patches", help="what `umbriel cutouts` wrote")
    parser.add_argument("made", nargs="+", metavar="NAME=FILE", help="patches of models")
    parser.add_argument("--pixel-arcmin", type=float, required=True)
    parser.add_argument("--picture", metavar="FILE.png")
    arguments = parser.parse_args()
    with h5py.File(arguments.patches) as file:
        maps, split = file["patches/map"][:].astype(float), file["patches/split"][:]
    test = measure(maps[split == 2], arguments.pixel_arcmin)
    ensembles = {}
    for item in arguments.made:
        name, path = item.split("=", 1)
        with h5py.File(path) as file:
            ensembles[name] = measure(three_dimensional(file), arguments.pixel_arcmin)
    ensembles["training"] = measure(maps[split == 0], arguments.pixel_arcmin)
    table(test, ensembles)
    if arguments.picture:
        picture(arguments.picture, test, ensembles)


if __name__ == "__main__":
    main()
