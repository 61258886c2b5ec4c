//! The systems on which a scenario is played.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Done, or why not.
pub type Outcome = Result<(), String>;

/// Something that bonds: the kernel's driver, or bondd with one of its planes.
///
/// A column is used on the thread that entered the namespace of the bond. The names of options are the kernel's everywhere.
pub trait Column {
    /// Makes `bond0`; if an option is refused, there is none.
    fn create(&mut self, options: &[(String, String)]) -> Outcome;
    /// Removes `bond0`.
    fn delete(&mut self) -> Outcome;
    /// Attaches a port.
    fn attach(&mut self, port: &str) -> Outcome;
    /// Detaches a port.
    fn detach(&mut self, port: &str) -> Outcome;
    /// Changes an option of the bond.
    fn set(&mut self, name: &str, value: &str) -> Outcome;
    /// Changes an option of a port.
    fn set_port(&mut self, port: &str, name: &str, value: &str) -> Outcome;
    /// Makes a port the active one, or lets the bond choose.
    fn active(&mut self, port: Option<&str>) -> Outcome;
    /// The text of `/proc/net/bonding/bond0`.
    fn status_text(&mut self) -> Option<String>;
    /// Path of the tree of `/sys/class/net`.
    fn tree(&self) -> PathBuf;
    /// The bond as its programs' interface tells it, apart from the text; none if there is no bond.
    fn state(&mut self) -> Option<State>;
    /// Events since the last call, in order, in the words of [`Happening`].
    fn happenings(&mut self) -> Vec<String>;
    /// How many scenarios it may play before a new one is made.
    fn lasts(&self) -> usize;
    /// Clears all state for the next scenario.
    fn clear(&mut self) -> Outcome;
    /// The end of a log, to explain a failure.
    fn log(&mut self) -> String {
        String::new()
    }
}

/// State of a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Name of the active port, or empty.
    pub active: String,
    /// up or down.
    pub mii_status: String,
    /// Every option that the column knows, numbers and names as text, none as an empty one.
    pub options: BTreeMap<String, String>,
    /// Attached ports by name.
    pub ports: BTreeMap<String, Port>,
}

/// State of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// up, going down, down or going back.
    pub link: String,
    /// active or backup.
    pub role: String,
    /// Link failures so far.
    pub failures: String,
    /// The address it had when it was attached.
    pub permanent_mac: String,
}

/// Words for the events of a port, the same for every column.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// Link gone, a delay runs.
    GoingDown(&'a str, u64),
    /// Link back within the delay.
    UpAgain(&'a str),
    /// Link seen, a delay runs.
    GoingBack(&'a str, u64),
    /// Link gone within the delay.
    DownAgain(&'a str),
    /// Used from now on.
    Up(&'a str),
    /// Not used any more.
    Down(&'a str),
    /// The new active port.
    Active(&'a str),
    /// A port joined, with its link up or down.
    Attached(&'a str, &'a str),
    /// A port left.
    Detached(&'a str),
    /// The bond keeps the address of a port that left.
    MacStillInUse(&'a str),
}

impl Happening<'_> {
    /// Its one spelling.
    pub fn show(self) -> String {
        match self {
            Happening::GoingDown(port, delay) => format!("{port} going down, {delay} ms"),
            Happening::UpAgain(port) => format!("{port} up again"),
            Happening::GoingBack(port, delay) => format!("{port} going back, {delay} ms"),
            Happening::DownAgain(port) => format!("{port} down again"),
            Happening::Up(port) => format!("{port} up"),
            Happening::Down(port) => format!("{port} down"),
            Happening::Active(port) => format!("active {port}"),
            Happening::Attached(port, link) => format!("{port} attached, link {link}"),
            Happening::Detached(port) => format!("{port} detached"),
            Happening::MacStillInUse(port) => format!("{port} left, its address stays in use"),
        }
    }
}
