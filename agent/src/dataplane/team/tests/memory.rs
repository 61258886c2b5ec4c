//! The team driver in memory, and a bond on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bond_modes::plan::{Accept, PortPlan, Rewrite, Source, Spread, Tx};
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};
use bond_monitors::{Carrier, MacAddr};

use crate::dataplane::PlaneError;
use crate::dataplane::lock::lock;
use crate::dataplane::team::bond::{Bond, MARK};
use crate::dataplane::team::driver::Driver;
use crate::dataplane::team::genl::tests::{FAMILY, TEAM, answer, attribute, done, error, message, u32_attribute};
use crate::dataplane::team::genl::{Genl, Wire};
use crate::dataplane::team::options::{self, Key, Name, Settings, Value};
use crate::dataplane::team::{device, program};
use crate::netlink::RouteSocket;

/// The driver with one team, as far as the plane can tell.
#[derive(Clone, Default)]
pub(super) struct Kernel(pub(super) Arc<Mutex<World>>);

#[derive(Default)]
pub(super) struct World {
    pub(super) settings: Settings,
    /// What was set, in order, with the settings after it.
    pub(super) log: Vec<(String, Settings)>,
    pub(super) answers: VecDeque<Vec<u8>>,
    /// What the next setting is answered, whether it is carried out or not.
    pub(super) complaint: Option<(i32, bool)>,
    /// Requests so far.
    pub(super) asked: u32,
}

impl World {
    pub(super) fn set(&mut self, key: Key, value: Value) -> Result<(), i32> {
        let on = |port| self.settings.get(&Key::port(Name::Enabled, PortId(port))) == Some(&Value::Flag(true));
        let there = |port| self.settings.contains_key(&Key::port(Name::Enabled, PortId(port)));
        match (key.name, value.as_u32()) {
            (Name::Cell, Some(port)) if !on(port) => return Err(libc::ENODEV),
            (Name::ActivePort, Some(port)) if !there(port) => return Err(libc::ENOENT),
            _ if key.port.is_some_and(|port| !there(port.0)) => return Err(libc::ENOENT),
            _ => {}
        }
        if let (Name::Enabled, Value::Flag(false), Some(port)) = (key.name, &value, key.port) {
            self.settings
                .retain(|key, cell| key.name != Name::Cell || cell.as_u32() != Some(port.0));
        }
        let place = key.port.map(|port| port.0).or(key.index);
        let place = place.map_or(String::new(), |place| format!("[{place}]"));
        let shown = match &value {
            Value::Binary(bytes) => format!("{} bytes", bytes.len()),
            Value::U32(number) => number.to_string(),
            Value::Flag(on) => u8::from(*on).to_string(),
            other => format!("{other:?}"),
        };
        self.settings.insert(key, value);
        let line = format!("{}{place}={shown}", key.name.text());
        self.log.push((line, self.settings.clone()));
        Ok(())
    }

    /// A port comes in, as the plane leaves it.
    pub(super) fn join(&mut self, port: PortId) {
        for (name, value) in NEW_PORT {
            self.settings.insert(Key::port(name, port), value);
        }
    }

    /// A port goes. What named it is 0 from then on.
    pub(super) fn leave(&mut self, port: PortId) {
        self.settings.retain(|key, _| key.port != Some(port));
        let of_team = [Name::ActivePort, Name::Cell];
        for (key, value) in &mut self.settings {
            if of_team.contains(&key.name) && value.as_u32() == Some(port.0) {
                *value = Value::U32(0);
            }
        }
    }
}

impl Wire for Kernel {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let world = &mut *lock(&self.0);
        world.asked += 1;
        let sequence = u32::from_ne_bytes(request[8..12].try_into().unwrap());
        let attributes = options::parse(&request[20..]).unwrap();
        match (u16::from_ne_bytes([request[4], request[5]]), request[16]) {
            (16, 3) => {
                let group = [attribute(1, b"change_event\0"), u32_attribute(2, FAMILY.group)].concat();
                let body = [
                    vec![1, 2, 0, 0],
                    attribute(1, &FAMILY.id.to_ne_bytes()),
                    attribute(7, &attribute(1, &group)),
                ];
                world.answers.push_back(message(16, sequence, &body.concat()));
                world.answers.push_back(error(sequence, 0));
            }
            (_, 1) => {
                let (key, value) = options::parse_options(&attributes).unwrap().remove(0);
                let code = match world.complaint.take() {
                    Some((code, carried_out)) => {
                        if carried_out {
                            world.set(key, value).unwrap();
                        }
                        code
                    }
                    None => world.set(key, value).err().unwrap_or(0),
                };
                world.answers.push_back(error(sequence, code));
            }
            (_, 2) => {
                for (key, value) in &world.settings {
                    let mut bytes = io::Cursor::new(vec![2, 1, 0, 0]);
                    bytes.set_position(4);
                    neli::ToBytes::to_bytes(&options::setting(TEAM, *key, value), &mut bytes).unwrap();
                    world.answers.push_back(message(FAMILY.id, sequence, bytes.get_ref()));
                }
                world.answers.push_back(done(sequence));
            }
            (_, 3) => {
                let ports: Vec<PortId> = world.settings.keys().filter_map(|key| key.port).collect();
                let ports: BTreeSet<PortId> = ports.into_iter().collect();
                let items: Vec<Vec<u8>> = ports.iter().map(|port| u32_attribute(1, port.0)).collect();
                world.answers.push_back(answer(sequence, 3, TEAM, 3, &items));
                world.answers.push_back(done(sequence));
            }
            other => panic!("a request {other:?}"),
        }
        Ok(())
    }

    fn receive(&mut self, _: Instant) -> io::Result<Vec<u8>> {
        Ok(lock(&self.0).answers.pop_front().expect("an answer is due"))
    }
}

/// A bond with ports on a driver in memory.
pub(super) struct Lab {
    pub(super) kernel: Kernel,
    pub(super) driver: Driver,
    pub(super) links: RouteSocket,
    pub(super) bond: Bond,
}

impl Lab {
    pub(super) fn new(spread: &Spread, ports: &[u32]) -> Lab {
        let kernel = Kernel::default();
        let mut driver = Driver::over(Genl::over(Box::new(kernel.clone())));
        let mut bond = Bond {
            ifindex: TEAM,
            mac: MAC,
            ports: BTreeMap::new(),
            settings: MARK.into_iter().collect(),
            bases: BTreeMap::new(),
        };
        lock(&kernel.0).settings = bond.settings.clone();
        program::set_mode(&mut driver, "bond0", &mut bond, spread).unwrap();
        for port in ports.iter().copied().map(PortId) {
            join(&kernel, &mut bond, port);
        }
        lock(&kernel.0).log.clear();
        Lab {
            kernel,
            driver,
            links: RouteSocket::open().unwrap(),
            bond,
        }
    }

    pub(super) fn leave(&mut self, port: PortId) {
        lock(&self.kernel.0).leave(port);
        self.bond.forget(port);
    }

    pub(super) fn plan(&self, tx: Tx) -> ForwardingPlan {
        let with_accept = |(&id, &port): (&PortId, &PortPlan)| {
            let accept = match tx.ports.contains(&id) {
                true => Accept::All,
                false => Accept::Nothing,
            };
            (id, PortPlan { accept, ..port })
        };
        ForwardingPlan {
            carrier: Carrier::from_bool(!tx.is_nowhere()),
            mac: MAC,
            ports: self.bond.ports.iter().map(with_accept).collect(),
            tx,
            steer: Vec::new(),
            rewrite: Rewrite::default(),
            without_agent: None,
            if_lost: Default::default(),
        }
    }

    pub(super) fn program(&mut self, plan: &ForwardingPlan) -> Result<(), PlaneError> {
        program::apply(&mut self.driver, &mut self.links, "bond0", &mut self.bond, plan).result()
    }

    /// What was set since the last call.
    pub(super) fn log(&self) -> Vec<String> {
        let log = std::mem::take(&mut lock(&self.kernel.0).log);
        log.into_iter().map(|(line, _)| line).collect()
    }

    /// The plan that a new agent would find.
    pub(super) fn found(&self) -> ForwardingPlan {
        let bond = Bond {
            settings: lock(&self.kernel.0).settings.clone(),
            ports: self.bond.ports.clone(),
            bases: BTreeMap::new(),
            ..self.bond
        };
        let order: Vec<PortId> = bond.ports.keys().copied().collect();
        device::plan_of(&bond, &order)
    }

    pub(super) fn goes_to(&mut self, plan: &ForwardingPlan) -> Vec<String> {
        self.program(plan).unwrap();
        self.log()
    }
}

pub(super) fn join(kernel: &Kernel, bond: &mut Bond, port: PortId) {
    lock(&kernel.0).join(port);
    bond.ports.insert(port, PORT);
    for (name, value) in NEW_PORT {
        bond.note(Key::port(name, port), value);
    }
}

pub(super) fn ports(ports: &[u32]) -> Vec<PortId> {
    ports.iter().copied().map(PortId).collect()
}

pub(super) fn hash(names: &[u32]) -> Tx {
    Tx::new(Spread::Hash(XmitHashPolicy::Layer23), ports(names))
}

pub(super) fn all(names: &[u32]) -> Tx {
    Tx::new(Spread::All, ports(names))
}

pub(super) const NEW_PORT: [(Name, Value); 3] = [
    (Name::UserLinkupEnabled, Value::Flag(true)),
    (Name::UserLinkup, Value::Flag(false)),
    (Name::Enabled, Value::Flag(false)),
];
pub(super) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(super) const PORT: PortPlan = PortPlan {
    mac: MAC,
    mtu: 1500,
    promisc: false,
    allmulti: false,
    accept: Accept::Nothing,
    source: Source::AsSent,
};
