"""``align`` with the outputs of cartilage."""

from importlib import import_module

import pytest
from alignments import made_alignment
from cartilages import made_measurement
from DNetRegistrationLib.cli.main import main


@pytest.mark.parametrize(("accepted", "extra"), [(True, []), (False, []), (False, ["--anyway"])])
def test_cartilage_is_measured_where_accepted_or_on_request(two, monkeypatch, tmp_path, capsys, accepted, extra):
    calls = []

    def measure(alignment, plain, contrast, **options):
        calls.append((plain.name, contrast.name, options["agent_in"], options["anyway"]))
        return made_measurement(accepted=alignment.accepted)

    aligned = made_alignment(accepted=accepted)
    monkeypatch.setattr(import_module("DNetRegistrationLib.registration.align"), "align", lambda *a, **b: aligned)
    monkeypatch.setattr(import_module("DNetRegistrationLib.cartilage.measure"), "measure_cartilage", measure)
    table, transform = tmp_path / "c.csv", tmp_path / "t.tfm"
    outputs = ["--cartilage", str(table), "--transform", str(transform)]
    assert main(["align", *two, "--contrast", "fixed", *outputs, *extra]) == (0 if accepted else 1)
    said = "".join(capsys.readouterr())
    assert transform.exists()
    if accepted or extra:
        assert calls == [(two[1], two[0], "fixed", bool(extra))]
        assert ("NOT TO BE TRUSTED" in said) == (not accepted)
        assert table.read_text().splitlines()[1].endswith("true" if accepted else "false")
    else:
        assert not calls and not table.exists() and "--anyway" in said


def test_cartilage_of_each_bone_is_refused(two, tmp_path, capsys):
    assert main(["align", *two, "--bone", "each", "--thickness", str(tmp_path / "t.vtp")]) == 2
    assert "cartilage is measured on one bone" in capsys.readouterr().err and not list(tmp_path.iterdir())
