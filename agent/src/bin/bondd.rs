//! The agent.

fn main() -> std::process::ExitCode {
    bondd::daemon::main()
}
