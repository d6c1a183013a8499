#!/usr/bin/env python3
"""Strong and weak scaling of `umbriel sample` over MPI ranks.

  benchmarks/scaling/scaling.py build/release/bin/umbriel jobs/configs/demo.toml --ranks 1 2 4 8 --chains 64

Strong: the same number of chains on more ranks. Weak: --chains-a-rank chains on each rank. Each point is the median of
--repeats runs, of the seconds that the run's log gives for sampling alone (event "sampled": reading, references and
writing are not in it). Points go round in turn, so that a noisy spell hits all alike. Writes scaling.json and, where
matplotlib is installed, scaling.png.

Needs only python3 and mpirun. On a cluster give the launcher: --launcher "srun -n {ranks} -c 4", inside an allocation.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile


def sampled(log):
    """The last event "sampled" of a log of JSON lines."""
    found = None
    with open(log) as lines:
        for line in lines:
            entry = json.loads(line)
            if entry.get("event") == "sampled":
                found = entry
    if found is None:
        sys.exit(f"{log} holds no event \"sampled\": did the run end?")
    return found


def run(args, ranks, chains, folder):
    """One run; returns seconds of sampling and score evaluations."""
    output = pathlib.Path(folder) / f"scaling_{ranks}_{chains}.h5"
    command = shlex.split(args.launcher.format(ranks=ranks)) + [
        args.umbriel, "sample", args.config, "--set", f"sampler.chains={chains}", "--set", f"run.output={output}"]
    for setting in args.set:
        command += ["--set", setting]
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", "1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)} ended with code {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    log = pathlib.Path(str(output.with_suffix("")) + ".log.jsonl")
    if not log.exists():
        log = pathlib.Path(str(output) + ".log.jsonl")
    event = sampled(log)
    if event["ranks"] != ranks:
        sys.exit(f"asked for {ranks} ranks, the run had {event['ranks']}: is the launcher of the MPI it was built with?")
    for path in pathlib.Path(folder).glob(output.stem + "*"):
        path.unlink()
    return event["seconds"], event["score_evaluations"]


def measure(args):
    cases = [("strong", r, args.chains) for r in args.ranks] + [("weak", r, args.chains_a_rank * r) for r in args.ranks]
    times = {case: [] for case in cases}
    evaluations = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for repeat in range(args.repeats):
            for case in cases:
                seconds, evaluations[case] = run(args, case[1], case[2], folder)
                times[case].append(seconds)
                print(f"{case[0]:6}  ranks {case[1]:4}  chains {case[2]:6}  {seconds:9.3f} s  "
                      f"({repeat + 1} of {args.repeats})", flush=True)
    points = []
    for case in cases:
        kind, ranks, chains = case
        seconds = statistics.median(times[case])
        first = statistics.median(times[next(c for c in cases if c[0] == kind)])
        ratio = first / seconds if kind == "weak" else first * args.ranks[0] / (seconds * ranks)
        points.append({"kind": kind, "ranks": ranks, "chains": chains, "seconds": seconds, "all_seconds": times[case],
                       "score_evaluations": evaluations[case], "chains_per_second": chains / seconds,
                       "efficiency": ratio})
    return points


def revision(umbriel):
    done = subprocess.run([umbriel, "--version"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def plot(points, path):
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for kind, marker in (("strong", "o"), ("weak", "s")):
        of_kind = [p for p in points if p["kind"] == kind]
        ranks = [p["ranks"] for p in of_kind]
        rates = [p["chains_per_second"] for p in of_kind]
        line, = axes[0].loglog(ranks, rates, marker=marker, label=kind)
        axes[0].loglog(ranks, [rates[0] * r / ranks[0] for r in ranks], "--", color=line.get_color(), linewidth=0.8)
        axes[1].semilogx(ranks, [p["efficiency"] for p in of_kind], marker=marker, label=kind)
    axes[0].set(xlabel="ranks", ylabel="chains per second", title="throughput (dashed: ideal)")
    axes[1].set(xlabel="ranks", ylabel="efficiency", title="efficiency", ylim=(0, 1.1))
    axes[1].axhline(1, color="grey", linewidth=0.8, linestyle="--")
    ranks = sorted({p["ranks"] for p in points})
    for axis in axes:
        axis.set_xticks(ranks, labels=[str(r) for r in ranks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("umbriel", help="the program")
    parser.add_argument("config", help="configuration of `umbriel sample`")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--chains", type=int, default=32, help="chains of the strong scaling (default %(default)s)")
    parser.add_argument("--chains-a-rank", type=int, default=16, help="chains of the weak scaling (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings, as umbriel's")
    parser.add_argument("--launcher", default="mpirun -n {ranks}", help="default: %(default)s")
    parser.add_argument("--folder", default=None, help="for the runs' files; must be shared by all nodes")
    parser.add_argument("-o", "--output", default="scaling", help="stem of the .json and .png (default %(default)s)")
    args = parser.parse_args()
    if min(args.ranks + [args.chains, args.chains_a_rank, args.repeats]) < 1:
        parser.error("ranks, chains and repeats must be positive")
    args.ranks = sorted(set(args.ranks))
    args.umbriel = str(pathlib.Path(args.umbriel).resolve())
    result = {"umbriel": revision(args.umbriel), "date": datetime.datetime.now(datetime.timezone.utc).isoformat(),
              "host": platform.node(), "processors": os.cpu_count(), "config": args.config, "settings": args.set,
              "launcher": args.launcher}
    result["points"] = measure(args)
    pathlib.Path(args.output + ".json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {args.output}.json")
    plot(result["points"], args.output + ".png")


if __name__ == "__main__":
    main()
