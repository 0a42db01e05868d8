"""What a soak does to a running stack, as a table: a fault by its name, its row of the matrix, how soon a step follows.

Each returns when its cause is gone: the process is dead or goes on again, the network is well, the file is as it will
be. What died is started by whoever keeps it, as anywhere.
"""

from __future__ import annotations

from needs import Need

from harms import besides, coordinators, networks, queues, teachers, trainers, versions
from harms.harm import RESTART_S, STEP_S, Harm

__all__ = ["HARMS", "Harm"]

HARMS: dict[str, Harm] = {
    "a teacher is killed": Harm(1, STEP_S, teachers.teacher_killed),
    "a teacher freezes": Harm(2, STEP_S, teachers.teacher_frozen),
    "a teacher lies": Harm(3, STEP_S, teachers.teacher_lies),
    "a poisoned job": Harm(4, STEP_S, teachers.poison),
    "a teacher is rate limited": Harm(5, STEP_S, teachers.teacher_rate_limited, (Need.HOSTED,)),
    "all teachers freeze": Harm(6, STEP_S, teachers.no_teacher),
    "all teachers are killed": Harm(6, RESTART_S, teachers.teachers_killed),
    "the queue is killed": Harm(7, STEP_S, queues.queue_killed),
    "the queue freezes": Harm(8, STEP_S, queues.queue_frozen),
    "the queue is cut off": Harm(8, STEP_S, networks.queue_cut_off),
    "the network is bad": Harm(8, STEP_S, networks.bad_network),
    "replies of the queue are lost": Harm(9, STEP_S, networks.replies_lost),
    "the queue is full": Harm(10, STEP_S, queues.queue_full),
    "the queue is flushed": Harm(11, STEP_S, queues.queue_flushed),
    "the queue's file is cut": Harm(11, STEP_S, queues.queue_file_cut),
    "the queue's file is lost": Harm(11, STEP_S, queues.queue_file_lost),
    "the queue's disk is full": Harm(12, STEP_S, queues.queues_disk_full, (Need.DISKS,)),
    "the trainer is killed": Harm(13, RESTART_S, trainers.trainer_killed),
    "the trainer's machine is lost": Harm(13, RESTART_S, trainers.trainers_machine_lost),
    "the disk of checkpoints is full": Harm(14, STEP_S, trainers.checkpoints_disk_full, (Need.DISKS,)),
    "fsync fails": Harm(15, STEP_S, trainers.fsync_fails, (Need.STRACE,)),
    "a checkpoint rots": Harm(16, RESTART_S, trainers.checkpoint_rots),
    "the trainer freezes": Harm(17, RESTART_S, trainers.trainer_frozen),
    "the trainer has no memory": Harm(19, RESTART_S, trainers.trainer_without_memory, (Need.MEMORY,)),
    "the coordinator is killed": Harm(20, RESTART_S, coordinators.coordinator_killed),
    "the coordinator freezes": Harm(20, RESTART_S, coordinators.coordinator_frozen),
    "two coordinators": Harm(21, STEP_S, coordinators.two_coordinators),
    "answers come again": Harm(22, STEP_S, queues.answers_again),
    "the coordinator is cut off": Harm(23, RESTART_S, networks.coordinator_cut_off),
    "the queue's clock is set": Harm(24, STEP_S, queues.queues_clock_set),
    "the coordinator's clock is set": Harm(24, STEP_S, coordinators.coordinators_clock_set),
    "a teacher is told to go": Harm(25, STEP_S, teachers.teacher_told_to_go),
    "the trainer is told to go": Harm(25, RESTART_S, trainers.trainer_told_to_go),
    "readers do not read": Harm(26, STEP_S, coordinators.readers_do_not_read),
    "the student diverges": Harm(27, RESTART_S, besides.student_diverges),
    "text waits for slow teachers": Harm(28, STEP_S, besides.text_waits),
    "a newer version asks": Harm(29, STEP_S, versions.newer_version_asks),
    "the database is locked": Harm(30, STEP_S, coordinators.database_locked),
}
