//! Locks that only the agent's own user can take.
//!
//! Any process that can open a file can lock it, and any process can bind an abstract socket, so an unprivileged process could
//! block the agent. Therefore only their owner can open these files. The kernel releases a lock when its process ends.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::geteuid;

/// Opens or makes a file for locks. The rights of other users are removed; a file of another owner is refused.
pub fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    close_to_others(&file, 0o600)?;
    Ok(file)
}

/// As [`private_file`], for a folder; its parents are made as usual.
pub fn private_folder(path: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
        .open(path)?;
    close_to_others(&folder, 0o700)?;
    Ok(folder)
}

fn close_to_others(file: &File, mode: u32) -> io::Result<()> {
    let is = file.metadata()?;
    if is.uid() != geteuid().as_raw() {
        let why = format!("it belongs to user {}, who could lock it", is.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    if is.mode() & 0o777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Locks one byte of a file until the file is closed; false if another process, or another opening of the file, has it.
pub fn lock_byte(file: &File, byte: u64) -> io::Result<bool> {
    let start = libc::off_t::try_from(byte).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `flock` is a plain structure of integers, for which all bytes zero is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = 1;
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// Runs `body` on a thread that has no rights at all.
    pub(crate) fn unprivileged<T: Send>(body: impl FnOnce() -> T + Send) -> T {
        let drop_rights = || {
            // SAFETY: raw calls that change the rights of the calling thread only, which ends with `body`.
            let done = unsafe {
                libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
                    && libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0
            };
            assert!(done, "rights are dropped: {}", io::Error::last_os_error());
            body()
        };
        std::thread::scope(|scope| {
            scope
                .spawn(drop_rights)
                .join()
                .expect("the thread without rights ends well")
        })
    }

    #[test]
    fn only_the_owner_can_open_what_is_locked_also_if_others_could_before() {
        let dir = std::env::temp_dir().join(format!("bondd-locks-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        let (path, folder) = (dir.join("lock"), dir.join("folder"));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (_file, _folder) = (private_file(&path).unwrap(), private_folder(&folder).unwrap());
        for path in [&path, &folder] {
            let opened = unprivileged(|| File::open(path).map(drop));
            assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{path:?}");
        }
        std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
        assert!(
            private_file(&path)
                .unwrap_err()
                .to_string()
                .contains("belongs to user 65534")
        );
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_byte_is_locked_once_and_others_are_free() {
        let path = std::env::temp_dir().join(format!("bondd-byte-{}", std::process::id()));
        let (first, second) = (private_file(&path).unwrap(), private_file(&path).unwrap());
        let high = u64::from(u32::MAX);
        assert!(lock_byte(&first, high).unwrap());
        assert!(!lock_byte(&second, high).unwrap());
        assert!(lock_byte(&second, 7).unwrap());
        drop(first);
        assert!(lock_byte(&second, high).unwrap());
        fs::remove_file(&path).unwrap();
    }

    const NOBODY: u32 = 65534;
}
