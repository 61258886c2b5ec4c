//! The maps of one bond, read and written.
//!
//! They are pinned by name: a new agent takes over those of an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;

use aya::maps::MapData;
use bond_modes::PortId;
use bond_modes::plan::{Accept, Spread, Tx};
use bond_monitors::{MacAddr, ReceiveStamps, Time};

use super::counted::Counted;
use super::errors::{gone_is_fine, map_error};
use super::layout::{LAYOUT, LISTS, OWN, PORTS, Port, QUEUES, Stamps, State, Transmit, WITHOUT_NEAR};
use super::lists::{Left, Lists, is_list};
use super::maps::Maps;
use super::object::Way;
use super::pins::BondPins;
use super::upgrade::FirstLayout;
use crate::dataplane::PortCounters;

/// One bond's maps. Dropping it leaves them in force as far as they are pinned or in use.
pub struct BondBpf {
    maps: Maps,
    /// Whose program is on the wire.
    way: Way,
    /// Whose program is about to take the wire over, and where it will send then.
    coming: Option<(Way, Tx)>,
    lists: Lists,
    /// Selectors that the kernel may put in force by itself.
    spare: Vec<u32>,
    /// The layout that all attached programs know.
    layout: u32,
    counted: Counted,
    /// Slots in the map `rules`.
    rules: BTreeMap<PortId, u32>,
    /// What `queues` holds.
    queues: BTreeMap<u16, PortId>,
    /// What `own` holds.
    own: BTreeSet<MacAddr>,
    /// What `transmit` says for the program on the wire.
    remember_all: bool,
}

impl BondBpf {
    /// On these maps, as they are.
    pub fn on(mut maps: Maps) -> io::Result<BondBpf> {
        let (counted, rules) = Counted::read(&mut maps)?;
        let layout = maps.state()?.layout;
        let way = maps.way()?;
        let own: Result<_, _> = maps.own()?.keys().map(|key| key.map(MacAddr)).collect();
        let mine = maps.transmit()?.get(&way.number(), 0).map_err(map_error)?;
        let mut bpf = BondBpf {
            lists: Lists::default(),
            spare: Vec::new(),
            layout: if layout == 0 { LAYOUT } else { layout },
            counted,
            rules,
            queues: BTreeMap::new(),
            own: own.map_err(map_error)?,
            remember_all: mine.remember_all != 0,
            way,
            coming: None,
            maps,
        };
        if layout == 0 {
            bpf.lists = Lists::of_new_map(&bpf.maps.lists()?);
        }
        bpf.queues = bpf.read_queues()?;
        Ok(bpf)
    }

    /// The way of spreading whose program is on the wire.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The one whose program is to be there when no exchange is going on any more.
    pub fn next_way(&self) -> Way {
        self.coming.as_ref().map_or(self.way, |(way, _)| *way)
    }

    /// Where the program that is about to take the wire over will send.
    pub fn coming(&self) -> Option<&(Way, Tx)> {
        self.coming.as_ref()
    }

    /// Another handle of the map of this name.
    pub fn copy_of(&self, name: &str) -> io::Result<MapData> {
        self.maps.copy_of(name)
    }

    /// Whether an earlier agent wrote lists, and may have left some a moment ago, that are yet to be taken over.
    pub fn has_old_lists(&self) -> bool {
        self.lists.are_unknown() && self.uses_lists()
    }

    /// Takes them over; a grace period has passed since the earlier agent ended.
    pub fn take_over_lists(&mut self) -> io::Result<()> {
        let selector = self.selector(self.way)?;
        self.lists.take_over(&self.maps.lists()?, selector);
        Ok(())
    }

    /// From now on those maps that are not always needed are found here.
    pub fn found_at(&mut self, pins: &BondPins) {
        self.maps.found_at(pins);
    }

    /// Closes maps that can be opened again without harm to a failover.
    pub fn close_spare(&mut self) {
        let lists = self.uses_lists();
        let ports = !self.counted.all_near(self.rules.keys());
        let needed = [(lists, LISTS), (ports, PORTS)].into_iter().filter(|(is, _)| *is);
        self.maps.close_spare(&needed.map(|(_, name)| name).collect::<Vec<_>>());
    }

    /// Maps of these names were lost with their pins and are new.
    pub fn note_new(&mut self, names: &[&str]) -> io::Result<()> {
        if names.contains(&LISTS) {
            self.lists = Lists::of_new_map(&self.maps.lists()?);
        }
        // They are empty: what is known to be in them is written anew.
        if names.contains(&OWN) {
            let known = mem::take(&mut self.own);
            self.set_own(&known)?;
        }
        if names.contains(&QUEUES) {
            for (queue, port) in mem::take(&mut self.queues) {
                self.set_queue(queue, Some(port))?;
            }
        }
        self.set_state(0)
    }

    /// Writes into the maps what programs of the first layout counted and heard.
    pub fn copy_counts(&mut self, before: &FirstLayout) -> io::Result<()> {
        before.copy_counts(&mut self.maps)
    }

    /// All attached programs are of this build. Before, they may have been of a layout without `near`.
    pub fn note_attached(&mut self, build: u64) -> io::Result<()> {
        if self.layout == WITHOUT_NEAR {
            self.layout = LAYOUT;
            self.set_state(0).inspect_err(|_| self.layout = WITHOUT_NEAR)?;
        }
        self.counted.move_near(&mut self.maps)?;
        self.set_state(build)
    }

    /// Notes the build of all programs that are attached; 0 while they are being exchanged, so that an agent that finds this here
    /// completes the exchange.
    pub fn set_state(&mut self, build: u64) -> io::Result<()> {
        let program = self.next_way().number();
        self.maps.set_state(State {
            layout: self.layout,
            program,
            build,
        })
    }

    /// Where frames of the stack leave.
    pub fn tx(&self) -> io::Result<Tx> {
        self.tx_of(self.selector(self.way)?)
    }

    /// Where they leave under a selector.
    pub fn tx_of(&self, selector: u32) -> io::Result<Tx> {
        match selector {
            0 => Ok(Tx::one(None)),
            list if is_list(list) => Lists::tx(&self.maps.lists()?, list),
            port => Ok(Tx::one(Some(PortId(port)))),
        }
    }

    /// Moves the traffic under the program that is on the wire: one write. A list of ports is prepared aside before.
    pub fn set_tx(&mut self, tx: &Tx) -> io::Result<()> {
        let selector = self.prepare(tx)?;
        self.set_selector(self.way, selector)
    }

    /// Gets the wire ready for another program with this policy. Nothing changes until that is there: the exchange of the two is
    /// the moment at which the traffic moves.
    pub fn begin_way(&mut self, way: Way, tx: &Tx) -> io::Result<()> {
        let selector = self.prepare(tx)?;
        self.set_selector(way, selector)?;
        self.coming = Some((way, tx.clone()));
        self.set_state(0).inspect_err(|_| self.coming = None)
    }

    /// Changes where the program that is about to take the wire over will send.
    pub fn set_coming(&mut self, tx: &Tx) -> io::Result<()> {
        let Some((way, _)) = self.coming else { return Ok(()) };
        let selector = self.prepare(tx)?;
        self.set_selector(way, selector)?;
        self.coming = Some((way, tx.clone()));
        Ok(())
    }

    /// To be called when the exchange for which [`BondBpf::begin_way`] was called has ended, with whether the other program has the
    /// wire. Returns where frames leave by that.
    pub fn end_way(&mut self, exchanged: bool) -> Option<Tx> {
        let (way, tx) = self.coming.take().filter(|_| exchanged)?;
        self.way = way;
        Some(tx)
    }

    /// The lists that no selector names; to be passed to [`BondBpf::note_clean`] after a grace period.
    pub fn left_lists(&self) -> io::Result<Left> {
        Ok(self.lists.left(&self.maps.lists()?, &self.selectors()?))
    }

    /// Whether fewer than so many lists can be prepared, of a bond that uses some.
    pub fn is_short_of_lists(&self, needed: usize) -> bool {
        self.uses_lists() && self.lists.clean() < needed
    }

    /// Whether this is a list, and none can be prepared before a grace period.
    pub fn lacks_list_for(&self, tx: &Tx) -> bool {
        tx.kind != Spread::One && !tx.ports.is_empty() && self.lists.clean() == 0
    }

    /// The grace period of these is over.
    pub fn note_clean(&mut self, left: Left) {
        self.lists.note_clean(left);
    }

    /// As if the program of each policy were attached.
    #[cfg(test)]
    pub(super) fn set_any_tx(&mut self, tx: &Tx) -> io::Result<()> {
        if self.lacks_list_for(tx) {
            let left = self.left_lists()?;
            super::lists::grace_period();
            self.note_clean(left);
        }
        if !self.way.serves(tx) {
            let way = Way::of(tx).expect("what sends nowhere is served by all");
            self.begin_way(way, tx)?;
            self.end_way(true);
            return Ok(());
        }
        self.set_tx(tx)
    }

    /// Whether all senders through the bond are remembered.
    #[cfg(test)]
    pub(super) fn reads_remember_all(&self) -> bool {
        let mine = self.maps.transmit().unwrap().get(&self.way.number(), 0).unwrap();
        mine.remember_all != 0
    }

    /// As if another build had attached the programs.
    #[cfg(test)]
    pub(super) fn forget_build(&mut self) {
        self.set_state(*super::object::BUILD ^ 2).unwrap();
    }

    /// The map of lists, and which of its slots are clean.
    #[cfg(test)]
    pub(super) fn lists(
        &mut self,
    ) -> (
        &mut Lists,
        aya::maps::Array<&mut aya::maps::MapData, super::lists::List>,
    ) {
        (&mut self.lists, self.maps.lists_mut().unwrap())
    }

    /// The selector that the program on the wire reads.
    pub fn selector_in_force(&self) -> io::Result<u32> {
        self.selector(self.way)
    }

    /// A selector that the kernel may put in force by itself.
    pub fn spare_selector(&mut self, tx: &Tx) -> io::Result<u32> {
        self.prepare(tx)
    }

    /// The selectors that the kernel may put in force by itself: their lists stay as they are.
    pub fn set_spare(&mut self, selectors: Vec<u32>) {
        self.spare = selectors;
    }

    /// How many lists can be prepared before a grace period.
    pub fn clean_lists(&self) -> usize {
        self.lists.clean()
    }

    /// What the map `transmit` has under a key.
    pub fn transmit(&self, key: u32) -> io::Result<Transmit> {
        self.maps.transmit()?.get(&key, 0).map_err(map_error)
    }

    /// Changes that.
    pub fn set_transmit(&mut self, key: u32, value: Transmit) -> io::Result<()> {
        self.maps.transmit_mut()?.set(key, value, 0).map_err(map_error)
    }

    /// The slot of a port in the map `rules`.
    pub fn rule_of(&self, port: PortId) -> Option<u32> {
        self.rules.get(&port).copied()
    }

    /// The port that has a slot.
    pub fn port_of_rule(&self, slot: u32) -> Option<PortId> {
        let mut rules = self.rules.iter();
        rules.find_map(|(port, its)| (*its == slot).then_some(*port))
    }

    fn prepare(&mut self, tx: &Tx) -> io::Result<u32> {
        match (&tx.kind, tx.ports.first()) {
            (_, None) => Ok(0),
            (Spread::One, Some(port)) => Ok(port.0),
            _ => {
                let in_force = self.selectors()?;
                self.lists.prepare(&mut self.maps.lists_mut()?, tx, &in_force)
            }
        }
    }

    /// Those that a program on the wire reads, or one that is about to be there, or that may become so without this process.
    fn selectors(&self) -> io::Result<Vec<u32>> {
        let named = self.ways().into_iter().map(|way| self.selector(way));
        named.chain(self.spare.iter().copied().map(Ok)).collect()
    }

    fn uses_lists(&self) -> bool {
        self.ways().iter().any(|way| *way != Way::One)
    }

    fn ways(&self) -> BTreeSet<Way> {
        [self.way, self.next_way()].into()
    }

    fn selector(&self, way: Way) -> io::Result<u32> {
        Ok(self.transmit(way.number())?.selector)
    }

    fn set_selector(&mut self, way: Way, selector: u32) -> io::Result<()> {
        let value = Transmit {
            selector,
            remember_all: self.remember_all.into(),
        };
        self.set_transmit(way.number(), value)
    }

    /// Whether all senders through the bond are remembered, or only those to groups.
    pub fn remember_all(&mut self, all: bool) -> io::Result<()> {
        if self.remember_all != all {
            self.remember_all = all;
            let set = self.ways().into_iter().try_for_each(|way| {
                let selector = self.selector(way)?;
                self.set_selector(way, selector)
            });
            set.inspect_err(|_| self.remember_all = !all)?;
        }
        Ok(())
    }

    /// Whether all senders through the bond are remembered.
    pub fn remembers_all(&self) -> bool {
        self.remember_all
    }

    /// Where frames leave that an operator marked, by queue.
    pub fn queues(&self) -> &BTreeMap<u16, PortId> {
        &self.queues
    }

    pub(super) fn read_queues(&self) -> io::Result<BTreeMap<u16, PortId>> {
        let ports = self.maps.queue_ports()?;
        let chosen = (0..).zip(ports).skip(1).filter(|(_, port)| *port != 0);
        Ok(chosen.map(|(queue, port)| (queue, PortId(port))).collect())
    }

    /// Sends frames of a queue through a port, or as all others. Queue 0 has those without a mark.
    pub fn set_queue(&mut self, queue: u16, port: Option<PortId>) -> io::Result<()> {
        if queue == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let value = port.map_or(0, |port| port.0);
        self.maps.queues_mut()?.set(queue.into(), value, 0).map_err(map_error)?;
        match port {
            Some(port) => self.queues.insert(queue, port),
            None => self.queues.remove(&queue),
        };
        Ok(())
    }

    /// Frames that are accepted from a port. Nothing from one that is not attached.
    pub fn accept(&self, port: PortId) -> io::Result<Accept> {
        let Some(slot) = self.rules.get(&port) else {
            return Ok(Accept::Nothing);
        };
        let value = self.maps.rules()?.get(slot, 0).map_err(map_error)?;
        Ok(accept_of(value))
    }

    /// Changes which frames are accepted from a port.
    pub fn set_accept(&mut self, port: PortId, accept: Accept) -> io::Result<()> {
        let value = rule_value(accept);
        match self.rules.get(&port).copied() {
            Some(slot) => self.maps.rules_mut()?.set(slot, value, 0).map_err(map_error),
            None if accept == Accept::Nothing => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The attached ports: those that are counted.
    pub fn ports(&self) -> Vec<PortId> {
        self.rules.keys().copied().collect()
    }

    /// Whether it has as many ports as it can.
    pub fn is_full(&self) -> bool {
        self.rules.len() >= MAX_PORTS as usize
    }

    /// Starts to count a port from zero. Without this the programs neither send through it nor let anything in.
    pub fn add_port(&mut self, port: PortId, wire: u32) -> io::Result<()> {
        let known = self.rules.get(&port).copied();
        let taken: BTreeSet<u32> = self.rules.values().copied().collect();
        let free = || (0..MAX_PORTS).find(|slot| !taken.contains(slot));
        let rule = known.or_else(free).ok_or_else(|| io::Error::other(NO_SLOT))?;
        self.maps.rules_mut()?.set(rule, ACCEPT_NONE, 0).map_err(map_error)?;
        let value = Port {
            rule,
            wire,
            ..Port::default()
        };
        self.counted.add(&mut self.maps, port, value, self.layout == LAYOUT)?;
        self.rules.insert(port, rule);
        Ok(())
    }

    /// The wire has another index.
    pub fn set_wire(&mut self, wire: u32) -> io::Result<()> {
        self.counted.set_wire(&mut self.maps, wire, self.rules.keys())
    }

    /// Forgets a port: nothing goes through it in either direction any more.
    pub fn remove_port(&mut self, port: PortId) -> io::Result<()> {
        self.set_accept(port, Accept::Nothing)?;
        let chosen = self.queues.iter().filter(|(_, chosen)| **chosen == port);
        for queue in chosen.map(|(queue, _)| *queue).collect::<Vec<_>>() {
            self.set_queue(queue, None)?;
        }
        self.counted.remove(&mut self.maps, port)?;
        self.rules.remove(&port);
        Ok(())
    }

    /// The addresses that count as those of the bond and its ports.
    pub fn own(&self) -> &BTreeSet<MacAddr> {
        &self.own
    }

    /// Takes these addresses, and no others, for those of the bond and its ports: frames from them that arrive were sent by us.
    pub fn set_own(&mut self, addresses: &BTreeSet<MacAddr>) -> io::Result<()> {
        if self.own == *addresses {
            return Ok(());
        }
        let known = self.own.clone();
        let mut own = self.maps.own_mut()?;
        for old in known.difference(addresses) {
            gone_is_fine(own.remove(&old.0))?;
            self.own.remove(old);
        }
        for new in addresses.difference(&known) {
            own.insert(new.0, 1, 0).map_err(map_error)?;
            self.own.insert(*new);
        }
        Ok(())
    }

    /// As [`BondBpf::set_own`], besides those that are known.
    pub fn add_own(&mut self, addresses: impl IntoIterator<Item = MacAddr>) -> io::Result<()> {
        let all = self.own.iter().copied().chain(addresses).collect();
        self.set_own(&all)
    }

    /// When a port last received frames of each kind, on any CPU.
    pub fn heard(&self, port: PortId) -> io::Result<ReceiveStamps> {
        let per_cpu = self.counted.values(&self.maps, port)?;
        let last = |stamp: fn(&Stamps) -> u64| {
            per_cpu
                .iter()
                .map(|cpu| stamp(&cpu.stamps))
                .max()
                .filter(|at| *at > 0)
                .map(Time::from_nanos)
        };
        Ok(ReceiveStamps {
            any: last(|stamps| stamps.any_ns),
            probes: last(|stamps| stamps.probes_ns),
            own: last(|stamps| stamps.own_ns),
        })
    }

    /// Traffic of a port, over all CPUs.
    pub fn counters(&self, port: PortId) -> io::Result<PortCounters> {
        let per_cpu = self.counted.values(&self.maps, port)?;
        let counters = per_cpu.iter().map(|cpu| cpu.counters);
        Ok(counters.fold(PortCounters::default(), |sum, cpu| PortCounters {
            tx_frames: sum.tx_frames + cpu.tx_frames,
            tx_bytes: sum.tx_bytes + cpu.tx_bytes,
            rx_frames: sum.rx_frames + cpu.rx_frames,
            rx_bytes: sum.rx_bytes + cpu.rx_bytes,
            rx_dropped: sum.rx_dropped + cpu.rx_dropped,
        }))
    }
}

/// What the map `rules` says for a port that lets this in.
pub fn rule_value(accept: Accept) -> u32 {
    match accept {
        Accept::Nothing => ACCEPT_NONE,
        Accept::Unicast => ACCEPT_UNICAST,
        Accept::All => ACCEPT_ALL,
    }
}

/// What a port lets in for which the map `rules` says this.
pub fn accept_of(value: u32) -> Accept {
    match value {
        ACCEPT_ALL => Accept::All,
        ACCEPT_UNICAST => Accept::Unicast,
        _ => Accept::Nothing,
    }
}

/// Ports of one bond. [selector.bpf.h: MAX_PORTS]
pub const MAX_PORTS: u32 = 256;
/// Said of a port more than that, which is refused before anything is done to it.
const NO_SLOT: &str = "no slot is free";
/// Values of the map `rules`. [selector.bpf.h: ACCEPT_NONE]
const ACCEPT_NONE: u32 = 0;
const ACCEPT_UNICAST: u32 = 1;
const ACCEPT_ALL: u32 = 2;

#[cfg(test)]
pub(super) mod tests {
    use aya::programs::{TestRun, TestRunOptions};

    use super::*;
    use crate::dataplane::tc::object::{Kind, Loaded, Loader};

    /// Maps that vanish with the test, and a program on them.
    pub(in crate::dataplane::tc) fn new() -> (BondBpf, Loaded) {
        let mut tx = Loader::default().load(Kind::Tx(Way::One), None).unwrap();
        let bpf = BondBpf::on(Maps::of(&mut tx).unwrap()).unwrap();
        (bpf, tx)
    }

    /// Runs `bond_tx` on one frame that stands for `segments`; says what it returned.
    fn transmit(tx: &mut Loaded, segments: u32) -> u32 {
        let frame = [0u8; 60];
        let mut context = [0u8; SK_BUFF_SIZE];
        context[GSO_SEGS..GSO_SEGS + 4].copy_from_slice(&segments.to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.ctx_in = Some(&context);
        tx.program().test_run(options).unwrap().return_value
    }

    #[test]
    fn segments_of_offloaded_frames_are_counted_as_frames() {
        let port = PortId(12);
        let (mut bpf, mut tx) = new();
        bpf.add_port(port, 1).unwrap();
        bpf.set_tx(&Tx::one(Some(port))).unwrap();
        assert_eq!(transmit(&mut tx, 0), REDIRECT);
        assert_eq!(transmit(&mut tx, 10), REDIRECT);
        assert_eq!(bpf.counters(port).unwrap().tx_frames, 11);
    }

    #[test]
    fn a_selector_that_names_no_port_of_the_bond_drops() {
        let (mut bpf, mut tx) = new();
        bpf.add_port(PortId(12), 1).unwrap();
        assert_eq!(transmit(&mut tx, 0), SHOT);
        for selector in [13, 12 | 1 << 31] {
            bpf.set_tx(&Tx::one(Some(PortId(selector)))).unwrap();
            assert_eq!(transmit(&mut tx, 0), SHOT, "{selector:#x}");
        }
        assert_eq!(bpf.counters(PortId(12)).unwrap(), PortCounters::default());
    }

    #[test]
    fn a_port_that_was_removed_is_not_counted_and_lets_nothing_in() {
        let port = PortId(12);
        let (mut bpf, _) = new();
        bpf.add_port(port, 1).unwrap();
        bpf.set_accept(port, Accept::Unicast).unwrap();
        assert_eq!(bpf.accept(port).unwrap(), Accept::Unicast);
        bpf.remove_port(port).unwrap();
        bpf.remove_port(port).unwrap();
        assert_eq!((bpf.ports(), bpf.accept(port).unwrap()), (vec![], Accept::Nothing));
        assert_eq!(bpf.counters(port).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Offset of `gso_segs` in `struct __sk_buff`, and how much of it is passed. [linux/bpf.h]
    const GSO_SEGS: usize = 164;
    const SK_BUFF_SIZE: usize = 192;
    /// TC_ACT_SHOT and TC_ACT_REDIRECT. [linux/pkt_cls.h]
    const SHOT: u32 = 2;
    const REDIRECT: u32 = 7;
}
