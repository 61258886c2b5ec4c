//! What the writer is asked for, and in which order it does that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use super::super::Page;

/// Who waits for files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A client: they are written before all others, and no matter how short a time after the last ones.
    Awaited,
    /// Nobody.
    Usual,
}

/// Something that the loop hands over.
#[derive(Debug)]
pub(super) struct Note {
    /// One more than that of the note before it.
    pub(super) number: u64,
    pub(super) request: Request,
}

#[derive(Debug)]
pub(super) enum Request {
    /// The files of a bond are to show this.
    Show(Box<Page>, Urgency),
    /// This file is to have this text.
    Save(PathBuf, String),
    /// The bond of this name is gone.
    Remove(String),
    /// The files of bonds that were never handed over are to go.
    Prune,
    /// Everything is to be written, also what was put off, and then this to be told.
    Settle(SyncSender<()>),
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: BTreeMap<Place, Order>,
    /// Files with saved states, each with the number of the first note about it. They come before all others.
    saves: BTreeMap<PathBuf, (u64, String)>,
    /// Where the bonds wait, by name.
    places: BTreeMap<String, Place>,
    /// The number of the last note.
    read: u64,
    prune: bool,
    settles: Vec<SyncSender<()>>,
}

/// The order in which things are done: awaited ones first, then by the number of the note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) Urgency, pub(super) u64);

/// What is to become of a bond's files.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) bond: String,
    /// The files that are there are those of a bond that is gone.
    pub(super) remove: bool,
    pub(super) page: Option<Box<Page>>,
}

/// The next thing to do.
#[derive(Debug)]
pub(super) enum Task {
    Save(PathBuf, String),
    Bond(Place, Order),
    Prune,
    Settle(Vec<SyncSender<()>>),
}

impl Orders {
    pub(super) fn add(&mut self, note: Note) {
        self.read = note.number;
        match note.request {
            Request::Show(page, urgency) => {
                let bond = page.report.name.clone();
                self.order(bond, Place(urgency, note.number)).page = Some(page);
            }
            Request::Save(path, text) => {
                self.saves.entry(path).or_insert((note.number, String::new())).1 = text;
            }
            Request::Remove(bond) => {
                let order = self.order(bond, Place(Urgency::Awaited, note.number));
                (order.remove, order.page) = (true, None);
            }
            Request::Prune => self.prune = true,
            Request::Settle(settled) => self.settles.push(settled),
        }
    }

    /// The order of a bond. One that waits keeps its place, or gets an earlier one.
    fn order(&mut self, bond: String, place: Place) -> &mut Order {
        let before = self.places.get(&bond).copied();
        let place = before.map_or(place, |before| Place(place.0.min(before.0), place.1.min(before.1)));
        let waiting = before.and_then(|before| self.waiting.remove(&before));
        self.places.insert(bond.clone(), place);
        let fresh = Order {
            bond,
            ..Order::default()
        };
        self.waiting.entry(place).or_insert(waiting.unwrap_or(fresh))
    }

    /// Saved states first, bonds next, then what concerns all.
    pub(super) fn next(&mut self) -> Option<Task> {
        if let Some((path, (_, text))) = self.saves.pop_first() {
            return Some(Task::Save(path, text));
        }
        if let Some((place, order)) = self.waiting.pop_first() {
            self.places.remove(&order.bond);
            return Some(Task::Bond(place, order));
        }
        if std::mem::take(&mut self.prune) {
            return Some(Task::Prune);
        }
        let settles = std::mem::take(&mut self.settles);
        (!settles.is_empty()).then_some(Task::Settle(settles))
    }

    /// Every awaited note up to this one is done, if nothing is in hand.
    pub(super) fn done(&self) -> u64 {
        let awaited = |place: &Place| (place.0 == Urgency::Awaited).then_some(place.1);
        let bond = self.waiting.keys().next().and_then(awaited);
        let first = self.saves.values().map(|(number, _)| *number).chain(bond).min();
        first.map_or(self.read, |first| first - 1)
    }
}
