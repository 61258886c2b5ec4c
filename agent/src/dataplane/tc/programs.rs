//! The programs of one bond: loaded when they are to be attached, which they are not as long as those of this very build are.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use aya::maps::MapData;
use aya::programs::{SchedClassifier, loaded_programs};

use super::bpf::BondBpf;
use super::errors::{pin_error, program_error};
use super::forwarding::Forwarding;
use super::layout::{LAYOUT, MAPS};
use super::maps::{Maps, check_layout};
use super::object::{BUILD, Kind, Loaded, Loader, Way};
use super::pins::BondPins;
use super::upgrade::FirstLayout;

/// One bond's programs in the kernel. Dropping it leaves those in force that are attached.
pub struct Programs {
    pins: BondPins,
    /// Loaded by this process, to be attached.
    tx: Option<Loaded>,
    rx: Option<Loaded>,
    /// The programs that are attached may be those of another build.
    stale: bool,
    /// Maps of the layout before, until no program uses them.
    before: Option<FirstLayout>,
}

impl Programs {
    /// With the maps that are pinned there. `wire` is the interface that frames leave into the bond by.
    pub fn open(pins: &BondPins, loader: &mut Loader, wire: u32) -> io::Result<(Programs, BondBpf)> {
        let with = |maps, tx: Option<Loaded>, before| {
            let programs = Programs {
                pins: pins.clone(),
                stale: tx.is_some(),
                tx,
                rx: None,
                before,
            };
            Ok((programs, BondBpf::on(maps)?))
        };
        // Programs of this very build have maps of this very layout.
        if let Some(maps) = Maps::pinned(pins)?
            && maps
                .state()
                .is_ok_and(|state| (state.layout, state.build) == (LAYOUT, *BUILD))
        {
            return with(maps, None, None);
        }
        if !check_layout(pins)? {
            let (before, maps, tx) = FirstLayout::take_over(pins, loader, wire)?;
            return with(maps, Some(tx), Some(before));
        }
        let at = |name: &str| pins.map(name);
        if let Some(maps) = Maps::pinned(pins)? {
            let tx = loader.load(Kind::Tx(maps.way()?), Some(&at))?;
            return with(maps, Some(tx), None);
        }
        // Those that are missing come with the program.
        let mut tx = loader.load(Kind::Tx(Way::One), Some(&at))?;
        let mut maps = Maps::of(&mut tx)?;
        maps.found_at(pins);
        match maps.way()? {
            Way::One => {}
            other => tx = loader.load(Kind::Tx(other), Some(&at))?,
        }
        with(maps, Some(tx), None)
    }

    /// Whether the programs that an earlier agent attached are to be exchanged.
    pub fn are_stale(&self) -> bool {
        self.stale
    }

    /// Whether the programs that an earlier agent attached use maps of the first layout.
    pub fn are_of_first_layout(&self) -> bool {
        self.before.is_some()
    }

    /// The build of all attached programs, as the maps are to say it.
    pub fn build(&self) -> u64 {
        if self.stale { 0 } else { *BUILD }
    }

    /// Marks the attached programs as those of this build, so that the next agent of the same build may keep them. Call it when
    /// this process has attached all of them.
    pub fn mark_attached(&mut self, forwarding: &Forwarding) -> io::Result<()> {
        if let Some(before) = self.before.take() {
            before.leave(&self.pins)?;
            forwarding.with(|now| now.bpf.found_at(&self.pins));
        }
        forwarding.with(|now| now.bpf.note_attached(*BUILD))?;
        self.stale = false;
        Ok(())
    }

    /// To be called right before the first program of an earlier agent is exchanged, or put back where it is missing; until
    /// [`Programs::mark_attached`] the next agent exchanges all of them. What those of the first layout counted until now is taken
    /// over.
    pub fn begin_exchange(&mut self, forwarding: &Forwarding) -> io::Result<()> {
        self.stale = true;
        forwarding.with(|now| match &self.before {
            Some(before) => now.bpf.copy_counts(before),
            None => now.bpf.set_state(0),
        })
    }

    /// The program for the wire: the one that is there, or is about to be.
    pub fn bond_tx(&mut self, forwarding: &Forwarding, loader: &mut Loader) -> io::Result<&mut SchedClassifier> {
        let kind = Kind::Tx(forwarding.with(|now| now.bpf.next_way()));
        if self.tx.as_ref().is_none_or(|tx| tx.kind() != kind) {
            self.tx = Some(self.load(kind, forwarding, loader)?);
        }
        Ok(self.tx.as_mut().expect("it was loaded").program())
    }

    /// The program for ports.
    pub fn port_rx(&mut self, forwarding: &Forwarding, loader: &mut Loader) -> io::Result<&mut SchedClassifier> {
        if self.rx.is_none() {
            self.rx = Some(self.load(Kind::Rx, forwarding, loader)?);
        }
        Ok(self.rx.as_mut().expect("it was loaded").program())
    }

    /// Closes what was loaded: an attached program needs no descriptor.
    pub fn close(&mut self) {
        self.tx = None;
        self.rx = None;
    }

    /// Names under which maps are to be pinned.
    pub fn pin_names(&self) -> &'static [&'static str] {
        match self.before {
            // Some are in another place as long as programs use those of the layout before.
            Some(_) => &[],
            None => &NAMES,
        }
    }

    /// Pins the maps again that another program unpinned. `in_use` are those that are known to be the ones of attached programs.
    pub fn pin_again(
        &self,
        forwarding: &Forwarding,
        loader: &mut Loader,
        in_use: &BTreeMap<String, MapData>,
    ) -> io::Result<()> {
        let lost = self.keep_pinned(forwarding, in_use)?;
        if lost.is_empty() {
            return Ok(());
        }
        // Who may not look for them cannot know that no program uses them: it would go on with others than the agent.
        if let Some(Err(error)) = loaded_programs().next() {
            return Err(program_error(error));
        }
        let kind = Kind::Tx(forwarding.with(|now| now.bpf.next_way()));
        self.make(kind, &lost, forwarding, loader)?;
        forwarding.with(|now| now.bpf.set_state(self.build()))
    }

    /// Another program on the maps of this bond, which must be found at their pins for that.
    fn load(&self, kind: Kind, forwarding: &Forwarding, loader: &mut Loader) -> io::Result<Loaded> {
        let lost = self.keep_pinned(forwarding, &BTreeMap::new())?;
        self.make(kind, &lost, forwarding, loader)
    }

    /// The same, with these maps made anew.
    fn make(
        &self,
        kind: Kind,
        lost: &[&'static str],
        forwarding: &Forwarding,
        loader: &mut Loader,
    ) -> io::Result<Loaded> {
        let at = |name: &str| -> PathBuf {
            match &self.before {
                Some(_) => FirstLayout::place(&self.pins, name),
                None => self.pins.map(name),
            }
        };
        let loaded = loader.load(kind, Some(&at))?;
        if !lost.is_empty() {
            forwarding.with(|now| now.bpf.note_new(lost))?;
        }
        Ok(loaded)
    }

    /// Pins the maps again that another program unpinned. Returns those that are gone for good, as no program in the kernel used
    /// them: they are made anew with the next one.
    fn keep_pinned(
        &self,
        forwarding: &Forwarding,
        in_use: &BTreeMap<String, MapData>,
    ) -> io::Result<Vec<&'static str>> {
        self.pins.create()?;
        let there = self.pins.names()?;
        let mut lost = Vec::new();
        for (name, _) in MAPS {
            if there.iter().any(|pin| pin == name) {
                continue;
            }
            if let Some(map) = in_use.get(name) {
                map.pin(self.pins.map(name)).map_err(pin_error)?;
                continue;
            }
            match forwarding.with(|now| now.bpf.copy_of(name)) {
                Ok(map) => map.pin(self.pins.map(name)).map_err(pin_error)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => lost.push(name),
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }
}

/// Names of the maps.
static NAMES: [&str; MAPS.len()] = {
    let mut names = [""; MAPS.len()];
    let mut at = 0;
    while at < MAPS.len() {
        names[at] = MAPS[at].0;
        at += 1;
    }
    names
};
