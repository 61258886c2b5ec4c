//! Which device new bonds get on this kernel, found out by doing once, apart, what every bond needs.

use std::sync::{Arc, OnceLock};

use nix::sys::utsname;

use super::kind::{DeviceChoice, DeviceKind};
use crate::dataplane::PlaneError;
use crate::dataplane::interface::probe_apart;
use crate::dataplane::step::{BPF, Failures, HOOK, step, step_with};
use crate::dataplane::tc::hook::{self, Hook, Place};
use crate::dataplane::tc::object::{Kind, Loaded, Loader, RX, TX, Way};
use crate::netlink::RouteSocket;
use crate::text::chain;

/// What new bonds are made of. Those that exist stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewBonds {
    /// How their programs are attached.
    pub hook: Hook,
    /// What their interface is.
    pub device: DeviceChoice,
}

impl NewBonds {
    /// Whether one goes with the other; why not otherwise.
    pub fn check(self) -> Result<(), &'static str> {
        match (self.device, self.hook) {
            (DeviceChoice::Netkit, Hook::Clsact) => {
                Err("--tc-device netkit does not go with --tc-hook clsact: kernels with netkit have tcx")
            }
            _ => Ok(()),
        }
    }

    /// What they may be, the preferred one first.
    pub(super) fn candidates(self) -> &'static [DeviceKind] {
        match (self.device, self.hook) {
            (DeviceChoice::Netkit, _) => &[DeviceKind::Netkit],
            (DeviceChoice::Auto, Hook::Auto) => &[DeviceKind::Netkit, DeviceKind::Veth],
            (DeviceChoice::Auto, Hook::Clsact) | (DeviceChoice::Veth, _) => &[DeviceKind::Veth],
        }
    }

    /// A veth pair, the only candidate, and why.
    fn only_veth(self) -> &'static str {
        match self.device {
            DeviceChoice::Veth => "veth, the default of --tc-device",
            _ => "veth, because --tc-hook clsact does not go with netkit",
        }
    }
}

/// What this kernel has for new bonds, once that is known. Clones are the same one.
#[derive(Clone, Default)]
pub struct Suitable(Arc<OnceLock<Found>>);

#[derive(Clone)]
struct Found {
    kind: DeviceKind,
    /// Why it is not the preferred one.
    why: Option<String>,
}

impl Suitable {
    /// Whether the kernel is known to have what bonds need.
    pub fn is_known(&self) -> bool {
        self.0.get().is_some()
    }

    /// Finds out whether the kernel has what bonds need, unless that is known: what it lacks may still come, with a module.
    pub fn examine(&self, new: NewBonds, loader: &mut Loader) -> Result<DeviceKind, PlaneError> {
        if let Some(found) = self.0.get() {
            return Ok(found.kind);
        }
        let found = probe_apart("find out what this kernel can do", move || probe_here(new, loader))?;
        Ok(self.0.get_or_init(|| found).kind)
    }

    /// For people: what new bonds are and why, if that is known.
    pub fn text(&self, new: NewBonds) -> Option<String> {
        let found = self.0.get()?;
        Some(match (found.kind, &found.why) {
            (DeviceKind::Netkit, _) => "netkit".to_owned(),
            (DeviceKind::Veth, Some(why)) => format!("veth, because {why}"),
            (DeviceKind::Veth, None) => new.only_veth().to_owned(),
        })
    }
}

/// Does once, with devices that go away, what every bond needs.
fn probe_here(new: NewBonds, loader: &mut Loader) -> Result<Found, PlaneError> {
    let mut links = step(|| "open a netlink socket".to_owned(), RouteSocket::open)?;
    let load = || {
        // The loops and the helper for copies besides what all have: whatever any program asks for of the kernel.
        loader.load(Kind::Tx(Way::All), None)?;
        Ok([loader.load(Kind::Tx(Way::One), None)?, loader.load(Kind::Rx, None)?])
    };
    let mut programs = step_with(&BPF, || "load the programs".to_owned(), load)?;
    let mut why = None;
    let (&last, preferred) = new.candidates().split_last().expect("there is a candidate");
    let release = utsname::uname().map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
    for &kind in preferred {
        if let Some(reason) = why_not_trusted(kind, &release) {
            why = Some(reason);
            continue;
        }
        match try_device(&mut links, kind, new.hook, &mut programs) {
            Ok(()) => return Ok(Found { kind, why: None }),
            Err(error) => why = Some(chain(&error)),
        }
    }
    try_device(&mut links, last, new.hook, &mut programs)?;
    Ok(Found { kind: last, why })
}

/// Why a kernel is not given a device of its own accord although it makes one. In 6.11 a frame that a program on netkit redirects
/// crashes the kernel. That is mended in 6.11.2, but the names of distributions' kernels do not say so. [netkit.c: netkit_xmit,
/// 157f29152b61]
fn why_not_trusted(kind: DeviceKind, release: &str) -> Option<String> {
    let crashes = kind == DeviceKind::Netkit && release.starts_with("6.11.");
    crashes.then(|| format!("Linux {release} may lack the mend of a crash with netkit, which is in 6.11.2"))
}

/// Makes a device, attaches both programs and removes it.
fn try_device(
    links: &mut RouteSocket,
    kind: DeviceKind,
    hook: Hook,
    [tx, rx]: &mut [Loaded; 2],
) -> Result<(), PlaneError> {
    kind.make(links, PROBE, PROBE_PEER)?;
    let mut attach = || {
        let interface = kind.end_with_tx(PROBE, PROBE_PEER);
        let (of_ports, _) = kind.attach_first(tx.program(), place(links, interface, TX)?, hook)?;
        hook::attach(rx.program(), place(links, PROBE, RX)?, of_ports).map(drop)
    };
    let mut errors = Failures::default();
    errors.note(step_with(&HOOK, || "attach a program".to_owned(), &mut attach));
    errors.note(step(
        || format!("remove the {} device", kind.name()),
        || match links.by_name(PROBE)? {
            Some(link) => links.delete(link.ifindex),
            None => Ok(()),
        },
    ));
    errors.result()
}

/// For a program that is taken off again at once.
fn place(links: &mut RouteSocket, interface: &'static str, program: &'static str) -> std::io::Result<Place<'static>> {
    let link = links.by_name(interface)?.ok_or(std::io::ErrorKind::NotFound)?;
    Ok(Place {
        interface,
        ifindex: link.ifindex,
        pin: None,
        program,
    })
}

const PROBE: &str = "bondd-probe0";
const PROBE_PEER: &str = "bondd-probe1";

#[cfg(test)]
mod tests {
    use super::*;

    fn new(device: DeviceChoice, hook: Hook) -> NewBonds {
        NewBonds { hook, device }
    }

    #[test]
    fn filters_of_clsact_are_for_pairs() {
        let of = |device, hook| new(device, hook).candidates();
        assert_eq!(
            of(DeviceChoice::Auto, Hook::Auto),
            [DeviceKind::Netkit, DeviceKind::Veth]
        );
        assert_eq!(of(DeviceChoice::Auto, Hook::Clsact), [DeviceKind::Veth]);
        assert_eq!(of(DeviceChoice::Veth, Hook::Auto), [DeviceKind::Veth]);
        assert_eq!(of(DeviceChoice::Netkit, Hook::Auto), [DeviceKind::Netkit]);
        let refused = new(DeviceChoice::Netkit, Hook::Clsact).check();
        assert!(refused.is_err_and(|why| why.contains("--tc-hook clsact")));
        assert_eq!(new(DeviceChoice::Auto, Hook::Clsact).check(), Ok(()));
    }

    #[test]
    fn a_kernel_that_netkit_may_crash_gets_pairs() {
        for (release, crashes) in [
            ("6.7.0", false),
            ("6.10.11-amd64", false),
            ("6.11.0-29-generic", true),
            ("6.11.2", true),
            ("6.12.117+deb12-cloud-amd64", false),
            ("6.110.1", false),
        ] {
            let why = why_not_trusted(DeviceKind::Netkit, release);
            assert_eq!(why.is_some(), crashes, "{why:?}");
            assert_eq!(why_not_trusted(DeviceKind::Veth, release), None);
        }
    }

    #[test]
    fn what_new_bonds_are_is_said_with_the_reason() {
        let says = |kind, why: Option<&str>, given| {
            let suitable = Suitable::default();
            assert_eq!(suitable.text(given), None, "not known yet");
            let why = why.map(str::to_owned);
            let _ = suitable.0.set(Found { kind, why });
            suitable.text(given).unwrap()
        };
        let auto = new(DeviceChoice::Auto, Hook::Auto);
        assert_eq!(says(DeviceKind::Netkit, None, auto), "netkit");
        assert_eq!(
            says(DeviceKind::Veth, Some("this kernel has no netkit device"), auto),
            "veth, because this kernel has no netkit device"
        );
        assert_eq!(
            says(DeviceKind::Veth, None, new(DeviceChoice::Veth, Hook::Auto)),
            "veth, the default of --tc-device"
        );
        assert_eq!(
            says(DeviceKind::Veth, None, new(DeviceChoice::Auto, Hook::Clsact)),
            "veth, because --tc-hook clsact does not go with netkit"
        );
    }
}
