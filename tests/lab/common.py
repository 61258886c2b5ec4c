"""What the lab's parts share: errors, messages, finding programs."""
import os
import shutil
import subprocess
import sys
import time

# Exit status when the lab itself failed, and when the guest took too long.
LAB_FAILED, TIMED_OUT = 125, 124
VERBOSE = False
START = time.monotonic()


class LabError(Exception):
    """The lab cannot do what it was asked; the text says why."""


def say(message):
    sys.stderr.write("vm: %s\n" % message)
    sys.stderr.flush()


def note(message):
    """Said with -v only."""
    if VERBOSE:
        say("[%5.2fs] %s" % (time.monotonic() - START, message))


def which(name):
    """A program's path; also those in sbin, which a user's PATH may lack."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return shutil.which(name, path=path)


def run_quiet(command, what, env=None):
    """Runs a command; its output is shown only when it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, env=env, text=True, errors="replace")
    except OSError as error:
        raise LabError("%s: cannot run %s: %s" % (what, command[0], error.strerror)) from error
    if done.returncode:
        raise LabError("%s failed (%s):\n%s" % (what, " ".join(command), done.stdout[-3000:]))
    return done.stdout
