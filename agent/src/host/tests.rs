//! The picture without a kernel, and held against the kernel after changes of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bond_monitors::wire::ethernet::Tag;

use super::picture::Host;
use crate::netlink::tests::{in_netns, ip};
use crate::netlink::{Address, Events, Link, LinkEvent, RouteSocket};

/// An interface as the kernel describes one.
fn any_link() -> Link {
    in_netns(|| RouteSocket::open().unwrap().by_index(1).unwrap().unwrap())
}

fn link(ifindex: u32, name: &str, kind: &str, below: Option<u32>, master: Option<u32>, vlan: Option<Tag>) -> Link {
    let mut link = Link {
        ifindex,
        kind: Some(kind.to_owned()),
        peer: below,
        master,
        vlan,
        ..any_link()
    };
    link.report.name = name.to_owned();
    link
}

fn names(found: Vec<(&Link, Vec<Tag>)>) -> Vec<(String, Vec<Tag>)> {
    let name = |(link, tags): (&Link, Vec<Tag>)| (link.report.name.clone(), tags);
    found.into_iter().map(name).collect()
}

#[test]
fn what_is_above_a_bond_is_found_at_any_depth_with_its_tags() {
    let (outer, inner) = (Tag::s(7), Tag::c(8));
    let mut host = Host::default();
    for link in [
        link(1, "bond0", "veth", Some(2), None, None),
        link(2, "wire1", "veth", Some(1), None, None),
        link(3, "outer", "vlan", Some(1), None, Some(outer)),
        link(4, "inner", "vlan", Some(3), Some(5), Some(inner)),
        link(5, "br0", "bridge", None, None, None),
        link(6, "tunnel", "vxlan", Some(5), None, None),
        link(7, "other", "vlan", Some(2), None, Some(inner)),
    ] {
        host.changed(link);
    }
    let vlans_and_bridges = |link: &Link| link.vlan.is_some() || link.kind.as_deref() == Some("bridge");
    let carried = vec![
        ("bond0".to_owned(), vec![]),
        ("outer".to_owned(), vec![outer]),
        ("inner".to_owned(), vec![outer, inner]),
        ("br0".to_owned(), vec![outer, inner]),
    ];
    assert_eq!(names(host.above(1, vlans_and_bridges)), carried);
    let all = names(host.above(1, |_| true));
    assert_eq!(all.last().unwrap().0, "tunnel");
    let below = |ifindex| host.below(ifindex).iter().map(|link| link.ifindex).collect::<Vec<_>>();
    assert_eq!((below(6), below(2)), (vec![6, 5, 4, 3, 1], vec![2]));
    // It leaves the bridge, and the bridge is not above any more.
    host.changed(link(4, "inner", "vlan", Some(3), None, Some(inner)));
    assert_eq!(names(host.above(1, vlans_and_bridges)), carried[..3]);
    host.gone(3);
    assert_eq!(names(host.above(1, vlans_and_bridges)), carried[..1]);
    assert_eq!(host.above(9, |_| true), []);
}

#[test]
fn what_is_put_under_another_interface_is_told_once_and_what_leaves_it_too() {
    let mut host = Host::default();
    let moves = |host: &mut Host| {
        let moves = host.take_moves();
        [moves.under, moves.away].map(|moved| moved.into_iter().collect::<Vec<_>>())
    };
    let [free, caught] = [None, Some(5)].map(|master| link(3, "vlan", "vlan", Some(1), master, Some(Tag::c(7))));
    for link in [
        link(1, "bond0", "veth", Some(2), None, None),
        link(5, "br0", "bridge", None, None, None),
    ] {
        host.changed(link);
    }
    assert_eq!(moves(&mut host), [vec![], vec![]]);
    host.changed(free.clone());
    assert_eq!(moves(&mut host), [vec![(1, 3)], vec![]]);
    host.changed(caught.clone());
    assert_eq!(moves(&mut host), [vec![(3, 5)], vec![]]);
    host.changed(caught.clone());
    assert_eq!(moves(&mut host), [vec![], vec![]]);
    host.begin_reading();
    let read = host.finish_reading(vec![free.clone()], Vec::new());
    assert_eq!((read.links.len(), moves(&mut host)), (1, [vec![], vec![(3, 5)]]));
    host.changed(caught);
    host.changed(free);
    assert_eq!(moves(&mut host), [vec![], vec![(3, 5)]], "as it is now");
    host.gone(3);
    assert_eq!(moves(&mut host), [vec![], vec![(1, 3)]]);
}

#[test]
fn an_answer_counts_only_for_interfaces_without_an_event_since_it_was_asked_for() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let address = |text: &str| Address {
        ip: ip(text),
        prefix: 24,
        peer: ip(text),
    };
    let mut host = Host::default();
    for (ifindex, name) in [(1, "stays"), (2, "gone"), (3, "changed"), (4, "vanished")] {
        host.changed(link(ifindex, name, "veth", None, None, None));
        host.address(ifindex, address("10.0.0.1"), true);
    }
    assert!(host.begin_reading());
    host.changed(link(3, "newer", "veth", None, None, None));
    host.address(3, address("10.0.0.3"), true);
    host.address(3, address("10.0.0.1"), false);
    host.gone(4);
    host.changed(link(5, "born", "veth", None, None, None));
    let answer = [(1, "renamed"), (3, "older"), (4, "vanished")];
    let answer = answer.map(|(ifindex, name)| link(ifindex, name, "veth", None, None, None));
    let addresses = [(1, "10.0.0.9"), (3, "10.0.0.1"), (3, "10.0.0.2"), (4, "10.0.0.1")];
    let addresses = addresses.map(|(ifindex, text)| (ifindex, address(text)));
    let read = host.finish_reading(answer.to_vec(), addresses.to_vec());
    assert_eq!(read.gone, [(2, "gone".to_owned())]);
    assert_eq!(read.links, answer[..1]);
    let seen: Vec<_> = host
        .links
        .values()
        .map(|link| (link.ifindex, link.report.name.as_str()))
        .collect();
    assert_eq!(seen, [(1, "renamed"), (3, "newer"), (5, "born")]);
    let of = |ifindex| host.addresses(ifindex).collect::<Vec<_>>();
    assert_eq!(of(1), [ip("10.0.0.9")]);
    assert_eq!(
        of(3),
        [ip("10.0.0.2"), ip("10.0.0.3")],
        "one was lost before, two changes came since"
    );
    assert_eq!((of(2), of(4), of(5)), (vec![], vec![], vec![]));
}

#[test]
fn events_that_are_lost_during_a_reading_lead_to_one_more() {
    let mut host = Host::default();
    assert!(host.begin_reading());
    assert!(!host.begin_reading() && !host.begin_reading(), "it is asked for once");
    let found = vec![link(1, "a", "veth", None, None, None)];
    let read = host.finish_reading(found.clone(), Vec::new());
    assert!(read.outdated);
    assert_eq!(read.links, found, "newer than what was known");
    assert!(host.begin_reading());
    let read = host.finish_reading(found, Vec::new());
    assert_eq!((read.outdated, read.links, read.same), (false, vec![], vec![1]));
    assert!(host.begin_reading());
    host.abandon_reading();
    assert!(host.begin_reading(), "the one before failed");
}

/// Applies the queued events.
fn follow(host: &mut Host, events: &mut Events) {
    let mut read = Vec::new();
    events.read(1024, &mut read).unwrap();
    for event in read {
        match event {
            LinkEvent::Link(link) => host.changed(*link),
            LinkEvent::Gone { ifindex, .. } => host.gone(ifindex),
            LinkEvent::Address {
                ifindex,
                address,
                usable,
            } => host.address(ifindex, address, usable),
            LinkEvent::Ipv6 { .. } => {}
            LinkEvent::Overrun => panic!("the buffer is large"),
        }
    }
}

/// Names, what stands on what, and addresses.
type Shown = (Vec<(u32, String, Option<u32>, Option<u32>)>, BTreeMap<u32, Vec<IpAddr>>);

fn shown<'a>(links: impl Iterator<Item = &'a Link>, addresses: impl Iterator<Item = (u32, IpAddr)>) -> Shown {
    let mut links: Vec<_> = links
        .map(|link| (link.ifindex, link.report.name.clone(), link.peer, link.master))
        .collect();
    links.sort();
    let mut by_link: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for (ifindex, ip) in addresses {
        by_link.entry(ifindex).or_default().push(ip);
    }
    by_link.values_mut().for_each(|addresses| addresses.sort());
    (links, by_link)
}

#[test]
fn events_alone_keep_the_picture_as_the_kernel_describes_it() {
    in_netns(|| {
        let (mut host, mut events) = (Host::default(), Events::open().unwrap());
        let mut links = RouteSocket::open().unwrap();
        host.begin_reading();
        host.finish_reading(links.all().unwrap(), links.addresses().unwrap());
        for change in [
            "link add eth0 type veth peer name eth1",
            "link set eth0 up",
            "link set eth1 up",
            "addr add 10.0.0.1/24 dev eth0",
            "addr add 10.0.0.2/24 dev eth0",
            "addr add fd00::1/64 dev eth0",
            "addr add 10.0.0.2/32 dev eth0",
            "addr del 10.0.0.2/32 dev eth0",
            "addr add 10.0.0.2 peer 10.9.0.1 dev eth0",
            "addr del 10.0.0.2/24 dev eth0",
            "addr add fd00::2/64 dev eth1 nodad",
            "link add link eth0 name upper type macvlan",
            "link add br0 type bridge",
            "link set upper master br0",
            "addr add 10.1.0.1/24 dev br0",
            "link set eth0 name near",
            "link set eth1 name eth0",
            "addr del 10.0.0.1/24 dev near",
            "link set upper nomaster",
            "link set near down",
            "link set near up",
            "link del upper",
            "link set eth0 address 02:00:00:00:00:99",
            "link set br0 up",
            "link del br0",
            "link set lo up",
            "link set lo down",
            "link del near",
        ] {
            ip(change);
            // Addresses become usable a moment later.
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                follow(&mut host, &mut events);
                let all = links.all().unwrap();
                let own = links.addresses().unwrap().into_iter();
                let own: BTreeSet<(u32, IpAddr)> = own.map(|(ifindex, address)| (ifindex, address.ip)).collect();
                let kernel = shown(all.iter(), own.into_iter());
                let every = host
                    .links
                    .values()
                    .flat_map(|link| host.addresses(link.ifindex).map(|ip| (link.ifindex, ip)));
                let picture = shown(host.links.values(), every);
                if picture == kernel {
                    break;
                }
                assert!(Instant::now() < deadline, "{change}: {picture:?} for {kernel:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
}
