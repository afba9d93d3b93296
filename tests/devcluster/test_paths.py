from pathlib import Path

import pytest

from devcluster.errors import DevclusterError
from devcluster.paths import Instance, cache_folder


def test_the_demo_and_the_tests_have_addresses_of_their_own() -> None:
    demo, test = Instance("demo"), Instance("test")

    assert (demo.host_ip, demo.node_ip) == ("10.201.0.1", "10.201.0.2")
    assert (test.host_ip, test.node_ip) == ("10.202.0.1", "10.202.0.2")
    assert demo.cgroup != test.cgroup
    assert set(range(demo.port_base, demo.port_base + 10)).isdisjoint(
        range(test.port_base, test.port_base + 10)
    )


def test_other_names_never_take_the_addresses_of_demo_and_test() -> None:
    subnets = {Instance(f"name-{number}").node_ip for number in range(300)}

    assert subnets.isdisjoint({Instance("demo").node_ip, Instance("test").node_ip})
    assert len(subnets) > 40


def test_a_link_name_fits_into_the_kernels_fifteen_bytes_and_stays_distinct() -> None:
    links = {Instance(name).link for name in ("demo", "a-very-long-name-a", "a-very-long-name-b")}

    assert len(links) == 3
    assert all(len(link) <= 15 for link in links)


@pytest.mark.parametrize("name", ["", "Demo", "a_b", "-a", "a-", "../up", "a" * 21])
def test_a_name_that_could_not_be_a_folder_or_a_link_is_refused(name: str) -> None:
    with pytest.raises(DevclusterError, match="small letters"):
        Instance(name)


def test_the_cache_follows_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("FINETUNE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "finetune-operator"

    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"
