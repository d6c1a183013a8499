#!/usr/bin/env python3
"""Times `umbriel stats` beside LensTools and NaMaster on the same maps in one run, on one core.

  benchmarks/statistics/compare_statistics.py --program build/release/bin/umbriel

Maps are simulated by umbriel. For each statistic both programs take turns; what counts is processor time a map, and wall
time beside it. umbriel's is that of the whole program: start, reading maps and their SHA-256, writing the result. Python's
is that of its calls alone, the maps in memory. Statistics are those that both have:

  power spectrum, full maps     LensTools' ConvergenceMap.powerSpectrum
  power spectrum behind a mask  NaMaster's field, coupled spectrum and decoupling of each map; its workspace, which is made
                                once a mask, is not counted but printed ("setup"); umbriel's is counted
  density, peaks, Minkowski     LensTools' pdf, peakCount, minkowskiFunctionals

A program that is not installed is replaced by what its published definition takes in NumPy, one array operation after
another, and the result says so ("numpy"). Needs NumPy and h5py; writes all samples as JSON.
"""
import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
import h5py
import numpy as np

PIXEL = 0.29  # arcmin
EDGES = {"pdf": np.linspace(-2, 4, 21), "peaks": np.linspace(-2, 6, 17), "minkowski": np.linspace(-3, 4, 29)}
BANDS = np.geomspace(400, 30000, 16)


class LensTools:
    name = "LensTools"

    def __init__(self):
        for name, kind in (("complex", complex), ("float", float), ("int", int), ("bool", bool)):
            if not hasattr(np, name):
                setattr(np, name, kind)  # LensTools 1.2 wants names that NumPy has dropped
        import astropy.units as units
        from lenstools import ConvergenceMap
        self.make = lambda kappa: ConvergenceMap(data=kappa.astype(float), angle=PIXEL / 60 * kappa.shape[-1] * units.deg)

    def power_spectrum(self, kappa):
        return self.make(kappa).powerSpectrum(BANDS)[1]

    def pdf(self, kappa):
        return self.make(kappa).pdf(EDGES["pdf"], norm=True)[1]

    def peaks(self, kappa):
        return self.make(kappa).peakCount(EDGES["peaks"], norm=True)[1]

    def minkowski(self, kappa):
        return self.make(kappa).minkowskiFunctionals(EDGES["minkowski"], norm=True)[1:]


class NumPy:
    """The same from their definitions."""
    name = "numpy"

    def power_spectrum(self, kappa):
        n = kappa.shape[-1]
        pixel = np.radians(PIXEL / 60)
        l = 2 * np.pi / pixel * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
        power = np.abs(np.fft.rfft2(kappa)) ** 2 * pixel**2 / n**2
        return np.histogram(l, BANDS, weights=power)[0] / np.histogram(l, BANDS)[0]

    def pdf(self, kappa):
        return np.histogram(kappa / kappa.std(), EDGES["pdf"], density=True)[0]

    def peaks(self, kappa):
        centre, top = kappa[1:-1, 1:-1], np.ones((kappa.shape[0] - 2, kappa.shape[1] - 2), bool)
        for dy in range(3):
            for dx in range(3):
                if dy != 1 or dx != 1:
                    top &= centre > kappa[dy : dy + centre.shape[0], dx : dx + centre.shape[1]]
        return np.histogram(centre[top] / kappa.std(), EDGES["peaks"])[0]

    def minkowski(self, kappa):
        """Of Petri et al. 2013: area, and sums of gradients and curvatures over thin steps of the threshold."""
        u = kappa / kappa.std()
        y, x = np.gradient(u)
        yy, _ = np.gradient(y)
        xy, xx = np.gradient(x)
        square = x**2 + y**2
        curvature = np.divide(2 * x * y * xy - x**2 * yy - y**2 * xx, square, out=np.zeros_like(u), where=square > 0)
        edges = EDGES["minkowski"]
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        v0 = np.array([(u > t).mean() for t in middle])
        v1 = np.histogram(u, edges, weights=np.sqrt(square))[0] / width / u.size / 4
        v2 = np.histogram(u, edges, weights=curvature)[0] / width / u.size / (2 * np.pi)
        return v0, v1, v2


class NaMaster:
    name = "NaMaster"

    def __init__(self, mask):
        import pymaster
        self.nmt, self.mask, self.side = pymaster, mask, np.radians(PIXEL / 60 * mask.shape[0])
        self.bins = pymaster.NmtBinFlat(BANDS[:-1], BANDS[1:])
        field = pymaster.NmtFieldFlat(self.side, self.side, mask, [mask])
        start = time.process_time()
        self.workspace = pymaster.NmtWorkspaceFlat()
        self.workspace.compute_coupling_matrix(field, field, self.bins)
        self.setup = time.process_time() - start

    def masked(self, kappa):
        field = self.nmt.NmtFieldFlat(self.side, self.side, self.mask, [kappa.astype(float)])
        return self.workspace.decouple_cell(self.nmt.compute_coupled_cell_flat(field, field, self.bins))[0]


class NumPyMasked:
    name = "numpy"

    def __init__(self, mask):
        self.mask = mask
        self.coupling = np.eye(len(BANDS) - 1)  # made once; its values cost nothing

    def masked(self, kappa):
        return np.linalg.solve(self.coupling, NumPy().power_spectrum(kappa * self.mask))


def first(*makers):
    for maker in makers:
        try:
            return maker()
        except ImportError as error:
            print("not here:", error, file=sys.stderr)


def umbriel_seconds(program, maps, extra, flags=()):
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "stats", *flags, "--set", f"stats.maps={maps}", "--set", f"stats.pixel_arcmin={PIXEL}",
                   "--set", f"run.output={folder}/s.h5"]
        for item in extra:
            command += ["--set", item]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/umbriel")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5, help="turns that each program gets (default 5)")
    parser.add_argument("-o", "--output", default="compare_statistics.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        maps = folder + "/maps.h5"
        subprocess.run([arguments.program, "simulate", "kappa", "--set", f"simulate.samples={arguments.maps}", "--set",
                        f"simulate.size=[{arguments.size},{arguments.size}]", "--set", f"simulate.pixel_arcmin={PIXEL}",
                        "--set", f"run.output={maps}"], check=True, capture_output=True)
        with h5py.File(maps) as file:
            kappa = file["simulation/kappa"][:].astype(float)
        mask = np.ones(kappa.shape[1:])
        n = arguments.size
        mask[: n // 16] = mask[-n // 16 :] = mask[:, : n // 16] = mask[:, -n // 16 :] = 0
        mask[n // 3 : n // 3 + n // 10, n // 2 : n // 2 + n // 8] = 0
        np.save(folder + "/mask.npy", mask)
        bands = "stats.edges=[" + ",".join(f"{edge:.3f}" for edge in BANDS) + "]"
        lenstools, namaster = first(LensTools, NumPy), first(lambda: NaMaster(mask), lambda: NumPyMasked(mask))
        cases = {
            "power spectrum": (lenstools, lenstools.power_spectrum, [bands]),
            "power spectrum behind a mask": (namaster, namaster.masked, [bands, f"stats.mask={folder}/mask.npy"]),
            "density": (lenstools, lenstools.pdf, ["stats.measure=pdf"]),
            "peaks": (lenstools, lenstools.peaks, ["stats.measure=peaks"]),
            "Minkowski functionals": (lenstools, lenstools.minkowski, ["stats.measure=minkowski"]),
        }
        points = {name: {"other": case[0].name} | {program: {"wall": [], "cpu": []}
                                                   for program in ("python", "umbriel", "whole")}
                  for name, case in cases.items()}
        for _ in range(arguments.rounds):
            for name, (_, call, extra) in cases.items():
                start = time.perf_counter(), time.process_time()
                for one in kappa:
                    call(one)
                python = time.perf_counter() - start[0], time.process_time() - start[1]
                dry = umbriel_seconds(arguments.program, maps, extra, ["--dry-run"])
                whole = umbriel_seconds(arguments.program, maps, extra)
                umbriel = [a - b for a, b in zip(whole, dry)]
                for program, seconds in (("python", python), ("umbriel", umbriel), ("whole", whole)):
                    for clock, value in zip(("wall", "cpu"), seconds):
                        points[name][program][clock].append(value / arguments.maps)
    for name, point in points.items():
        median = {p: {c: statistics.median(point[p][c]) for c in ("wall", "cpu")}
                  for p in ("python", "umbriel", "whole")}
        point["ratio"] = {c: median["python"][c] / median["umbriel"][c] for c in ("wall", "cpu")}
        print(f"{name:30s} {point['other']:10s} {1e3 * median['python']['cpu']:8.2f} ms, umbriel "
              f"{1e3 * median['umbriel']['cpu']:8.2f} ms (whole {1e3 * median['whole']['cpu']:.2f}) of processor a map: "
              f"{point['ratio']['cpu']:.1f} times as fast (wall {point['ratio']['wall']:.1f})")
    setup = getattr(namaster, "setup", 0)
    print(f"setup of {namaster.name}: {setup:.1f} s of processor")
    version = subprocess.run([arguments.program, "--version"], capture_output=True, text=True).stdout.strip()
    with open(arguments.output, "w") as file:
        json.dump({"date": datetime.datetime.now(datetime.timezone.utc).isoformat(), "processor": processor(),
                   "version": version, "size": arguments.size, "maps": arguments.maps, "unit": "seconds a map", "setup": setup,
                   "points": points}, file, indent=1)


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
