//! A thread without which the agent cannot work.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::thread;

use crate::apart::no_thread;
use crate::descriptors::cannot;

/// Starts it. A panic of it ends the agent, as a panic of the loop does. The next agent takes the bonds over; one that lived on
/// without this thread would miss failures or write no file, and would not tell anybody.
///
/// # Errors
/// The thread cannot be made.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let or_abort = move || {
        // What the panic says is on standard error already, or whoever reads that is too slow.
        if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            process::abort();
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(or_abort);
    thread
        .map(drop)
        .map_err(|error| cannot(&format!("start the thread {name}"))(no_thread(&error)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// Runs `body` in a process of its own, which must be aborted before `body` ends; what that process printed. The process is
    /// another run of the test that calls this, which `test` names with its module.
    pub(crate) fn aborted(test: &str, body: impl FnOnce()) -> String {
        if env::var_os(ABORTS).is_some() {
            body();
            process::exit(0);
        }
        let name = test
            .split_once("::")
            .expect("the path of a test begins with its crate")
            .1;
        let ended = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(ABORTS, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            ended.status.signal(),
            Some(libc::SIGABRT),
            "{:?}: {printed}",
            ended.status
        );
        printed
    }

    /// Longer than a thread needs to end the process.
    pub(crate) fn wait_for_abort() {
        thread::sleep(Duration::from_secs(10));
    }

    #[test]
    fn a_panic_of_a_thread_ends_the_agent_and_says_which_thread_it_was() {
        let printed = aborted(
            concat!(
                module_path!(),
                "::a_panic_of_a_thread_ends_the_agent_and_says_which_thread_it_was"
            ),
            || {
                start("some-work", || panic!("the state is damaged")).unwrap();
                wait_for_abort();
            },
        );
        assert!(
            printed.contains("some-work") && printed.contains("the state is damaged"),
            "{printed}"
        );
    }

    /// Set in a process that is to be aborted.
    const ABORTS: &str = "BONDD_TEST_ABORTS";
}
