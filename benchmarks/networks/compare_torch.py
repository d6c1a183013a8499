#!/usr/bin/env python3
"""Times umbriel's published score network and a PyTorch network of the same shape in one run.

  benchmarks/networks/compare_torch.py --network score_unet.py --program build/release/bin/network_time

The file given by --network defines class ScoreUNet(nn.Module): ScoreUNet(), called as net(x, sigma) with x [N, 2, H, W]
and sigma [N, 1, 1, 1]. Timed are the evaluation of maps (no gradients; umbriel's network frozen), and training steps
(forward, gradient of mean(y^2), backward, Adam), each on one core and on two: PyTorch with as many threads, umbriel
with as many ranks under mpirun. Both run on the same cores, in turn, so that a noisy spell of the machine hits both;
seconds are those of a map, the ratio is PyTorch's median over umbriel's. Writes all samples as JSON.

With --device cuda both run on the first NVIDIA device, in each precision of --precisions; umbriel is then to be built for
CUDA. PyTorch's bfloat16 is autocast, its tf32 the setting of cuDNN and of matrix products.

Run it with a Python that has PyTorch, on an idle machine. On a busy one, --clock cpu compares processor time, which
makes sense on one core only.
"""
import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time

import torch


def load_network(path):
    spec = importlib.util.spec_from_file_location("peer_network", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ScoreUNet()


class TorchRun:
    """One pass of the network; memory is laid out channels last, which is PyTorch's faster layout on processors."""

    def __init__(self, args, case):
        self.case = case
        self.device = args.device
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = case["precision"] != "float32"
        torch.backends.cudnn.benchmark = True
        self.cast = torch.autocast(args.device, torch.bfloat16, enabled=case["precision"] == "bfloat16")
        self.net = load_network(args.network).to(args.device).to(memory_format=torch.channels_last)
        self.net.train(case["pass"] == "training")
        shape = (case["batch"], 2, case["size"], case["size"])
        self.x = torch.randn(shape, device=args.device).to(memory_format=torch.channels_last)
        self.sigma = torch.full((case["batch"], 1, 1, 1), 0.1, device=args.device)
        self.optimiser = torch.optim.Adam(self.net.parameters(), 1e-4)
        self.call = torch.compile(self.net, mode=args.compile_mode) if args.compile else self.net

    def step(self):
        if self.case["pass"] == "training":
            self.optimiser.zero_grad()
            with self.cast:
                loss = (self.call(self.x, self.sigma) ** 2).mean()
            loss.backward()
            self.optimiser.step()
        else:
            with torch.no_grad(), self.cast:
                self.call(self.x, self.sigma)
        if self.device == "cuda":
            torch.cuda.synchronize()

    def samples(self, args):
        for _ in range(args.warm_up):
            self.step()
        wall, cpu = [], []
        for _ in range(args.repeats):
            start = time.perf_counter(), time.process_time()
            self.step()
            wall.append((time.perf_counter() - start[0]) / self.case["batch"])
            cpu.append((time.process_time() - start[1]) / self.case["batch"])
        return {"wall": wall, "cpu": cpu}


def serve(args):
    """A process of its own for each case: what one leaves in the allocator's hands changes how fast another runs."""
    case = json.loads(args.serve)
    torch.set_num_threads(case["cores"])
    run = TorchRun(args, case)
    run.step()  # compiles where that is asked for, all processes side by side
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(run.samples(args)), flush=True)


def start_server(args, case, cores):
    if args.device == "cpu":
        os.sched_setaffinity(0, cores[:case["cores"]])
    return subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--serve", json.dumps(case)], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def torch_samples(server):
    server.stdin.write("go\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        sys.exit("the process that times PyTorch ended")
    return json.loads(answer)


def umbriel_samples(args, case):
    launcher = shlex.split(args.launcher.format(ranks=case["cores"])) if case["cores"] > 1 else []
    command = launcher + [args.program, "--pass", case["pass"], "--size", case["size"], "--batch", case["batch"],
                          "--precision", case["precision"], "--repeats", args.repeats, "--warm-up", args.warm_up]
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_hwloc_base_binding_policy="none")
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command} ended with code {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if result["ranks"] != case["cores"]:
        sys.exit(f"asked for {case['cores']} ranks, got {result['ranks']}: is the launcher of the MPI it was built with?")
    for clock in ("wall", "cpu"):
        result[clock] = [seconds / result["maps"] for seconds in result[clock]]
    return result


def described(case):
    return (f"{case['pass']:8} {case['size']:4}^2  batch {case['batch']:3}  {case['precision']:8}  "
            f"cores {case['cores']}")


def measure(args, cases):
    cores = sorted(os.sched_getaffinity(0))
    servers = [start_server(args, case, cores) for case in cases]
    for server in servers:
        if server.stdout.readline().strip() != "ready":
            sys.exit("a process that times PyTorch ended")
    points = [dict(case, torch={"wall": [], "cpu": []}, umbriel={"wall": [], "cpu": []}) for case in cases]
    for round_ in range(args.rounds):
        for case, server, point in zip(cases, servers, points):
            if args.device == "cpu":
                os.sched_setaffinity(0, cores[:case["cores"]])
            theirs = torch_samples(server)
            ours = umbriel_samples(args, case)
            for clock in ("wall", "cpu"):
                point["torch"][clock] += theirs[clock]
                point["umbriel"][clock] += ours[clock]
            point["umbriel"]["flops_a_map"] = ours["flops"] / ours["maps"]
            point["program"] = {key: ours[key] for key in ("version", "revision", "libraries", "device")}
            t, u = (statistics.median(samples[args.clock]) for samples in (theirs, ours))
            print(f"{described(case)}  "
                  f"torch {t:.5f}  umbriel {u:.5f} s a map  ratio {t / u:.2f}  ({round_ + 1} of {args.rounds})", flush=True)
    for server in servers:
        server.stdin.close()
        server.wait()
    for point in points:
        t, u = (statistics.median(point[who][args.clock]) for who in ("torch", "umbriel"))
        point.update(torch_seconds=t, umbriel_seconds=u, ratio=t / u)
        point["umbriel"]["gflops_a_second"] = 1e-9 * point["umbriel"]["flops_a_map"] / u
    return points


def processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, metavar="FILE.py", help="defines class ScoreUNet in PyTorch")
    parser.add_argument("--program", default="build/release/bin/network_time",
                        help="built with -DUMBRIEL_BUILD_BENCHMARKS=ON (default %(default)s)")
    parser.add_argument("--passes", nargs="+", choices=["frozen", "training"], default=["frozen", "training"])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=360, help="side of the maps evaluated (default %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="maps in an evaluation (default %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=["float32", "tf32", "bfloat16"], default=["float32"])
    parser.add_argument("--training-size", type=int, default=64, help="default %(default)s")
    parser.add_argument("--training-batch", type=int, default=16, help="maps in a step (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each program gets (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="samples in a turn (default %(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="before them, not timed (default %(default)s)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="of medians and ratios")
    parser.add_argument("--compile", action="store_true", help="run the PyTorch network through torch.compile")
    parser.add_argument("--compile-mode", default="default", help="its mode (default %(default)s)")
    parser.add_argument("--launcher", default="mpirun -n {ranks}", help="default: %(default)s")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", default="compare_torch.json", help="default %(default)s")
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    available = len(os.sched_getaffinity(0))
    if max(args.cores) > available:
        parser.error(f"{max(args.cores)} cores asked for, {available} are there")
    if args.device == "cuda":
        args.cores = [1]
    if min(args.cores + args.batch + [args.rounds, args.repeats, args.training_batch]) < 1:
        parser.error("cores, rounds, repeats and batches must be positive")
    if args.clock == "cpu" and max(args.cores) > 1:
        parser.error("processor time compares programs on one core: give --cores 1")
    args.program = str(pathlib.Path(args.program).resolve())
    cases = [{"pass": p, "size": args.size if p == "frozen" else args.training_size, "batch": batch, "cores": cores,
              "precision": precision}
             for p in args.passes for batch in (args.batch if p == "frozen" else [args.training_batch])
             for precision in args.precisions for cores in args.cores]
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(), "processor": processor(),
              "processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version(),
              "torch": torch.__version__, "torch_capability": torch.backends.cpu.get_cpu_capability(),
              "torch_compile": args.compile_mode if args.compile else None, "clock": args.clock, "unit": "seconds a map"}
    if args.device == "cuda":
        result["device"] = torch.cuda.get_device_name()
        result["cudnn"] = torch.backends.cudnn.version()
    result["points"] = measure(args, cases)
    pathlib.Path(args.output).write_text(json.dumps(result, indent=2) + "\n")
    print()
    for p in result["points"]:
        print(f"{described(p)}: torch {p['torch_seconds']:.5f}, "
              f"umbriel {p['umbriel_seconds']:.5f} s a map ({p['umbriel']['gflops_a_second']:.0f} GFLOP/s): "
              f"{p['ratio']:.2f} times as fast")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
