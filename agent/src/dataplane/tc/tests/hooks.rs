//! What other people have on a port's clsact qdisc is theirs.

use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};

use super::Hook;
use super::hash::OBJECT;
use super::world::*;
use crate::dataplane::plane::Plane;
use crate::netlink::Filter;

#[test]
fn filters_of_others_stay_when_a_port_is_given_back() {
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        // The port is given back by its bond, or after another program has deleted the bond.
        for bond_deleted in [false, true] {
            in_world(Hook::Clsact, move |w| {
                let (p0, _) = w.bond_with_two_ports();
                let _programs = attach_foreign("p0", side);
                assert!(w.links.filters(p0.0).unwrap().contains(&foreign()));
                if bond_deleted {
                    let bond = w.link("bond0").ifindex;
                    w.links.delete(bond).unwrap();
                    w.reopen();
                    assert_eq!(w.adopt().unwrap(), None);
                    w.plane.forget(bond).unwrap();
                }
                w.tear_down();
                assert_eq!(w.links.filters(p0.0).unwrap(), [foreign()]);
                let p1 = w.port("p1");
                assert_eq!(w.links.filters(p1.0).unwrap(), []);
                assert!(!w.links.has_clsact(p1.0).unwrap());
            });
        }
    }
}

#[test]
fn a_qdisc_that_nobody_uses_any_more_goes_with_our_filter() {
    in_world(Hook::Clsact, |w| {
        let (p0, _) = w.bond_with_two_ports();
        let mut programs = attach_foreign("p0", TcAttachType::Ingress);
        // The other program removes its filter, so that only ours is left on the qdisc.
        programs.unload();
        assert_eq!(w.links.filters(p0.0).unwrap().len(), 1);
        w.tear_down();
        assert!(!w.links.has_clsact(p0.0).unwrap());
    });
}

/// A filter that stays as long as this value.
struct Foreign(Ebpf);

impl Foreign {
    fn unload(&mut self) {
        let program: &mut SchedClassifier = self.0.program_mut(NAME).unwrap().try_into().unwrap();
        program.unload().unwrap();
    }
}

fn attach_foreign(interface: &str, side: TcAttachType) -> Foreign {
    let mut programs = EbpfLoader::new().btf(None).load(OBJECT).unwrap();
    let program: &mut SchedClassifier = programs.program_mut(NAME).unwrap().try_into().unwrap();
    program.load().unwrap();
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: PRIORITY,
        handle: TcHandle::new(0, 1),
        classid: None,
    });
    program.attach_with_options(interface, side, options).unwrap();
    Foreign(programs)
}

fn foreign() -> Filter {
    Filter {
        program: Some(NAME.to_owned()),
        priority: PRIORITY,
    }
}

const NAME: &str = "hash_all";
const PRIORITY: u16 = 9;
