"""Joules from counters that a test writes: RAPL that comes round, INA3221, and none to read."""

from edge_train.power import energy
from edge_train.power.energy import Meter, Rapl, Zone, open_counter


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def zone(tree, name, kind, used, most=10_000_000):
    place = tree / "class" / "powercap" / name
    return write(place, name=kind, energy_uj=used, max_energy_range_uj=most)


def test_packages_and_memory_are_counted_once_and_come_round(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 100)
    for name, kind in (("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        zone(tmp_path, name, kind, 0)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    counter, said = open_counter(tmp_path)
    assert "RAPL (package-0, dram)" in said
    write(package, energy_uj=2_000_000)  # 9 -> 10 = 0 -> 2: three joules
    write(memory, energy_uj=500_100)
    for name in ("intel-rapl:0:0", "intel-rapl:1", "intel-rapl-mmio:0"):
        write(tmp_path / "class" / "powercap" / name, energy_uj=7_000_000)
    assert counter.joules() == 3.5
    assert counter.joules() == 0.0


def test_a_counter_that_goes_away_adds_nothing(tmp_path):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 5) / "energy_uj"
    counter = Rapl([Zone(path, 1000)])
    path.unlink()
    assert counter.joules() == 0.0
    path.write_text("900")
    assert counter.joules() == 0.0  # since when, nobody knows
    path.write_text("900000")
    assert counter.joules() == (900_000 - 900) / 1e6


def test_a_jetson_is_measured_at_the_rail_that_feeds_all(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    place = write(tmp_path / "class" / "hwmon" / "hwmon3", name="ina3221")
    write(place, in1_input=5000, curr1_input=2000, in1_label="VDD_IN")
    write(place, in2_input=5000, curr2_input=1000, in2_label="VDD_CPU_GPU_CV")
    write(place, in3_input=5000)  # a rail without a current
    counter, said = open_counter(tmp_path)
    assert "INA3221 (VDD_IN)" in said
    write(place, curr1_input=4000)
    now[0] += 2
    assert counter.joules() == 2 * (10 + 20) / 2


def test_doctor_says_which_counter_may_not_be_read(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", "")  # as it reads to whoever may not
    counter, said = open_counter(tmp_path)
    assert counter is None
    assert "energy_uj may not be read by this user" in said


def test_a_machine_without_a_counter_reports_no_joules(tmp_path):
    counter, said = open_counter(tmp_path)
    meter = Meter(counter)
    assert (counter, meter.joules()) == (None, None)
    assert "no counter here" in said
    meter.close()


def test_a_meter_adds_up_and_ends_its_thread(tmp_path):
    place = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = Meter(open_counter(tmp_path)[0])
    write(place, energy_uj=1_500_000)
    assert meter.joules() == 1.5
    meter.close()
    assert not meter._thread.is_alive()
