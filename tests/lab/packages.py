"""Installs the programs that the lab needs, and fetches Debian's kernels."""
import contextlib
import fcntl
import os
import re
import shutil
import tempfile

from common import LabError, note, run_quiet, say, which

KERNELS = {
    "cloud": "linux-image-cloud-amd64",
    "full": "linux-image-amd64",
    "6.12": "linux-image-6.12-cloud-amd64",
}
NEEDED = (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("ip", "iproute2"),
          ("tc", "iproute2"), ("ldd", "libc-bin"), ("dpkg-deb", "dpkg"))


def cache():
    """The folder for kernels, which exists."""
    given = os.environ.get("LAB_CACHE")
    if given:
        os.makedirs(given, exist_ok=True)
        return given
    folder = "/var/cache/bondd-lab"
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        pass
    if os.access(folder, os.W_OK):
        return folder
    folder = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../target/lab-cache"))
    os.makedirs(folder, exist_ok=True)
    return folder


def apt_env():
    return dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")


def apt(arguments, what):
    """apt-get with these arguments; if it fails, with fresh package lists once more."""
    if os.environ.get("LAB_NO_INSTALL"):
        raise LabError("%s needed, but LAB_NO_INSTALL is set" % what)
    base = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    try:
        return run_quiet(base + arguments, what, apt_env())
    except LabError:
        note("apt-get update, then again: " + what)
        run_quiet(base + ["update"], "apt-get update", apt_env())
        return run_quiet(base + arguments, what, apt_env())


def is_static(path):
    with open(path, "rb") as file:
        head = file.read(4096)
    return head[:4] == b"\x7fELF" and b"ld-linux" not in head


def ensure_tools():
    missing = {package for program, package in NEEDED if not which(program)}
    busybox = which("busybox")
    if busybox and not is_static(busybox):
        missing.add("busybox-static")
    if missing:
        names = " ".join(sorted(missing))
        say("installing with apt-get: " + names)
        apt(["install", "-y", "--no-install-recommends"] + sorted(missing), "installing " + names)
    for program, package in NEEDED:
        if not which(program):
            raise LabError("%s (package %s) is not there" % (program, package))


@contextlib.contextmanager
def locked(path):
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kernel_folder(flavour):
    """Folder with boot/vmlinuz-* and lib/modules/*, fetched once into the cache."""
    folder = cache()
    final = os.path.join(folder, "kernel-" + flavour)
    complete = os.path.join(final, ".complete")
    if os.path.exists(complete):
        return final
    with locked(os.path.join(folder, ".lock-" + flavour)):
        if not os.path.exists(complete):
            say("fetching the Debian kernel (%s) into %s" % (KERNELS[flavour], folder))
            work = tempfile.mkdtemp(prefix="fetch-", dir=folder)
            try:
                fetch(KERNELS[flavour], work, final)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return final


def fetch(meta, work, final):
    """Downloads and unpacks the package that `meta` depends on."""
    # apt's own user has to reach it.
    os.chmod(work, 0o755)
    package = depends(meta)
    here = os.getcwd()
    os.chdir(work)
    try:
        apt(["download", package], "downloading " + package)
    finally:
        os.chdir(here)
    files = [name for name in os.listdir(work) if name.endswith(".deb")]
    if len(files) != 1:
        raise LabError("expected one .deb for %s, got %r" % (package, files))
    tree = os.path.join(work, "tree")
    run_quiet(["dpkg-deb", "-x", os.path.join(work, files[0]), tree], "unpacking " + files[0])
    with open(os.path.join(tree, ".complete"), "w") as file:
        file.write(files[0] + "\n")
    shutil.rmtree(final, ignore_errors=True)
    os.rename(tree, final)


def depends(meta):
    """The package of the kernel itself, such as linux-image-6.1.0-48-cloud-amd64."""
    for fresh in (False, True):
        if fresh and not os.environ.get("LAB_NO_INSTALL"):
            run_quiet(["apt-get", "update"], "apt-get update", apt_env())
        try:
            said = run_quiet(["apt-cache", "depends", meta], "asking for " + meta, apt_env())
        except LabError as error:
            note(str(error))
            continue
        found = re.search(r"Depends:\s+(linux-image-[0-9]\S+)", said)
        if found:
            return found.group(1)
    raise LabError("apt knows no %s (is this Debian, with its lists updated?)" % meta)
