//! A port in the saved file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::{
    Answer, AnswerKind, ArpMonitor, ArpState, Carrier, Duplex, Health, LinkState, MacAddr, Speed, Time, Trial,
};
use serde::{Deserialize, Serialize};

use super::options::SavedPortOptions;
use crate::ids::PortId;
use crate::options::BondOptions;
use crate::port::{Port, give_monitors};

/// See [`Port`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedPort {
    id: PortId,
    name: String,
    permanent_mac: MacAddr,
    own_mac: MacAddr,
    speed: Option<u32>,
    duplex: Option<SavedDuplex>,
    failures: u32,
    #[serde(flatten)]
    options: SavedPortOptions,
    monitor: SavedMonitor,
    #[serde(default)]
    arp: SavedArp,
    debounce: SavedDebounce,
    delayed_since: Time,
}

/// See [`Duplex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedDuplex {
    Half,
    Full,
}

/// See [`bond_monitors::CarrierMonitor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedMonitor {
    carrier: SavedCarrier,
}

/// See [`Carrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedCarrier {
    On,
    Off,
}

/// See [`bond_monitors::Debounce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedDebounce {
    state: SavedLink,
}

/// See [`LinkState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedLink {
    Up,
    GoingDown { until: Time },
    Down,
    GoingBack { until: Time },
}

/// See [`ArpState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SavedArp {
    last_tx: Time,
    last_rx: Time,
    heard: Option<Time>,
    since: Time,
    asked_since: Time,
    answers: BTreeMap<IpAddr, SavedAnswer>,
    trial: SavedTrial,
}

/// See [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAnswer {
    at: Time,
    by: SavedAnswerKind,
    #[serde(default)]
    paused: Duration,
}

/// See [`AnswerKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedAnswerKind {
    Reply,
    Request,
}

/// See [`Trial`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedTrial {
    #[default]
    None,
    Candidate,
    Failed,
}

impl SavedPort {
    pub fn of(port: &Port) -> Self {
        SavedPort {
            id: port.id,
            name: port.name.clone(),
            permanent_mac: port.permanent_mac,
            own_mac: port.own_mac,
            speed: port.speed.0,
            duplex: match port.duplex {
                Duplex::Half => Some(SavedDuplex::Half),
                Duplex::Full => Some(SavedDuplex::Full),
                Duplex::Unknown => None,
            },
            failures: port.failures,
            options: SavedPortOptions(port.options),
            monitor: SavedMonitor {
                carrier: match port.carrier() {
                    Carrier::On => SavedCarrier::On,
                    Carrier::Off => SavedCarrier::Off,
                },
            },
            arp: port.arp().map(|arp| SavedArp::of(arp.state())).unwrap_or_default(),
            debounce: SavedDebounce {
                state: SavedLink::of(port.link()),
            },
            delayed_since: port.delayed_since,
        }
    }

    pub fn name(&self) -> (PortId, &str) {
        (self.id, &self.name)
    }

    pub fn restore(self, now: Time, options: &BondOptions) -> Port {
        let carrier = match self.monitor.carrier {
            SavedCarrier::On => Carrier::On,
            SavedCarrier::Off => Carrier::Off,
        };
        let mut health = Health::new(carrier, self.debounce.state.restore());
        give_monitors(&mut health, now, options, || ArpMonitor::restored(self.arp.restore()));
        Port {
            id: self.id,
            name: self.name,
            permanent_mac: self.permanent_mac,
            own_mac: self.own_mac,
            speed: Speed(self.speed),
            duplex: match self.duplex {
                Some(SavedDuplex::Half) => Duplex::Half,
                Some(SavedDuplex::Full) => Duplex::Full,
                None => Duplex::Unknown,
            },
            failures: self.failures,
            options: self.options.0,
            health,
            delayed_since: self.delayed_since,
            loss_seen: now,
        }
    }
}

impl SavedLink {
    fn of(link: LinkState) -> Self {
        match link {
            LinkState::Up => SavedLink::Up,
            LinkState::GoingDown { until } => SavedLink::GoingDown { until },
            LinkState::Down => SavedLink::Down,
            LinkState::GoingBack { until } => SavedLink::GoingBack { until },
        }
    }

    fn restore(self) -> LinkState {
        match self {
            SavedLink::Up => LinkState::Up,
            SavedLink::GoingDown { until } => LinkState::GoingDown { until },
            SavedLink::Down => LinkState::Down,
            SavedLink::GoingBack { until } => LinkState::GoingBack { until },
        }
    }
}

impl SavedArp {
    fn of(arp: ArpState) -> Self {
        let answer = |(target, answer)| (target, SavedAnswer::of(answer));
        SavedArp {
            last_tx: arp.last_tx,
            last_rx: arp.last_rx,
            heard: arp.heard,
            since: arp.since,
            asked_since: arp.asked_since,
            answers: arp.answers.into_iter().map(answer).collect(),
            trial: match arp.trial {
                Trial::None => SavedTrial::None,
                Trial::Candidate => SavedTrial::Candidate,
                Trial::Failed => SavedTrial::Failed,
            },
        }
    }

    fn restore(self) -> ArpState {
        let answer = |(target, answer): (IpAddr, SavedAnswer)| (target, answer.restore());
        ArpState {
            last_tx: self.last_tx,
            last_rx: self.last_rx,
            heard: self.heard,
            since: self.since,
            asked_since: self.asked_since,
            answers: self.answers.into_iter().map(answer).collect(),
            trial: match self.trial {
                SavedTrial::None => Trial::None,
                SavedTrial::Candidate => Trial::Candidate,
                SavedTrial::Failed => Trial::Failed,
            },
        }
    }
}

impl SavedAnswer {
    fn of(answer: Answer) -> Self {
        SavedAnswer {
            at: answer.at,
            by: match answer.by {
                AnswerKind::Reply => SavedAnswerKind::Reply,
                AnswerKind::Request => SavedAnswerKind::Request,
            },
            paused: answer.paused,
        }
    }

    fn restore(self) -> Answer {
        Answer {
            at: self.at,
            by: match self.by {
                SavedAnswerKind::Reply => AnswerKind::Reply,
                SavedAnswerKind::Request => AnswerKind::Request,
            },
            paused: self.paused,
        }
    }
}
