//! Holds one thread of an agent inside a request to the kernel, as others do who have the lock that the request needs.

use std::fs;
use std::io;

/// A thread that stands before a request, until this is dropped.
#[derive(Debug)]
pub struct HeldThread {
    tid: libc::pid_t,
}

impl HeldThread {
    /// Waits until a thread of this name sends something, and holds it there. The caller's thread must live as long as this value.
    ///
    /// # Panics
    /// If there is no such thread, or it cannot be traced.
    #[track_caller]
    pub fn at_next_send(pid: u32, name: &str) -> HeldThread {
        HeldThread::at_send_after(pid, name, || {})
    }

    /// As [`HeldThread::at_next_send`], at the first one after `cause`, during which the thread does nothing.
    #[track_caller]
    pub fn at_send_after(pid: u32, name: &str, cause: impl FnOnce()) -> HeldThread {
        let tid = find(pid, name).unwrap_or_else(|| panic!("process {pid} has no thread {name}"));
        trace(libc::PTRACE_SEIZE, tid, libc::PTRACE_O_TRACESYSGOOD as usize);
        let held = HeldThread { tid };
        trace(libc::PTRACE_INTERRUPT, tid, 0);
        let stop = || {
            let status = wait(tid);
            assert!(libc::WIFSTOPPED(status), "{name} ended");
            status
        };
        stop();
        cause();
        loop {
            trace(libc::PTRACE_SYSCALL, tid, 0);
            let status = stop();
            if libc::WSTOPSIG(status) == libc::SIGTRAP | SYSCALL && held.is_before_a_send() {
                return held;
            }
        }
    }

    fn is_before_a_send(&self) -> bool {
        // SAFETY: all bit patterns are valid for this plain struct.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of::<libc::ptrace_syscall_info>();
        // SAFETY: the kernel writes at most `size` bytes into `info`.
        let read = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.tid, size, &raw mut info) };
        assert!(read > 0, "{}", io::Error::last_os_error());
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return false;
        }
        // SAFETY: `op` says which member the kernel has written.
        let number = unsafe { info.u.entry.nr };
        [libc::SYS_sendto, libc::SYS_sendmsg].contains(&(number as i64))
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        // SAFETY: the call takes numbers only.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.tid, 0, 0) };
    }
}

fn find(pid: u32, name: &str) -> Option<libc::pid_t> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let named =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
    let found = tasks.flatten().find(named)?;
    found.file_name().to_str()?.parse().ok()
}

#[track_caller]
fn trace(request: libc::c_uint, tid: libc::pid_t, data: usize) {
    // SAFETY: these requests take numbers only.
    let done = unsafe { libc::ptrace(request, tid, 0, data) };
    assert!(done == 0, "cannot trace thread {tid}: {}", io::Error::last_os_error());
}

fn wait(tid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: the kernel writes one number into `status`.
    let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, tid, "{}", io::Error::last_os_error());
    status
}

/// Marks stops at system calls. [ptrace(2): PTRACE_O_TRACESYSGOOD]
const SYSCALL: libc::c_int = 0x80;
