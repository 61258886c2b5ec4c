//! Runs in the lab's machine, whose clock counts instructions: sends frames of 64 bytes, a stream of TCP or questions as fast as it can
//! and prints what one takes, as the median of batches.
//!
//! `bondd-send-frames ADDRESS COUNT` sends frames; `bondd-send-frames --full` is the socket that they are sent to.
//! `bondd-send-frames --stream ADDRESS COUNT` sends blocks of 64 KiB by TCP, and `--ask ADDRESS COUNT` sends one byte by UDP and waits
//! for the answer, again and again; `--serve` takes the former and answers the latter.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["--full"] => full(),
        ["--serve"] => serve(),
        ["--stream", address, count] => number(count).and_then(|count| stream(address, count)),
        ["--ask", address, count] => number(count).and_then(|count| ask(address, count)),
        [address, count] => number(count).and_then(|count| send(address, count)),
        _ => Err(io::Error::other(
            "usage: bondd-send-frames [--stream | --ask] ADDRESS COUNT | --full | --serve",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bondd-send-frames: {e}");
            ExitCode::FAILURE
        }
    }
}

fn number(count: &str) -> io::Result<u32> {
    count.parse().map_err(|e| io::Error::other(format!("{count}: {e}")))
}

/// Takes frames until the socket's buffer is full; from then on the kernel drops them at the socket, and nothing wakes a reader.
fn full() -> io::Result<()> {
    let _socket = UdpSocket::bind(("0.0.0.0", DISCARD))?;
    loop {
        thread::park();
    }
}

/// Reads and forgets what comes by TCP, one connection after the other, and sends back what comes by UDP.
fn serve() -> io::Result<()> {
    let echo = UdpSocket::bind(("0.0.0.0", ECHO))?;
    thread::spawn(move || {
        let mut byte = [0; 1];
        while let Ok((length, from)) = echo.recv_from(&mut byte) {
            // Who asked may be gone.
            let _ = echo.send_to(&byte[..length], from);
        }
    });
    let mut buffer = vec![0; 4 * BLOCK];
    for connection in TcpListener::bind(("0.0.0.0", DISCARD))?.incoming() {
        let mut connection = connection?;
        while connection.read(&mut buffer).is_ok_and(|length| length > 0) {}
    }
    Ok(())
}

fn send(address: &str, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((address, DISCARD))?;
    for _ in 0..WARM_UP {
        socket.send(&PAYLOAD)?;
    }
    print_median(count, BATCH, || socket.send(&PAYLOAD).map(drop))
}

fn stream(address: &str, count: u32) -> io::Result<()> {
    let mut connection = TcpStream::connect((address, DISCARD))?;
    let block = vec![0; BLOCK];
    for _ in 0..WARM_UP_BLOCKS {
        connection.write_all(&block)?;
    }
    print_median(count, BLOCKS, || connection.write_all(&block))
}

fn ask(address: &str, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((address, ECHO))?;
    let mut byte = [0; 1];
    let mut trip = || socket.send(&[1]).and_then(|_| socket.recv(&mut byte)).map(drop);
    for _ in 0..BATCH {
        trip()?;
    }
    print_median(count, BATCH, trip)
}

/// Does it so often, and prints what one takes.
fn print_median(count: u32, batch: u32, mut one: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut batches = Vec::new();
    for _ in 0..count / batch {
        let start = Instant::now();
        for _ in 0..batch {
            one()?;
        }
        batches.push(start.elapsed().as_nanos() as f64 / NANOSECONDS / f64::from(batch));
    }
    batches.sort_by(f64::total_cmp);
    let median = batches.get(batches.len() / 2);
    let median = median.ok_or_else(|| io::Error::other(format!("{count} are no batch")))?;
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

/// Of a stream, in bytes.
const BLOCK: usize = 64 << 10;

/// Enough for the buffers of both ends to have grown.
const WARM_UP_BLOCKS: u32 = 512;

/// So many that it is all one whether sender or receiver runs at the end.
const BLOCKS: u32 = 512;

const DISCARD: u16 = 9;
const ECHO: u16 = 7;

/// Of the guest's clock, for each instruction, see `--count-instructions` of the lab.
const NANOSECONDS: f64 = 2.0;
