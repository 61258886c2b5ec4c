//! Removes a running agent's subscription to link events, so that only polls report a pulled cable.
//!
//! The subscription belongs to the socket, which a privileged process may get a descriptor of. The agent needs no switch for it
//! and does not notice: to it the kernel has become silent. [pidfd_getfd(2), netlink(7)]

use std::ffi::{c_int, c_long};
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Makes the kernel send no more link events to this process. Address events still come.
///
/// # Panics
/// Unless exactly one socket of the process is subscribed to link events.
#[track_caller]
pub fn unsubscribe_from_links(pid: u32) {
    let subscribed: Vec<OwnedFd> = sockets(pid).into_iter().filter(hears_links).collect();
    let [socket] = &subscribed[..] else {
        panic!(
            "process {pid} has {} sockets with link events, expected 1",
            subscribed.len()
        );
    };
    set_netlink_option(socket, libc::NETLINK_DROP_MEMBERSHIP, libc::RTNLGRP_LINK as c_int)
        .unwrap_or_else(|e| panic!("cannot unsubscribe process {pid} from link events: {e}"));
    assert!(!hears_links(socket), "process {pid} is still subscribed to link events");
}

/// Every socket that the process has open, as a descriptor of ours.
fn sockets(pid: u32) -> Vec<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers, and what it returns is a new descriptor that nobody else owns.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    let process = process.unwrap_or_else(|e| panic!("cannot open process {pid}: {e}"));
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap_or_else(|e| panic!("process {pid}: {e}"));
    let is_socket = |target: std::path::PathBuf| target.to_string_lossy().starts_with("socket:");
    open.flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(is_socket))
        .filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok())
        .filter_map(|number| {
            // SAFETY: pidfd_getfd(2) takes three numbers, and what it returns is a new descriptor that nobody else owns.
            owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) }).ok()
        })
        .collect()
}

fn owned(descriptor: c_long) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers pass what a system call has just returned as a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// Whether a socket is subscribed to rtnetlink's link events.
fn hears_links(socket: &OwnedFd) -> bool {
    if number(socket, libc::SOL_SOCKET, libc::SO_DOMAIN) != Some(libc::AF_NETLINK)
        || number(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL) != Some(libc::NETLINK_ROUTE)
    {
        return false;
    }
    // One bit a group, the first in bit 0; these are the first 32.
    let groups = number(socket, libc::SOL_NETLINK, libc::NETLINK_LIST_MEMBERSHIPS);
    groups.is_some_and(|groups| groups >> (libc::RTNLGRP_LINK - 1) & 1 == 1)
}

fn number(socket: &OwnedFd, level: c_int, option: c_int) -> Option<c_int> {
    let (mut value, mut length) = (0 as c_int, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has as many.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (outcome == 0).then_some(value)
}

fn set_netlink_option(socket: &OwnedFd, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads the length of `value` from `value`.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
