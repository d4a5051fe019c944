//! The program `pipeline`. All of it is in the library.

fn main() -> std::process::ExitCode {
    pipeline::main()
}
