//! Examinations of the kernel for `doctor`, which a thread makes: they make devices and load programs, which takes long and waits for
//! locks that others hold.

use bond_modes::options;
use serde_json::Value;

use super::Instances;
use super::errors::option_error;
use crate::control::proto::{ControlError, DoctorReport, OptionPairs, SCHEMA};
use crate::plane_option::take_plane;

impl Instances {
    /// Begins to find out what each plane can do here, and which one a bond with these options would get; see
    /// [`Instances::take_examined`].
    ///
    /// # Errors
    /// There are no such options. Nothing was begun.
    pub fn examine(&mut self, pairs: &OptionPairs) -> Result<(), ControlError> {
        let (choice, pairs) = take_plane(pairs).map_err(|error| option_error("doctor", error))?;
        let change = options::parse(&pairs).map_err(|error| option_error("doctor", error))?;
        let choice = choice.unwrap_or(self.plane_choice);
        let examine = self.examiners.examiner(choice, change.options);
        self.threads.examiner.ask(move |()| {
            let (planes, choice) = examine();
            let report = DoctorReport {
                schema: SCHEMA,
                choice,
                planes,
            };
            let report = serde_json::to_value(report).expect("a report is plain data");
            Box::new(move |instances, _| instances.examined = Some(report))
        });
        Ok(())
    }

    /// What the last examination found, once.
    pub fn take_examined(&mut self) -> Option<Value> {
        self.examined.take()
    }
}
