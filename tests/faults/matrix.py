"""The fault matrix as data: what can happen, what is promised then, and the tests that fail if it is not kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault. tests: pytest's ids, each of a test or of all parameters of one; none: nobody has proven it yet.

    Those below ROOT_ONLY need root and Debian packages, and are run by `make e2e`.
    """

    number: int
    fault: str
    promise: str
    tests: tuple[str, ...] = ()


FAULTS = "tests/faults"
TEACHERS, QUEUE, CONTROL = f"{FAULTS}/test_teachers.py", f"{FAULTS}/test_queue.py", f"{FAULTS}/test_control.py"
BITS, POOLS = f"{FAULTS}/test_bits.py", f"{FAULTS}/test_pools.py"
LAUNCHING = "tests/coordinator/test_launching.py"
ROOT_ONLY = "tests/e2e/faults"  # small disks, control groups, other networks, system calls that fail
DISKS, MACHINE, NETWORKS = f"{ROOT_ONLY}/disks.py", f"{ROOT_ONLY}/machine.py", f"{ROOT_ONLY}/networks.py"
RECOVERY, CONTRACT = "tests/queue/test_redis_recovery.py", "tests/queue/test_contract.py"

MATRIX = (
    Row(
        1,
        "a teacher is killed with a job in hand",
        "another one takes the job over when its lease has run out",
        (f"{TEACHERS}::test_a_teacher_killed_with_a_job_in_hand_loses_nothing",),
    ),
    Row(
        2,
        "a teacher freezes",
        "another one takes its jobs over; what it answers when it wakes has no effect",
        (f"{TEACHERS}::test_a_frozen_teacher_is_replaced_and_its_late_answer_has_no_effect",),
    ),
    Row(
        3,
        "a teacher answers with something that is no score, or is another one than it was",
        "the answer is refused with a reason and asked for again; it never reaches the loss",
        (
            f"{TEACHERS}::test_what_is_no_score_never_reaches_the_student",
            "tests/wire/test_scores.py",
        ),
    ),
    Row(
        4,
        "a job kills every teacher that takes it",
        "after its last delivery it is a dead letter; the jobs around it are answered",
        (
            f"{TEACHERS}::test_a_job_that_kills_every_teacher_ends_in_the_dead_letters_and_the_others_flow",
            f"{CONTRACT}::test_a_job_that_kills_its_workers_dies_and_others_flow",
            f"{FAULTS}/test_letters.py",
        ),
    ),
    Row(
        5,
        "an upstream answers 429 or 503",
        "its Retry-After is honoured, fewer calls are open at a time",
        ("tests/engines/test_upstream_calls.py",),
    ),
    Row(
        6,
        "all teachers are down",
        "the run waits, says so in a condition, and goes on by itself; or as its on_loss and outage_budget_s say",
        (
            f"{TEACHERS}::test_without_any_teacher_the_run_waits_says_so_and_goes_on_by_itself",
            f"{FAULTS}/test_outages.py",
            "tests/trainer/test_outages.py",
            "tests/teacher/test_upstream_away.py",
        ),
    ),
    Row(
        7,
        "the queue's server is killed and started again",
        "everybody waits and connects again; nothing is lost",
        (
            f"{QUEUE}::test_a_killed_server_comes_back_on_its_file_and_nothing_is_lost",
            f"{RECOVERY}::test_everything_survives_a_kill_and_a_restart",
        ),
    ),
    Row(
        8,
        "the queue's server freezes or cannot be reached",
        "every call ends in bounded time and is made again",
        (
            f"{QUEUE}::test_a_frozen_server_is_waited_for",
            f"{QUEUE}::test_a_way_that_is_cut_for_a_while_is_waited_for",
            f"{QUEUE}::test_a_bad_network_costs_time_and_nothing_else",
            f"{RECOVERY}::test_a_frozen_server_is_an_error_within_seconds_and_a_job_is_still_added_once",
        ),
    ),
    Row(
        9,
        "a reply is lost, its request had its effect",
        "no second effect",
        (
            f"{QUEUE}::test_a_way_that_is_cut_for_a_while_is_waited_for[redis_way-drop_replies]",
            f"{RECOVERY}::test_a_lost_reply_has_one_effect",
            f"{NETWORKS}::test_replies_of_the_queue_that_are_lost_have_had_their_effect_once",
        ),
    ),
    Row(
        10,
        "the queue's server is full",
        "the trainer waits; nothing is evicted",
        (
            f"{QUEUE}::test_a_full_server_makes_the_trainer_wait_and_loses_nothing",
            f"{RECOVERY}::test_a_full_server_refuses_whole_and_recovers",
        ),
    ),
    Row(
        11,
        "the queue's file is cut, garbled or deleted, or the server is flushed",
        "the trainer puts its outstanding questions again; garbled bytes are noticed by their checksum",
        (
            f"{QUEUE}::test_a_server_that_forgot_everything_is_filled_again",
            f"{QUEUE}::test_a_server_that_lost_its_file_is_filled_again",
            f"{RECOVERY}::test_a_garbled_blob_goes_to_the_dead_letters",
            f"{RECOVERY}::test_a_garbled_envelope_goes_to_the_dead_letters",
        ),
    ),
    Row(
        12,
        "the disk of the queue's server is full",
        "its refusals are waited for",
        (f"{DISKS}::test_a_full_disk_of_the_queue_is_waited_for",),
    ),
    Row(
        13,
        "the trainer is killed",
        "the next attempt goes on from the last checkpoint; what was done beyond it does not count",
        (
            f"{CONTROL}::test_a_killed_trainer_is_followed_by_another_one",
            f"{BITS}::test_a_trainer_killed_at_any_point_leaves_the_bits_as_they_are",
            f"{BITS}::test_whoever_else_is_killed_with_work_in_hand_leaves_the_bits_as_they_are",
            f"{DISKS}::test_killed_at_any_call_that_writes_a_checkpoint_the_former_one_is_whole",
            "tests/trainer/test_deterministic.py::test_a_run_that_died_anywhere_ends_with_the_bits_of_one_that_did_not",
            "tests/stack/test_lifecycle.py::test_a_trainer_killed_in_the_middle_resumes_from_its_checkpoint",
        ),
    ),
    Row(
        14,
        "the disk is full while a checkpoint is written",
        "the former one stays, nothing is left of the other; the run says so, goes on, and waits at a stated limit",
        (
            f"{DISKS}::test_a_full_disk_costs_checkpoints_alone_and_the_run_waits_only_at_its_limit",
            f"{DISKS}::test_however_little_room_is_left_a_checkpoint_is_whole_or_leaves_nothing",
            "tests/trainer/test_keeping.py",
        ),
    ),
    Row(
        15,
        "fsync fails",
        "that checkpoint does not count, none of its files is used again; the run says so and saves at its next step",
        (f"{DISKS}::test_a_failed_fsync_costs_that_checkpoint_and_no_file_of_it_is_used_again",),
    ),
    Row(
        16,
        "a checkpoint rots",
        "its hashes tell; the former one is used, with an event",
        ("tests/trainer/test_checkpoint.py::test_of_a_damaged_checkpoint_the_older_one_is_used",),
    ),
    Row(
        17,
        "a trainer freezes for longer than its lease and wakes",
        "a new attempt runs; the old one is refused at its first write and exits with 86",
        (
            f"{CONTROL}::test_a_zombie_is_fenced_and_leaves_no_trace",
            f"{MACHINE}::test_a_trainer_whose_threads_are_all_frozen_is_fenced_when_they_wake",
        ),
    ),
    Row(
        18,
        "one rank of a distributed student is killed",
        "all ranks start again from the last checkpoint",
        (
            f"{FAULTS}/test_ranks.py::test_whichever_rank_is_killed_all_go_on_from_the_last_checkpoint_and_end_with_the_same_bits",
        ),
    ),
    Row(
        19,
        "the trainer runs out of memory",
        "the attempt ends as `out_of_memory`, with a remedy; restarts are bounded",
        (f"{MACHINE}::test_a_trainer_without_memory_says_so_and_is_tried_again_a_few_times",),
    ),
    Row(
        20,
        "the coordinator is killed at any request",
        "no run is lost or doubled; a stream of events has no gap and no duplicate",
        (
            f"{CONTROL}::test_a_coordinator_killed_again_and_again_loses_and_doubles_no_run",
            "tests/coordinator/test_faults.py::test_an_outage_of_the_database_is_told_and_survived",
        ),
    ),
    Row(
        21,
        "two coordinators or many trainers race for a run",
        "one starts it",
        (
            f"{CONTROL}::test_of_two_coordinators_and_many_trainers_one_starts_the_run",
            f"{LAUNCHING}::test_a_run_that_waits_is_launched_once_by_any_number_of_coordinators",
        ),
    ),
    Row(
        22,
        "answers arrive twice and out of order",
        "each counts once",
        (
            f"{QUEUE}::test_everything_delivered_twice_and_out_of_order_is_learned_once",
            f"{FAULTS}/test_simulation.py",
        ),
    ),
    Row(
        23,
        "the network between trainer, queue and coordinator is cut, in one direction or both",
        "the trainer stops by itself before its lease ends; nothing needs mending by hand",
        (
            f"{CONTROL}::test_a_trainer_that_does_not_hear_the_coordinator_fences_itself_before_its_lease_ends",
            f"{CONTROL}::test_a_short_silence_of_the_coordinator_is_not_noticed",
            f"{NETWORKS}::test_a_trainer_whose_packets_are_lost_one_way_fences_itself_before_its_lease_ends",
            f"{QUEUE}::test_a_way_that_is_cut_for_a_while_is_waited_for",
        ),
    ),
    Row(
        24,
        "the clock of a host is set",
        "no living holder loses a run, no dead one keeps anything",
        (f"{FAULTS}/test_clocks.py",),
    ),
    Row(
        25,
        "a service is told to go",
        "what is in hand is finished or handed back; a trainer saves first and exits with 75",
        (
            f"{CONTROL}::test_a_trainer_that_is_told_to_go_saves_hands_back_and_says_so",
            f"{CONTROL}::test_a_teacher_that_is_told_to_go_finishes_or_hands_back",
            "tests/teacher/test_queue_door.py::test_a_job_that_is_not_done_in_time_is_handed_back",
            f"{POOLS}::test_a_pool_grows_and_shrinks_under_load_and_every_rollout_is_learned_from_once",
        ),
    ),
    Row(
        26,
        "readers of an event stream are slow or dead",
        "the coordinator's memory stays flat",
        (f"{CONTROL}::test_readers_of_events_that_do_not_read_cost_the_coordinator_no_memory",),
    ),
    Row(
        27,
        "the student diverges",
        "the run ends with a reason",
        ("tests/trainer/test_execute.py::test_a_run_that_diverges_fails",),
    ),
    Row(
        28,
        "rollouts are stale",
        "no step is begun so early that its text would be older than `max_lag`; what is, is left out and counted",
        (
            "tests/faults/test_lag.py",
            "tests/trainer/test_ahead.py::test_no_rollout_is_older_than_the_bound_and_each_has_the_log_probs_of_its_version",
            "tests/trainer/test_ahead.py::test_text_older_than_the_bound_is_left_out_and_counted",
        ),
    ),
    Row(
        29,
        "old and new versions work on one queue",
        "an old teacher leaves what it cannot read to a newer one",
        (
            f"{RECOVERY}::test_a_job_of_a_newer_schema_is_left_to_a_newer_worker",
            f"{POOLS}::test_jobs_of_two_releases_are_answered_side_by_side_while_one_of_the_older_teachers_goes",
        ),
    ),
    Row(
        30,
        "the database is locked or gone, or its disk is full",
        "503 with Retry-After; clients repeat",
        (
            "tests/coordinator/test_faults.py::test_an_outage_of_the_database_is_told_and_survived",
            f"{DISKS}::test_a_full_disk_of_the_database_is_a_503_and_is_outlived_by_the_run",
        ),
    ),
)
