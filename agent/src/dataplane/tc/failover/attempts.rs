//! When what the kernel refused is tried again, and what the log says of that.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::Level;

use crate::dataplane::lock;
use crate::dataplane::tc::errors::errno_of;

/// Why something fails that is tried again and again: said once, and again if the reason is another one or it had worked meanwhile.
#[derive(Default)]
pub struct Said(Mutex<Option<String>>);

impl Said {
    /// Says what is so for this reason, unless that was said. Returns whether it was news.
    pub fn say(&self, level: Level, what: &str, why: &str) -> bool {
        let is_new = lock(&self.0).replace(why.to_owned()).as_deref() != Some(why);
        if is_new {
            log::log!(level, "{what}: {why}");
        }
        is_new
    }

    /// It worked.
    pub fn end(&self) {
        *lock(&self.0) = None;
    }
}

/// When the next attempt is.
pub fn later() -> Instant {
    Instant::now() + PAUSE
}

/// As [`later`]; none where that cannot help.
pub fn later_if_it_may_pass(error: &io::Error) -> Option<Instant> {
    may_pass(error).then(later)
}

/// Whether another attempt may do better.
pub fn may_pass(error: &io::Error) -> bool {
    let passing = [
        // Other programs may leave the function.
        libc::E2BIG,
        libc::EAGAIN,
        libc::EBUSY,
        libc::EINTR,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOSPC,
    ];
    errno_of(error).is_some_and(|errno| passing.contains(&errno))
}

/// Between two attempts: each may take some hundred milliseconds of a processor.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use aya::BtfError;
    use aya::programs::links::LinkError;
    use aya::sys::SyscallError;

    use super::*;
    use crate::dataplane::tc::errors::in_words;

    #[test]
    fn a_reason_is_said_once_until_it_is_another_one_or_it_worked() {
        let said = Said::default();
        let news: Vec<bool> = ["a", "a", "b", "b", "a"]
            .map(|why| said.say(Level::Warn, "it fails", why))
            .into();
        assert_eq!(news, [true, false, true, false, true]);
        said.end();
        assert!(said.say(Level::Warn, "it fails", "a"));
    }

    #[test]
    fn what_may_pass_is_told_by_the_errno_in_whatever_words_it_is_wrapped() {
        let error = io::Error::from_raw_os_error;
        let wrapped = |errno| in_words("attaching it".to_owned(), error(errno));
        for errno in [libc::E2BIG, libc::EBUSY, libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert!(may_pass(&error(errno)) && may_pass(&wrapped(errno)), "{errno}");
        }
        assert!(!may_pass(&wrapped(libc::EPERM)) && !may_pass(&io::ErrorKind::NotFound.into()));
        let path = PathBuf::from("/sys/kernel/btf/vmlinux");
        let types = BtfError::FileError {
            path,
            error: error(libc::ENOMEM),
        };
        assert!(may_pass(&in_words("types".to_owned(), types)));
        let call = SyscallError {
            call: "BPF_OBJ_GET",
            io_error: error(libc::EMFILE),
        };
        assert!(may_pass(&in_words("link".to_owned(), LinkError::from(call))));
    }
}
