//! Captures frames of an interface by `tcpdump`, and sends single frames.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::netns::Netns;
use crate::raw::Raw;
use crate::wait::until;

/// A running `tcpdump`.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Capture {
    /// Starts capturing frames that match the filter; returns when it has begun.
    #[track_caller]
    pub fn start(netns: &Netns, interface: &str, filter: &str) -> Capture {
        let mut command = netns.command("tcpdump");
        command.args([
            "-Z",
            "root",
            "--immediate-mode",
            // The kernel has room for some thousand frames then: for whole ones of any length it has room for a few, and drops the
            // others while tcpdump waits for a processor.
            "-s",
            "2048",
            "-B",
            "16384",
            "-l",
            "-n",
            "-e",
            "-tt",
            "-i",
            interface,
            filter,
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run tcpdump: {e}"));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("listening on") {
            let read = stderr.read_line(&mut said).unwrap_or(0);
            assert!(read > 0, "tcpdump ended: {said}");
        }
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stdout, sink) = (BufReader::new(child.stdout.take().expect("piped")), lines.clone());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                sink.lock().expect("no reader panics").push(line);
            }
        });
        Capture { child, lines }
    }

    /// Lines so far, one a frame: time, addresses, contents.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Lines so far that contain all these words.
    pub fn matching(&self, words: &[&str]) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .collect()
    }

    /// Waits until this number of lines contains all these words, and returns them.
    #[track_caller]
    pub fn wait(&self, count: usize, words: &[&str]) -> Vec<String> {
        let seen = until(crate::daemon::LIMIT, || {
            Some(self.matching(words)).filter(|lines| lines.len() >= count)
        });
        seen.unwrap_or_else(|| panic!("not {count} frames with {words:?} in:\n{}", self.lines().join("\n")))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one frame, from the destination address on, out of an interface.
#[track_caller]
pub fn transmit(netns: &Netns, interface: &str, frame: &[u8]) {
    netns.enter(|| Raw::open(interface, 0).send(frame));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Cable;

    #[test]
    fn a_frame_put_on_one_end_is_captured_at_the_other() {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        let _cable = Cable::new(&a, "eth0", &b, "eth0");
        let capture = Capture::start(&b, "eth0", "ether proto 0x88b5");
        transmit(
            &a,
            "eth0",
            &[&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat(),
        );
        let lines = capture.wait(1, &["02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"]);
        assert_eq!(lines.len(), 1);
    }
}
