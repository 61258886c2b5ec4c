//! The rights without which this process can do nothing. [capabilities(7)]

use std::io;

/// Capabilities in effect, as the kernel's mask.
#[derive(Clone, Copy)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those of the calling thread.
    pub fn effective() -> io::Result<Capabilities> {
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3, 0];
        let mut sets = [0u32; 6];
        // SAFETY: the kernel reads the header and writes two times three words.
        match unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) } {
            0 => Ok(Capabilities(u64::from(sets[3]) << 32 | u64::from(sets[0]))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What every data plane needs and is not there.
    pub fn missing(self) -> Vec<&'static str> {
        let needed = [(NET_ADMIN, "CAP_NET_ADMIN"), (NET_RAW, "CAP_NET_RAW")];
        let missing = needed.into_iter().filter(|(number, _)| !self.have(*number));
        missing.map(|(_, name)| name).collect()
    }

    /// Whether all programs can be loaded. Before Linux 5.8 CAP_SYS_ADMIN is the right to that, and later ones still take it.
    pub fn allow_programs(self) -> bool {
        self.have(BPF) && self.have(PERFMON) || self.have(SYS_ADMIN)
    }

    fn have(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

/// What a start without `missing` ends with.
pub fn refusal(missing: &[&str]) -> String {
    format!(
        "no permission; bondd needs {}: not started (run it as root); bonds that exist go on forwarding, but unmonitored",
        missing.join(" and ")
    )
}

/// Their numbers. [linux/capability.h]
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::tests::unprivileged;

    #[test]
    fn a_right_that_is_missing_is_named_and_sys_admin_stands_for_bpf() {
        let of = |numbers: &[u32]| Capabilities(numbers.iter().map(|number| 1 << number).sum());
        let links = of(&[NET_ADMIN, NET_RAW]);
        assert!(links.missing().is_empty() && !links.allow_programs());
        assert_eq!(of(&[NET_RAW, BPF]).missing(), ["CAP_NET_ADMIN"]);
        assert_eq!(of(&[NET_ADMIN]).missing(), ["CAP_NET_RAW"]);
        assert!(of(&[BPF, PERFMON]).allow_programs() && of(&[SYS_ADMIN]).allow_programs());
        assert!(!of(&[BPF]).allow_programs());
    }

    #[test]
    fn the_kernel_says_what_a_thread_may() {
        let root = Capabilities::effective().unwrap();
        assert!(root.missing().is_empty() && root.allow_programs());
        let other = unprivileged(|| Capabilities::effective().unwrap());
        assert_eq!(other.missing(), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert!(!other.allow_programs());
    }
}
