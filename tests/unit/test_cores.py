"""How many threads compute at full speed."""

import pytest

from arbitrage.engines.cores import num_physical_cores


@pytest.fixture
def machine(tmp_path):
    """Writes which logical cores share a physical one, as the kernel does."""

    def write(*siblings):
        for shared in siblings:
            for core in shared:
                folder = tmp_path / f"cpu{core}/topology"
                folder.mkdir(parents=True)
                (folder / "thread_siblings_list").write_text(",".join(map(str, shared)) + "\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("siblings", "allowed", "expected"),
    [
        ([(0,), (1,)], {0, 1}, 2),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], range(8), 4),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], {0, 4}, 1),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], {0, 1, 4}, 2),
        ([(0, 1), (2,), (3,)], {0, 1, 2, 3}, 3),
    ],
)
def test_hyper_threads_of_one_core_count_once(machine, tmp_path, siblings, allowed, expected):
    assert num_physical_cores(allowed, machine(*siblings), tmp_path / "none") == expected


@pytest.mark.parametrize(("num_logical", "expected"), [(1, 1), (2, 1), (8, 4)])
def test_half_of_the_logical_cores_where_the_kernel_does_not_say_it(tmp_path, num_logical, expected):
    assert num_physical_cores(range(num_logical), tmp_path, tmp_path / "none") == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000\n", 4), ("250000 100000\n", 2), ("50000 100000\n", 1), ("900000 100000\n", 4), ("", 4)],
)
def test_a_container_has_no_more_threads_than_time(machine, tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    assert num_physical_cores(range(4), machine((0,), (1,), (2,), (3,)), tmp_path / "cpu.max") == expected


def test_this_machine_has_some():
    assert num_physical_cores() >= 1
