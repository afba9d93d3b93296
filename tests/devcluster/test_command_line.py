import json

import pytest

from devcluster import __main__ as command_line
from devcluster import lifecycle
from devcluster.lifecycle import PartStatus


def test_the_command_line_and_the_lifecycle_name_the_same_parts() -> None:
    assert command_line.PARTS == lifecycle.PARTS
    assert command_line.OPTIONAL_PARTS == lifecycle.OPTIONAL_PARTS


def test_help_explains_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--help"])

    shown = capsys.readouterr().out
    assert all(part in shown for part in (*command_line.PARTS, *command_line.OPTIONAL_PARTS))


def test_an_unknown_part_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["up", "redis"]) == 1

    assert "there is no part 'redis'; the parts are node, wordpress" in capsys.readouterr().err


def test_host_only_is_for_wordpress(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["up", "--host-only", "weaviate"]) == 1

    assert "WordPress alone" in capsys.readouterr().err


def test_status_can_be_read_by_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        lifecycle, "status", lambda instance: [PartStatus("s3", True, f"http://{instance.node_ip}")]
    )

    assert command_line.main(["status", "--name", "test", "-o", "json"]) == 0

    assert json.loads(capsys.readouterr().out) == {
        "s3": {"part": "s3", "running": True, "address": "http://10.202.0.2"}
    }


def test_what_down_leaves_behind_is_named_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifecycle, "down", lambda instance, progress, wipe: ["cgroup /sys/fs/cgroup/x"])

    assert command_line.main(["down"]) == 1

    assert "still there: cgroup /sys/fs/cgroup/x" in capsys.readouterr().err
