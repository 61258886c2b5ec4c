//! The multicast groups that an interface has joined, from four files of `/proc/net`, of the calling thread's namespace.
//!
//! The files list groups and, separately, the sources that sockets include or exclude. An interface reports to routers the
//! union over all sockets [RFC 3376 3.2], which the files do not show in full. In doubt the answer here is the wider one, so
//! that no traffic is lost. The same holds for sources that the kernel leaves out: it lists no sources of an interface whose
//! newest group has none. [igmp.c: igmp_mcf_get_first]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};

use bond_monitors::wire::membership::{Kind, Record};

use super::sysctl;

/// The memberships that an interface reports, and the versions of the protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memberships {
    /// IPv4 groups, sorted; without 224.0.0.1, which is never reported. [RFC 3376 6]
    pub v4: Vec<Record<Ipv4Addr>>,
    /// Version of IGMP spoken on the link: 2 or 3. Version 1 counts as 2.
    pub igmp_version: u8,
    /// IPv6 groups, sorted; without ff02::1 and those of scope 0 and 1, which are never reported. [RFC 3810 6]
    pub v6: Vec<Record<Ipv6Addr>>,
    /// Version of MLD: 2, unless an operator forces another one. The kernel does not show a router on the link that speaks
    /// version 1.
    pub mld_version: u8,
}

/// The groups of some interfaces at one moment: the files list those of all, and the kernel takes the longer to write them the more
/// interfaces there are.
#[derive(Debug, Default)]
pub struct Groups {
    igmp: Lines,
    mcfilter: Lines,
    igmp6: Lines,
    mcfilter6: Lines,
}

impl Groups {
    /// Reads what the four files say of these interfaces. Those of a protocol that the kernel lacks are empty.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(interfaces: &BTreeSet<u32>) -> io::Result<Groups> {
        let files = ["igmp", "mcfilter", "igmp6", "mcfilter6"];
        let [igmp, mcfilter, igmp6, mcfilter6] = files.map(|file| read(file, interfaces));
        Ok(Groups {
            igmp: igmp?,
            mcfilter: mcfilter?,
            igmp6: igmp6?,
            mcfilter6: mcfilter6?,
        })
    }

    /// Those of one interface. None if the kernel lacks the protocol or the interface is gone.
    pub fn of(&self, ifindex: u32, name: &str) -> Memberships {
        let (igmp, igmp6) = (self.igmp.of(ifindex), self.igmp6.of(ifindex));
        Memberships {
            v4: groups(joined4(igmp), self.mcfilter.of(ifindex)),
            igmp_version: igmp_version(igmp),
            v6: groups(joined6(igmp6), self.mcfilter6.of(ifindex)),
            mld_version: sysctl::force_mld_version(name).unwrap_or(2),
        }
    }
}

fn read(file: &str, interfaces: &BTreeSet<u32>) -> io::Result<Lines> {
    match File::open(format!("/proc/thread-self/net/{file}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lines::default()),
        opened => Lines::read(BufReader::new(opened?), interfaces),
    }
}

/// Lines of a file, by interface.
#[derive(Debug, Default)]
struct Lines(BTreeMap<u32, String>);

impl Lines {
    /// A line belongs to the interface whose index begins it. Indented lines, of which only `igmp` has some, belong to the one
    /// above.
    fn read(file: impl BufRead, interfaces: &BTreeSet<u32>) -> io::Result<Lines> {
        let mut lines = Lines::default();
        let mut interface = None;
        for line in file.lines() {
            let line = line?;
            if !line.starts_with('\t') {
                interface = first_number(&line).filter(|number| interfaces.contains(number));
            }
            if let Some(interface) = interface {
                let own = lines.0.entry(interface).or_default();
                own.push_str(&line);
                own.push('\n');
            }
        }
        Ok(lines)
    }

    fn of(&self, ifindex: u32) -> &str {
        self.0.get(&ifindex).map_or("", String::as_str)
    }
}

/// An address in the format of these files.
trait Address: Copy + Ord {
    /// The form in `mcfilter` and `mcfilter6`.
    fn in_filter(word: &str) -> Option<Self>;
    /// Whether the group is reported to routers.
    fn is_reported(self) -> bool;
}

impl Address for Ipv4Addr {
    fn in_filter(word: &str) -> Option<Self> {
        let bits = u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()?;
        Some(Ipv4Addr::from_bits(bits))
    }

    fn is_reported(self) -> bool {
        self != Ipv4Addr::new(224, 0, 0, 1)
    }
}

impl Address for Ipv6Addr {
    fn in_filter(word: &str) -> Option<Self> {
        u128::from_str_radix(word, 16).ok().map(Ipv6Addr::from_bits)
    }

    fn is_reported(self) -> bool {
        let scope = self.octets()[1] & 0x0f;
        scope > 1 && self != Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
    }
}

/// How many sockets (and parts of the kernel) are members of each group.
type Joined<A> = BTreeMap<A, u32>;

/// Counts of sockets that include and exclude one source.
struct SourceCounts {
    include: u32,
    exclude: u32,
}

/// From an interface's lines of `igmp`: its own, then one for each group.
fn joined4(igmp: &str) -> Joined<Ipv4Addr> {
    let group = |line: &str| {
        let mut words = line.split_whitespace();
        // The kernel prints the address's four bytes, which are in network order, as one number of the host. [igmp.c:
        // igmp_mc_seq_show]
        let bits = u32::from_str_radix(words.next()?, 16).ok()?;
        Some((Ipv4Addr::from(bits.to_ne_bytes()), words.next()?.parse().ok()?))
    };
    igmp.lines().skip(1).filter_map(group).collect()
}

/// 3, the kernel's default, if it is unknown.
fn igmp_version(igmp: &str) -> u8 {
    match igmp.lines().next().and_then(|line| line.split_whitespace().last()) {
        Some("V1" | "V2") => 2,
        _ => 3,
    }
}

fn joined6(igmp6: &str) -> Joined<Ipv6Addr> {
    let group = |line: &str| {
        // Index, device, group, users; names have no blanks.
        let mut words = line.split_whitespace().skip(2);
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        Some((Ipv6Addr::from_bits(address), words.next()?.parse().ok()?))
    };
    igmp6.lines().filter_map(group).collect()
}

fn groups<A: Address>(joined: Joined<A>, filter: &str) -> Vec<Record<A>> {
    let mut counted = BTreeMap::<A, BTreeMap<A, SourceCounts>>::new();
    for line in filter.lines() {
        if let Some((group, source, counts)) = parse_filter(line) {
            counted.entry(group).or_default().insert(source, counts);
        }
    }
    let reported = joined.into_iter().filter(|(address, _)| address.is_reported());
    reported
        .map(|(group, users)| {
            let (kind, sources) = sources(users, &counted.remove(&group).unwrap_or_default());
            Record { kind, group, sources }
        })
        .collect()
}

/// Index, device (cut to six characters, so it is not looked at), group, source, including and excluding sockets.
fn parse_filter<A: Address>(line: &str) -> Option<(A, A, SourceCounts)> {
    let mut words = line.split_whitespace().skip(2);
    let (group, source) = (A::in_filter(words.next()?)?, A::in_filter(words.next()?)?);
    let (include, exclude) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((group, source, SourceCounts { include, exclude }))
}

/// The interface's filter for a group with this number of users. The number of users in mode exclude is unknown, so only two
/// cases are certain: all users include the same source, or all users exclude a source.
fn sources<A: Address>(users: u32, counted: &BTreeMap<A, SourceCounts>) -> (Kind, Vec<A>) {
    let those = |fits: fn(&SourceCounts, u32) -> bool| {
        let fitting = counted.iter().filter(|(_, counts)| fits(counts, users));
        fitting.map(|(source, _)| *source).collect()
    };
    if counted.values().any(|counts| counts.include == users) {
        (Kind::Include, those(|counts, _| counts.include > 0))
    } else {
        (Kind::Exclude, those(|counts, users| counts.exclude == users))
    }
}

/// The interface index with which a line begins.
fn first_number(line: &str) -> Option<u32> {
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::UdpSocket;

    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::{in_netns, ip};

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn of(text: &str, ifindex: u32) -> String {
        Lines::read(text.as_bytes(), &[ifindex].into())
            .unwrap()
            .of(ifindex)
            .to_owned()
    }

    fn record<A>(group: A, kind: Kind, sources: Vec<A>) -> Record<A> {
        Record { kind, group, sources }
    }

    #[test]
    fn groups_with_their_sources_are_read_for_each_interface() {
        let expected = [
            record(v4("232.0.0.1"), Kind::Include, vec![v4("192.0.2.1"), v4("192.0.2.2")]),
            record(v4("239.1.2.3"), Kind::Exclude, vec![]),
            record(v4("239.1.2.4"), Kind::Exclude, vec![v4("192.0.2.9")]),
            // One socket includes a source, another one joins without a filter.
            record(v4("239.1.2.5"), Kind::Exclude, vec![]),
        ];
        assert_eq!(groups(joined4(&of(IGMP, ETH0)), &of(MCFILTER, ETH0)), expected);
        assert_eq!(groups(joined4(&of(IGMP, LO)), &of(MCFILTER, LO)), [], "224.0.0.1 only");
        assert_eq!(
            groups(joined4(&of(IGMP, 99)), &of(MCFILTER, 99)),
            [],
            "no such interface"
        );
    }

    #[test]
    fn ipv6_groups_beyond_the_interface_are_read_with_their_sources() {
        let expected = [
            record(v6("ff02::1:ff7e:8d8c"), Kind::Exclude, vec![]),
            record(v6("ff15::1:2"), Kind::Exclude, vec![]),
            record(v6("ff15::1:3"), Kind::Exclude, vec![v6("2001:db8::9")]),
            record(v6("ff35::1"), Kind::Include, vec![v6("2001:db8::1")]),
        ];
        assert_eq!(groups(joined6(&of(IGMP6, ETH0)), &of(MCFILTER6, ETH0)), expected);
        assert_eq!(groups(joined6(&of(IGMP6, LO)), &of(MCFILTER6, LO)), []);
    }

    #[test]
    fn the_version_of_igmp_is_the_interfaces_and_at_least_2() {
        let version = |word| {
            let igmp = IGMP.replace("eth0      :     5      V3", &format!("eth0 : 5 {word}"));
            igmp_version(&of(&igmp, ETH0))
        };
        assert_eq!(["V1", "V2", "V3", "NONE"].map(version), [2, 2, 3, 3]);
        assert_eq!(igmp_version(&of(IGMP, LO)), 3);
        assert_eq!(igmp_version(""), 3);
    }

    #[test]
    fn in_doubt_about_other_sockets_nothing_is_narrowed_down() {
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(v4);
        let filter = |users, counted: &[(Ipv4Addr, u32, u32)]| {
            let counts = |&(source, include, exclude)| (source, SourceCounts { include, exclude });
            sources(users, &counted.iter().map(counts).collect())
        };
        let everything = (Kind::Exclude, vec![]);
        assert_eq!(filter(2, &[(a, 2, 0), (b, 1, 0)]), (Kind::Include, vec![a, b]));
        assert_eq!(
            filter(2, &[(a, 1, 0), (b, 1, 0)]),
            everything,
            "or one asks for both and one for all"
        );
        assert_eq!(
            filter(2, &[(a, 0, 2), (b, 0, 1)]),
            (Kind::Exclude, vec![a]),
            "one wants b"
        );
        assert_eq!(filter(2, &[(a, 1, 1)]), everything);
    }

    #[test]
    fn lines_that_cannot_be_read_are_passed_over() {
        for (igmp, filter) in [(IGMP, MCFILTER), (IGMP6, MCFILTER6)] {
            for length in 0..igmp.len() {
                groups(joined4(&of(&igmp[..length], ETH0)), &of(filter, ETH0));
                groups(joined6(&of(&igmp[..length], ETH0)), &of(filter, ETH0));
            }
            for length in 0..filter.len() {
                groups(joined4(&of(igmp, ETH0)), &of(&filter[..length], ETH0));
                groups(joined6(&of(igmp, ETH0)), &of(&filter[..length], ETH0));
            }
        }
    }

    #[test]
    fn what_sockets_join_is_found() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("eth0", "eth1").unwrap();
            let eth0 = links.by_name("eth0").unwrap().unwrap().ifindex;
            ip("addr add 10.0.0.1/24 dev eth0");
            ip("link set eth0 up");
            let before = Groups::read(&[eth0].into()).unwrap().of(eth0, "eth0");
            assert_eq!(
                (before.v4.as_slice(), before.igmp_version, before.mld_version),
                (&[][..], 3, 2)
            );
            let (four, six) = (
                UdpSocket::bind("0.0.0.0:0").unwrap(),
                UdpSocket::bind("[::]:0").unwrap(),
            );
            four.join_multicast_v4(&v4("239.1.2.3"), &v4("10.0.0.1")).unwrap();
            six.join_multicast_v6(&v6("ff15::1:2"), eth0).unwrap();
            fs::write("/proc/sys/net/ipv4/conf/eth0/force_igmp_version", "2").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/eth0/force_mld_version", "1").unwrap();
            let after = Groups::read(&[eth0].into()).unwrap().of(eth0, "eth0");
            assert_eq!(after.v4, [record(v4("239.1.2.3"), Kind::Exclude, vec![])]);
            assert!(after.v6.contains(&record(v6("ff15::1:2"), Kind::Exclude, vec![])));
            assert_eq!((after.igmp_version, after.mld_version), (2, 1));
            let gone = Groups::read(&[9999].into()).unwrap().of(9999, "nosuch");
            assert!(gone.v4.is_empty() && gone.v6.is_empty());
        });
    }

    // Linux 6.18: on eth0 sockets have joined 239.1.2.3; 232.0.0.1 from 192.0.2.1 and .2; 239.1.2.4 but for 192.0.2.9; 239.1.2.5,
    // and another one the same from 192.0.2.1; ff11::9; ff15::1:2; ff35::1 from 2001:db8::1; ff15::1:3 but for 2001:db8::9.
    const IGMP: &str = include_str!("fixtures/igmp.txt");
    const MCFILTER: &str = include_str!("fixtures/mcfilter.txt");
    const IGMP6: &str = include_str!("fixtures/igmp6.txt");
    const MCFILTER6: &str = include_str!("fixtures/mcfilter6.txt");

    /// Indices in them.
    const LO: u32 = 1;
    const ETH0: u32 = 3;
}
