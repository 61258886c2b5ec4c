//! Looks at interfaces after their events. An event may be older than the agent's own last change, and does not say everything, so
//! the thread that waits for the kernel looks, and its answer counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bond_modes::{Epoch, Event, Notice, PortId, Warning};
use bond_monitors::{Duplex, Speed, Time};

use super::Instances;
use super::id::InstanceId;
use super::instance::Instance;
use super::looks::Look;
use super::polls::Round;
use super::rate_limit::Permit;
use super::unfulfilled::Foreign;
use crate::netlink::{Link, LinkState, sysctl};
use crate::status::Device;
use crate::threads::Kernel;

impl Instances {
    /// Has an interface of a bond looked at.
    pub(super) fn look_at(&mut self, at: InstanceId, what: Look) {
        self.looks.add((at, what));
    }

    /// Has the interfaces looked at that are to be. Those of the bond that a change is at work with are looked at afterwards: until
    /// then they may be as they were before its plan.
    pub(super) fn ask_looks(&mut self) {
        let at_work = self.underway.at_work;
        let Some(asked) = self.looks.begin_with(LOOKS_A_JOB, |(at, _)| Some(*at) != at_work) else {
            return;
        };
        let asked = asked.into_iter();
        let asked: Vec<Asked> = asked
            .filter_map(|(at, what)| Some(Asked::of(at, what, self.bonds.get(at)?)))
            .collect();
        let round = self.polls.begin([]);
        self.threads.kernel.ask(move |kernel| {
            let seen: Vec<Seen> = asked.into_iter().map(|asked| asked.look(kernel)).collect();
            Box::new(move |instances, now| {
                instances.looks.end();
                for seen in seen {
                    instances.on_seen(now, round, seen);
                }
                instances.polls.end_look(round);
            })
        });
    }

    fn on_seen(&mut self, now: Time, round: Round, seen: Seen) {
        let Asked {
            at, what, epoch, ports, ..
        } = seen.asked;
        let Some(instance) = self.bonds.get(at) else { return };
        if let Look::Port(port) = what
            && instance.bond.ports().get(port).is_none()
        {
            // It has left, and may have its own settings back.
            return;
        }
        // What was seen may be the state before our own last change.
        if instance.bond.epoch() != epoch {
            return self.look_at(at, what);
        }
        let link = match seen.link {
            Ok(Some(link)) => link,
            // It has gone, which another event says.
            Ok(None) => return,
            Err(error) => return self.read_all_later(now, &error),
        };
        match what {
            Look::Port(port) => {
                self.on_port_seen(now, at, port, &link, seen.speed);
                self.on_ipv6_seen(now, at, (port, &link.report.name), seen.has_ipv6);
            }
            Look::Device => {
                if link.report.admin_up && !instance.bond.is_up() {
                    let newest = ports.into_iter().filter(|port| self.polls.is_newest(round, *port));
                    let newest: Vec<PortId> = newest.collect();
                    match seen.carriers {
                        Ok(carriers) => self.feed_carriers(now, at, &newest, &carriers),
                        Err(error) => return self.read_all_later(now, &error),
                    }
                }
                self.on_device_seen(now, at, link);
            }
            Look::Wire(_) => self.on_wire_seen(now, at, &link),
        }
    }

    fn feed_carriers(&mut self, now: Time, at: InstanceId, ports: &[PortId], read: &BTreeMap<u32, LinkState>) {
        let instance = &self.bonds[at];
        let settled = |port: &PortId| {
            let state = read.get(&port.0)?;
            Some((*port, instance.settled_carrier(*port, state.carrier, state.in_service)))
        };
        let carriers = ports.iter().filter_map(settled).collect();
        ports.iter().for_each(|port| self.untold.carrier_told(*port));
        self.feed(now, at, Event::CarriersPolled { carriers });
    }

    fn on_port_seen(&mut self, now: Time, at: InstanceId, port: PortId, link: &Link, speed: Option<(Speed, Duplex)>) {
        let Some(known) = self.bonds[at].bond.ports().get(port) else {
            return;
        };
        if let Some((speed, duplex)) = speed
            && (speed, duplex) != (known.speed, known.duplex)
        {
            // All else is as in the last event: older ones have been handled, and newer ones are on their way.
            let mut report = self.host.link(port.0).unwrap_or(link).report.clone();
            (report.speed, report.duplex) = (speed, duplex);
            report.carrier = known.carrier();
            self.feed(now, at, Event::Link { port, report });
        }
        let instance = &mut self.bonds[at];
        if !instance.plane.signs().hears_groups(link) && instance.repair.is_news(Look::Port(port)) {
            self.put_back(now, at, &format!("the all-multicast setting of {}", link.report.name));
        }
        self.compare_mac(now, at, port, link);
        self.compare_mtu(now, at, port, link);
    }

    /// The operator may give a port another address; the bond goes on and says so. Nothing reverts it.
    fn compare_mac(&mut self, now: Time, at: InstanceId, port: PortId, link: &Link) {
        let planned = |instance: &Instance| instance.bond.plan().ports.get(&port).map(|plan| plan.mac);
        let Some(wanted) = planned(&self.bonds[at]) else { return };
        let mac = link.report.mac;
        let text = |bond: &str| {
            let name = &link.report.name;
            let what = format!("use the address of {bond}, {wanted}, on {name}");
            let why = format!("another program gave it another one; `ip link set {name} address {wanted}` mends it");
            (what, why)
        };
        self.note_foreign(now, at, Foreign::Mac(port), mac != wanted, text);
        let instance = &mut self.bonds[at];
        let is_refused = instance.unfulfilled.is_refused(Foreign::Mac(port));
        let others = &mut instance.other_macs;
        if mac == wanted {
            others.remove(&port);
        } else if others.insert(port, mac) != Some(mac) && !is_refused {
            let name = link.report.name.clone();
            let notice = Notice::warning(Warning::ForeignAddress {
                port: name,
                mac,
                wanted,
            });
            self.report_foreign_mac(now, at, port, notice);
        }
    }

    /// Nor the MTU, as by the kernel's driver, though larger frames than the port takes are lost.
    fn compare_mtu(&mut self, now: Time, at: InstanceId, port: PortId, link: &Link) {
        let Some(wanted) = self.bonds[at].bond.plan().ports.get(&port).map(|plan| plan.mtu) else {
            return;
        };
        let text = |bond: &str| {
            let name = &link.report.name;
            let what = format!("send frames of {wanted} bytes, the MTU of {bond}, through {name}");
            let why = format!("another program lowered its MTU; `ip link set {name} mtu {wanted}` mends it");
            (what, why)
        };
        self.note_foreign(now, at, Foreign::Mtu(port), link.report.mtu < wanted, text);
    }

    fn note_foreign(
        &mut self,
        now: Time,
        at: InstanceId,
        what: Foreign,
        is_foreign: bool,
        text: impl FnOnce(&str) -> (String, String),
    ) {
        let instance = &mut self.bonds[at];
        let found = is_foreign.then(|| text(&instance.name).into());
        instance.unfulfilled.note(now, &instance.name, what, found);
    }

    /// A program that changes the address again and again must not fill the log.
    fn report_foreign_mac(&mut self, now: Time, at: InstanceId, port: PortId, notice: Notice) {
        let instance = &mut self.bonds[at];
        match instance.foreign_logged.entry(port).or_default().permit(now) {
            Permit::Given => return self.notify(at, notice),
            Permit::Ended => log::warn!(
                "{}: another program changes the address of {} again and again, the log does not mention it for a minute",
                instance.name,
                instance.bond.ports().name(port).unwrap_or_default()
            ),
            Permit::Refused => {}
        }
        self.notify_clients(at, notice);
    }

    /// The bond's own interface changed.
    pub(super) fn on_device_seen(&mut self, now: Time, at: InstanceId, link: Link) {
        let mac = link.report.mac;
        if link.report.name != self.bonds[at].name {
            self.rename_bonds([at].into());
        }
        self.bonds[at].devices.insert(link.ifindex, Device::of(&link));
        self.feed(now, at, Event::BondLink { report: link.report });
        self.bonds[at].dirty = true;
        self.outdated_addresses.insert(at);
        let instance = &mut self.bonds[at];
        if instance.bond.is_foreign_mac(mac) && instance.repair.is_news(Look::Device) {
            self.put_back(now, at, &format!("its address to {mac}"));
        }
    }

    fn on_wire_seen(&mut self, now: Time, at: InstanceId, link: &Link) {
        let instance = &mut self.bonds[at];
        let wanted = instance.bond.plan().carrier.is_on();
        if link.report.admin_up != wanted && instance.repair.is_news(Look::Wire(link.ifindex)) {
            let state = if wanted { "down" } else { "up" };
            self.put_back(now, at, &format!("its carrier (set {} {state})", link.report.name));
        }
    }

    /// Gives bonds the names that their interfaces have now, and so those that had these names: some may have exchanged theirs.
    fn rename_bonds(&mut self, these: BTreeSet<InstanceId>) {
        let devices = these.iter().filter_map(|at| Some((*at, self.bonds.get(*at)?.ifindex)));
        let devices: Vec<(InstanceId, u32)> = devices.collect();
        self.threads.kernel.ask(move |kernel| {
            let mut name_of = |(at, ifindex)| {
                let link = kernel.links.by_index(ifindex).transpose()?;
                Some(link.map(|link| (at, link.report.name)))
            };
            let names = devices.into_iter().filter_map(&mut name_of);
            let names: io::Result<BTreeMap<InstanceId, String>> = names.collect();
            Box::new(move |instances, now| match names {
                Ok(names) => instances.on_names_seen(these, names),
                Err(error) => instances.read_all_later(now, &error),
            })
        });
    }

    /// `names` are those of `these`, read one after the other. If others have one of them, or two would have the same, which were
    /// caught while they exchanged theirs, all are looked at again together.
    pub(super) fn on_names_seen(&mut self, mut these: BTreeSet<InstanceId>, mut names: BTreeMap<InstanceId, String>) {
        these.retain(|at| self.bonds.get(*at).is_some());
        names.retain(|at, _| these.contains(at));
        let known = these.len();
        these.extend(names.values().filter_map(|name| self.bonds.named(name)));
        let named = these.iter().map(|at| names.get(at).unwrap_or(&self.bonds[*at].name));
        let different: BTreeSet<&String> = named.collect();
        if these.len() > known || these.len() > different.len() {
            return self.rename_bonds(these);
        }
        names.retain(|at, name| self.bonds[*at].name != *name);
        let renamed: Vec<InstanceId> = names.keys().copied().collect();
        for (at, name) in names {
            let instance = &mut self.bonds[at];
            let old = std::mem::replace(&mut instance.name, name.clone());
            log::info!("{old}: renamed to {name}");
            instance
                .origins
                .taken_by_operator(instance.bond.options(), instance.configured.as_ref());
            instance.configured = None;
            instance.dirty = true;
            self.writer.remove(&old);
            self.forget_unmade(&name);
            self.leave_to_plane(at, move |plane| plane.renamed(&name));
        }
        self.to_save.extend(renamed);
    }
}

/// A look at an interface of a bond.
struct Asked {
    at: InstanceId,
    what: Look,
    ifindex: u32,
    /// The plan by then.
    epoch: Epoch,
    /// Ports whose carriers are read as well.
    ports: Vec<PortId>,
}

/// What it found.
struct Seen {
    asked: Asked,
    /// `None` if there is no such interface.
    link: io::Result<Option<Link>>,
    /// Of a port that is up.
    speed: Option<(Speed, Duplex)>,
    /// A port on which IPv6 is on.
    has_ipv6: bool,
    carriers: io::Result<BTreeMap<u32, LinkState>>,
}

impl Asked {
    fn of(at: InstanceId, what: Look, instance: &Instance) -> Asked {
        let ifindex = match what {
            Look::Port(port) => port.0,
            Look::Device => instance.ifindex,
            Look::Wire(ifindex) => ifindex,
        };
        // A bond that is set up judges all its ports at once; the kernel reports carriers up to a second late.
        let ports = match what {
            Look::Device if instance.bond.options().use_carrier => {
                instance.bond.ports().iter().map(|port| port.id).collect()
            }
            _ => Vec::new(),
        };
        Asked {
            at,
            what,
            ifindex,
            epoch: instance.bond.epoch(),
            ports,
        }
    }

    fn look(self, kernel: &mut Kernel) -> Seen {
        let link = kernel.links.by_index(self.ifindex);
        let indexes: Vec<u32> = self.ports.iter().map(|port| port.0).collect();
        let carriers = kernel.carriers.read(&indexes);
        let speed = match (&link, self.what) {
            (Ok(Some(link)), Look::Port(_)) if link.report.admin_up => {
                Some(kernel.links.speed_duplex(&link.report.name))
            }
            _ => None,
        };
        let has_ipv6 = match (&link, self.what) {
            (Ok(Some(link)), Look::Port(_)) => matches!(sysctl::disable_ipv6(&link.report.name), Ok(Some(false))),
            _ => false,
        };
        Seen {
            asked: self,
            link,
            speed,
            has_ipv6,
            carriers,
        }
    }
}

/// Looks that are one job of the thread: polls and plans of other bonds wait for it.
const LOOKS_A_JOB: usize = 32;
