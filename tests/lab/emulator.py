"""Runs the machine and takes its exit status from the kernel's console."""
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time

from common import LAB_FAILED, TIMED_OUT, LabError, note, say, which

KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr random.trust_cpu=on no_timer_check "
    "tsc=reliable nowatchdog audit=0 apparmor=0 cryptomgr.notests rdinit=/init")
# The emulator takes the "fast" string instructions byte by byte; without them the kernel copies in words.
COUNTED = ["-icount", "shift=1,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01,clock=vm", "-cpu", "max,-erms,-fsrm"]


def command_line(args, kernel, initrd, console, disk):
    command = [which("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-no-reboot",
               "-display", "none", "-monitor", "none", "-machine", "pc", "-accel", "tcg",
               "-smp", str(args.smp), "-m", str(args.mem), "-kernel", kernel, "-initrd", initrd,
               "-append", (KERNEL_COMMAND_LINE + " " + args.append).strip(),
               "-serial", "file:" + console,
               "-chardev", "stdio,id=script,signal=off", "-serial", "chardev:script"]
    command += COUNTED if args.count_instructions else ["-cpu", "max"]
    if disk:
        command += ["-drive", "file=%s,if=none,id=out,format=raw,cache=unsafe" % disk,
                    "-device", "virtio-blk-pci,drive=out"]
    return command


def run(command, timeout, errors, work):
    """Runs the emulator to its end or for `timeout` seconds; returns (whether it took too long, its exit status)."""
    emulator = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True)

    def end():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(emulator.pid, signal.SIGKILL)
        emulator.wait()

    def on_signal(number, _frame):
        end()
        shutil.rmtree(work, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        emulator.wait(timeout=timeout)
        return False, emulator.returncode
    except subprocess.TimeoutExpired:
        return True, None
    finally:
        end()


def what_ran(args):
    """The guest's command, for the line that names the kernel."""
    return shlex.join([os.path.basename(word) for word in (args.run or args.cmd)[:1]] + (args.run or args.cmd)[1:]) \
        if args.sh is None else "the commands given"


def boot(args, kernel, initrd, work):
    """Runs the guest and returns the exit status of its script."""
    console = args.console or os.path.join(work, "console.log")
    open(console, "w").close()
    disk = None
    if args.out:
        disk = os.path.join(work, "out.img")
        with open(disk, "wb") as file:
            file.truncate(args.out_size * 1048576)
    command = command_line(args, kernel, initrd, console, disk)
    note("booting: " + shlex.join(command))
    start = time.monotonic()
    with open(os.path.join(work, "qemu.err"), "w+") as errors:
        timed_out, exit_status = run(command, args.timeout, errors, work)
        errors.seek(0)
        emulator_said = errors.read()
    with open(console, errors="replace") as file:
        log = file.read()
    note("guest ended")
    booted = re.search(r"LAB-KERNEL ([^\r\n]*)", log)
    if booted:
        say("Linux %s ran %s in %.0f s" % (booted.group(1), what_ran(args), time.monotonic() - start))
    ends = re.findall(r"LAB-EXIT (\d+) ([^\r\n]*)", log)
    if ends and ends[-1][1] == "ok":
        if disk:
            unpack(disk, args.out)
        return int(ends[-1][0])
    if ends:
        raise LabError(ends[-1][1])
    tail = "\n".join(log.replace("\r", "").splitlines()[-40:])
    if timed_out:
        say("time-out: the script was still running after %d s; console tail:\n%s" % (args.timeout, tail))
        return TIMED_OUT
    why = "the guest's kernel panicked" if re.search(r"Kernel panic|Oops:", log) else \
        "the guest ended without a status (qemu exit %s)" % exit_status
    say("%s\n%s%s" % (why, emulator_said, tail))
    return LAB_FAILED


def unpack(disk, folder):
    os.makedirs(folder, exist_ok=True)
    try:
        with tarfile.open(disk, "r:") as archive:
            archive.extractall(folder)
    except tarfile.TarError as error:
        raise LabError("reading the guest's /out: %s" % error) from error
