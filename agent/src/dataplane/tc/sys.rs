//! What bpf(2) can and aya does not offer: links to netkit devices, another descriptor for a link, where a link is attached,
//! all values of a map at once, and what maps of maps have without a descriptor of it.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Pins a link that this process holds. The link itself is not touched, whatever becomes of it.
pub fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    call(OBJ_PIN, &mut [path.as_ptr() as u64, u64_of(link.as_raw_fd() as u32, 0)]).map(drop)
}

/// Attaches a program to what the primary end of a netkit device, the one with this index, transmits.
pub fn link_to_netkit(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd() as u32;
    let mut request = [u64_of(program, ifindex), u64_of(NETKIT_PRIMARY, 0), 0, 0];
    descriptor(LINK_CREATE, &mut request)
}

/// Exchanges the program of a pinned link.
pub fn exchange_program(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = pinned(path)?;
    let (link, program) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    call(LINK_UPDATE, &mut [u64_of(link, program), 0]).map(drop)
}

/// Index of the interface that a pinned tcx or netkit link is attached to; 0 once that is gone.
pub fn link_interface(path: &Path) -> io::Result<u32> {
    interface_of(pinned(path)?.as_fd())
}

/// The same of a link that is open.
pub fn interface_of(link: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(link_info(link)?[INTERFACE])
}

/// Id of its program.
#[cfg(test)]
pub fn program_of(link: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(link_info(link)?[PROGRAM])
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<[u32; 16]> {
    let mut info = [0u32; 16];
    let request = u64_of(link.as_raw_fd() as u32, mem::size_of_val(&info) as u32);
    call(OBJ_GET_INFO_BY_FD, &mut [request, info.as_mut_ptr() as u64])?;
    Ok(info)
}

/// Ids of the maps that the program of a link uses. It takes CAP_SYS_ADMIN.
pub fn maps_of_link(link: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let program = link_info(link)?[PROGRAM];
    let program = descriptor(PROG_GET_FD_BY_ID, &mut [u64_of(program, 0)])?;
    let mut maps = [0u32; 64];
    let mut info = [0u64; 32];
    (info[MAP_COUNT], info[MAP_IDS]) = (u64_of(0, maps.len() as u32), maps.as_mut_ptr() as u64);
    let request = u64_of(program.as_raw_fd() as u32, mem::size_of_val(&info) as u32);
    call(OBJ_GET_INFO_BY_FD, &mut [request, info.as_mut_ptr() as u64])?;
    let bytes = info[MAP_COUNT].to_ne_bytes();
    let count = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    Ok(maps[..count.min(maps.len())].to_vec())
}

/// Takes the program of a pinned link off at once; harmless if there is no such link. Without this it goes some time after the
/// last pin and descriptor, and until then the same program cannot be attached there again.
pub fn detach_link(path: &Path) -> io::Result<()> {
    let link = match pinned(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => link?,
    };
    call(LINK_DETACH, &mut [u64_of(link.as_raw_fd() as u32, 0)]).map(drop)
}

/// All values of an array map of integers, from the first on, in one request.
///
/// # Errors
/// EINVAL on kernels before 5.6; the map is not such a one.
pub fn look_up_all(map: BorrowedFd<'_>, values: &mut [u32]) -> io::Result<()> {
    let mut keys = vec![0u32; values.len()];
    let mut next = 0u32;
    let mut request = [
        0,
        &raw mut next as u64,
        keys.as_mut_ptr() as u64,
        values.as_mut_ptr() as u64,
        u64_of(values.len() as u32, map.as_raw_fd() as u32),
        0,
        0,
    ];
    match call(MAP_LOOKUP_BATCH, &mut request) {
        // The end of the map.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done.map(drop),
    }
}

/// A pinned map of maps whose keys are integers.
pub struct MapOfMaps(OwnedFd);

impl MapOfMaps {
    /// The one at this pin.
    pub fn pinned(path: &Path) -> io::Result<MapOfMaps> {
        pinned(path).map(MapOfMaps)
    }

    /// The key after this one, or the first.
    pub fn next_key(&self, key: Option<u32>) -> io::Result<Option<u32>> {
        let mut next = 0u32;
        let key = key.as_ref().map_or(0, |key| &raw const *key as u64);
        none_if_missing(self.call(MAP_GET_NEXT_KEY, key, &raw mut next as u64).map(|()| next))
    }

    /// Id of the map under a key. A descriptor of that map, by its id, would take CAP_SYS_ADMIN.
    pub fn id(&self, key: u32) -> io::Result<Option<u32>> {
        let mut id = 0u32;
        none_if_missing(
            self.call(MAP_LOOKUP_ELEM, &raw const key as u64, &raw mut id as u64)
                .map(|()| id),
        )
    }

    /// Puts a map under a key. The kernel waits for a grace period.
    pub fn set(&self, key: u32, map: BorrowedFd<'_>) -> io::Result<()> {
        waits();
        let map = map.as_raw_fd() as u32;
        self.call(MAP_UPDATE_ELEM, &raw const key as u64, &raw const map as u64)
    }

    /// Takes away what is under a key; harmless if there is nothing. The kernel waits for a grace period.
    pub fn remove(&self, key: u32) -> io::Result<()> {
        waits();
        none_if_missing(self.call(MAP_DELETE_ELEM, &raw const key as u64, 0)).map(drop)
    }

    fn call(&self, command: libc::c_int, key: u64, value: u64) -> io::Result<()> {
        call(command, &mut [u64_of(self.0.as_raw_fd() as u32, 0), key, value, 0]).map(drop)
    }
}

fn none_if_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        found => found.map(Some),
    }
}

/// The kernel waits for a grace period in what follows.
fn waits() {
    #[cfg(test)]
    {
        crate::netlink::tests::asks::may_wait();
        WAITS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// For how many grace periods the kernel has let this process wait.
#[cfg(test)]
pub(super) static WAITS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Another descriptor of what is pinned there.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    descriptor(OBJ_GET, &mut [path.as_ptr() as u64, 0])
}

fn descriptor(command: libc::c_int, attributes: &mut [u64]) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn call(command: libc::c_int, attributes: &mut [u64]) -> io::Result<libc::c_long> {
    // SAFETY: the pointer and length are those of a live slice; addresses in it are those of values that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            mem::size_of_val(attributes),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Two neighbouring words of the attributes.
fn u64_of(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// [linux/bpf.h: enum bpf_cmd]
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;
/// [linux/bpf.h: BPF_NETKIT_PRIMARY]
const NETKIT_PRIMARY: u32 = 54;
/// Which word of `struct bpf_link_info` is `tcx.ifindex`, and `netkit.ifindex` as well. [linux/bpf.h]
const INTERFACE: usize = 4;
/// Which word of it is `prog_id`.
const PROGRAM: usize = 2;
/// Which word of 64 bits of `struct bpf_prog_info` ends with `nr_map_ids`, and which one is `map_ids`. [linux/bpf.h]
const MAP_COUNT: usize = 6;
const MAP_IDS: usize = 7;
