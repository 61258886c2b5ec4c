"""Puts together what the guest starts with: programs, modules, the script, and what was asked for."""
import os
import re
import shlex
import subprocess

from common import LabError, note, which
from initramfs import Root
from kernel import norm

# busybox's shell, and those of its applets that run commands, would take its applets `ip` and `tc` in place of iproute2's:
# the shells and such tools are the host's own.
HOST_PROGRAMS = {
    "/usr/sbin/": ("ip", "tc", "bridge", "chroot", "start-stop-daemon"),
    "/usr/bin/": ("ss", "bash", "env", "timeout", "nohup", "nice", "xargs", "find", "setsid", "unshare", "nsenter", "flock"),
}
# Of Python's library, not needed by scripts.
NO_PYTHON = ("test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "pydoc_data")


def build(args, modules, work):
    """Writes the initramfs for these options and returns its path."""
    root = Root(args.libraries)
    busybox = which("busybox")
    with open(busybox, "rb") as file:
        root.file("/usr/bin/busybox", file.read(), 0o755)
    put_host_programs(root)
    put_what_was_asked_for(root, args)
    for applet in subprocess.run([busybox, "--list"], text=True, stdout=subprocess.PIPE, check=True).stdout.split():
        if not any(root.has("usr/%s/%s" % (folder, applet)) for folder in ("bin", "sbin")):
            root.link("usr/bin/" + applet, "/bin/busybox")
    if not root.has("usr/sbin/modprobe"):
        root.link("usr/sbin/modprobe", "/bin/busybox")
    put_settings(root)
    put_modules(root, args, modules)
    put_command(root, args)
    path = os.path.join(work, "initrd")
    with open(path, "wb") as file:
        file.write(root.bytes())
    note("initramfs %.1f MiB" % (os.path.getsize(path) / 1048576))
    return path


def put_host_programs(root):
    root.put(os.path.realpath(which("dash") or "/bin/sh"), "/usr/bin/sh")
    for folder, programs in HOST_PROGRAMS.items():
        for program in programs:
            source = which(program)
            if source:
                root.put(os.path.realpath(source), folder + program)
    for folder in ("/usr/lib/x86_64-linux-gnu/tc", "/usr/lib/tc"):
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                if name.endswith(".dist"):
                    root.put(os.path.join(folder, name), os.path.join(folder, name))
    if os.path.isdir("/etc/iproute2"):
        root.put("/etc/iproute2", "/etc/iproute2", libraries=False)


def put_what_was_asked_for(root, args):
    for name in args.bin:
        source = which(name)
        if not source:
            raise LabError("--bin %s: no such program on this host's PATH" % name)
        root.put(os.path.realpath(source), "/usr/bin/" + os.path.basename(name))
    if args.with_python:
        put_python(root)
    copies = [(spec, True) for spec in args.copy] + [(spec, False) for spec in args.copy_tree]
    for spec, libraries in copies:
        source, _, target = spec.partition(":")
        if not os.path.exists(source):
            raise LabError("--copy %s: no such file" % source)
        target = target or os.path.abspath(source)
        if target.endswith("/") and not os.path.isdir(source):
            target += os.path.basename(source)
        root.put(source, target, libraries)


def put_python(root):
    program = os.path.realpath("/usr/bin/python3")
    library = "/usr/lib/" + os.path.basename(program)
    if not os.path.isfile(program) or not os.path.isdir(library):
        raise LabError("--with-python: no /usr/bin/python3 with its library on this host (apt-get install python3)")
    root.put(program, program)
    root.link("usr/bin/python3", program)
    for top, folders, files in os.walk(library):
        folders[:] = [folder for folder in folders if folder not in NO_PYTHON and not folder.startswith("config-")]
        for name in files:
            path = os.path.join(top, name)
            if os.path.isfile(path):
                root.put(path, path, libraries="lib-dynload" in top)


def put_settings(root):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "init"), "rb") as file:
        root.file("/lab/init", file.read(), 0o755)
    root.link("init", "/lab/init")
    root.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    root.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    root.file("/etc/modprobe.d/debian.conf", b"options bonding max_bonds=0\noptions dummy numdummies=0\n")
    root.file("/etc/hosts", b"127.0.0.1 localhost lab\n::1 localhost\n")
    root.file("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n")


def put_modules(root, args, modules):
    """The modules asked for, with the indices that the kernel's package leaves to its installation."""
    wanted, load = [], []
    for spec in args.module:
        name, _, options = spec.partition(":")
        only_at_hand = name.startswith("+")
        name = norm(name.lstrip("+"))
        wanted.append(name)
        if not only_at_hand and name not in modules.builtin:
            load.append((name, options.replace(",", " ") if "=" not in options else options))
    if args.out:
        wanted += ["virtio_pci", "virtio_blk"]
        load += [("virtio_pci", ""), ("virtio_blk", "")]
        root.file("/lab/want-out", b"")
    order = modules.closure(wanted)
    folder = "usr/lib/modules/" + modules.version
    depends, aliases = [], []
    for name in order:
        data, _, own = modules.info(name)
        root.file("%s/kernel/%s.ko" % (folder, name), data)
        needed = [other for other in modules.closure([name]) if other != name]
        depends.append("kernel/%s.ko:%s" % (name, "".join(" kernel/%s.ko" % other for other in reversed(needed))))
        aliases += ["alias %s %s" % (alias, name) for alias in own]
    root.file(folder + "/modules.dep", ("\n".join(depends) + "\n").encode())
    root.file(folder + "/modules.alias", ("\n".join(aliases) + "\n").encode())
    root.file(folder + "/modules.symbols", b"")
    builtin = "".join("kernel/%s.ko\n" % name for name in sorted(modules.builtin))
    root.file(folder + "/modules.builtin", builtin.encode())
    root.file("/lab/modules", "".join("%s %s\n" % each for each in load).encode())
    note("modules: " + " ".join(order))


def put_command(root, args):
    """What the guest runs, with its environment."""
    environment = []
    for setting in args.env:
        name, given, value = setting.partition("=")
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*$", name):
            raise LabError("--env %s: want NAME=VALUE" % setting)
        value = value if given else os.environ.get(name, "")
        environment.append("export %s=%s\n" % (name, shlex.quote(value)))
    root.file("/lab/env", "".join(environment).encode())
    if args.run:
        words = put_script(root, args.run[0]) + args.run[1:]
    elif args.sh is not None:
        root.file("/lab/script", args.sh.encode() + b"\n", 0o755)
        words = ["/bin/sh", "/lab/script"]
    else:
        words = args.cmd
    if args.guest_timeout:
        words = ["/usr/bin/timeout", str(args.guest_timeout)] + words
    root.file("/lab/start", ("#!/bin/sh\nexec %s\n" % shlex.join(words)).encode(), 0o755)


def put_script(root, path):
    """Puts the file of --run in and returns the words that start it."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise LabError("--run %s: %s" % (path, error.strerror)) from error
    root.file("/lab/script", text, 0o755)
    if text[:4] == b"\x7fELF":
        root.libraries(path)
        return ["/lab/script"]
    head = re.match(rb"#!\s*(\S+)(?:[ \t]+(\S+))?", text)
    if not head:
        return ["/bin/sh", "/lab/script"]
    interpreter = head.group(1).decode()
    if os.path.basename(interpreter) == "env" and head.group(2):
        interpreter = head.group(2).decode()
    name = os.path.basename(interpreter)
    if not (root.has("usr/bin/" + name) or root.has("usr/sbin/" + name)):
        source = which(name)
        if name != "dash" or not source:
            way = "--with-python" if name.startswith("python3") else "--bin/--copy"
            raise LabError("--run %s wants %s, which is not in the guest (add it with %s)" % (path, name, way))
        root.put(os.path.realpath(source), "/usr/bin/" + name)
    return ["/lab/script"]
