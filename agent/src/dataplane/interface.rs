//! What every data plane does with interfaces besides ports: read, label and delete them, and probe the kernel apart.

use std::sync::atomic::{AtomicBool, Ordering};

use bond_monitors::LinkReport;
use nix::sched::{CloneFlags, unshare};

use super::error::PlaneError;
use super::step::step;
use crate::apart::apart;
use crate::netlink::{Link, RouteSocket};

/// State of an interface with what its driver says of speed and duplex.
pub fn report(links: &mut RouteSocket, link: &Link) -> LinkReport {
    let (speed, duplex) = links.speed_duplex(&link.report.name);
    LinkReport {
        speed,
        duplex,
        ..link.report.clone()
    }
}

/// Gives an interface an alias. Aliases are labels for people, so a failure is only logged.
pub fn label(links: &mut RouteSocket, bond: &str, ifindex: u32, alias: &str) {
    if let Err(error) = links.set_alias(ifindex, alias) {
        log::warn!("{bond}: cannot set an alias: {error}");
    }
}

/// Deletes an interface. If it has gone already, there is nothing to do.
///
/// # Errors
/// The kernel refuses.
pub fn delete(links: &mut RouteSocket, name: &str, ifindex: u32) -> Result<(), PlaneError> {
    step(
        || format!("delete the interface {name}"),
        || match links.delete(ifindex) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done,
        },
    )
}

/// A probe had no network namespace of its own.
static IN_SIGHT: AtomicBool = AtomicBool::new(false);

/// Whether probes have no network namespace of their own here. The devices of one that does not come to its end stay then, and the
/// next one finds them in its way. Known once there was a probe, as at every start.
pub fn probes_in_sight() -> bool {
    IN_SIGHT.load(Ordering::SeqCst)
}

/// Runs a probe of the kernel in a network namespace of its own, where devices that come and go disturb no one, and which ends with the
/// thread whatever happens. A kernel without network namespaces runs it in the only one there is.
///
/// # Errors
/// As the probe.
pub fn probe_apart<T: Send>(
    doing: &str,
    probe: impl FnOnce() -> Result<T, PlaneError> + Send,
) -> Result<T, PlaneError> {
    let probe_here = || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            IN_SIGHT.store(true, Ordering::SeqCst);
        }
        probe()
    };
    apart(probe_here).unwrap_or_else(|source| {
        Err(PlaneError::Kernel {
            doing: doing.to_owned(),
            source,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apart::tests::refused;
    use crate::text::chain;

    #[test]
    fn a_probe_without_a_thread_says_what_it_was_for() {
        let error = refused(|| probe_apart("find out what there is", || Ok(()))).unwrap_err();
        let said = chain(&error);
        assert!(
            said.starts_with("cannot find out what there is: no thread can be made ("),
            "{said}"
        );
    }
}
