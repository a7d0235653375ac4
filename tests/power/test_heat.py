"""Throttling is said once for each reason, from files that a test writes."""

from edge_train.power.heat import Throttling

FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_raspberry_pi_says_why_it_is_slow_and_each_reason_once(tmp_path):
    write(tmp_path / "class/thermal/thermal_zone0/temp", "84500\n")
    write(tmp_path / FIRMWARE, "0\n")
    heat = Throttling(tmp_path)
    assert heat.news() is None
    write(tmp_path / FIRMWARE, "4\n")
    assert "at 84 degrees Celsius: it is throttled;" in heat.news()
    write(tmp_path / FIRMWARE, "50005\n")  # the high bits are of the past
    assert "the voltage is too low" in heat.news()
    assert heat.news() is None


def test_counts_of_a_processor_are_those_since_the_run_began(tmp_path):
    count = tmp_path / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    write(count, "7\n")
    heat = Throttling(tmp_path)
    assert heat.news() is None
    write(count, "9\n")
    assert "it is throttled" in heat.news()


def test_nothing_to_read_is_no_news(tmp_path):
    assert Throttling(tmp_path / "missing").news() is None
    write(tmp_path / "class/thermal/cooling_device0/type", "Processor\n")
    write(tmp_path / "class/thermal/cooling_device0/cur_state", "hot\n")
    assert Throttling(tmp_path).news() is None
