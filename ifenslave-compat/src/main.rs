//! `ifenslave`, see `ifenslave_compat`.

fn main() -> std::process::ExitCode {
    ifenslave_compat::main()
}
