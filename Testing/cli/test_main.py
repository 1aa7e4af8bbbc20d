"""What holds for all commands: help, wrong usage, errors in one line, interrupts."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import places
import pytest
from command import run
from DNetRegistrationLib.cli.main import COMMANDS, main


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_version_and_help_answer(arguments, capsys):
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "dnet-registration 0." if arguments == ["--version"] else "usage: dnet-registration "
    )
    assert captured.err == ""
    assert max(len(line) for line in captured.out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "COMMAND"),
        (["algin"], "algin"),
        (["align", "a.nrrd"], "MOVING"),
        (["align", "a.nrrd", "b.nrrd", "--overlya", "o.png"], "--overlya"),
        (["align", "a.nrrd", "b.nrrd", "--over", "o.png"], "--over"),
        (["align", "a.nrrd", "b.nrrd", "--fixed-spacing", "1,2"], "--fixed-spacing"),
        (["align", "a.nrrd", "b.nrrd", "--fixed-threshold", "bone"], "--fixed-threshold"),
        (["align", "a.nrrd", "b.nrrd", "--hypotheses", "guess"], "--hypotheses"),
        (["demo", "--size", "4"], "--size"),
        (["synthesize"], "FOLDER"),
        (["synthesize", "f", "--keep", "0"], "--keep"),
        (["benchmark", "--only", "speed,luck"], "luck"),
        (["benchmark", "--jobs", "0"], "--jobs"),
        (["train", "--network", "dnet"], "--output"),
        (["train", "--network", "unet", "--output", "f"], "unet"),
    ],
)
def test_wrong_usage_is_one_line(arguments, word, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dnet-registration: error: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err
    assert "--help" in captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_leads_to_the_help_of_its_command(command, capsys):
    """What the command needs is given, as far as it needs anything: of a missing word argparse tells first."""
    needed = {
        "align": ["a", "b"], "apply": ["a", "b"], "cartilage": ["a", "b", "--report", "r.json"], "cohort": ["s"],
        "synthesize": ["f"], "train": ["--network", "dnet", "--output", "f"], "evaluate": ["--output", "f"],
        "compare": ["--output", "f"], "benchmark": ["--output", "f"],
    }  # fmt: skip
    assert main([command, *needed.get(command, ()), "--zzz", "1"]) == 2
    expected = f"dnet-registration: error: unknown option --zzz; see dnet-registration {command} --help\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "align a b --spaceing 0.01",
            "unknown option --spaceing; did you mean --fixed-spacing, --moving-spacing or --working-spacing? see ",
        ),
        ("align --fixed-spaceing=0.01 a b", "--fixed-spaceing; did you mean --fixed-spacing? see "),
        (
            "align -- a b --overlay x.png",
            "behind -- all words are names of files, --overlay too; give options before it;",
        ),
        ("align a b -overlay x.png", "-overlay; did you mean --overlay? see "),
        ("cohort scans --ouput x --jobz 2", "options --ouput, --jobz; did you mean --output or --jobs? see "),
        (
            "cohort scans --medial 1 2 3",
            "--medial is no option of this command; give it to each pair, in the column medial of a list of pairs;",
        ),
        ("cohort scans --region-segment 2", "in the column region_segment of a list of pairs; see "),
        ("cohort scans --region=r.nrrd --initial t.tfm", "in the column initial or region of a list of pairs; see "),
        ("align Maus 1.nrrd Maus 2.nrrd", '2 words too many: Maus 2.nrrd; put a name with spaces in quotes ("..."); '),
        ("align a b --moving-spacing 0,01", "with decimal points: 0.01 or 0.01,0.01,0.02"),
        ("align a b --fixed-threshold 1,5", "'1,5' is not a number; write a decimal point, not a comma"),
        ("align a b --medial 1,5 2 3", "'1,5' is not a number; write a decimal point, not a comma"),
        ("align a b --moving-threshold nan", "'nan' is not a number"),
        ("demo --spacing 0,04", "'0,04' is not a number from 0.0001 to 10; write a decimal point, not a comma"),
    ],
)
def test_wrong_usage_says_what_would_be_right(arguments, said, capsys):
    assert main(arguments.split()) == 2
    assert said in capsys.readouterr().err


def test_what_no_one_expected_is_one_line_too(two, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(import_module("DNetRegistrationLib.registration.align"), "align", fail)
    assert main(["align", *two]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "RuntimeError: first line" in error
    assert "--debug" in error
    assert main(["align", *two, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_too_little_memory_is_said(two, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(import_module("DNetRegistrationLib.registration.align"), "align", fail)
    assert main(["align", *two]) == 2
    assert capsys.readouterr().err.startswith("dnet-registration: error: not enough memory; ")


@pytest.mark.parametrize("command", ("align", pytest.param("demo", marks=pytest.mark.slow)))
def test_threads_of_torch_do_not_spin(command, two, tmp_path):
    """Told before torch is loaded, or it does not listen."""
    code = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("policy", os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
from DNetRegistrationLib.cli.main import main
main(sys.argv[1:])
"""
    arguments = two if command == "align" else ["--output", str(tmp_path / "demo"), "--size", "32"]
    environment = places.environment()
    environment.pop("OMP_WAIT_POLICY", None)
    done = run(command, *arguments, code=code, env=environment)
    assert done.stdout.endswith("policy PASSIVE\n"), done.stderr


def test_torch_missing_is_said(two):
    code = "import sys; sys.modules['torch'] = None; from DNetRegistrationLib.cli.main import main; sys.exit(main())"
    result = run("align", *two, code=code)
    assert result.returncode == 2
    assert result.stderr == "dnet-registration: error: torch is not installed; install it: pip install torch\n"


# Says "ready" in the midst of writing, when some outputs lie there under their temporary names, and waits for a signal.
HELD = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from DNetRegistrationLib.outputs import write as outputs
    from DNetRegistrationLib.cli.main import main
    def hold(*arguments):
        print("ready", flush=True)
        time.sleep(60)
    outputs.write_report = hold
    sys.exit(main())
"""
# Says "ready" in the midst of aligning.
ALIGNING = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from DNetRegistrationLib.registration import align as alignment
    from DNetRegistrationLib.cli.main import main
    real = alignment.align
    said = []
    def progress(fraction, message):
        if fraction > 0.2 and not said:
            said.append(print("ready", flush=True))
    def align(fixed, moving, **options):
        for _ in range(100):
            real(fixed, moving, **{**options, "progress": progress})
    alignment.align = align
    sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
@pytest.mark.parametrize(("code", "number"), [(HELD, signal.SIGINT), (HELD, signal.SIGTERM), (ALIGNING, signal.SIGINT)])
def test_an_interrupt_leaves_nothing_half_written(code, number, two, tmp_path):
    kept = tmp_path / "t.tfm"
    kept.write_text("what was there before")
    start = [sys.executable, "-c", textwrap.dedent(code), "align", *two]
    outputs = ["--transform", str(kept), "--report", str(tmp_path / "r.json")]
    environment = places.environment()
    with subprocess.Popen(
        [*start, *outputs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            if code is HELD:
                assert len(list(tmp_path.iterdir())) > 1
            process.send_signal(number)
            process.send_signal(number)
            _, error = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert error == "dnet-registration: interrupted\n"
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_text() == "what was there before"


FULL = Path("/dev/full")
on_full_disks = pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")


def status(words, code=None, *, out=subprocess.DEVNULL, err=subprocess.DEVNULL):
    """Of a command, or of `code` and then the command, whose standard streams go to these files."""
    with ExitStack() as stack:
        streams = [stack.enter_context(open(one, "w")) if isinstance(one, Path) else one for one in (out, err)]
        start = [sys.executable, *(("-m", "DNetRegistrationLib") if code is None else ("-c", textwrap.dedent(code)))]
        done = subprocess.run([*start, *words], stdout=streams[0], stderr=streams[1], env=places.environment())
    return done.returncode


@on_full_disks
def test_what_cannot_be_printed_is_never_taken_for_an_answer_that_is_not_accepted(two):
    assert status(["align", "none.nrrd", "none.nrrd"], err=FULL) == 2
    assert status(["align", "none.nrrd", "none.nrrd", "--debug"], err=FULL) == 2
    assert status(["--help"], out=FULL) == 3
    assert status(["--version"], out=FULL) == 3


#: The command with an alignment that takes no time.
AT_ONCE = """
    import sys
    from alignments import made_alignment
    from DNetRegistrationLib.registration import align as module
    def align(fixed, moving, **options):
        for step in range(10):
            options["progress"](step / 10, f"step {step}")
        return made_alignment()
    module.align = align
    from DNetRegistrationLib.cli.main import main
    sys.exit(main())
"""


@pytest.mark.slow
@on_full_disks
def test_outputs_are_written_where_nothing_can_be_printed(two, tmp_path):
    report = tmp_path / "r.json"
    words = ["align", *two, "--report", str(report), "--verbose"]
    assert status(words, AT_ONCE) == 0
    assert status(words, AT_ONCE, err=FULL) == 0
    report.unlink()
    assert status(words, AT_ONCE, out=FULL) == 3
    assert report.is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_reader_of_progress_that_leaves_is_no_error(two):
    end, start = os.pipe()
    os.close(end)
    try:
        assert status(["align", *two, "--verbose"], AT_ONCE, out=start, err=start) == 0
        assert status(["align", "none.nrrd", "none.nrrd"], err=start) == 2
    finally:
        os.close(start)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
def test_an_interrupt_that_a_package_takes_for_its_own_error_is_one(two):
    code = """
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from DNetRegistrationLib.outputs import paths
        def load(what):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass
            raise ImportError("multiarray failed to import")
        paths.require_matplotlib = load
        from DNetRegistrationLib.cli.main import main
        sys.exit(main())
    """
    assert status(["align", *two, "--overlay", "o.png"], code) == 130


def test_a_reader_that_leaves_is_no_error(two):
    code = """
        import os, sys
        from DNetRegistrationLib.core.progress import say
        end, start = os.pipe()
        os.dup2(start, 1)
        os.close(end)
        say("to no one")
        say("again")
        sys.stdout.flush()
        sys.exit(7)
    """
    result = run(code=code)
    assert (result.returncode, result.stderr) == (7, "")
