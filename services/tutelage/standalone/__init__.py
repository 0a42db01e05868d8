"""The whole stack on one machine: the same processes as in a cluster, as supervised subprocesses."""
