#!/usr/bin/env python3
"""Compares pipeline-learn with PyTorch on this machine, and prints a Markdown table.

    python3 benches/run.py [--device cpu] [--threads 2] [--rounds 5] [--only PART ...] [--output table.md]

`--output` has what is known after each round, so that a run that is stopped loses no lap.

Needs cargo and libtorch (`cargo xtask setup`), and for `--python` an interpreter with the packages of
`benches/README.md`. Both sides of a comparison are loaded and warm before the first lap; then they take turns, a lap each,
for as many rounds, so that all suffer alike from what else the machine does. A rate is the median of the laps. Beside it
is what a second of one core's time did: on a machine that others use too, that says more than the clock.
"""

import argparse
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "benches" / "pytorch"

# Memory that a step frees is kept for the next one, in huge pages. `pipeline` starts its trainings like this
# (src/pipeline/launcher.rs); PyTorch gets it, too, in every way that is not "plain".
KEEP_MEMORY = [
    "env",
    "GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:"
    "glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1",
]

# The aims of docs/performance.md: of which comparison, who, than whom, how many times as fast at least. Where it is than nobody, so
# much a second.
AIMS = {
    "cpu": [
        ("fine-tuning resnet18", "pipeline, f32", "PyTorch, channels-last", 1.0),
        ("fine-tuning resnet18", "pipeline, bf16", "PyTorch, plain", 2.0),
        ("fine-tuning resnet18", "pipeline, bf16", "PyTorch, bf16", 1.0),
        ("fine-tuning resnet50", "pipeline, f32", "PyTorch, channels-last", 1.0),
        ("fine-tuning resnet50", "pipeline, bf16", "PyTorch, plain", 2.0),
        ("fine-tuning resnet50", "pipeline, bf16", "PyTorch, bf16", 1.0),
        ("Meta-Weight-Net", "pipeline, f32", "PyTorch, higher, plain, memory kept", 1.6),
        ("Meta-Weight-Net", "pipeline, bf16", "PyTorch, higher, plain, memory kept", 3.0),
        ("SimCLR", "pipeline, f32, end to end", "PyTorch, channels-last", 1.0),
        ("SimCLR", "pipeline, f32, end to end", "PyTorch, compiled", 1.0),
        ("SimCLR", "pipeline, bf16, end to end", "PyTorch, bf16", 1.0),
        ("SimCLR", "pipeline, bf16, end to end", "PyTorch, compiled-bf16", 1.0),
        ("augmentation", "pipeline", None, 20_000),
    ],
    "cuda": [
        ("fine-tuning resnet18", "pipeline, bf16", "PyTorch, plain", 3.0),
        ("fine-tuning resnet18", "pipeline, tf32", "PyTorch, plain", 2.0),
        ("fine-tuning resnet18", "pipeline, f32", "PyTorch, no-tf32", 1.0),
        ("fine-tuning resnet18", "pipeline, tf32", "PyTorch, compiled-graphs", 1.0),
        ("fine-tuning resnet18", "pipeline, bf16", "PyTorch, compiled-graphs-bf16", 1.0),
        ("Meta-Weight-Net", "pipeline, tf32", "PyTorch, higher, plain, memory kept", 5.0),
        ("Meta-Weight-Net", "pipeline, bf16", "PyTorch, higher, plain, memory kept", 5.0),
        ("SimCLR", "pipeline, f32, end to end", "pipeline, f32, without making views", 0.95),
        ("SimCLR", "pipeline, tf32, end to end", "pipeline, tf32, without making views", 0.95),
        ("SimCLR", "pipeline, bf16, end to end", "pipeline, bf16, without making views", 0.95),
        ("SimCLR", "pipeline, tf32, end to end", "PyTorch, compiled", 1.0),
        ("SimCLR", "pipeline, bf16, end to end", "PyTorch, bf16", 1.0),
        ("SimCLR", "pipeline, bf16, end to end", "PyTorch, compiled-bf16", 1.0),
    ],
}


class Missing(Exception):
    """Something that a comparison needs is missing."""


def main():
    settings = arguments()
    ours = [*KEEP_MEMORY, build("throughput", settings)]
    facts, rows, aims = description(settings), [], []
    for title, unit, competitors in comparisons(settings, ours):
        competitors = {name: command for name, command in competitors.items() if is_chosen(name, settings.programs)}
        if not competitors or not is_chosen(title, settings.only):
            continue
        print(f"# {title}", file=sys.stderr, flush=True)
        for rounds, laps_by_name in enumerate(take_turns(competitors, settings.rounds)):
            known = rows + [*table_rows(title, unit, laps_by_name)], aims + [*verdicts(title, laps_by_name, settings)]
            so_far = [f"UNFINISHED: {title}, {rounds} of {settings.rounds} rounds"] * (rounds < settings.rounds)
            write(as_text(known[0], known[1] + so_far, facts), settings.output)
        rows, aims = known
    print(as_text(rows, aims, facts))


def is_chosen(name, parts):
    return not parts or any(part.lower() in name.lower() for part in parts)


def write(text, output):
    """Replaces the table as a whole: whoever stops this program finds the last one or this one."""
    if output:
        unfinished = output.with_name(output.name + ".new")
        unfinished.write_text(text + "\n")
        unfinished.replace(output)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="laps of each competitor")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a lap, about")
    parser.add_argument("--batch", type=int, default=100, help="images a step of fine-tuning and of Meta-Weight-Net")
    parser.add_argument("--simclr-batch", type=int, help="images a step of pre-training (CPU: 64, GPU: 1024)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with PyTorch")
    parser.add_argument("--compile", action="store_true", help="with torch.compile too (slow to start on a CPU)")
    parser.add_argument("--eager", action="store_true", help="on a GPU: ours without CUDA graphs too")
    parser.add_argument("--bf16", action="store_true", help="bf16 too; always on a GPU")
    parser.add_argument("--built", type=pathlib.Path, help="a folder with the benches of this project, to build nothing")
    parser.add_argument("--only", nargs="*", help="comparisons with this in their title")
    parser.add_argument("--programs", nargs="*", help="programs with this in their name")
    parser.add_argument("--output", type=pathlib.Path)
    settings = parser.parse_args()
    settings.bf16 |= settings.device != "cpu"
    settings.tf32 = settings.device != "cpu"
    settings.simclr_batch = settings.simclr_batch or (64 if settings.device == "cpu" else 1024)
    return settings


def comparisons(settings, ours):
    """Title, unit and competitors, by name; the first one is what the others are compared with."""
    common = ["--threads", settings.threads, "--device", settings.device, "--seconds", settings.seconds]

    def python(script, *more):
        return [settings.python, SCRIPTS / script, *common, *more]

    def add_ours(competitors, name, work, *more):
        competitors[f"pipeline, {name}"] = [*ours, work, *common, *more]
        if settings.eager and settings.device != "cpu":
            competitors[f"pipeline, {name}, without CUDA graphs"] = [*ours, work, *common, *more, "--graph", "off"]

    precisions = ["f32"] + ["tf32"] * settings.tf32 + ["bf16"] * settings.bf16
    ways = ["plain", "channels-last"]
    ways += ["no-tf32"] * settings.tf32 + ["compiled"] * settings.compile
    ways += ["bf16"] * settings.bf16 + ["compiled-bf16"] * (settings.bf16 and settings.compile)
    graphs = ["compiled-graphs", "compiled-graphs-bf16"] if settings.compile and settings.device != "cpu" else []
    for architecture in ["resnet18", "resnet50"]:
        of = ["--architecture", architecture, "--batch", settings.batch]
        competitors = {}
        for way in ways + graphs:
            start = [] if way == "plain" else KEEP_MEMORY
            competitors[f"PyTorch, {way}"] = [*start, *python("fine_tune.py", *of, "--way", way)]
        for precision in precisions:
            add_ours(competitors, precision, "fine-tune", *of, "--precision", precision)
        yield f"fine-tuning {architecture}, batch {settings.batch}", "images/s", competitors

    of = ["--batch", settings.batch]
    competitors = {"PyTorch, higher": python("meta_weight_net.py", *of)}
    for way in ["plain"] + ["no-tf32"] * settings.tf32 + ["bf16"] * settings.bf16:
        command = python("meta_weight_net.py", *of, "--way", way)
        competitors[f"PyTorch, higher, {way}, memory kept"] = [*KEEP_MEMORY, *command]
    for precision in precisions:
        add_ours(competitors, precision, "meta-weight-net", *of, "--precision", precision)
    yield f"Meta-Weight-Net resnet18, batch {settings.batch}", "images/s", competitors

    of = ["--architecture", "resnet18", "--batch", settings.simclr_batch]
    competitors = {}
    for way in ways:
        if way != "no-tf32":
            start = [] if way == "plain" else KEEP_MEMORY
            competitors[f"PyTorch, {way}"] = [*start, *python("simclr.py", *of, "--way", way)]
    for precision in precisions:
        for work, name in [("simclr-compute", "without making views"), ("simclr", "end to end")]:
            add_ours(competitors, f"{precision}, {name}", work, *of, "--precision", precision)
    yield f"SimCLR resnet18, {settings.simclr_batch} images a step", "views/s", competitors

    one_thread = [*common, "--threads", 1]
    yield "augmentation, one core" if settings.device == "cpu" else "augmentation", "views/s", {
        "torchvision, PIL": [settings.python, SCRIPTS / "augment.py", *one_thread, "--device", "cpu"],
        "kornia": [*KEEP_MEMORY, settings.python, SCRIPTS / "augment.py", *one_thread, "--library", "kornia", "--batch", 512],
        "pipeline": [*ours, "augment", *one_thread, "--batch", 512],
    }


def build(bench, settings):
    """Compiles a bench, unless it is there already, and returns its program."""
    if settings.built:
        return settings.built / bench
    command = ["cargo", "build", "--release", "-p", "pipeline-learn", "--bench", bench]
    command += ["--message-format=json-render-diagnostics"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in lines.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == bench:
            return message["executable"]
    raise Missing(f"cargo built no {bench}")


class Lap(typing.NamedTuple):
    """How much was done."""

    per_second: float
    per_core_second: float | None


def core_seconds(pid):
    """The processor's time that a process and its children have used; 0 where the system does not tell."""
    ticks = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # After the name, which may hold anything, come the state, the parent and, from the 12th on, the times.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if pid in (int(folder.name), int(fields[1])):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Competitor:
    """A program that does a lap whenever it is asked for one."""

    def __init__(self, command):
        pipe = subprocess.PIPE
        command = [str(word) for word in command]
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.said, text=True, cwd=ROOT)
        self.laps = []

    def wait_until_warm(self):
        if self.process.stdout.readline().strip() != "ready":
            self.fail()

    def fail(self):
        self.process.kill()
        self.process.wait()
        self.said.seek(0)
        said = self.said.read()
        print(said, file=sys.stderr, end="")
        raise Missing((said.strip().splitlines() or ["it said nothing"])[-1])

    def lap(self):
        before = core_seconds(self.process.pid)
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            outcome = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            self.fail()
        used = core_seconds(self.process.pid) - before
        items = outcome["items"]
        all_items = items + outcome.get("before", 0)
        self.laps.append(Lap(items / outcome["seconds"], all_items / used if used > 0 else None))

    def leave(self):
        self.process.stdin.close()
        self.process.wait()


def take_turns(commands, rounds):
    """At the start, and after each round: the laps of all competitors, by name; where one has none, why."""
    started = dict.fromkeys(commands, "no lap is done yet")
    yield started
    for name, command in commands.items():
        started[name] = attempt(name, Competitor(command), Competitor.wait_until_warm)
    for _ in range(rounds):
        for name, competitor in started.items():
            started[name] = attempt(name, competitor, Competitor.lap)
        yield {name: one if isinstance(one, str) else one.laps for name, one in started.items()}
    for name, competitor in started.items():
        if isinstance(competitor, Competitor):
            competitor.leave()
            print(f"  {name}: {[round(lap.per_second, 1) for lap in competitor.laps]}", file=sys.stderr)


def attempt(name, competitor, action):
    """The competitor after it did this, or why it did not."""
    try:
        if isinstance(competitor, Competitor):
            action(competitor)
        return competitor
    except Missing as reason:
        print(f"  {name}: {reason}", file=sys.stderr)
        return str(reason)


def table_rows(title, unit, laps_by_name):
    first = None
    for name, laps in laps_by_name.items():
        if isinstance(laps, str):
            # Nothing is compared with another one instead.
            first = first or (None, None)
            yield [title, name, f"not run: {laps}".replace("|", "/"), "", "", "", ""]
            title = ""
            continue
        rates = [lap.per_second for lap in laps]
        rate, of_core = median(rates), median([lap.per_core_second for lap in laps])
        first = first or (rate, of_core)
        times = [f"{mine / its:.2f}" if mine and its else "" for mine, its in zip((rate, of_core), first)]
        spread = f"{min(rates):,.1f} to {max(rates):,.1f}"
        of_core = f"{of_core:,.1f}" if of_core else ""
        yield [title, name, f"{rate:,.1f} {unit}", spread, times[0], of_core, times[1]]
        title = ""


def verdicts(title, laps_by_name, settings):
    """A line for every aim of docs/performance.md that is about this comparison, and about the chosen programs alone: those of torch.compile
    with `--compile`."""
    for part, ours, other, least in AIMS[settings.device.partition(":")[0]]:
        names = [name for name in (ours, other) if name]
        if not title.startswith(part) or not all(is_chosen(name, settings.programs) for name in names):
            continue
        if "compiled" in (other or "") and not settings.compile:
            continue
        of_each = [laps_by_name.get(name, "it is not compared") for name in names]
        said = f"{title}: {ours}, at least " + (f"{least} times {other}: " if other else f"{least:,} a second: ")
        shown = ".3f" if other else ",.0f"
        lacking = [f"{name}: {its}" for name, its in zip(names, of_each) if isinstance(its, str)]
        if lacking:
            yield said + "NOT DECIDED (" + "; ".join(lacking) + ")"
            continue
        rates = [[lap.per_second for lap in its] for its in of_each]
        if other is None:
            rates.append([1.0] * len(rates[0]))
        # Lap beside lap, as they took turns.
        ratios = [mine / its for mine, its in zip(*rates)]
        ratio = median(rates[0]) / median(rates[1])
        reached = "reached" if ratio >= least else "NOT REACHED"
        rounds = "1 round" if len(ratios) == 1 else f"{len(ratios)} rounds"
        yield f"{said}{reached}, {ratio:{shown}} ({min(ratios):{shown}} to {max(ratios):{shown}} in {rounds})"


def median(numbers):
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None


def as_text(rows, aims, facts):
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    command = "python3 benches/run.py " + " ".join(command_line())
    return "\n\n".join([f"{facts}; {load}.", f"    {command}", table(rows), *aims])


def table(rows):
    head = ["comparison", "program", "median", "slowest to fastest", "ratio", "per core-second", "ratio"]
    lines = [head, ["---"] * 2 + ["---:"] * 5, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def description(settings):
    """The machine and the versions."""

    def output(*command):
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return run.stdout.strip()

    versions = "import torch; print(torch.__version__)"
    gpu = "import torch; print(torch.cuda.get_device_name(0))" if settings.device != "cpu" else "print()"
    facts = [
        processor(),
        output(settings.python, "-c", gpu),
        f"{os.cpu_count()} cores, {settings.threads} threads",
        f"device {settings.device}",
        f"PyTorch {output(settings.python, '-c', versions)}",
        f"commit {output('git', 'rev-parse', '--short', 'HEAD')}",
    ]
    return "; ".join(fact for fact in facts if fact)


def command_line():
    """The arguments, without the path of an interpreter, which says nothing to others."""
    words, skipped = [], False
    for word in sys.argv[1:]:
        if skipped or word == "--python":
            skipped = not skipped
        elif not word.startswith("--python="):
            words.append(word)
    return [shlex.quote(word) for word in words]


def processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
