//! Any of the modes as one value, so that a bond can be copied and compared.

use std::mem;
use std::ops::{Deref, DerefMut};

use super::{Mode, ModeName, View, for_each_mode};
use crate::bond::device::Device;
use crate::options::{BondOptions, FailOverMac};
use crate::plan::{ForwardingPlan, Spread};
use crate::port::Ports;

macro_rules! any_mode {
    ($($(#[$doc:meta])* $name:ident = $text:literal $number:literal => $mode:path,)+) => {
        /// The mode of a bond, with its state.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum AnyMode {
            $($(#[$doc])* $name($mode),)+
        }

        #[allow(unused_doc_comments)]
        impl AnyMode {
            /// The mode of that name, as a bond without ports has it.
            pub fn new(name: ModeName) -> Self {
                match name { $($(#[$doc])* ModeName::$name => AnyMode::$name(Default::default()),)+ }
            }
        }

        #[allow(unused_doc_comments)]
        impl Deref for AnyMode {
            type Target = dyn Mode;

            fn deref(&self) -> &Self::Target {
                match self { $($(#[$doc])* AnyMode::$name(mode) => mode,)+ }
            }
        }

        #[allow(unused_doc_comments)]
        impl DerefMut for AnyMode {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self { $($(#[$doc])* AnyMode::$name(mode) => mode,)+ }
            }
        }
    };
}
for_each_mode!(any_mode);

/// How a bond with these options spreads traffic.
pub fn spread(options: &BondOptions) -> Spread {
    let (ports, device) = (Ports::default(), Device::unknown());
    let view = View::new(&ports, options, &device);
    AnyMode::new(options.mode).forwarding(&view).tx.kind
}

/// Options with which a bond does what this plan says.
pub fn options_in_force(plan: &ForwardingPlan) -> BondOptions {
    let of = |mode: ModeName| BondOptions {
        mode,
        ..BondOptions::default()
    };
    let spreads_so = |mode: &ModeName| mem::discriminant(&spread(&of(*mode))) == mem::discriminant(&plan.tx.kind);
    let mut modes = ModeName::VALUES.iter().map(|(mode, _, _)| *mode);
    let mut options = modes.find(spreads_so).map(of).unwrap_or_default();
    match plan.tx.kind {
        Spread::Hash(policy) => options.xmit_hash_policy = policy,
        Spread::RoundRobin { packets_per_port, .. } => options.packets_per_slave = packets_per_port,
        Spread::One | Spread::All | Spread::Buckets { .. } => {}
    }
    options
}

/// The driver's phrase for the mode of a bond with these options, for the status files. [bond_main.c: bond_mode_name]
pub fn mode_title(options: &BondOptions) -> &'static str {
    AnyMode::new(options.mode).title()
}

/// How addresses move between a bond with these options and its ports.
pub fn moving_macs(options: &BondOptions) -> FailOverMac {
    AnyMode::new(options.mode).moving_macs(options)
}
