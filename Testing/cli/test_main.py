"""The command line: what it writes, says and returns."""

import ast
import inspect
import json
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from importlib import import_module

import numpy as np
import places
import pytest
import SimpleITK as sitk
from alignments import made_alignment
from DNetRegistrationLib.cli.main import build_parser, main
from DNetRegistrationLib.geometry.transforms import to_sitk
from DNetRegistrationLib.imaging.volume import Volume, read_volume, write_volume
from DNetRegistrationLib.synthesis.pairs import make_pair, target_registration_error
from scipy.spatial.transform import Rotation

COMMAND = [sys.executable, "-m", "DNetRegistrationLib"]
OUTPUTS = {
    "transform": "t.tfm",
    "report": "r.json",
    "overlay": "o.png",
    "resampled": "m.nrrd",
    "segmentation": "s.seg.nrrd",
    "subtraction": "d.nrrd",
}


@pytest.fixture
def aligned_with(monkeypatch):
    """What `align` was called with, while it does nothing."""
    calls = []

    def align(fixed, moving, **options):
        calls.append({"fixed": fixed, "moving": moving, **options})
        options["progress"](0.5, "working")
        return made_alignment()

    monkeypatch.setattr(import_module("DNetRegistrationLib.registration.align"), "align", align)
    return calls


@pytest.fixture
def two(pair_files):
    """The scans of `pair`, as arguments."""
    return [str(path) for path in pair_files]


def run(*arguments, code=None, **options):
    """A command in a process of its own."""
    start = COMMAND if code is None else [sys.executable, "-c", textwrap.dedent(code)]
    environment = places.environment()
    return subprocess.run([*start, *arguments], capture_output=True, text=True, env=environment, timeout=120, **options)


def test_align_writes_everything_and_says_the_verdict_first(pair, two, tmp_path):
    files = {name: tmp_path / file for name, file in OUTPUTS.items()}
    result = run("align", *two, *(word for name, path in files.items() for word in (f"--{name}", str(path))))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.split()[:2] == ["verdict", "Accepted:"]
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    report = json.loads(files["report"].read_text())
    assert report["accepted"] is True
    assert 1000 * target_registration_error(pair, report["matrix"]) < 20
    transform = sitk.ReadTransform(str(files["transform"]))
    point = (0.3, -0.7, 1.1)
    np.testing.assert_allclose(transform.TransformPoint(point), (np.array(report["matrix"]) @ (*point, 1))[:3])
    for name, path in files.items():
        assert f"written           {path}" in result.stdout, name
    assert f"{report['rotation_deg']:.3f} degrees" in result.stdout
    assert f"{report['dice_before']:.3f} before, {report['dice']:.3f} aligned" in result.stdout


def test_the_status_says_that_it_is_not_accepted(two, monkeypatch, capsys):
    refused = made_alignment(accepted=False, verdict="Not accepted: another bone.")
    alignment = import_module("DNetRegistrationLib.registration.align")
    monkeypatch.setattr(alignment, "align", lambda fixed, moving, **options: refused)
    assert main(["align", *two]) == 1
    assert capsys.readouterr().out.startswith("verdict           Not accepted: ")


@pytest.mark.slow
def test_another_animal_is_not_accepted_and_its_outputs_say_so(other_pair, tmp_path, capsys):
    paths = [str(tmp_path / f"{role}.nrrd") for role in ("fixed", "moving")]
    for scan, path in zip((other_pair.fixed, other_pair.moving), paths, strict=True):
        write_volume(scan, path)
    report, transform = tmp_path / "r.json", tmp_path / "t.tfm"
    assert main(["align", *paths, "--report", str(report), "--transform", str(transform)]) == 1
    assert json.loads(report.read_text())["accepted"] is False
    assert transform.exists()
    assert capsys.readouterr().out.startswith("verdict           Not accepted: ")


def test_options_reach_align(two, tmp_path, aligned_with):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec((0.2, 1.1, -0.4)).as_matrix(), (3.0, -1.0, 0.5)
    sitk.WriteTransform(to_sitk(matrix), str(tmp_path / "start.tfm"))
    fixed = read_volume(two[0])
    mask = np.zeros(fixed.voxels.shape, np.uint8)
    mask[5:50, 10:40, 3:60] = 2
    write_volume(Volume(mask, fixed.affine), tmp_path / "mask.nrrd")
    arguments = (
        f"--fixed-threshold -12.5 --working-spacing 0.1 --initial {tmp_path}/start.tfm --device cpu --weights w.pt"
    )
    arguments += f" --hypotheses search --refine working --fixed-mask {tmp_path}/mask.nrrd"
    assert main(["align", *two, *arguments.split()]) == 0
    (call,) = aligned_with
    assert call["threshold"] == (-12.5, None)
    assert call["spacing"] == 0.1
    assert (call["device"], call["weights"]) == ("cpu", "w.pt")
    assert (call["hypotheses"], call["refine"]) == ("search", "working")
    np.testing.assert_array_equal(call["fixed_mask"], mask > 0)
    assert call["moving_mask"] is None
    np.testing.assert_allclose(call["initial"], matrix, atol=1e-12)
    assert [call["fixed"].name, call["moving"].name] == two


def test_defaults_are_those_of_align(two, aligned_with):
    alignment = import_module("DNetRegistrationLib.registration.align")
    assert main(["align", *two]) == 0
    (call,) = aligned_with
    # The fixture stands in for the function: its source tells the defaults.
    tree = ast.parse(inspect.getsource(alignment))
    function = next(node for node in tree.body if getattr(node, "name", "") == "align")
    defaults = {
        argument.arg: ast.literal_eval(value)
        for argument, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    }
    for name, value in defaults.items():
        if name not in ("progress", "cancelled"):
            assert call[name] == value, name


def test_spacing_given_for_a_stack(tmp_path, aligned_with, capsys):
    (tmp_path / "stack").mkdir()
    voxels = np.random.default_rng(0).integers(0, 200, (12, 14, 16)).astype(np.uint8)
    for z, plane in enumerate(voxels):
        sitk.WriteImage(sitk.GetImageFromArray(plane), str(tmp_path / "stack" / f"s{z:03}.tif"))
    write_volume(Volume.from_geometry(voxels, 0.05), tmp_path / "moving.nrrd")
    paths = [str(tmp_path / "stack"), str(tmp_path / "moving.nrrd")]
    assert main(["align", *paths]) == 2
    assert "--fixed-spacing" in capsys.readouterr().err
    assert main(["align", *paths, "--fixed-spacing", "0.05,0.05,0.06"]) == 0
    np.testing.assert_allclose(aligned_with[0]["fixed"].spacing, (0.05, 0.05, 0.06))
    # A picture of the scan's own folder is a scan, not a place for output.
    assert main(["align", *paths, "--fixed-spacing", "0.05", "--overlay", str(tmp_path / "stack" / "s003.tif")]) == 2


def test_nothing_saved_is_said(two, aligned_with, capsys):
    main(["align", *two])
    assert "Nothing was saved" in capsys.readouterr().out


def test_demo_shows_the_true_error(small_pair, tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--output", str(folder), "--size", "32", "--spacing", "0.16", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    truth, found = (sitk.ReadTransform(str(folder / name)) for name in ("truth.tfm", "transform.tfm"))
    pair = small_pair
    bone = np.argwhere(pair.fixed_bone)[:, ::-1]
    points = pair.fixed.to_world(bone[::17])
    gap = [np.subtract(truth.TransformPoint(p), found.TransformPoint(p)) for p in points.tolist()]
    expected = 1000 * np.linalg.norm(gap, axis=1).mean()
    shown = float(re.search(r"true error +([0-9.]+) um", out)[1])
    assert shown == pytest.approx(expected, rel=0.05, abs=0.02)
    assert {path.name for path in folder.iterdir()} == {
        "fixed.nrrd", "moving.nrrd", "truth.tfm", "transform.tfm", "report.json", "overlay.png", "resampled.nrrd",
        "segmentation.seg.nrrd", "subtraction.nrrd",
    }  # fmt: skip
    np.testing.assert_array_equal(read_volume(folder / "moving.nrrd").voxels, pair.moving.voxels)
    # What it says it ran is a command.
    build_parser().parse_args(shlex.split(re.search(r"dnet-registration (align .*)", out)[1]))


def test_synthesize(tmp_path, capsys):
    folder = tmp_path / "pairs"
    arguments = ["--count", "2", "--size", "24", "--spacing", "0.2", "--seed", "5", "--format", ".mha", "--no-contrast"]
    assert main(["synthesize", str(folder), *arguments]) == 0
    names = [f"000{n}_{what}" for n in (1, 2) for what in ("fixed.mha", "moving.mha", "truth.tfm")]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "truth.csv"]
    pair = make_pair(6, size=24, spacing=0.2, contrast=False)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / names[3]))), pair.fixed.voxels)
    assert "2 pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--version"], *([c, "--help"] for c in ("align", "demo", "synthesize", "benchmark", "train"))]
)
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


@pytest.mark.parametrize("command", ("align", "demo"))
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
    done = subprocess.run(
        [sys.executable, "-c", code, command, *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
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
