//! What a bond gets of it.

use std::io;

use super::{InKernel, Prepared, prepare};
use crate::dataplane::tc::forwarding::{Forwarding, InForce};
use crate::dataplane::tc::layout::{RULES, TRANSMIT};

/// Lets the kernel fail over by itself for a bond, where it can: at once if the program knows the bond, else as soon as it does. Nothing
/// else depends on it.
pub fn equip(in_kernel: &InKernel, ifindex: u32, forwarding: &Forwarding) {
    if let Some(why) = in_kernel.refuses() {
        return forwarding.with(|now| now.why_unprepared = why);
    }
    let copies = forwarding.with(|now| Ok([now.bpf.copy_of(TRANSMIT)?, now.bpf.copy_of(RULES)?]));
    let known = copies.and_then(|maps| match in_kernel.knows(ifindex, &maps)? {
        true => Ok(true),
        false => {
            let (this, forwarding) = (in_kernel.clone(), forwarding.clone());
            let then = move |entered| forwarding.with(|now| has_entered(now, &this, ifindex, entered));
            in_kernel.enter(ifindex, maps, Box::new(then)).map(|()| false)
        }
    });
    if let Err(error) = &known {
        let name = forwarding.with(|now| now.name.clone());
        log::warn!("{name}: cannot prepare failovers in the kernel: {error}");
    }
    forwarding.with(|now| match known {
        Ok(true) => {
            now.prepared.get_or_insert_with(|| Prepared::new(in_kernel, ifindex));
        }
        // It may have entered meanwhile.
        Ok(false) => now.why_unprepared = "the kernel is told of the bond now".to_owned(),
        Err(error) => now.why_unprepared = error.to_string(),
    });
}

fn has_entered(now: &mut InForce, in_kernel: &InKernel, ifindex: u32, entered: io::Result<()>) {
    match entered {
        // It was asked for twice.
        Ok(()) if now.prepared.is_some() => {}
        Ok(()) => {
            now.prepared = Some(Prepared::new(in_kernel, ifindex));
            // An earlier agent may have left something.
            if let Err(error) = prepare::read(now) {
                log::warn!("{}: cannot read what is prepared in the kernel: {error}", now.name);
                now.why_unprepared = error.to_string();
            }
        }
        Err(error) => now.why_unprepared = error.to_string(),
    }
}
