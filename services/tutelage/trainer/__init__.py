"""The student's process: it leases a run, writes rollouts, asks the teacher through the queue, learns, checkpoints."""
