//! Messages of the control socket: one JSON object per line.
//!
//! `{"id":1,"call":"port-attach","bond":"bond0","port":"eth0"}` is answered by `{"id":1,"ok":...}` or
//! `{"id":1,"error":{"code":"port_busy","message":"..."}}`. Requests with unknown fields are refused; later versions may add
//! fields to answers.
//! After `monitor` was answered, the connection carries `{"event":{...}}` lines until the client closes it.
//! A client that does not read them fast enough gets `{"lagged":true}` as its last line, and all get
//! `{"stopping":true}` when the agent stops.

use std::collections::BTreeMap;
use std::fmt;

use bond_modes::{BondStatus, LinkWord, Notice, PortStatus};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::dataplane::{PlaneReport, PortCounters};
use crate::text;

/// Version of the JSON of `show`. Fields are added, never renamed or removed.
pub const SCHEMA: u32 = 1;

/// Connections at a time.
pub const MAX_CLIENTS: usize = 64;

/// Longest request line in bytes; a longer one closes the connection.
pub const MAX_LINE: usize = 64 * 1024;

/// Option names and values in the order given.
pub type OptionPairs = Vec<(String, String)>;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// Make a bond.
    Add {
        /// Its name.
        bond: String,
        /// Its options.
        #[serde(default)]
        options: OptionPairs,
    },
    /// Change options, all or nothing.
    Set {
        /// Which bond.
        bond: String,
        /// What to change.
        options: OptionPairs,
    },
    /// Detach all ports and remove the bond.
    Del {
        /// Which bond.
        bond: String,
    },
    /// State of one bond or all; answers with [`Report`].
    Show {
        /// Which bond.
        #[serde(default)]
        bond: Option<String>,
    },
    /// Abilities of each data plane on this machine; answers with [`DoctorReport`].
    Doctor {
        /// Options of a bond that does not have to exist.
        #[serde(default)]
        options: OptionPairs,
    },
    /// Names of all bonds; answers with an array of strings.
    List {},
    /// Attach a port.
    PortAttach {
        /// Which bond.
        bond: String,
        /// Name of the interface.
        port: String,
    },
    /// Detach a port.
    PortDetach {
        /// Which bond.
        bond: String,
        /// Name of the interface.
        port: String,
    },
    /// Change options of a port, all or nothing.
    PortSet {
        /// Which bond.
        bond: String,
        /// Name of the interface.
        port: String,
        /// What to change.
        options: OptionPairs,
    },
    /// Make a port the active one; `None` lets the bond choose.
    Active {
        /// Which bond.
        bond: String,
        /// Name of the interface.
        port: Option<String>,
    },
    /// Stream events of one bond or all.
    Monitor {
        /// Which bond.
        #[serde(default)]
        bond: Option<String>,
    },
}

impl Call {
    /// The bond that it changes, by its name.
    pub fn bond(&self) -> Option<&str> {
        match self {
            Call::Add { bond, .. }
            | Call::Set { bond, .. }
            | Call::Del { bond }
            | Call::PortAttach { bond, .. }
            | Call::PortDetach { bond, .. }
            | Call::PortSet { bond, .. }
            | Call::Active { bond, .. } => Some(bond),
            Call::Doctor { .. } | Call::Show { .. } | Call::List {} | Call::Monitor { .. } => None,
        }
    }

    /// Whether it changes nothing, so that a client without the right to make changes may send it.
    pub fn reads_only(&self) -> bool {
        matches!(
            self,
            Call::Show { .. } | Call::Doctor { .. } | Call::List {} | Call::Monitor { .. }
        )
    }
}

/// Parses a request line into its id, which the answer repeats, and the call, or the reason why it is not a request.
pub fn parse_request(line: &str) -> (Value, Result<Call, ControlError>) {
    let bad = |why: String| ControlError::new(ErrorCode::BadRequest, why);
    let mut object = match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return (Value::Null, Err(bad("a request is a JSON object".to_owned()))),
        Err(e) => return (Value::Null, Err(bad(format!("not a JSON line: {e}")))),
    };
    let id = object.shift_remove("id").unwrap_or(Value::Null);
    (
        id,
        serde_json::from_value(Value::Object(object)).map_err(|e| bad(e.to_string())),
    )
}

/// A refused or failed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// For programs; stable.
    pub code: ErrorCode,
    /// For people: one sentence naming the object and what was expected.
    pub message: String,
}

impl ControlError {
    /// A new one.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ControlError {
            code,
            message: message.into(),
        }
    }
}

/// Kinds of refusal; names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// An unknown request.
    BadRequest,
    /// The client may read but not change bonds.
    Permission,
    /// No bond of that name.
    NoSuchBond,
    /// The bond exists already, or another device has its name.
    NameTaken,
    /// An impossible interface name.
    BadName,
    /// No interface of that name.
    NoSuchDevice,
    /// The interface belongs to another bond or upper device.
    PortBusy,
    /// The interface cannot be a port: loopback, not Ethernet, a bond's own.
    BadPort,
    /// The interface is not a port of this bond.
    NotAPort,
    /// No option of that name.
    UnknownOption,
    /// The option does not take that value.
    BadValue,
    /// The option or call is not possible in this state.
    Refused,
    /// This kernel has no data plane for it.
    NoPlane,
    /// The kernel refused.
    Kernel,
}

/// Warnings in the answer to a call that changed something, each with the bond's name in front.
pub fn warnings(answer: &Value) -> impl Iterator<Item = &str> {
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    warnings.filter_map(Value::as_str)
}

/// Adds a warning to the answer to a call that changed something.
pub fn warn(answer: &mut Value, text: &str) {
    if let Value::Object(fields) = answer {
        let warnings = fields.entry("warnings").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(warnings) = warnings {
            warnings.push(text.into());
        }
    }
}

/// Answer to `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The plane that a bond with these options would get; null if none can.
    pub choice: Option<String>,
    /// Every plane, the preferred one first.
    pub planes: Vec<PlaneReport>,
}

/// Answer to `show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Bonds of an earlier agent that are not taken over yet, and those of the option files that are not made yet; empty in one
    /// bond's report.
    #[serde(default)]
    pub waiting: Vec<WaitingReport>,
    /// In the order of their creation.
    pub bonds: Vec<BondReport>,
}

/// A bond that nothing monitors: it forwards as the earlier agent left it, or is not made yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingReport {
    /// Interface name.
    pub name: String,
    /// Why it is not there.
    pub why: String,
    /// Milliseconds until the next attempt.
    pub next_attempt_ms: u64,
    /// No attempt was made: the agent has just started, and other bonds come first.
    #[serde(default)]
    pub starting: bool,
    /// It is not there at all: the option files name it, and it could not be made.
    #[serde(default)]
    pub unmade: bool,
    /// Milliseconds since the first attempt failed; null if there was none.
    #[serde(default)]
    pub since_ms: Option<u64>,
}

/// One bond of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondReport {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Data plane that forwards for it.
    pub plane: String,
    /// The core's data.
    #[serde(flatten)]
    pub status: BondStatus,
    /// Milliseconds between its polls, if that is more than a quarter longer than `miimon`: polls of many bonds share a part of the
    /// processor, or another program holds a lock of the kernel.
    #[serde(default)]
    pub polled_every_ms: Option<u64>,
    /// Settings that the data plane could not make so far; tried again if that can help.
    #[serde(default)]
    pub unfulfilled: Vec<UnfulfilledReport>,
    /// Whether the kernel fails over by itself when a port loses its carrier; null on a plane that has no such thing.
    #[serde(default)]
    pub failover: Option<FailoverReport>,
    /// Attached ports in the order of attaching, then absent ones.
    pub ports: Vec<PortReport>,
    /// The origin of each option's value, by the names of `options`. `active_slave` is not a stored option.
    #[serde(default)]
    pub option_origins: BTreeMap<String, Origin>,
    /// Options that bondd set because a port needs them, by the kernel's name, each with the port.
    #[serde(default)]
    pub options_for_ports: BTreeMap<String, String>,
}

/// The origin of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The default.
    Default,
    /// An option file.
    File,
    /// A request, such as that of `bondctl` or `ifenslave`.
    Operator,
    /// Bondd itself: because of a port, see [`BondReport::options_for_ports`], or because other options that were set required it.
    Bondd,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Operator => "operator",
            Origin::Bondd => "bondd",
        })
    }
}

/// Whether the kernel fails over by itself when a port of a bond loses its carrier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// This kernel can do that, and bondd was told to have it done.
    pub possible: bool,
    /// A failover is prepared.
    pub in_kernel: bool,
    /// Why it is not.
    pub why_not: Option<String>,
}

/// What a bond needs and does not have: the kernel refused it, or another program changed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfulfilledReport {
    /// The attempt, as a text that completes "cannot ...".
    pub what: String,
    /// Why it failed the last time.
    pub why: String,
    /// How long ago it failed for the first time, in milliseconds.
    pub since_ms: u64,
    /// Nothing passes through the bond meanwhile.
    #[serde(default)]
    pub is_cut: bool,
}

/// One port of a [`BondReport`]. In JSON it is one flat object with the fields of [`PortStatus`] and [`PortCounters`]; they are
/// null while the port is absent, and the counters also if they could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortReport {
    /// Interface name.
    pub name: String,
    /// The bond's data about it; `None` while it is absent.
    pub status: Option<PortStatus>,
    /// Its traffic, if it could be read.
    pub counters: Option<PortCounters>,
    /// The agent's own data about it.
    pub notes: PortNotes,
}

/// The agent's own data about a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortNotes {
    /// Its link is not monitored: `use_carrier` is 0 and its driver reports no link state.
    pub unmonitored: bool,
    /// Reason of the last failed attempt to attach it.
    pub attach_error: Option<String>,
    /// Time until the next attempt, in milliseconds.
    pub next_attempt_ms: Option<u64>,
}

impl PortReport {
    /// An attached port, with its counters if they could be read.
    pub fn attached(status: PortStatus, counters: Option<PortCounters>) -> Self {
        PortReport {
            name: status.name.clone(),
            status: Some(status),
            counters,
            notes: PortNotes::default(),
        }
    }

    /// A wanted port that is not attached.
    pub fn absent(name: &str) -> Self {
        PortReport {
            name: name.to_owned(),
            status: None,
            counters: None,
            notes: PortNotes::default(),
        }
    }

    /// Whether it is attached.
    pub fn state(&self) -> PortPresence {
        match self.status {
            Some(_) => PortPresence::Attached,
            None => PortPresence::Absent,
        }
    }

    /// For people: what it is while it is not attached.
    pub fn absence(&self) -> &'static str {
        match self.notes.attach_error {
            // The interface is there.
            Some(_) => "not attached",
            None => "absent",
        }
    }

    /// Whether it counts as up.
    pub fn is_usable(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.usable)
    }

    /// Whether frames of the stack leave through it.
    pub fn sends(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.sends)
    }
}

impl Serialize for PortReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Map::new();
        // These two fields come first, for readability.
        fields.insert("name".to_owned(), self.name.clone().into());
        fields.insert("state".to_owned(), json!(self.state()));
        for (name, value) in nullable(self.status.as_ref())
            .chain(nullable(self.counters.as_ref()))
            .chain(nullable(Some(&self.notes)))
        {
            fields.entry(name).or_insert(value);
        }
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PortReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let all = || Value::Object(fields.clone());
        let mut status: Option<PortStatus> = match serde_json::from_value(field("state")) {
            Ok(PortPresence::Attached) => Some(serde_json::from_value(all()).map_err(D::Error::custom)?),
            Ok(PortPresence::Absent) => None,
            Err(error) => return Err(D::Error::custom(error)),
        };
        // Earlier versions of the agent do not report which ports count as up, or which send.
        if let Some(status) = status.as_mut().filter(|_| !fields.contains_key("usable")) {
            status.usable = matches!(status.link, LinkWord::Up | LinkWord::GoingDown);
        }
        if let Some(status) = status.as_mut().filter(|_| !fields.contains_key("sends")) {
            status.sends = status.usable;
        }
        Ok(PortReport {
            name: serde_json::from_value(field("name")).map_err(D::Error::custom)?,
            status,
            counters: serde_json::from_value(all()).ok(),
            notes: serde_json::from_value(all()).unwrap_or_default(),
        })
    }
}

/// The fields of a part of a report; all null if the part is missing.
fn nullable<T: Default + Serialize>(part: Option<&T>) -> impl Iterator<Item = (String, Value)> {
    let there = part.is_some();
    let fields = match part {
        Some(part) => json!(part),
        None => json!(T::default()),
    };
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields
        .into_iter()
        .map(move |(name, value)| (name, if there { value } else { Value::Null }))
}

/// Whether a wanted port is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortPresence {
    /// In the bond.
    Attached,
    /// Joins when it appears.
    Absent,
}

/// A line for a monitoring client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventLine {
    /// The event.
    pub event: BondEvent,
}

/// One change of state of one bond.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BondEvent {
    /// Seconds since 1970, with milliseconds.
    pub time: f64,
    /// Which bond.
    pub bond: String,
    /// For people: the line of the log.
    pub text: String,
    /// For programs.
    #[serde(serialize_with = "notice_for_programs")]
    pub notice: Notice,
}

fn notice_for_programs<S: Serializer>(notice: &Notice, serializer: S) -> Result<S::Ok, S::Error> {
    let fields = text::for_programs(notice).map_err(S::Error::custom)?;
    fields.serialize(serializer)
}
