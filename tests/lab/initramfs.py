"""The guest's file system: an archive made in memory, without root, device nodes or a cpio program."""
import os
import re
import stat
import subprocess

from common import LabError, which


class Cpio:
    """A newc archive."""

    def __init__(self):
        self.out, self.seen, self.inode = [], set(), 1

    def _add(self, name, mode, data=b"", device=(0, 0)):
        name = name.lstrip("/")
        parent = os.path.dirname(name)
        if parent and parent not in self.seen:
            self.mkdir(parent)
        if name in self.seen and stat.S_ISDIR(mode):
            return
        self.seen.add(name)
        raw = name.encode() + b"\0"
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        self.out += [head + b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def mkdir(self, name, mode=0o755):
        self._add(name, stat.S_IFDIR | mode)

    def file(self, name, data, mode=0o644):
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def node(self, name, major, minor, mode):
        self._add(name, stat.S_IFCHR | mode, b"", (major, minor))

    def has(self, name):
        return name.lstrip("/") in self.seen

    def bytes(self):
        self._add("TRAILER!!!", 0)
        return b"".join(self.out)


class Root(Cpio):
    """An archive with the folders of a Debian system, which takes files of this host with the libraries they need."""

    def __init__(self, more_libraries=()):
        super().__init__()
        self.more_libraries = [os.path.abspath(folder) for folder in more_libraries]
        for folder in ("proc", "sys", "dev", "dev/pts", "run", "tmp", "out", "etc", "root", "var", "var/log", "var/lib",
                       "mnt", "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"):
            self.mkdir(folder, 0o1777 if folder == "tmp" else 0o755)
        # As on Debian 12, so that the paths of libraries that ldd prints are right.
        for folder in ("bin", "sbin", "lib", "lib64"):
            self.link(folder, "usr/" + folder)
        self.link("var/run", "/run")
        self.node("dev/console", 5, 1, 0o600)
        self.node("dev/null", 1, 3, 0o666)

    @staticmethod
    def merged(path):
        path = os.path.normpath("/" + path.lstrip("/"))
        return re.sub(r"^/(bin|sbin|lib|lib64)(?=/|$)", r"/usr/\1", path)

    def put(self, source, target, libraries=True):
        """A file or folder of this host."""
        target = self.merged(target)
        if os.path.isdir(source):
            self.mkdir(target)
            for name in sorted(os.listdir(source)):
                self.put(os.path.join(source, name), os.path.join(target, name), libraries)
            return
        try:
            with open(source, "rb") as file:
                data = file.read()
        except OSError as error:
            raise LabError("cannot copy %s: %s" % (source, error.strerror)) from error
        self.file(target, data, stat.S_IMODE(os.stat(source).st_mode) | 0o400)
        if libraries and data[:4] == b"\x7fELF":
            self.libraries(source)

    def libraries(self, path):
        """Those that a program is linked with."""
        said = subprocess.run([which("ldd"), os.path.abspath(path)], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=dict(os.environ, LC_ALL="C", **self.library_path())).stdout
        if "not a dynamic executable" in said or "statically linked" in said:
            return
        for line in said.splitlines():
            if "not found" in line:
                raise LabError("%s needs a library that this host lacks: %s" % (path, line.strip()))
            found = re.search(r"(?:=>\s*)?(/\S+)\s+\(0x", line)
            if not found:
                continue
            target = found.group(1)
            if os.path.dirname(target) in self.more_libraries:
                # The guest's loader looks for it where it would be, were its package installed.
                target = "/usr/lib/x86_64-linux-gnu/" + os.path.basename(target)
            if not self.has(self.merged(target)):
                with open(found.group(1), "rb") as file:
                    self.file(self.merged(target), file.read(), 0o755)

    def library_path(self):
        return {"LD_LIBRARY_PATH": ":".join(self.more_libraries)} if self.more_libraries else {}
