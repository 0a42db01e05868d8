"""What only root can do to a machine: small disks, control groups, a network of its own. Each is undone at its end."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def run(*command: str | Path, given: str | None = None) -> str:
    return subprocess.run(command, check=True, text=True, capture_output=True, input=given, timeout=60).stdout


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own for this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", "--lazy", folder)


@contextmanager
def filled(folder: Path, leaving: int = 0) -> Iterator[None]:
    """Not a byte more fits on the disk of this folder, but for those that are left."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while file.write(b"0" * 65536):
                    pass
            _top_up(file.fileno())
            if leaving:
                file.truncate(max(0, file.tell() - leaving))
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _top_up(descriptor: int) -> None:
    while True:
        try:
            os.write(descriptor, b"0")
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return


class Group:
    """A control group of one controller, in either version of them."""

    def __init__(self, controller: str, name: str) -> None:
        self.is_first = (_GROUPS / controller).is_dir()
        if not self.is_first:
            (_GROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        self.folder = (_GROUPS / controller if self.is_first else _GROUPS) / name
        self.folder.mkdir()

    @property
    def before(self) -> list[str]:
        """What to put before a command so that it runs in the group."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]

    def limit_memory(self, most_bytes: int | None) -> None:
        """None: as much as there is."""
        name, unlimited = ("memory.limit_in_bytes", "-1") if self.is_first else ("memory.max", "max")
        (self.folder / name).write_text(unlimited if most_bytes is None else str(most_bytes))

    @property
    def used_bytes(self) -> int:
        return int((self.folder / ("memory.usage_in_bytes" if self.is_first else "memory.current")).read_text())

    def freeze(self, *, frozen: bool) -> None:
        if self.is_first:
            (self.folder / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        else:
            (self.folder / "cgroup.freeze").write_text(str(int(frozen)))

    def remove(self) -> None:
        self.folder.rmdir()


class Network:
    """A namespace with one cable to this one; `host` is where this one is reached from there."""

    def __init__(self, name: str, subnet: str) -> None:
        self.name, self.host, self.inside = name, f"{subnet}.1", f"{subnet}.2"
        self.outer, inner = outer, inner = f"{name}-o", f"{name}-i"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        run("ip", "addr", "add", f"{self.host}/24", "dev", outer)
        run("ip", "link", "set", outer, "up")
        for command in (f"addr add {self.inside}/24 dev {inner}", f"link set {inner} up", "link set lo up"):
            run("ip", "-n", name, *command.split())

    @property
    def before(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    @contextmanager
    def dropping(self, way: str, rule: str = "") -> Iterator[None]:
        """Packets on their way "in" or "out" of the namespace that match the rule are lost."""
        hook = {"in": "input", "out": "output"}[way]
        table = f"table inet cut {{ chain c {{ type filter hook {hook} priority 0; {rule} drop; }}; }}"
        run(*self.before, "nft", "-f", "-", given=table)
        try:
            yield
        finally:
            run(*self.before, "nft", "delete", "table", "inet", "cut")

    def remove(self) -> None:
        run("ip", "link", "del", self.outer)
        run("ip", "netns", "del", self.name)
