//! `bondctl`: commands for people and scripts, see `bondd::ctl`.

fn main() -> std::process::ExitCode {
    bondd::ctl::main()
}
