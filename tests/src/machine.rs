//! The machine is shared by tests that run side by side: those that measure get it alone.

use std::fs::{File, OpenOptions};

use nix::fcntl::{Flock, FlockArg};

/// Held while a test runs; ordinary tests share the machine, measuring ones have it alone.
#[derive(Debug)]
pub struct Machine {
    _lock: Flock<File>,
}

impl Machine {
    /// Together with other tests that do not measure.
    pub fn shared() -> Machine {
        Machine::lock(FlockArg::LockShared)
    }

    /// Alone, among all test programs that run on this machine.
    pub fn alone() -> Machine {
        Machine::lock(FlockArg::LockExclusive)
    }

    fn lock(how: FlockArg) -> Machine {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(PATH)
            .expect("/tmp takes a file");
        let lock = Flock::lock(file, how)
            .map_err(|(_, e)| e)
            .expect("flock waits until it gets the lock");
        Machine { _lock: lock }
    }
}

const PATH: &str = "/tmp/bondd-tests.lock";
