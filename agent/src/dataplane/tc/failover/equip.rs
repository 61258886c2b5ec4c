//! What a bond gets of it.

use std::io;

use aya::maps::MapData;

use super::entering::Entered;
use super::{InKernel, Prepared, prepare};
use crate::dataplane::tc::forwarding::{Forwarding, InForce};
use crate::dataplane::tc::layout::{RULES, TRANSMIT};

/// Lets the kernel fail over by itself for a bond whose ports are known, where it can: at once if the program knows the bond, else as
/// soon as it does. Nothing else depends on it.
pub fn equip(in_kernel: &InKernel, ifindex: u32, forwarding: &Forwarding) {
    // The thread may say something else at any time after.
    let why = in_kernel
        .why_not()
        .unwrap_or_else(|| "the kernel is told of the bond now".to_owned());
    forwarding.with(|now| now.why_unprepared = why);
    if in_kernel.is_hopeless() {
        return;
    }
    let known = match in_kernel.is_open() {
        true => copies(forwarding).and_then(|maps| in_kernel.knows(ifindex, &maps)),
        false => Ok(false),
    };
    let asked = known.and_then(|known| match known {
        true => {
            forwarding.with(|now| {
                now.prepared
                    .get_or_insert_with(|| Prepared::new(in_kernel, ifindex))
                    .number
            });
            Ok(())
        }
        false => {
            let (this, of, here) = (in_kernel.clone(), forwarding.clone(), forwarding.clone());
            let maps = Box::new(move || copies(&of));
            let then = move |entered| here.with(|now| has_entered(now, &this, ifindex, entered));
            in_kernel.enter(ifindex, maps, Box::new(then))
        }
    });
    if let Err(error) = asked {
        forwarding.with(|now| refused(now, &error));
    }
}

fn copies(forwarding: &Forwarding) -> io::Result<[MapData; 2]> {
    forwarding.with(|now| Ok([now.bpf.copy_of(TRANSMIT)?, now.bpf.copy_of(RULES)?]))
}

fn has_entered(now: &mut InForce, in_kernel: &InKernel, ifindex: u32, entered: Entered) {
    match entered {
        // It was asked for twice.
        Entered::Yes if now.prepared.is_some() => {}
        Entered::Yes => {
            now.prepared = Some(Prepared::new(in_kernel, ifindex));
            // An earlier agent may have left something.
            if let Err(error) = prepare::read(now) {
                log::warn!("{}: cannot read what is prepared in the kernel: {error}", now.name);
                now.why_unprepared = error.to_string();
            }
        }
        // That is in the log once for all bonds.
        Entered::NoProgram(why) => now.why_unprepared = why,
        Entered::No(error) => refused(now, &error),
    }
}

/// The log has each reason once.
fn refused(now: &mut InForce, error: &io::Error) {
    let why = error.to_string();
    if now.why_unprepared != why {
        log::warn!("{}: cannot prepare failovers in the kernel: {why}", now.name);
        now.why_unprepared = why;
    }
}
