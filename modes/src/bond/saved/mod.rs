//! The saved file: soft state that the kernel cannot hold, in types of its own.
//!
//! Later agents read this file, and earlier ones after a downgrade. So fields may be added, with a default, but never renamed
//! or removed, independent of the types that hold the state while the agent runs. Options are written by the option tables.
//! Values that mean the same everywhere ([`PortId`], [`MacAddr`], [`Time`]) are used as they are.

mod options;
mod port;

use std::collections::{BTreeMap, BTreeSet};

use bond_monitors::{LinkReport, MacAddr, Time};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use self::options::SavedOptions;
use self::port::SavedPort;
use super::Bond;
use super::announce::{Announcements, Announcer};
use super::device::{Device, MacOrigin};
use crate::current::Lasting;
use crate::deadline::Deadline;
use crate::ids::PortId;
use crate::mode::{AnyMode, ModeSaved};
use crate::options::BondOptions;
use crate::plan::ForwardingPlan;

/// Soft state of a bond; valid until the machine reboots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    options: SavedOptions,
    device: SavedDevice,
    /// Each once.
    #[serde(deserialize_with = "each_once")]
    ports: Vec<SavedPort>,
    #[serde(default)]
    mode: SavedMode,
    #[serde(default)]
    notifier: SavedAnnouncements,
    #[serde(default)]
    rejoin: SavedAnnouncements,
}

/// See [`Device`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedDevice {
    up: bool,
    mac: MacAddr,
    mac_origin: SavedOrigin,
    born_mac: MacAddr,
    #[serde(default)]
    mac_unsure: bool,
    #[serde(default)]
    unwanted_mac: Option<MacAddr>,
    mtu: u32,
    promisc: bool,
    allmulti: bool,
}

/// See [`MacOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedOrigin {
    Random,
    Port,
    User,
}

/// See [`ModeSaved`]; each mode uses the fields of its form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SavedMode {
    active: Option<PortId>,
    force_primary: bool,
    left: Option<SavedLeft>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, String>,
}

/// A port that was active, and until when it may still get frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedLeft {
    port: PortId,
    until: Time,
}

/// See [`Announcements`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAnnouncements {
    left: u8,
    next: Time,
}

impl Saved {
    /// Options that were in force.
    pub fn options(&self) -> &BondOptions {
        &self.options.0
    }

    /// The ports, each with the name that it had.
    pub fn port_names(&self) -> impl Iterator<Item = (PortId, &str)> {
        self.ports.iter().map(SavedPort::name)
    }

    /// The port that had all traffic, in a mode that has such a port.
    pub fn active_port(&self) -> Option<PortId> {
        self.mode.active
    }

    pub(super) fn of(bond: &Bond) -> Saved {
        let (notifier, rejoin) = bond.announcer.announcements();
        Saved {
            options: SavedOptions(bond.options.clone()),
            device: SavedDevice::of(&bond.device),
            ports: bond.ports.iter().map(SavedPort::of).collect(),
            mode: SavedMode::of(bond.mode.save()),
            notifier: SavedAnnouncements::of(notifier),
            rejoin: SavedAnnouncements::of(rejoin),
        }
    }

    /// The assumed state of a bond whose file was lost.
    pub(super) fn unknown(options: BondOptions, report: &LinkReport) -> Saved {
        Saved {
            options: SavedOptions(options),
            device: SavedDevice::of(&Device::new(report, MacOrigin::Port)),
            ports: Vec::new(),
            mode: SavedMode::default(),
            notifier: SavedAnnouncements::default(),
            rejoin: SavedAnnouncements::default(),
        }
    }

    /// A bond with this state, except that of its mode, see [`crate::mode::Mode::adopt`].
    pub(super) fn into_bond(self, now: Time, plan: ForwardingPlan) -> (Bond, ModeSaved) {
        let options = self.options.0;
        let mode = AnyMode::new(options.mode);
        let mut bond = Bond::assemble(now, options, self.device.restore(), mode, plan);
        for port in self.ports {
            let port = port.restore(now, &bond.options);
            bond.ports.push(port);
        }
        bond.announcer = Announcer::resumed(self.notifier.restore(), self.rejoin.restore());
        let mode = self.mode.restore(&bond.mode);
        (bond, mode)
    }
}

impl SavedDevice {
    fn of(device: &Device) -> Self {
        SavedDevice {
            up: device.up,
            mac: device.mac,
            mac_origin: match device.mac_origin {
                MacOrigin::Random => SavedOrigin::Random,
                MacOrigin::Port => SavedOrigin::Port,
                MacOrigin::User => SavedOrigin::User,
            },
            born_mac: device.born_mac,
            mac_unsure: device.mac_unsure,
            unwanted_mac: device.unwanted_mac,
            mtu: device.mtu,
            promisc: device.promisc,
            allmulti: device.allmulti,
        }
    }

    fn restore(self) -> Device {
        Device {
            up: self.up,
            mac: self.mac,
            mac_origin: match self.mac_origin {
                SavedOrigin::Random => MacOrigin::Random,
                SavedOrigin::Port => MacOrigin::Port,
                SavedOrigin::User => MacOrigin::User,
            },
            born_mac: self.born_mac,
            mac_unsure: self.mac_unsure,
            unwanted_mac: self.unwanted_mac,
            mtu: self.mtu,
            promisc: self.promisc,
            allmulti: self.allmulti,
        }
    }
}

impl SavedMode {
    fn of(mode: ModeSaved) -> Self {
        match mode {
            ModeSaved::Speaker(active) => SavedMode {
                active,
                ..SavedMode::default()
            },
            ModeSaved::Current(current) => SavedMode {
                active: current.active,
                force_primary: current.force_primary,
                left: current.left.map(|(port, until)| SavedLeft { port, until }),
                ..SavedMode::default()
            },
            ModeSaved::Named(state) => SavedMode {
                state,
                ..SavedMode::default()
            },
        }
    }

    /// In the form that the mode uses.
    fn restore(self, mode: &AnyMode) -> ModeSaved {
        match mode.save() {
            ModeSaved::Speaker(_) => ModeSaved::Speaker(self.active),
            ModeSaved::Current(_) => ModeSaved::Current(Lasting {
                active: self.active,
                force_primary: self.force_primary,
                left: self.left.map(|left| (left.port, left.until)),
            }),
            ModeSaved::Named(_) => ModeSaved::Named(self.state),
        }
    }
}

impl SavedAnnouncements {
    fn of(rounds: Announcements) -> Self {
        SavedAnnouncements {
            left: rounds.left,
            next: rounds.next.due(),
        }
    }

    fn restore(self) -> Announcements {
        Announcements {
            left: self.left,
            next: Deadline::at(self.next),
        }
    }
}

/// Ports as they were written: a file that has one twice is damaged.
fn each_once<'de, D: Deserializer<'de>>(file: D) -> Result<Vec<SavedPort>, D::Error> {
    let ports = Vec::<SavedPort>::deserialize(file)?;
    let mut seen = BTreeSet::new();
    match ports.iter().map(SavedPort::name).find(|(port, _)| !seen.insert(*port)) {
        Some((port, name)) => Err(D::Error::custom(format!("{name} ({port}) is there twice"))),
        None => Ok(ports),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;
    use crate::bond::planner;
    use crate::mode::View;
    use crate::options::ModeName;
    use crate::port::Ports;

    /// Every field of the file but those of later options.
    const COMPLETE: &str = include_str!("../../../testdata/saved-v3.json");

    fn complete() -> Value {
        serde_json::from_str(COMPLETE).unwrap()
    }

    fn read(file: &Value) -> Saved {
        from_value(file.clone()).unwrap()
    }

    /// The first place where a file that was written lacks or changes what an earlier one says. It may say more.
    fn lost(earlier: &Value, written: &Value) -> Option<String> {
        match (earlier, written) {
            (Value::Object(earlier), Value::Object(written)) => earlier.iter().find_map(|(name, value)| {
                let place = lost(value, written.get(name).unwrap_or(&json!("nothing")))?;
                Some(format!("{name} {place}"))
            }),
            (Value::Array(earlier), Value::Array(written)) if earlier.len() == written.len() => earlier
                .iter()
                .zip(written)
                .find_map(|(earlier, written)| lost(earlier, written)),
            _ => (earlier != written).then(|| format!("{earlier} became {written}")),
        }
    }

    #[test]
    fn the_complete_file_is_written_as_it_was_read() {
        assert_eq!(lost(&complete(), &to_value(read(&complete())).unwrap()), None);
        for (origin, mode) in [("Random", "balance-rr"), ("User", "balance-xor"), ("Port", "broadcast")] {
            let mut file = complete();
            file["device"]["mac_origin"] = json!(origin);
            file["device"]["unwanted_mac"] = Value::Null;
            file["options"]["mode"] = json!(mode);
            file["options"]["primary"] = Value::Null;
            assert_eq!(lost(&file, &to_value(read(&file)).unwrap()), None);
        }
    }

    #[test]
    fn a_file_that_has_a_port_twice_is_refused() {
        let mut file = complete();
        let ports = file["ports"].as_array_mut().unwrap();
        ports.push(ports[0].clone());
        let name = ports[0]["name"].as_str().unwrap().to_owned();
        let error = from_value::<Saved>(file).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("is there twice"), "{error}");
    }

    #[test]
    fn a_bond_keeps_every_field() {
        let mut saved = read(&complete());
        // Only modes of another form have names of their own.
        saved.mode.state.clear();
        let device = saved.device.clone().restore();
        let mode = AnyMode::new(saved.options().mode);
        let plan = planner::wanted(&mode, &View::new(&Ports::default(), saved.options(), &device));
        let (bond, mode) = saved.clone().into_bond(Time::ZERO, plan);
        let again = Saved {
            // The new bond's mode adopts its state later.
            mode: SavedMode::of(mode),
            ..Saved::of(&bond)
        };
        assert_eq!(again, saved);
    }

    #[test]
    fn the_state_of_every_mode_has_the_same_fields_and_comes_back_in_its_form() {
        let current = Lasting {
            active: Some(PortId(2)),
            force_primary: true,
            left: Some((PortId(1), Time::from_millis(5))),
        };
        let named = BTreeMap::from([("1".to_owned(), "7".to_owned())]);
        for (mode, form, file) in [
            (
                ModeName::BalanceXor,
                ModeSaved::Speaker(Some(PortId(1))),
                json!({"active":1,"force_primary":false,"left":null}),
            ),
            (
                ModeName::ActiveBackup,
                ModeSaved::Current(current),
                json!({"active":2,"force_primary":true,"left":{"port":1,"until":5_000_000}}),
            ),
            (
                ModeName::Heartbeat,
                ModeSaved::Named(named),
                json!({"active":null,"force_primary":false,"left":null,"state":{"1":"7"}}),
            ),
        ] {
            assert_eq!(to_value(SavedMode::of(form.clone())).unwrap(), file);
            let read: SavedMode = from_value(file).unwrap();
            assert_eq!(read.restore(&AnyMode::new(mode)), form);
        }
    }

    #[test]
    fn delays_come_back_as_they_were_though_miimon_changed_since() {
        let mut file = complete();
        file["options"]["miimon"]["nanos"] = json!(70_000_000);
        file["options"]["arp_interval"]["nanos"] = json!(0);
        assert_eq!(
            to_value(read(&file)).unwrap()["options"]["updelay"],
            complete()["options"]["updelay"]
        );
    }

    #[test]
    fn a_value_that_this_version_does_not_know_is_an_error_with_the_name_of_its_option() {
        let mut file = complete();
        file["options"]["mode"] = json!("802.3ad");
        let error = from_value::<Saved>(file).unwrap_err().to_string();
        assert!(error.contains("mode") && error.contains("802.3ad"), "{error}");
        let mut file = complete();
        file["options"]["of_a_later_version"] = json!({"may": ["have", {"any": "form"}]});
        file["ports"][0]["of_a_later_version"] = json!({"may": ["have", {"any": "form"}]});
        assert_eq!(read(&file), read(&complete()));
    }
}
