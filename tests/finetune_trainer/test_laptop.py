"""`finetune run` without its stages: settings, order, when it ends. The stages have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract.run_document import InvalidRunDocument, parse_run
from finetune_contract.stage_protocol import DatasetFacts, ExitCode, Stage, StageReport
from finetune_trainer import laptop
from finetune_trainer.__main__ import StopSignal
from finetune_trainer.laptop import run_stages
from finetune_trainer.run_settings import InvalidSetting, load_run, with_settings
from finetune_trainer.stage_context import StageContext

RUN = (Path(__file__).parents[2] / "examples/quickstart/finetunerun.yaml").read_text()


def test_a_setting_reaches_a_field_through_an_item_named_by_its_name() -> None:
    document = with_settings(RUN, ["dataset.sources.site.wordpress.url=http://127.0.0.1:8091"])

    _, spec = parse_run(document)
    assert spec.dataset.sources[0].wordpress is not None
    assert spec.dataset.sources[0].wordpress.url == "http://127.0.0.1:8091"


def test_a_setting_keeps_its_yaml_type() -> None:
    _, spec = parse_run(with_settings(RUN, ["spec.training.maxSteps=3", "training.learningRate=0.001"]))

    assert (spec.training.max_steps, spec.training.learning_rate) == (3, 0.001)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.maxSteps", "has no `=`"),
        ("dataset.sources.blog.wordpress.url=x", "choose one of site"),
        ("suspend.now=true", "leads nowhere"),
        ("suspend=[", "--set suspend: the value is no YAML; put it in quotes"),
    ],
)
def test_a_setting_that_does_not_fit_says_what_would(setting: str, words: str) -> None:
    document = RUN.replace("spec:\n", "spec:\n  suspend: false\n", 1)

    with pytest.raises(InvalidSetting, match=words):
        with_settings(document, [setting])


def run_with(
    reports: dict[Stage, StageReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[StageContext]:
    seen: list[StageContext] = []

    def fake_stage(stage: Stage, context: StageContext) -> StageReport:
        seen.append(context)
        return reports.get(stage, StageReport(stage=stage))

    monkeypatch.setattr(laptop, "run_stage", fake_stage)
    _, spec = parse_run(RUN)
    result = run_stages("site", spec, tmp_path, Stage.EVALUATE, {}, True, StopSignal())
    assert json.loads(result.to_json())["exitCode"] == result.exit_code
    return seen


def dataset_report(*, adopted: bool) -> StageReport:
    facts = DatasetFacts(
        digest="d", run_key="k", documents=1, training_examples=1, evaluation_examples=1, adopted=adopted
    )
    return StageReport(stage=Stage.DATASET, dataset=facts)


def test_the_stages_run_in_order_and_later_ones_know_run_key_and_dataset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = run_with({Stage.DATASET: dataset_report(adopted=False)}, monkeypatch, tmp_path)

    assert [context.work_folder.name for context in seen] == ["dataset", "train", "package", "evaluate"]
    assert [(context.run_key, context.dataset_digest) for context in seen[1:]] == [("k", "d")] * 3


def test_adopted_work_is_not_done_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(run_with({Stage.DATASET: dataset_report(adopted=True)}, monkeypatch, tmp_path)) == 1


def test_a_failed_stage_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = {
        Stage.DATASET: dataset_report(adopted=False),
        Stage.TRAIN: StageReport(stage=Stage.TRAIN, exit_code=33, reason="Diverged"),
    }

    assert len(run_with(failed, monkeypatch, tmp_path)) == 2


def test_a_wrong_file_ends_with_the_exit_code_of_an_invalid_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.replace("maxSteps:", "maxStep:"))

    with pytest.raises(SystemExit) as ended:
        laptop.main(["run", str(file), "--workspace", str(tmp_path)])

    assert ended.value.code == 10
    assert "spec.training.maxStep:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"spec: [", "line 1, column 8: not YAML"),
        (b"spec: 1\n---\nspec: 2\n", "the file: holds 2 documents"),
        (b"\xff\xfe", "run.yaml: is no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_run_is_said_in_a_line(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)

    with pytest.raises(InvalidRunDocument, match=words):
        load_run(file, ["training.maxSteps=3"])


def test_a_workspace_that_cannot_be_written_is_said_in_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, workspace = tmp_path / "run.yaml", tmp_path / "a-file" / "out"
    file.write_text(RUN)
    (tmp_path / "a-file").touch()

    with pytest.raises(SystemExit) as ended:
        laptop.main(["run", str(file), "--workspace", str(workspace), "-o", "json"])

    printed = capsys.readouterr()
    assert ended.value.code == ExitCode.STORE_REJECTED
    result = printed.out[printed.out.index("{\n") :]  # behind the lines of progress
    assert json.loads(result)["exitCode"] == ExitCode.STORE_REJECTED
    assert "last-run.json: not written: Not a directory" in printed.err
