//! Per-interface switches under `/proc/sys/net`, of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Whether IPv6 is off on the interface; `None` if it has no such setting: a kernel without IPv6, an MTU below 1280, no such
/// device.
pub fn disable_ipv6(name: &str) -> io::Result<Option<bool>> {
    match fs::read_to_string(path(name, "disable_ipv6")?) {
        Ok(text) => Ok(Some(is_on(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns IPv6 off or on. Does nothing, without an error, if the interface has no such setting.
///
/// Set the MTU first: an MTU below 1280 removes the setting, and it returns with the namespace's default.
pub fn set_disable_ipv6(name: &str, off: bool) -> io::Result<()> {
    match fs::write(path(name, "disable_ipv6")?, if off { "1" } else { "0" }) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Whether the interface routes IPv6 packets. False if it cannot be read.
pub fn forwarding(name: &str) -> bool {
    path(name, "forwarding")
        .and_then(fs::read_to_string)
        .is_ok_and(|text| is_on(&text))
}

/// The version of MLD that an operator forces on the interface, if any. [mcast.c: mld_force_mld_version]
pub fn force_mld_version(name: &str) -> Option<u8> {
    ["all", name].into_iter().find_map(|name| {
        let text = fs::read_to_string(path(name, "force_mld_version").ok()?).ok()?;
        text.trim().parse().ok().filter(|version| *version != 0)
    })
}

/// A path, not the dotted form of sysctl(8): names may contain dots.
fn path(name: &str, switch: &str) -> io::Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Errno::EINVAL.into());
    }
    Ok(PathBuf::from(format!("/proc/sys/net/ipv6/conf/{name}/{switch}")))
}

fn is_on(text: &str) -> bool {
    text.trim() != "0"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::in_netns;

    #[test]
    fn ipv6_goes_off_and_on_also_where_the_name_has_dots() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a.1", "b").unwrap();
            assert_eq!(disable_ipv6("a.1").unwrap(), Some(false));
            set_disable_ipv6("a.1", true).unwrap();
            assert_eq!(disable_ipv6("a.1").unwrap(), Some(true));
            assert_eq!(disable_ipv6("b").unwrap(), Some(false));
            set_disable_ipv6("a.1", false).unwrap();
            assert_eq!(disable_ipv6("a.1").unwrap(), Some(false));
        });
    }

    #[test]
    fn without_ipv6_there_is_nothing_to_set() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            links.set_mtu(a.ifindex, 1000).unwrap();
            for name in ["a", "nosuch"] {
                assert_eq!(disable_ipv6(name).unwrap(), None, "{name}");
                set_disable_ipv6(name, true).unwrap();
            }
        });
    }

    #[test]
    fn forwarding_is_told_of_ipv6() {
        in_netns(|| {
            fs::write("/proc/sys/net/ipv4/conf/lo/forwarding", "1").unwrap();
            assert!(!forwarding("lo") && !forwarding("nosuch"));
            fs::write("/proc/sys/net/ipv6/conf/lo/forwarding", "1").unwrap();
            assert!(forwarding("lo"));
        });
    }

    #[test]
    fn a_forced_version_of_mld_is_told_and_that_of_all_interfaces_wins() {
        in_netns(|| {
            let force = |name, version| {
                fs::write(format!("/proc/sys/net/ipv6/conf/{name}/force_mld_version"), version).unwrap();
            };
            assert_eq!((force_mld_version("lo"), force_mld_version("nosuch")), (None, None));
            force("lo", "1");
            assert_eq!(force_mld_version("lo"), Some(1));
            force("all", "2");
            assert_eq!(force_mld_version("lo"), Some(2));
        });
    }

    #[test]
    fn a_name_is_never_a_way_to_another_file() {
        for name in ["", ".", "..", "../all"] {
            assert_eq!(
                disable_ipv6(name).unwrap_err().raw_os_error(),
                Some(libc::EINVAL),
                "{name}"
            );
            assert_eq!(
                set_disable_ipv6(name, true).unwrap_err().raw_os_error(),
                Some(libc::EINVAL),
                "{name}"
            );
        }
    }
}
