"""A Debian kernel as its package has it: the image and the modules."""
import os
import re
import subprocess

from common import LabError


def image(folder):
    boot = os.path.join(folder, "boot")
    for name in sorted(os.listdir(boot)):
        if name.startswith("vmlinuz"):
            return os.path.join(boot, name)
    raise LabError("no vmlinuz in " + boot)


def norm(name):
    """A module's name with underscores, as the kernel compares names."""
    return name.replace("-", "_")


class Modules:
    """The kernel's modules. Dependencies and aliases are read from the .ko files: the package ships no modules.dep, which
    is made at installation."""

    def __init__(self, folder):
        base = os.path.join(folder, "lib/modules")
        if not os.path.isdir(base):
            base = os.path.join(folder, "usr/lib/modules")
        versions = sorted(os.listdir(base))
        if not versions:
            raise LabError("no modules under " + base)
        self.version = versions[0]
        self.path = {}
        top = os.path.join(base, self.version)
        for root, _, files in os.walk(top):
            for name in files:
                found = re.match(r"(.+)\.ko(\.xz|\.zst|\.gz)?$", name)
                if found:
                    self.path[norm(found.group(1))] = os.path.join(root, name)
        self.builtin = set()
        try:
            with open(os.path.join(top, "modules.builtin")) as file:
                for line in file:
                    self.builtin.add(norm(os.path.basename(line.strip()).split(".ko")[0]))
        except FileNotFoundError:
            pass
        self._info = {}

    def blob(self, name):
        path = self.path[name]
        for ending, command in ((".xz", ["xz", "-dc"]), (".zst", ["zstd", "-dc"]), (".gz", ["gzip", "-dc"])):
            if path.endswith(ending):
                return subprocess.run(command + [path], stdout=subprocess.PIPE, check=True).stdout
        with open(path, "rb") as file:
            return file.read()

    def info(self, name):
        """(content, names that it depends on, aliases)"""
        if name not in self._info:
            data = self.blob(name)
            # .modinfo is a run of NUL-terminated key=value strings.
            found = re.search(rb"\0depends=([^\0]*)\0", data)
            depends = [norm(other) for other in (found.group(1).decode().split(",") if found else []) if other]
            for soft in re.finditer(rb"\0softdep=pre: ([^\0]*)\0", data):
                depends += [norm(other) for other in soft.group(1).decode().split() if norm(other) in self.path]
            aliases = [alias.decode() for alias in re.findall(rb"\0alias=([^\0]*)(?=\0)", data)]
            self._info[name] = (data, depends, aliases)
        return self._info[name]

    def closure(self, names):
        """Names in an order in which they can be loaded, each once."""
        order, seen = [], set()

        def visit(name, wanted_by):
            if name in seen or name in self.builtin:
                return
            if name not in self.path:
                needed = " (needed by %s)" % wanted_by if wanted_by else ""
                raise LabError("the kernel %s has no module %r%s (try --list-modules, or --kernel full)"
                               % (self.version, name, needed))
            seen.add(name)
            for other in self.info(name)[1]:
                visit(other, name)
            order.append(name)

        for name in names:
            visit(norm(name), "")
        return order
