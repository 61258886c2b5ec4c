//! Runs in the lab's machine, whose clock counts instructions: sends frames of 64 bytes as fast as it can and prints what one takes,
//! as the median of batches.
//!
//! `bondd-send-frames ADDRESS COUNT` sends; `bondd-send-frames --full` is the socket that they are sent to.

use std::env;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["--full"] => full(),
        [address, count] => match count.parse() {
            Ok(count) => send(address, count),
            Err(e) => Err(std::io::Error::other(format!("{count}: {e}"))),
        },
        _ => Err(std::io::Error::other("usage: bondd-send-frames ADDRESS COUNT | --full")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bondd-send-frames: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Takes frames until the socket's buffer is full; from then on the kernel drops them at the socket, and nothing wakes a reader.
fn full() -> std::io::Result<()> {
    let _socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    loop {
        thread::park();
    }
}

fn send(address: &str, count: u32) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((address, PORT))?;
    for _ in 0..WARM_UP {
        socket.send(&PAYLOAD)?;
    }
    let mut batches = Vec::new();
    for _ in 0..count / BATCH {
        let start = Instant::now();
        for _ in 0..BATCH {
            socket.send(&PAYLOAD)?;
        }
        batches.push(start.elapsed().as_nanos() as f64 / NANOSECONDS / f64::from(BATCH));
    }
    batches.sort_by(f64::total_cmp);
    let median = batches.get(batches.len() / 2);
    let median = median.ok_or_else(|| std::io::Error::other(format!("{count} frames are no batch")))?;
    println!("{median:.1}");
    Ok(())
}

/// With the headers of UDP, IPv4 and Ethernet, 64 bytes.
const PAYLOAD: [u8; 22] = [0; 22];

/// Enough to fill the receiver's buffer.
const WARM_UP: u32 = 2_000;

/// A quarter of the kernel's tick (4 ms) long: most batches have neither a tick nor work of the kernel's monitors in them, so the median
/// is what a frame takes by itself.
const BATCH: u32 = 50;

/// discard.
const PORT: u16 = 9;

/// Of the guest's clock, for each instruction, see `--count-instructions` of the lab.
const NANOSECONDS: f64 = 2.0;
