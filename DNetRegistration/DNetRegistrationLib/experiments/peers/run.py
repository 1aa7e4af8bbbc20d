"""``dnet-registration compare``: the same pairs through every method, results kept as they come, one report."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from ...core.errors import ScanError
from ...core.files import make_folder, staged
from ...core.processes import fresh_processes
from ...core.progress import Progress, say
from ...version import PROGRAM
from ..store import ResultStore
from .methods import METHODS, Method
from .pairs import FIELD, ComparedPair, growing, plan, write_pair
from .process import MethodProcess
from .results import Compared, Comparison, Terms, measured
from .table import markdown, write_csv

#: In the folder of a comparison.
RESULTS, TABLE, NUMBERS = "pairs.csv", "comparison.md", "comparison.csv"
PICTURES = ("success.png", "errors.png", "cost.png")


def run_compare(options: Namespace) -> int:
    """The command; returns the exit status."""
    folder = make_folder(options.output, parents=True)
    pairs = plan(options.pairs, options.size, options.keep, not options.no_contrast, options.seed)
    growth = growing(options.growth, options.keep, not options.no_contrast, options.seed)
    methods, skipped = [], {}
    for key in options.methods:
        why = METHODS[key].missing()
        if why is None:
            methods.append(METHODS[key])
        else:
            skipped[key] = why
            say(f"left out: {METHODS[key].title}, {why}")
    store = ResultStore(folder / RESULTS, Compared)
    terms = Terms(options.threads, options.limit, machine())
    at_most = dict(options.at_most)
    turns = [(method, pairs[: at_most.get(method.key, len(pairs))]) for method in methods]
    grown = [(method, growth) for method in methods]
    try:
        with Progress(options.verbose) as progress, Pairs(folder) as scans:
            align_all([*turns, *grown], scans, store, terms, progress)
    finally:
        # Also of an interrupted comparison.
        found = [
            [store.results[key] for method, some in part for pair in some
             if (key := terms.key(method, pair)) in store.results]
            for part in (turns, grown)
        ]  # fmt: skip
        if any(found):
            show(Comparison(*found, skipped), about(options, methods, terms), folder)
    if not methods:
        raise ScanError("none of the methods can be run here, for the reasons above; install one, or choose others")
    return 0


class Pairs:
    """Scans of pairs, made when first asked for and kept until the end; a context.

    Args:
        folder: where there is room for them, in a folder of their own that goes with the context.
    """

    def __init__(self, folder: Path) -> None:
        self._home = Path(tempfile.mkdtemp(prefix=".dnet-", dir=folder))

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, *exception) -> None:
        shutil.rmtree(self._home, ignore_errors=True)

    def folder(self, pair: ComparedPair) -> str:
        """The folder with the scans of a pair and its truth."""
        place = self._home / pair.name
        if not place.exists():
            making = self._home / f"{pair.name}.part"
            making.mkdir(exist_ok=True)
            # Making one takes much more memory than it has: not in this process.
            with fresh_processes(1) as pool:
                pool.submit(write_pair, pair, str(making)).result()
            making.rename(place)
        return str(place)


def align_all(
    work: Sequence[tuple[Method, Sequence[ComparedPair]]],
    scans: Pairs,
    store: ResultStore[Compared],
    terms: Terms,
    progress: Callable[[float, str], None],
) -> None:
    """Every method on its pairs, those left out that are in the store; one alignment at a time, for its time's sake.

    A method that was over the limit on a volume is not tried on larger ones.
    """
    left = [(method, [pair for pair in pairs if not _is_done(method, pair, store, terms)]) for method, pairs in work]
    total, done = sum(len(pairs) for _, pairs in left), 0
    for method, pairs in left:
        with MethodProcess(method, terms.threads) as process:
            for number, pair in enumerate(pairs, 1):
                progress(done / total, f"{method.title}, {pair.size}^3, {number} of {len(pairs)}")
                done += 1
                if not _is_too_large(method, pair, store, terms):
                    where = scans.folder(pair)
                    store.add(measured(method, pair, where, process.align(where, terms.limit), terms))


def _is_done(method: Method, pair: ComparedPair, store: ResultStore[Compared], terms: Terms) -> bool:
    """Whether there is a result that a longer limit would not change."""
    result = store.results.get(terms.key(method, pair))
    return result is not None and not (result.late and result.limit_s < terms.limit)


def _is_too_large(method: Method, pair: ComparedPair, store: ResultStore[Compared], terms: Terms) -> bool:
    return any(
        result.late and result.limit_s >= terms.limit and result.size < pair.size
        for result in store.results.values()
        if (result.method, result.version, result.threads, result.machine)
        == (method.key, method.version, terms.threads, terms.machine)
    )


def show(comparison: Comparison, sentences: Sequence[str], folder: Path) -> None:
    """Writes tables and, where matplotlib is installed, pictures; and says what is in the table."""
    text = markdown(comparison, sentences)
    written = [TABLE, NUMBERS]
    with staged() as staging:
        staging.path(folder / TABLE).write_text(text + "\n", encoding="utf-8")
        write_csv(comparison, staging.path(folder / NUMBERS))
        if find_spec("matplotlib") is not None:
            from .figures import draw_cost, draw_errors, draw_success

            for name, draw, results in zip(
                PICTURES,
                (draw_success, draw_errors, draw_cost),
                (comparison.turns, comparison.turns, comparison.growth),
                strict=True,
            ):
                if results:
                    draw(comparison, staging.path(folder / name))
                    written.append(name)
    say(f"{text}\n\nwritten: {', '.join(str(folder / name) for name in written)}")
    if find_spec("matplotlib") is None:
        say('No pictures were drawn, for them install matplotlib: pip install "dnet-registration[pictures]"')


def about(options: Namespace, methods: Sequence[Method], terms: Terms) -> list[str]:
    """What was measured, how and on what."""
    views = "whole views" if options.keep == 1 else f"views cut down to {100 * options.keep:g} % of their bone"
    agent = "no contrast agent" if options.no_contrast else "contrast agent in the moving scan"
    at_most = dict(options.at_most)
    limited = [
        f"{METHODS[key].title} {n}" for key, n in at_most.items() if n < options.pairs and key in options.methods
    ]
    return [
        f"pairs: synthetic mouse tibiae, {options.size}^3 voxels of {1000 * FIELD / options.size:g} um, {agent}, "
        f"{views}; "
        "rotations of 0 to 180 degrees about any axis, as many in each bin of angle; the same pairs for all methods"
        + (f", but only the first of them: {', '.join(limited)}" if limited else ""),
        f"each method in a process of its own, one alignment at a time, up to {terms.threads} threads, "
        f"at most {terms.limit:g} s an alignment; time is from scans in memory to the transform",
        f"machine: {terms.machine}",
        "versions: " + "; ".join(f"{method.title}: {method.version}" for method in methods),
        f"command: `{command(options)}`",
    ]


def command(options: Namespace) -> str:
    """The command line that gives these results; of the folder the last part, since a report travels."""
    words = [PROGRAM, "compare", "--pairs", options.pairs, "--size", options.size, "--seed", options.seed]
    words += ["--keep", f"{options.keep:g}", *(["--no-contrast"] if options.no_contrast else [])]
    words += ["--methods", ",".join(options.methods)]
    for key, count in dict(options.at_most).items():
        words += ["--at-most", f"{key}={count}"]
    words += ["--growth", ",".join(str(size) for size in options.growth) or "none"]
    words += ["--limit", f"{options.limit:g}", "--threads", options.threads, "--output", Path(options.output).name]
    return shlex.join(str(word) for word in words)


def machine() -> str:
    """The processor and how many of it there are, as far as the system tells."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"
