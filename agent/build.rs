//! Compiles the classifier programs of the tc data plane with clang, so that no object file lives in the tree.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    for header in HEADERS {
        println!("cargo::rerun-if-changed={FOLDER}/{header}");
    }
    for program in PROGRAMS {
        let source = format!("{FOLDER}/{program}.c");
        println!("cargo::rerun-if-changed={source}");
        if let Err(reason) = compile(&clang, &source, &out.join(program).with_extension("bpf.o")) {
            for line in reason.lines() {
                println!("cargo::error={line}");
            }
            exit(1);
        }
    }
}

fn compile(clang: &str, source: &str, out: &Path) -> Result<(), String> {
    let mut command = Command::new(clang);
    // Instructions of the third generation, which came in 5.1, as did what the programs read of segments; compilers differ in
    // which they take by default.
    // The byte order of BPF is that of the machine the programs run on.
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    command.args([
        "-target",
        target,
        "-mcpu=v3",
        "-O2",
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-c",
        source,
        "-o",
    ]);
    command.arg(out);
    if source.contains(RELOCATED) {
        command.arg("-g");
    }
    if let Some(include) = asm_headers() {
        command.arg("-idirafter").arg(include);
    }
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{clang} is needed to compile {source}: apt-get install clang"),
        _ => format!("cannot run {clang}: {error}"),
    })?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        for line in complaint.lines() {
            println!("cargo::warning={line}");
        }
        return Ok(());
    }
    let hint = if complaint.contains("file not found") {
        "\nthe kernel's user headers are needed: apt-get install linux-libc-dev"
    } else {
        ""
    };
    Err(format!("{clang} cannot compile {source}:\n{complaint}{hint}"))
}

/// `asm/types.h` lies in a folder of its own on distributions with several architectures side by side, where clang does not look
/// when its target is BPF. The headers of the building machine do: BPF has the same types everywhere.
fn asm_headers() -> Option<PathBuf> {
    let arch = env::consts::ARCH;
    let folder = match arch {
        "x86" => "i386-linux-gnu".to_owned(),
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "powerpc64" => "powerpc64le-linux-gnu".to_owned(),
        _ => format!("{arch}-linux-gnu"),
    };
    Some(Path::new("/usr/include").join(folder)).filter(|path| path.join("asm/types.h").exists())
}

const FOLDER: &str = "src/dataplane/tc/bpf";
/// Loaded with the types of the kernel, so its own are needed.
const RELOCATED: &str = "carrier_off.bpf";
/// The programs of the plane, and one for its tests.
const PROGRAMS: [&str; 10] = [
    RELOCATED,
    "port_rx.bpf",
    "tx_one.bpf",
    "tx_turns.bpf",
    "tx_all.bpf",
    "tx_all_many.bpf",
    "tx_ether.bpf",
    "tx_ip.bpf",
    "tx_encap.bpf",
    "hash_test.bpf",
];
const HEADERS: [&str; 6] = [
    "common.bpf.h",
    "selector.bpf.h",
    "maps.bpf.h",
    "tx.bpf.h",
    "tx_all.bpf.h",
    "hash.bpf.h",
];
