#!/usr/bin/env python3
"""Is `umbriel inpaint` right about what it cannot see? Fills masks in test patches whose truth is known.

  benchmarks/generative/inpaint_calibration.py build/release/bin/umbriel --model dust.safetensors --patches patches.h5 \\
    --folder /tmp/inpaint --set inpaint.chains=16 --set inpaint.draws=8

Takes test patches that `umbriel cutouts` wrote, as far from one another in the file as can be; adds white noise of
`--noise` times the patch's standard deviation; hides pixels behind each of three masks: a hole of a quarter of the side,
stripes two pixels wide every eighth column, and 30 % of the pixels at random. For each mask the table has, over hidden
pixels: how many lie inside the central 68 % and 95 % of the draws, by their ranks; the root mean square error of the posterior mean, of
the most probable map and of Laplace's equation (diffusive filling), and in how many patches the mean is better than the
latter; the posterior's own deviation, which should be the error of the mean; the largest and the median nested R-hat;
and by how much the worst of L-BFGS's starts ended below the best. Errors are in units of the patch's deviation. In
brackets is the standard error over patches.

Results that are in the folder already are not made again. `--set` goes to every run.
"""
import argparse
import pathlib
import subprocess

import h5py
import numpy as np


def masks(side):
    hole = np.ones((side, side), np.float32)
    begin = 3 * side // 8
    hole[begin : begin + side // 4, begin : begin + side // 4] = 0
    stripes = np.ones((side, side), np.float32)
    stripes[:, np.arange(side) % 8 < 2] = 0
    random = (np.random.default_rng(1).random((side, side)) > 0.3).astype(np.float32)
    return {"hole": hole, "stripes": stripes, "random": random}


def run(arguments, folder, patches, chosen, name, mask):
    """Results of one mask, patch by patch, with the truth hidden behind it."""
    np.save(folder / f"{name}.npy", mask)
    for number in chosen:
        output = folder / f"{name}_{number}.h5"
        truth = patches[number]
        noise = arguments.noise * truth.std()
        noisy = truth + noise * np.random.default_rng([2, number]).standard_normal(truth.shape)
        if not output.exists():
            given = folder / f"{name}_{number}_noisy.h5"
            with h5py.File(given, "w") as file:
                file["patches/map"] = noisy[None].astype(np.float32)
            command = [arguments.program, "inpaint"]
            for setting in [f"inpaint.model={arguments.model}", f"inpaint.maps={given}", "inpaint.map=0",
                            f"inpaint.mask={folder / name}.npy", f"inpaint.noise={noise / noisy[mask == 1].std()}",
                            f"run.output={output}", *arguments.set]:
                command += ["--set", setting]
            subprocess.run(command, check=True)
        with h5py.File(output) as file:
            unit = file["data"].attrs["deviation"] / truth.std()
            hidden = (truth[mask == 0] - file["data"].attrs["mean"]) / file["data"].attrs["deviation"]
            draws = file["posterior/map"][:].reshape(-1, *mask.shape)[:, mask == 0]
            off = np.abs((np.sum(draws < hidden, axis=0) + 0.5) / (len(draws) + 1) - 0.5)  # of the truth's rank
            error = lambda fill: unit * np.sqrt(np.mean((fill - hidden) ** 2))
            yield {"68": np.mean(off < 0.34), "95": np.mean(off < 0.475),
                   "mean": error(draws.mean(0)), "maximum": error(file["reference/maximum"][:][mask == 0]),
                   "diffusive": error(file["reference/diffusive"][:][mask == 0]),
                   "deviation": unit * np.sqrt(np.mean(draws.var(0, ddof=1))),
                   "r_hat": file["sample_stats"].attrs["nested_r_hat"],
                   "spread": file["sample_stats"].attrs["spread_of_starts"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--model", required=True, help="file of `umbriel train vae`")
    parser.add_argument("--patches", required=True, help="file of `umbriel cutouts`")
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="for results")
    parser.add_argument("--count", type=int, default=20, help="test patches")
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--masks", nargs="+", default=["hole", "stripes", "random"])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(arguments.patches) as file:
        patches, split = file["patches/map"][:].astype(float), file["patches/split"][:]
    test = np.flatnonzero(split == 2)
    chosen = test[np.linspace(0, len(test) - 1, arguments.count).astype(int)]
    rows = ["| mask | 68 % | 95 % | error of the mean | diffusive | mean better in | most probable | deviation "
            "| nested R-hat, median and largest | spread of starts |", "|" + "---|" * 10]
    for name in arguments.masks:
        results = list(run(arguments, arguments.folder, patches, chosen, name, masks(patches.shape[1])[name]))
        of = {key: np.array([result[key] for result in results]) for key in results[0]}
        share = lambda key: f"{of[key].mean():.3f} ({of[key].std(ddof=1) / len(results) ** 0.5:.3f})"
        square = lambda key: f"{np.sqrt(np.mean(of[key] ** 2)):.3f}"
        rows.append(f"| {name} | {share('68')} | {share('95')} | {square('mean')} | {square('diffusive')} | "
                    f"{np.sum(of['mean'] < of['diffusive'])} of {len(results)} | {square('maximum')} | "
                    f"{square('deviation')} | {np.median(of['r_hat']):.3f}, {of['r_hat'].max():.3f} | "
                    f"{of['spread'].max():.1f} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
