"""A stage whose outcome is text: measured by one piece of code, shown in full, written as the result's form asks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tutelage.standalone.arms import Arm, ArmRun, Example, StageRuns
from tutelage.standalone.demo import shortened, write_result
from tutelage.standalone.measure import closeness, variety
from tutelage.standalone.report import write_report
from tutelage.standalone.stages import DEFAULT, LANGUAGE, STAGES, specs
from tutelage.standalone.texts import FIGURES, HeldOut, as_text, open_held_out, rows, table
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import load_spec

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "examples"


@pytest.fixture(scope="module")
def held_out(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    prompts = tmp_path_factory.mktemp("data") / "eval.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("a b c", "d e", "f")))
    return open_held_out(models_folder / "teacher", prompts, max_new_tokens=10)


def test_a_student_is_measured_on_its_own_text_and_on_the_teachers(models_folder: Path, held_out: HeldOut) -> None:
    steps: list[int] = []
    measured = held_out.measure(models_folder / "student", steps.append)
    assert set(measured.figures) == {name for name, *_ in FIGURES}
    assert len(measured.texts) == len(held_out.prompts) == 3
    assert sum(steps) == held_out.measuring_steps
    assert measured.figures["reverse_kl"] > 0
    assert measured.figures["teacher_text_logprob"] < 0


def test_the_teacher_as_its_own_student_has_no_distance(models_folder: Path, held_out: HeldOut) -> None:
    figures = held_out.measure(models_folder / "teacher").figures
    teacher = held_out.teacher
    assert figures["reverse_kl"] == pytest.approx(0, abs=1e-5)
    assert {name: figures[name] for name in held_out.yardstick} == held_out.yardstick
    own = closeness(teacher, teacher, held_out.prompts, held_out.teacher_ids)
    assert figures["teacher_text_logprob"] == pytest.approx(own.teacher_logprob, abs=1e-5)


def test_measuring_twice_gives_the_same_figures(models_folder: Path, held_out: HeldOut) -> None:
    assert held_out.measure(models_folder / "student") == held_out.measure(models_folder / "student")


def test_a_conversation_is_shown_by_its_last_message() -> None:
    assert as_text("plain") == "plain"
    assert as_text([{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]) == "why?"


def done() -> StageRuns:
    """A stage whose texts try to leave their cells."""
    figures = {name: (3.0, 1.25) for name, *_ in FIGURES}
    arm = Arm("opd", 3.0, 1.25, 7, 100, 5000, 60.4, figures=figures)
    spec = load_spec(ASSETS / "language" / "opd.toml")
    metrics = [{"step": 1, "reverse_kl": 2.0, "student_entropy": 4.0, "length": 9.0}]
    runs = [
        ArmRun(replace(arm, name=name), "run-1", spec, metrics, ["</p><script>bad()</script>"])
        for name in LANGUAGE.arms
    ]
    return StageRuns(LANGUAGE, runs, asdict(variety([[1, 2, 3]])), [Example("<b>why</b>", "because", "hm <i>")])


def test_the_table_has_the_student_before_every_arm_and_the_teacher() -> None:
    header, *lines = rows(done())
    assert header == ["", "before", *LANGUAGE.arms, "teacher"]
    assert all(len(line) == len(header) for line in lines)
    assert lines[0] == ["reverse KL", "3.000", "1.250", "1.250", "1.250", ""]
    assert lines[-1] == ["seconds", "", "60", "60", "60", ""]
    assert table(done()).row_count == len(lines)


def test_the_report_escapes_what_models_write(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [done()])
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;bad()&lt;/script&gt;" in page
    assert "&lt;b&gt;why&lt;/b&gt;" in page
    assert "hm &lt;i&gt;" in page
    assert "<title>Accuracy" not in page
    assert "Entropy of the student" in page


def test_the_result_has_the_fixed_form(tmp_path: Path) -> None:
    write_result(tmp_path / "result.json", [done()])
    [stage] = json.loads((tmp_path / "result.json").read_text())["stages"]
    assert stage["name"] == "language"
    assert stage["metric"] == "reverse_kl"
    needed = {"name", "before", "after", "seed", "student_tokens", "teacher_tokens", "seconds"}
    assert all(needed <= set(arm) for arm in stage["arms"])


def test_every_arm_of_the_language_stage_has_the_same_teacher_budget() -> None:
    chosen = specs(LANGUAGE, ASSETS)
    assert [spec.name for spec in chosen] == list(LANGUAGE.arms)
    assert len({(spec.budget.teacher_tokens, spec.rollout.max_new_tokens, spec.optim.schedule) for spec in chosen}) == 1
    assert len({spec.data.train for spec in chosen}) == 1


def test_a_short_demo_has_a_tenth_of_the_budget() -> None:
    spec = specs(LANGUAGE, ASSETS)[0]
    assert shortened(spec, short=False) == spec
    assert spec.budget.teacher_tokens is not None
    assert shortened(spec, short=True).budget.teacher_tokens == spec.budget.teacher_tokens // 10


def test_the_language_stage_runs_only_when_it_is_named() -> None:
    assert "language" in STAGES
    assert "language" not in DEFAULT


def test_without_its_models_the_stage_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="make demo-language"):
        LANGUAGE.model(tmp_path / "examples", "teacher")


def test_no_held_out_prompt_of_the_language_stage_is_trained_or_tuned_on() -> None:
    sets = {
        name: [json.loads(line)["prompt"][0]["content"] for line in text.splitlines()]
        for name in ("prompts", "eval", "tune")
        if (text := (ASSETS / "language" / f"{name}.jsonl").read_text())
    }
    together = [prompt for prompts in sets.values() for prompt in prompts]
    assert len(set(together)) == len(together)
    assert len(sets["prompts"]) >= 200
    assert len(sets["eval"]) == 64
