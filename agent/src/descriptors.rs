//! How many descriptors this process may have open; and the limits of others that the kernel reports, in plain words.

use std::io;

use crate::control::proto::MAX_CLIENTS;

/// Raises the soft limit of open descriptors to the hard one: a bond of two ports keeps six, and the usual soft limit of 1024 would
/// end at some 150 bonds. Programs that this one might start would have to get the former limit back, as select(2) knows descriptors
/// below 1024 only; it starts none.
pub fn raise() {
    let done = limits().and_then(|mut limits| {
        limits.rlim_cur = limits.rlim_max;
        // SAFETY: the call reads `limits`, which outlives it.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    });
    if let Err(error) = done {
        log::warn!("cannot raise the limit of open descriptors: {error}");
    }
}

/// Whether there are some left, beside this many, for more than what the agent needs by itself: files, clients and what a failover
/// opens.
///
/// # Errors
/// EMFILE.
pub fn room_beside(taken: usize) -> io::Result<()> {
    let most = limits()?.rlim_cur;
    // SAFETY: passes integers. The kernel gives the lowest number that is free.
    let lowest = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, 0) };
    if lowest < 0 {
        // Without standard error there is nothing to be learned.
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EBADF) {
            Ok(())
        } else {
            Err(error)
        };
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    unsafe { libc::close(lowest) };
    match lowest as libc::rlim_t + taken as libc::rlim_t + RESERVE < most {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
    }
}

/// Why the kernel refuses something for which a limit leaves no room, and what to do; nothing if it is another refusal.
pub fn limit_of(error: &io::Error) -> Option<String> {
    match error.raw_os_error()? {
        libc::EMFILE => {
            let most = limits().map_or("all".to_owned(), |limits| limits.rlim_cur.to_string());
            Some(format!(
                "bondd has no descriptor to spare of {most} (RLIMIT_NOFILE; it keeps {RESERVE} for clients and failovers), start it \
                 with a higher hard limit (LimitNOFILE= of systemd, ulimit -Hn)"
            ))
        }
        libc::ENFILE => Some(
            "the machine has as many files open, or interfaces of such a name, as it may; raise the sysctl fs.file-max".to_owned(),
        ),
        libc::ENOSPC => Some(
            "the file system is full, or has as many files as it may; make room on it (df and df -i show what there is)".to_owned(),
        ),
        libc::EDQUOT => Some(
            "the quota of the user of bondd on the file system is used up; raise it, or make room on the file system".to_owned(),
        ),
        libc::ENOMEM => Some(
            "the kernel has no memory for it, or the control group of bondd may have no more; give it more (MemoryMax= of systemd)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Why something failed, in plain words if a limit leaves no room for it.
pub fn why(error: &io::Error) -> String {
    limit_of(error).unwrap_or_else(|| error.to_string())
}

/// What could not be done and why, in plain words if a limit leaves no room for it.
pub fn cannot(doing: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {doing}: {}", why(&error)))
}

fn limits() -> io::Result<libc::rlimit> {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes `limits` alone, which outlives it.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) } {
        0 => Ok(limits),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the agent needs by itself: programs are loaded while all clients are there, and files are written and read.
const RESERVE: libc::rlim_t = MAX_CLIENTS as libc::rlim_t + LOADING + FILES;

/// Those of the programs and maps of a bond that are open only until it is made.
const LOADING: libc::rlim_t = 20;

/// Those of files that are written, or read to learn something of an interface, in all threads; and of a client that is told that there
/// are too many.
const FILES: libc::rlim_t = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_with_what_to_do() {
        let says = |errno| limit_of(&io::Error::from_raw_os_error(errno));
        let limit = says(libc::EMFILE).unwrap();
        assert!(
            limit.contains("RLIMIT_NOFILE; it keeps 96 ") && limit.contains("LimitNOFILE="),
            "{limit}"
        );
        assert!(says(libc::ENFILE).unwrap().contains("fs.file-max"));
        assert!(says(libc::ENOMEM).unwrap().contains("MemoryMax="));
        assert!(says(libc::ENOSPC).unwrap().contains("df -i"));
        assert!(says(libc::EDQUOT).unwrap().contains("quota"));
        assert_eq!(says(libc::EINVAL), None);
        assert_eq!(why(&io::Error::from_raw_os_error(libc::EMFILE)), limit);
        assert!(why(&io::Error::from_raw_os_error(libc::EINVAL)).contains("nvalid argument"));
        let whole = cannot("open it")(io::Error::from_raw_os_error(libc::EMFILE)).to_string();
        assert_eq!(whole, format!("cannot open it: {limit}"));
        let other = cannot("open it")(io::Error::other("it is shut")).to_string();
        assert_eq!(other, "cannot open it: it is shut");
    }
}
