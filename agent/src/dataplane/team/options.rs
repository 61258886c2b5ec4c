//! Options of the team driver, and how they are written in messages of generic netlink.
//!
//! An option is identified by name, port and array index; the kernel compares all three and the type.
//! [team.c: __team_find_option]

use std::collections::BTreeMap;

use bond_modes::PortId;
use neli::FromBytesWithInput;
use neli::genl::{AttrTypeBuilder, Nlattr, NlattrBuilder};
use neli::types::{Buffer, GenlBuffer};

/// Attributes of one message or of one level in it.
pub type Attributes = GenlBuffer<u16, Buffer>;

/// Options that this agent sets, with their values.
pub type Settings = BTreeMap<Key, Value>;

/// An option that this agent sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Text: how the driver forwards.
    Mode,
    /// u32: announcements by the driver when a port is enabled. Always 0, the agent sends them.
    NotifyPeersCount,
    /// u32, ms: has no effect without announcements, so its value marks a device of ours.
    NotifyPeersInterval,
    /// u32, interface index: the port that sends and receives in mode activebackup.
    ActivePort,
    /// Binary: the hash program of mode loadbalance.
    HashProgram,
    /// Text: what mode loadbalance does with the hash.
    TxMethod,
    /// u32, interface index, array: the port that sends the frames whose hash is this index.
    Cell,
    /// Flag of a port: receives, and counts when the driver looks whether it can send at all.
    Enabled,
    /// Flag of a port: its link as user space sees it.
    UserLinkup,
    /// Flag of a port: `UserLinkup` counts, not the carrier.
    UserLinkupEnabled,
}

impl Name {
    /// Every option with its name in the driver.
    const ALL: [(Name, &'static str); 10] = [
        (Name::Mode, "mode"),
        (Name::NotifyPeersCount, "notify_peers_count"),
        (Name::NotifyPeersInterval, "notify_peers_interval"),
        (Name::ActivePort, "activeport"),
        (Name::HashProgram, "bpf_hash_func"),
        (Name::TxMethod, "lb_tx_method"),
        (Name::Cell, "lb_tx_hash_to_port_mapping"),
        (Name::Enabled, "enabled"),
        (Name::UserLinkup, "user_linkup"),
        (Name::UserLinkupEnabled, "user_linkup_enabled"),
    ];

    /// As the driver spells it.
    pub fn text(self) -> &'static str {
        let found = Name::ALL.iter().find(|(name, _)| *name == self);
        found.expect("every name is in the list").1
    }

    fn parse(text: &[u8]) -> Option<Name> {
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        let found = Name::ALL.iter().find(|(_, known)| known.as_bytes() == text);
        found.map(|(name, _)| *name)
    }
}

/// Which option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its name.
    pub name: Name,
    /// The port, if each port has such an option.
    pub port: Option<PortId>,
    /// Its index, if it is an array.
    pub index: Option<u32>,
}

impl Key {
    /// An option that the team has once.
    pub fn team(name: Name) -> Key {
        Key {
            name,
            port: None,
            index: None,
        }
    }

    /// An option of a port.
    pub fn port(name: Name, port: PortId) -> Key {
        Key {
            port: Some(port),
            ..Key::team(name)
        }
    }

    /// One element of an array.
    pub fn cell(index: u32) -> Key {
        Key {
            index: Some(index),
            ..Key::team(Name::Cell)
        }
    }
}

/// Value of an option, in one of the driver's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Host byte order.
    U32(u32),
    /// Up to 31 bytes.
    Text(String),
    /// Present or absent.
    Flag(bool),
    /// Any bytes.
    Binary(Vec<u8>),
}

impl Value {
    /// Text.
    pub fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// The number, if it is one.
    pub fn as_u32(&self) -> Option<u32> {
        match self {
            Value::U32(number) => Some(*number),
            _ => None,
        }
    }

    fn type_code(&self) -> u8 {
        match self {
            Value::U32(_) => 3,
            Value::Text(_) => 5,
            Value::Flag(_) => 6,
            Value::Binary(_) => 11,
        }
    }

    /// The bytes of the data attribute; `None` if its absence is the value.
    fn data(&self) -> Option<Vec<u8>> {
        match self {
            Value::U32(number) => Some(number.to_ne_bytes().to_vec()),
            // The kernel compares up to a zero, so there must be one.
            Value::Text(text) => Some([text.as_bytes(), &[0]].concat()),
            Value::Flag(on) => on.then(Vec::new),
            Value::Binary(bytes) => Some(bytes.clone()),
        }
    }

    fn parse(type_code: u8, data: Option<&[u8]>) -> Option<Value> {
        match type_code {
            3 => Some(Value::U32(number(data?)?)),
            5 => {
                let bytes = data?.strip_suffix(&[0])?;
                Some(Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()))
            }
            6 => Some(Value::Flag(data.is_some())),
            11 => data.map(|bytes| Value::Binary(bytes.to_vec())),
            _ => None,
        }
    }
}

/// The attributes of a message about one team.
pub fn about(team: u32) -> Attributes {
    [attribute(TEAM_IFINDEX, &team.to_ne_bytes())].into_iter().collect()
}

/// The attributes of a request that sets one option.
pub fn setting(team: u32, key: Key, value: &Value) -> Attributes {
    let mut parts = vec![
        attribute(OPTION_NAME, &[key.name.text().as_bytes(), &[0]].concat()),
        attribute(OPTION_TYPE, &[value.type_code()]),
    ];
    parts.extend(value.data().map(|data| attribute(OPTION_DATA, &data)));
    parts.extend(
        key.port
            .map(|port| attribute(OPTION_PORT_IFINDEX, &port.0.to_ne_bytes())),
    );
    parts.extend(
        key.index
            .map(|index| attribute(OPTION_ARRAY_INDEX, &index.to_ne_bytes())),
    );
    let item = nest(ITEM, parts);
    let mut attributes = about(team);
    attributes.push(nest(LIST_OPTION, vec![item]));
    attributes
}

/// The team that a message is about.
pub fn team_of(attributes: &Attributes) -> Option<u32> {
    number(find(attributes, TEAM_IFINDEX)?)
}

/// The options in a message that this agent sets; `None` if it is malformed. Removed ones are left out.
pub fn parse_options(attributes: &Attributes) -> Option<Vec<(Key, Value)>> {
    let mut options = Vec::new();
    for item in items(attributes, LIST_OPTION)? {
        let name = find(&item, OPTION_NAME)?;
        let Some(name) = Name::parse(name) else { continue };
        if find(&item, OPTION_REMOVED).is_some() {
            continue;
        }
        let [code] = *find(&item, OPTION_TYPE)? else {
            return None;
        };
        let value = Value::parse(code, find(&item, OPTION_DATA))?;
        let optional = |kind| find(&item, kind).map_or(Some(None), |bytes| number(bytes).map(Some));
        let key = Key {
            name,
            port: optional(OPTION_PORT_IFINDEX)?.map(PortId),
            index: optional(OPTION_ARRAY_INDEX)?,
        };
        options.push((key, value));
    }
    Some(options)
}

/// The ports in a message, in the order in which they were added; `None` if it is malformed.
pub fn parse_ports(attributes: &Attributes) -> Option<Vec<PortId>> {
    let items = items(attributes, LIST_PORT)?;
    let ports = items.iter().filter(|item| find(item, PORT_REMOVED).is_none());
    ports
        .map(|item| number(find(item, PORT_IFINDEX)?).map(PortId))
        .collect()
}

/// Family number and multicast group from the controller's answer.
pub fn parse_family(attributes: &Attributes, group: &str) -> Option<(u16, u32)> {
    let family = u16::from_ne_bytes(find(attributes, FAMILY_ID)?.try_into().ok()?);
    let groups = parse(find(attributes, FAMILY_GROUPS)?)?;
    let found = groups.as_ref().iter().find_map(|item| {
        let item = parse(item.nla_payload().as_ref())?;
        let name = find(&item, GROUP_NAME)?;
        (name.strip_suffix(&[0])? == group.as_bytes()).then(|| number(find(&item, GROUP_ID)?))?
    })?;
    Some((family, found))
}

/// The attributes of a question for a family.
pub fn family_named(name: &str) -> Attributes {
    let name = [name.as_bytes(), &[0]].concat();
    [attribute(FAMILY_NAME, &name)].into_iter().collect()
}

/// Reads attributes; `None` if they are malformed.
pub fn parse(bytes: &[u8]) -> Option<Attributes> {
    Attributes::from_bytes_with_input(&mut std::io::Cursor::new(bytes), bytes.len()).ok()
}

fn attribute(kind: u16, payload: &[u8]) -> Nlattr<u16, Buffer> {
    let kind = AttrTypeBuilder::default().nla_type(kind).build();
    NlattrBuilder::default()
        .nla_type(kind.expect("the type is given"))
        .nla_payload(payload)
        .build()
        .expect("type and payload are given")
}

fn nest(kind: u16, parts: Vec<Nlattr<u16, Buffer>>) -> Nlattr<u16, Buffer> {
    parts.iter().fold(attribute(kind, &[]), |whole, part| {
        whole.nest(part).expect("bytes always become bytes")
    })
}

/// The payload of the first attribute of this kind.
fn find(attributes: &Attributes, kind: u16) -> Option<&[u8]> {
    let mut all = attributes.as_ref().iter();
    all.find(|attribute| *attribute.nla_type().nla_type() == kind)
        .map(|found| found.nla_payload().as_ref())
}

/// The items of a list; of a list that is not there, none.
fn items(attributes: &Attributes, list: u16) -> Option<Vec<Attributes>> {
    let Some(list) = find(attributes, list) else {
        return Some(Vec::new());
    };
    let list = parse(list)?;
    let items = list.as_ref().iter();
    items.map(|item| parse(item.nla_payload().as_ref())).collect()
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

// [if_team.h]
const TEAM_IFINDEX: u16 = 1;
const LIST_OPTION: u16 = 2;
const LIST_PORT: u16 = 3;
const ITEM: u16 = 1;
const OPTION_NAME: u16 = 1;
const OPTION_TYPE: u16 = 3;
const OPTION_DATA: u16 = 4;
const OPTION_REMOVED: u16 = 5;
const OPTION_PORT_IFINDEX: u16 = 6;
const OPTION_ARRAY_INDEX: u16 = 7;
const PORT_IFINDEX: u16 = 1;
const PORT_REMOVED: u16 = 6;
// [genetlink.h]
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const FAMILY_GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;
