import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from devcluster import images
from devcluster.images import ImageConfig, write_archive
from devcluster.progress import Progress


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


def test_modules_are_compiled_once_also_from_a_shell_that_keeps_python_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages"
    package.mkdir()
    (package / "loaded_in_a_container.py").write_text("answer = 42\n")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setattr(images, "VENV", tmp_path)
    monkeypatch.setattr(images, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.setattr(images, "_LOADED_IN_CONTAINERS", ("loaded_in_a_container",))

    images.compile_environment(Progress(stream=io.StringIO()))

    (compiled,) = (package / "__pycache__").iterdir()
    assert compiled.name.startswith("loaded_in_a_container.")
