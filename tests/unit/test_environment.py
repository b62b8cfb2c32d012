"""What a run notes of the machine."""

import subprocess

from arbitrage.runtime.environment import EnergyMeter, commit, environment


def zone(folder, name, energy, limit=1000, called="package"):
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "name").write_text(f"{called}-0\n")
    (place / "energy_uj").write_text(f"{energy}\n")
    (place / "max_energy_range_uj").write_text(f"{limit}\n")


def test_joules_are_added_over_packages_and_a_counter_may_begin_again(tmp_path):
    zone(tmp_path, "intel-rapl:0", 900)
    zone(tmp_path, "intel-rapl:1", 100)
    zone(tmp_path, "intel-rapl:0:0", 5, called="core")  # A part of package 0, counted there.
    zone(tmp_path, "intel-rapl:2", 5, called="psys")  # The platform, both packages included.
    meter = EnergyMeter(tmp_path)
    assert meter.read() == 0.0
    zone(tmp_path, "intel-rapl:0", 50)
    zone(tmp_path, "intel-rapl:1", 160)
    zone(tmp_path, "intel-rapl:0:0", 500, called="core")
    zone(tmp_path, "intel-rapl:2", 900, called="psys")
    assert meter.read() == (150 + 60) / 1e6
    zone(tmp_path, "intel-rapl:1", 170)
    assert meter.read() == (150 + 70) / 1e6


def test_a_machine_that_reports_no_energy_has_none(tmp_path):
    assert EnergyMeter(tmp_path).read() is None
    assert EnergyMeter(tmp_path / "missing").read() is None


def test_the_environment_names_versions_and_repeats_the_command():
    noted = environment(["eval", "--limit", "3"])
    assert noted["arguments"] == ["eval", "--limit", "3"]
    assert "arbitrage" in noted["versions"]
    assert noted["num_cores"] >= 1


def test_outside_of_a_repository_there_is_no_commit(tmp_path):
    assert commit(tmp_path) is None


def test_files_that_a_project_only_holds_are_not_of_its_commit(tmp_path):
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "a")):
        subprocess.run([*git, *command], check=True)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "module.py").write_text("")
    assert commit(tmp_path / ".venv") is None
    (tmp_path / "own.py").write_text("")
    subprocess.run([*git, "add", "own.py"], check=True)
    assert commit(tmp_path).endswith("+changes")
