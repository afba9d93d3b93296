import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from devcluster.images import ImageConfig, write_archive


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    folder = tmp_path / "rootfs"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "main.py").write_text("print('hello')\n")
    (folder / "bin").symlink_to("usr/bin")
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    return folder


def contents(archive: Path, name: str) -> Any:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return json.loads(member.read())


def test_an_archive_names_its_image_several_times_and_says_how_to_start_it(
    tmp_path: Path, rootfs: Path
) -> None:
    archive = tmp_path / "image.tar"

    config = ImageConfig(user="65532:65532", env={"A": "1"})
    write_archive(archive, ["localhost/a:dev", "localhost/b:dev"], rootfs, config)

    [manifest] = contents(archive, "manifest.json")
    written = contents(archive, manifest["Config"])
    assert manifest["RepoTags"] == ["localhost/a:dev", "localhost/b:dev"]
    assert written["config"]["User"] == "65532:65532"
    assert written["config"]["Env"] == ["A=1"]
    assert len(written["rootfs"]["diff_ids"]) == len(manifest["Layers"]) == 1


def test_the_layer_keeps_links_and_modes_and_belongs_to_root(tmp_path: Path, rootfs: Path) -> None:
    archive = tmp_path / "image.tar"
    write_archive(archive, ["localhost/a:dev"], rootfs, ImageConfig())

    with tarfile.open(archive) as outer, tarfile.open(fileobj=outer.extractfile("layer.tar")) as layer:
        assert layer.getmember("bin").linkname == "usr/bin"
        assert layer.getmember("tmp").mode == 0o1777
        assert {(entry.uid, entry.gid, entry.mtime) for entry in layer} == {(0, 0, 0)}


def test_equal_folders_give_equal_archives(tmp_path: Path, rootfs: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"

    write_archive(first, ["localhost/a:dev"], rootfs, ImageConfig())
    (rootfs / "app" / "main.py").touch()
    write_archive(second, ["localhost/a:dev"], rootfs, ImageConfig())

    assert first.read_bytes() == second.read_bytes()
