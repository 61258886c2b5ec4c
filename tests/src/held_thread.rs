//! Holds one thread of an agent inside a request to the kernel, as others do who have the lock that the request needs.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::netns::Netns;

/// The thread of the agent that waits for the kernel.
pub const KERNEL_THREAD: &str = "bondd-kernel";

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
        HeldThread::at(pid, name, || {}, |held| held.message().is_some())
    }

    /// Has the agent ask the kernel something, and holds the thread that does so there.
    #[track_caller]
    pub fn at_next_request(netns: &Netns, pid: u32) -> HeldThread {
        let held = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // The agent looks at its bond after each change of it.
                for alias in (0..).take_while(|_| !held.load(Ordering::SeqCst)) {
                    netns.ip(&format!("link set bond0 alias {alias}"));
                }
            });
            let thread = HeldThread::at_next_send(pid, KERNEL_THREAD);
            held.store(true, Ordering::SeqCst);
            thread
        })
    }

    /// As [`HeldThread::at_next_send`], at the first rtnetlink request after `cause` that changes an interface: questions go on.
    /// During `cause` the thread does nothing.
    #[track_caller]
    pub fn at_change_after(pid: u32, name: &str, cause: impl FnOnce()) -> HeldThread {
        HeldThread::at(pid, name, cause, |held| {
            held.message().is_some_and(|message| is_change(pid, message))
        })
    }

    #[track_caller]
    fn at(pid: u32, name: &str, cause: impl FnOnce(), is_it: impl Fn(&HeldThread) -> bool) -> HeldThread {
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
            if libc::WSTOPSIG(status) == libc::SIGTRAP | SYSCALL && is_it(&held) {
                return held;
            }
        }
    }

    /// If the thread stands before a request: where in its memory that is.
    fn message(&self) -> Option<Message> {
        // SAFETY: all bit patterns are valid for this plain struct.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of::<libc::ptrace_syscall_info>();
        // SAFETY: the kernel writes at most `size` bytes into `info`.
        let read = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.tid, size, &raw mut info) };
        assert!(read > 0, "{}", io::Error::last_os_error());
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // SAFETY: `op` says which member the kernel has written.
        let entry = unsafe { info.u.entry };
        match entry.nr as i64 {
            libc::SYS_sendto => Some(Message::At(entry.args[1])),
            libc::SYS_sendmsg => Some(Message::Described(entry.args[1])),
            _ => None,
        }
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        // SAFETY: the call takes numbers only.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.tid, 0, 0) };
    }
}

/// The argument of a system call that sends.
#[derive(Clone, Copy, Debug)]
enum Message {
    /// The address of the first byte.
    At(u64),
    /// That of a `msghdr`.
    Described(u64),
}

/// Whether it begins with the header of a request to change an interface. [rtnetlink(7)]
fn is_change(pid: u32, message: Message) -> bool {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("who may trace a process may read it");
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).expect("it is to be sent");
        u64::from_ne_bytes(bytes)
    };
    let start = match message {
        Message::At(start) => start,
        // The first part.
        Message::Described(header) => word(word(header + std::mem::offset_of!(libc::msghdr, msg_iov) as u64)),
    };
    // Its length, its kind, and flags.
    let [.., low, high, _, _] = word(start).to_ne_bytes();
    [libc::RTM_NEWLINK, libc::RTM_SETLINK].contains(&u16::from_ne_bytes([low, high]))
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
