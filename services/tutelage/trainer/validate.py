"""What only the tokenizer, the data and the teacher's description can tell, checked before the first rollout."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from tutelage.engines.tokenizer import tokenizer_fingerprint
from tutelage.trainer.data import Example
from tutelage.trainer.student import Student
from tutelage.trainer.teachers import Teachers
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, teacher_for, unrepeatable
from tutelage_client.wire import RewardKind, RolloutLimits, TeacherInfo, needs_model


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, teacher: TeacherInfo) -> None:
    """Scores are per token: student and teacher must cut text alike.

    Raises:
        InvalidInput: the fingerprints differ.
    """
    own, other = tokenizer_fingerprint(tokenizer), teacher.provenance.tokenizer_fingerprint
    if own != other:
        raise InvalidInput(
            f"student.model: its tokenizer ({own[:12]}) is not that of teacher {teacher.name!r} ({other[:12]}); "
            "per-token scores need one tokenizer, choose a student of the teacher's family",
            "student.model",
        )


def check_repeats(spec: RunSpec, teacher: TeacherInfo) -> None:
    """Raises InvalidInput where the run must repeat bit for bit and this teacher writes other text each time."""
    sentence = unrepeatable(spec, teacher.name, teacher.capabilities)
    if sentence is not None:
        raise InvalidInput(f"deterministic: {sentence}", "deterministic")


def check_lengths(spec: RunSpec, examples: list[Example], field: str, limits: dict[str, int]) -> None:
    """`limits`: context length of each model by name.

    Raises:
        InvalidInput: the longest prompt leaves no room for max_new_tokens.
    """
    longest = max(examples, key=lambda e: len(e.prompt_ids))
    tokens = len(longest.prompt_ids)
    for name, limit in limits.items():
        if tokens + spec.rollout.max_new_tokens > limit:
            raise InvalidInput(
                f"{field}: the longest prompt, on line {longest.line}, has {tokens} tokens, with "
                f"rollout.max_new_tokens = {spec.rollout.max_new_tokens} it exceeds the context of the {name}, {limit} "
                "tokens; shorten the prompts or max_new_tokens",
                field,
            )


def check_routes(spec: RunSpec, examples: list[Example]) -> None:
    """Every line has a teacher, and every tag of a teacher a line: a tag that is misspelt goes nowhere unseen.

    Raises:
        InvalidInput: the first line that no teacher takes, or a tag that no line has.
    """
    for example in examples:
        try:
            teacher_for(spec.teachers, example.tag)
        except InvalidInput as error:
            raise InvalidInput(f"data.train: line {example.line}: {error.message}", "data.train") from error
    present = {example.tag for example in examples}
    for index, teacher in enumerate(spec.teachers):
        for tag in teacher.tags:
            if tag not in present:
                there = ", ".join(sorted(repr(known) for known in present if known is not None)) or "none"
                field = f"teachers.{index}.tags"
                raise InvalidInput(f"{field}: no line of data.train has the tag {tag!r}; its tags are {there}", field)


def check_completions(examples: list[Example], field: str, limits: dict[str, int]) -> None:
    """The same for completions that come from the data file."""
    longest = max(examples, key=_whole_length)
    for name, limit in limits.items():
        if _whole_length(longest) > limit:
            raise InvalidInput(
                f"{field}: the longest prompt with its completion, on line {longest.line}, has "
                f"{_whole_length(longest)} tokens, over the context of the {name}, {limit} tokens; shorten it",
                field,
            )


def readable(spec: RunSpec, student: Student, teachers: Teachers) -> RolloutLimits:
    """What can be read of rollouts that are pushed: by the student, and by the teachers that read token ids."""
    able = [each.view.info.capabilities for each in teachers.everyone if each.reads_tokens(spec)]
    known = [each.vocabulary_size for each in able if each.vocabulary_size is not None]
    return RolloutLimits(
        vocabulary_size=min([student.vocabulary_size, *known]),
        context=min([*student.contexts.values(), *(each.max_length for each in able)]),
    )


def check_grading(spec: RunSpec, examples: list[Example]) -> None:
    """Raises InvalidInput where evaluation would need answers that the file does not have."""
    check_references(spec.data.grader, examples, "data.eval")


def check_references(reward: RewardKind, examples: list[Example], field: str) -> None:
    """Raises InvalidInput where a reward compares with answers that the file does not have."""
    judged = needs_model(reward) and getattr(reward, "against", None) != "reference"
    if reward.kind == "pattern" or judged:
        return
    for example in examples:
        if example.answer is None:
            raise InvalidInput(
                f'{field}: {reward.kind!r} needs an "answer" on every line; line {example.line} has none', field
            )


def _whole_length(example: Example) -> int:
    return len(example.prompt_ids) + len(example.completion_ids or ())
