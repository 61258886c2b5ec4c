//! Interface to the system: network interfaces of the kernel and bonds of the agent.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use bondd::control::client::ClientError;

/// The agent's bonds with the names of their attached ports.
pub(crate) type Bonds = BTreeMap<String, Vec<String>>;

/// Warnings of the agent about a change that it made, each with the bond's name in front.
pub(crate) type Warnings = Vec<String>;

/// Settings of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `IFF_*`.
    pub(crate) flags: u16,
    /// In bytes.
    pub(crate) mtu: i32,
    /// `ARPHRD_*`.
    pub(crate) hardware_type: u16,
    /// The first six bytes of its hardware address.
    pub(crate) address: [u8; 6],
}

/// The system.
pub(crate) trait World {
    /// The agent's bonds, once its start has come to this one.
    fn bonds(&mut self, awaited: &str) -> Result<Bonds, ClientError>;
    /// Attaches a port.
    fn attach(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError>;
    /// Detaches a port.
    fn detach(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError>;
    /// Makes a port the active one.
    fn activate(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError>;
    /// Reads an interface's settings.
    fn settings(&self, interface: &str) -> io::Result<Settings>;
    /// Writes an interface's flags.
    fn set_flags(&self, interface: &str, flags: u16) -> io::Result<()>;
    /// Removes all IPv4 addresses.
    fn clear_addresses(&self, interface: &str) -> io::Result<()>;
    /// The first IPv4 address, if there is one.
    fn address(&self, interface: &str) -> io::Result<Option<Ipv4Addr>>;
    /// Names of all interfaces with an IPv4 address.
    fn addressed_interfaces(&self) -> io::Result<Vec<String>>;
    /// Runs `ip link show`.
    fn show_links(&self) -> io::Result<()>;
}
