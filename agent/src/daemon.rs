//! The program `bondd`: command line, start and orderly stop.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use mio::Waker;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::FairMutex;

use crate::capabilities::{Capabilities, refusal};
use crate::config::{self, Grammar, Parsed, Severity};
use crate::control::server::Server;
use crate::control::{RUN_DIR, RUN_DIR_ENV, SOCKET};
use crate::dataplane::tc::{DeviceChoice, FailoverChoice, Hook, NewBonds};
use crate::dataplane::{PlaneChoice, PlaneError, PlaneSetup, Planes};
use crate::descriptors::{self, cannot};
use crate::heap;
use crate::instances::{Changer, Desk, Instances, Tools, check_options_on, kinds};
use crate::locks::private_file;
use crate::logging;
use crate::netlink::RouteSocket;
use crate::priority;
use crate::run::{ANSWERS, Agent, CONTROL};
use crate::signals::Signals;
use crate::status::StatusFiles;
use crate::text::chain;
use crate::threads::Threads;

/// Bonds network interfaces from userspace, on kernels with or without the bonding module: balance-rr, active-backup,
/// balance-xor and broadcast, monitored by carrier, ARP or neighbour solicitations.
///
/// Stays in the foreground and logs to standard error. All bonds go on forwarding when it is stopped or killed; the next start
/// takes them over. Control it with bondctl or ifenslave.
#[derive(Debug, Parser)]
#[command(name = "bondd", version)]
struct Arguments {
    /// Directory of the control socket, the status files and the saved state
    #[arg(long, value_name = "DIR", env = RUN_DIR_ENV, default_value = RUN_DIR)]
    run_dir: PathBuf,
    /// An options file, or a folder of *.conf files; repeatable [default: the folders of bondd.conf(5)]
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// The grammar of the options files [default: by the name and folder of each]
    #[arg(long, value_name = "GRAMMAR", value_enum)]
    grammar: Option<Grammar>,
    /// Read the options files, report every error in them, and exit
    #[arg(long)]
    check: bool,
    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_level())]
    log_level: log::LevelFilter,
    /// Data plane of bonds without a plane option: the kernel's team driver, eBPF, or the first of them that is exact
    #[arg(long, value_name = "PLANE", value_enum, default_value_t = PlaneChoice::Auto)]
    plane: PlaneChoice,
    /// How BPF programs are attached; auto uses tcx if the kernel has it
    #[arg(long, value_name = "HOOK", value_enum, default_value_t = Hook::Auto)]
    tc_hook: Hook,
    /// Interface of new bonds on plane tc: auto makes a netkit device if the kernel has it, else a veth pair
    #[arg(long, value_name = "DEVICE", value_enum, default_value_t = DeviceChoice::Veth)]
    tc_device: DeviceChoice,
    /// Failover by the kernel itself when a port loses its carrier, on plane tc: auto where the kernel allows tracing programs
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = FailoverChoice::Auto)]
    in_kernel_failover: FailoverChoice,
    /// Which status files bonds have: those of /proc/net and /sys/class/net, about 100 a bond, or only the two of /proc/net
    #[arg(long, value_name = "FILES", value_enum, default_value_t = StatusFiles::All)]
    status_files: StatusFiles,
}

/// The words for [`Arguments::log_level`], which the help text lists.
fn log_level() -> impl TypedValueParser<Value = log::LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"]).try_map(|word| word.parse())
}

/// Runs the program.
pub fn main() -> ExitCode {
    heap::give_back_what_is_free();
    let arguments = Arguments::parse();
    logging::init(arguments.log_level);
    let Some(config) = read_config(&arguments) else {
        return ExitCode::FAILURE;
    };
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    let exit = match serve(&arguments, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", chain(&*error));
            ExitCode::FAILURE
        }
    };
    logging::flush();
    exit
}

/// Reads the option files and logs every finding; `None` if a file has an error.
fn read_config(arguments: &Arguments) -> Option<Parsed> {
    let check = |pairs: &[(String, String)]| check_options_on(arguments.plane, pairs);
    let parsed = config::load(&arguments.config, arguments.grammar, &check);
    for finding in &parsed.diagnostics {
        let level = match finding.severity {
            Severity::Error => log::Level::Error,
            Severity::Warning => log::Level::Warn,
            Severity::Info => log::Level::Info,
        };
        // The level of the line says how much it matters.
        log::log!(level, "{}: {}", finding.place, finding.text);
    }
    let errors = parsed
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    if errors > 0 {
        let errors = format!("{errors} {}", if errors == 1 { "error" } else { "errors" });
        if arguments.check {
            log::error!("{errors} in the option files");
        } else {
            log::error!(
                "{errors} in the option files: not started; bonds that exist go on forwarding, but unmonitored"
            );
        }
        return None;
    }
    Some(parsed)
}

fn serve(arguments: &Arguments, config: &Parsed) -> Result<(), Box<dyn Error>> {
    let tc = NewBonds {
        hook: arguments.tc_hook,
        device: arguments.tc_device,
    };
    tc.check()?;
    descriptors::raise();
    let signals = Signals::new().map_err(cannot("take over the signals"))?;
    let run_dir = prepare(&arguments.run_dir)?;
    let _lock = lock(&run_dir)?;
    logging::write_by_thread()?;
    priority::raise(priority::LOOP);
    let mut planes = open_planes(&PlaneSetup {
        run_dir: &run_dir,
        tc,
        failover: arguments.in_kernel_failover,
    })?;
    let poll = mio::Poll::new().map_err(cannot("wait for events"))?;
    let registry = poll.registry().try_clone().map_err(cannot("wait for frames"))?;
    let waker = Arc::new(Waker::new(poll.registry(), ANSWERS).map_err(cannot("wait for answers of threads"))?);
    let mut instances = Instances::new(
        &run_dir,
        registry,
        kinds::all(),
        &mut planes,
        Threads::start(Arc::clone(&waker))?,
    )?;
    instances.prefer(arguments.plane);
    instances.show_in(arguments.status_files);
    let instances = Arc::new(FairMutex::new(instances));
    let wake = Arc::clone(&waker);
    let mut desk = Desk {
        instances: Arc::clone(&instances),
        tools: Tools {
            planes,
            links: RouteSocket::open().map_err(cannot("open a socket for requests to the kernel"))?,
            wake: Box::new(move || wake.wake().expect("a loop that runs can be woken")),
            priority: None,
        },
    };
    desk.change()
        .begin_start(&config.bonds, &config.files)
        .map_err(cannot(&format!("read the saved states in {}/state", run_dir.display())))?;
    let changer = Changer::start(desk, move || waker.wake())?;
    let socket = run_dir.join(SOCKET);
    let server =
        Server::bind(&socket, poll.registry(), CONTROL).map_err(cannot(&format!("listen at {}", socket.display())))?;
    let agent = Agent::new(poll, signals, server, instances, changer).map_err(cannot("wait for events"))?;
    let ended = agent.run(|| log::info!("ready at {}", run_dir.display()), leave);
    let _ = fs::remove_file(socket);
    Ok(ended?)
}

/// Opens the data planes. An agent without rights that every bond needs ends here, before it takes bonds over that it must leave again.
fn open_planes(setup: &PlaneSetup<'_>) -> Result<Planes, Box<dyn Error>> {
    // A system that does not tell is asked when something is done.
    let rights = Capabilities::effective().ok();
    let missing = rights.map_or(Vec::new(), Capabilities::missing);
    if !missing.is_empty() {
        return Err(refusal(&missing).into());
    }
    let mut planes = Planes::open(setup)?;
    // The examination takes time; only an agent that may load no programs makes it this early, to learn whether a plane does without.
    if rights.is_some_and(|rights| !rights.allow_programs())
        && let Err(PlaneError::Permission { .. }) = planes.probe()
    {
        return Err(refusal(&["CAP_BPF and CAP_PERFMON (before Linux 5.8, CAP_SYS_ADMIN)"]).into());
    }
    Ok(planes)
}

/// The last change of an agent: bonds go on forwarding. If there is no bond, the data planes remove everything that they made.
fn leave(desk: &mut Desk) {
    let (used, unadopted) = {
        let instances = desk.instances.lock();
        (instances.planes_in_use(), instances.has_unadopted())
    };
    if !used.is_empty() || unadopted {
        let left_behind = desk.outlive();
        let planes = &mut desk.tools.planes;
        let mut short_lived = planes.short_lived();
        short_lived.retain(|(plane, _)| unadopted || used.contains(plane));
        for (plane, why) in &short_lived {
            log::warn!("stopping; bonds on plane {plane}: {why}");
        }
        for (bond, why) in &left_behind {
            log::error!("stopping; {bond} stops forwarding: {why}");
        }
        if short_lived.is_empty() && left_behind.is_empty() {
            log::info!("stopping; all bonds stay as they are");
        }
    } else if let Err(error) = desk.tools.planes.close() {
        log::warn!("cannot remove what the data planes made: {}", chain(&error));
    }
}

/// Makes the run directory if it is missing, and returns its absolute path, by which pins are found in other mount namespaces.
fn prepare(run_dir: &Path) -> io::Result<PathBuf> {
    let failed = |error| cannot(&format!("use {} as run directory", run_dir.display()))(error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(run_dir)
        .map_err(failed)?;
    run_dir.canonicalize().map_err(failed)
}

/// Only one agent at a time may own a run directory.
fn lock(run_dir: &Path) -> Result<Flock<File>, String> {
    let path = run_dir.join("bondd.lock");
    let failed = |error| cannot(&format!("lock {}", path.display()))(error).to_string();
    let file = private_file(&path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => format!(
            "another bondd already runs on {}; stop it first, or choose another directory with --run-dir",
            run_dir.display()
        ),
        other => failed(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_names_every_option() {
        let command = Arguments::command();
        let hidden: Vec<_> = command.get_arguments().filter(|arg| arg.is_hide_set()).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }

    #[test]
    fn help_lists_every_level_of_the_log() {
        let help = Arguments::command().render_help().to_string();
        let levels: Vec<String> = log::LevelFilter::iter()
            .map(|level| level.as_str().to_lowercase())
            .collect();
        assert!(
            help.contains(&format!("[possible values: {}]", levels.join(", "))),
            "{help}"
        );
    }
}
