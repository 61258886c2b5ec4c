//! Hands the notes of the program to the loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::in_kernel::InKernel;
use crate::dataplane::{Report, Watch};
use crate::netlink::Drained;

/// Reports the losses of carrier that the program noted, and bonds for which it is there now.
pub struct LossWatch {
    in_kernel: InKernel,
    plane: &'static str,
}

impl LossWatch {
    /// Of this program, also if it is opened later, for the plane of this name.
    pub fn new(in_kernel: InKernel, plane: &'static str) -> LossWatch {
        LossWatch { in_kernel, plane }
    }
}

impl Watch for LossWatch {
    fn plane(&self) -> &'static str {
        self.plane
    }

    fn event_fd(&self) -> RawFd {
        self.in_kernel.as_raw_fd()
    }

    fn read_events(&mut self, budget: usize, sink: &mut Vec<Report>) -> io::Result<Drained> {
        Ok(self.in_kernel.take_reports(budget, sink))
    }
}
