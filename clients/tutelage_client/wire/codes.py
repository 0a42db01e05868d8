"""Every stable code: of a problem that a service answers with, and of the error that ended a run.

A test holds both tables to the code that raises them.
"""

from __future__ import annotations

from typing import NamedTuple

from tutelage_client.wire.runs import Category


class ProblemCode(NamedTuple):
    """status: of HTTP; meaning: what happened and what helps."""

    status: int
    meaning: str


class RunCode(NamedTuple):
    """category: whose it is to mend; meaning: what happened."""

    category: Category
    meaning: str


# What any route may answer.
COMMON = {
    "invalid_input": ProblemCode(422, "a value is wrong; `field` says which, the sentence says what is possible"),
    "too_large": ProblemCode(413, "the body is over the limit, or a file that is uploaded in parts"),
    "unsupported_content_encoding": ProblemCode(415, "a body travels as it is; leave `Content-Encoding` out"),
    "foreign_request": ProblemCode(
        403, "no key is asked for, so the service is called by a loopback name, and changed by no page of another site"
    ),
    "unsupported_media_type": ProblemCode(
        415, "the body is called something that is not read here; name it in `Content-Type`, JSON as `application/json`"
    ),
    "not_found": ProblemCode(404, "no such route"),
    "method_not_allowed": ProblemCode(405, "the route is there, the method is not; `Allow` lists those that are"),
    "bad_request": ProblemCode(400, "the body could not be read"),
    "internal": ProblemCode(500, "a bug; the service's log has the reason"),
}

COORDINATOR = {
    "run_not_found": ProblemCode(404, "no run has this id"),
    "checkpoint_not_found": ProblemCode(404, "the run has no committed checkpoint, or none of this step"),
    "checkpoint_missing": ProblemCode(404, "the checkpoint was committed but its files are gone from disk, or damaged"),
    "teacher_not_found": ProblemCode(404, "no teacher is registered under this name"),
    "rollout_not_found": ProblemCode(404, "the run shows no rollout of this id (any more)"),
    "dead_letter_not_found": ProblemCode(404, "the run has no such dead letter (any more)"),
    "key_not_found": ProblemCode(404, "no key has this id"),
    "file_not_found": ProblemCode(404, "no file has this id"),
    "upload_not_found": ProblemCode(404, "nothing has arrived of this content, or it is whole or gone"),
    "log_not_found": ProblemCode(404, "the coordinator launched no such attempt, or its log is gone"),
    "content_missing": ProblemCode(404, "the file is known but its bytes are gone from disk; upload it again"),
    "model_missing": ProblemCode(404, "the run succeeded but its model is gone from disk"),
    "model_not_ready": ProblemCode(409, "the run has not succeeded (yet)"),
    "teacher_name_taken": ProblemCode(
        409, "another project has a teacher of this name, which names a queue; take another one"
    ),
    "teacher_in_use": ProblemCode(409, "a run that has not ended asks this teacher; wait for its end or cancel it"),
    "file_in_use": ProblemCode(409, "runs that have not ended name this file; wait for their end or cancel them"),
    "project_full": ProblemCode(
        413, "the project's files would be above the coordinator's `--max-project-bytes`; delete some"
    ),
    "run_changed": ProblemCode(412, "`If-Match` is not the run's `ETag`: it was changed meanwhile; read it again"),
    "run_is_final": ProblemCode(409, "the run has ended; submit a new one"),
    "run_is_cancelling": ProblemCode(409, "a cancellation cannot be taken back"),
    "run_not_queued": ProblemCode(409, "for workers: only a queued run can be claimed"),
    "not_pushed": ProblemCode(409, 'only a run with rollout.source = "pushed" takes rollouts'),
    "no_queue": ProblemCode(409, "the coordinator was started without `--redis-url`; dead letters are in the queue"),
    "no_launcher": ProblemCode(409, "the coordinator was started with `--launcher none`; it has no logs of trainers"),
    "upload_moved": ProblemCode(
        409, "the upload stands at another byte, which `Upload-Offset` tells, or another request writes it; go on there"
    ),
    "stale_epoch": ProblemCode(409, "for workers: a newer attempt owns the run, or the lease ran out; stop writing"),
    "stale_step": ProblemCode(409, "for workers: the checkpoint is older than the committed one"),
    "other_content": ProblemCode(422, "what was uploaded in parts does not hash to its name; it is gone, begin again"),
    "address_not_allowed": ProblemCode(
        422, "the teacher's address is none of the coordinator's `--teacher-addresses`, or one that no teacher may have"
    ),
    "unknown_teacher": ProblemCode(422, "no teacher has registered under this name"),
    "unknown_file": ProblemCode(422, "the spec names a file that was not uploaded"),
    "setting_is_fixed": ProblemCode(
        422, "a fork cannot change this setting, as the checkpoint means nothing without it; submit a new run"
    ),
    "idempotency_key_reused": ProblemCode(422, "the key made something else from another body; use a new key"),
    "key_made_before": ProblemCode(
        409, "the `Idempotency-Key` made a key, whose secret is not told again; revoke it and make another one"
    ),
    "queue_unavailable": ProblemCode(503, "the queue does not answer; clients try again"),
    "launcher_unavailable": ProblemCode(503, "what launches trainers does not answer; clients try again"),
    "database_unavailable": ProblemCode(503, "the database does not answer; clients try again"),
}

TEACHER = {
    "deadline_exceeded": ProblemCode(504, "not done within the seconds that the header `Tutelage-Timeout-S` gives"),
    "model_not_found": ProblemCode(404, "for `/v1/completions`: this teacher has another name, see `/v1/models`"),
    "bad_scores": ProblemCode(502, "the engine's answer was no valid score and was not passed on"),
    "engine_failed": ProblemCode(502, "the engine failed on this request"),
    "overloaded": ProblemCode(503, "too many tokens, or items to grade, wait; try again after `Retry-After`"),
}

BOTH = {
    "unauthorized": ProblemCode(401, "the bearer key is missing, unknown, expired or revoked; the sentence says which"),
    "rate_limited": ProblemCode(429, "the key asks too fast; try again after `Retry-After`"),
    "out_of_scope": ProblemCode(403, "the key may not be used for this; the sentence says for what it may"),
    "not_acceptable": ProblemCode(406, "the answer has no form that `Accept` takes; the sentence names those it has"),
    "budget_spent": ProblemCode(402, "the key or the run has not enough left for the most that this can cost"),
    "capability_missing": ProblemCode(422, "the teacher cannot do this, and nothing is approximated"),
    "not_ready": ProblemCode(503, "the service is starting, stopping, or failed its start-up probe"),
}

PROBLEMS = COMMON | COORDINATOR | TEACHER | BOTH

# The `error.code` of a run that failed.
RUN_ERRORS = {
    "invalid_input": RunCode("user", "something in the spec, the data or the student; `field` says where"),
    "diverged": RunCode("user", "the gradient's norm is not finite; lower `optim.lr` or add `signal_clip`"),
    "teacher_gone": RunCode(
        "teacher", 'a teacher with `on_loss = "fail"` is not registered any more; start it and submit the run again'
    ),
    "teacher_outage": RunCode(
        "teacher",
        'no answer came for longer than `outage_budget_s` allows, or `patience_s` with `on_loss = "fail"`; the newest '
        "checkpoint has all steps that were done",
    ),
    "teacher_not_allowed": RunCode(
        "teacher", "the teacher's address is none of the trainer's `--teacher-addresses`; nothing was sent to it"
    ),
    "teacher_changed": RunCode(
        "teacher", "the teacher's weights, tokenizer, engine or dtype are not those of the start"
    ),
    "bad_scores": RunCode("teacher", "three answers to one question were no valid scores"),
    "no_rewards": RunCode("teacher", "no rollout of a step has a valid reward"),
    "no_scores": RunCode("teacher", "the teacher gave up every question of a step"),
    "teacher_refused": RunCode("teacher", "the teacher refused over HTTP, for instance for want of a key"),
    "no_text": RunCode("teacher", "the teacher wrote no tokens to any prompt of a step"),
    "no_token_ids": RunCode("teacher", "the teacher wrote text without token ids, from which the student was to go on"),
    "bad_text": RunCode("teacher", "the teacher wrote another number of texts than it was asked for"),
    "question_failed": RunCode("teacher", 'the teacher gave up a question, and the spec says on_loss = "fail"'),
    "lease_expired": RunCode("infra", "the trainer was silent for longer than its lease, too often in a row"),
    "out_of_memory": RunCode("infra", "the trainer needed more memory than it may have, too often in a row"),
    "crashed": RunCode(
        "internal",
        "the trainer crashed too often since its last checkpoint; `infra` where its process died without a word",
    ),
    "launch_failed": RunCode(
        "infra", "the trainers that were launched ended before they took the run; `tutelage runs logs` says why"
    ),
    "internal": RunCode("internal", "the trainer gave no reason"),
}
