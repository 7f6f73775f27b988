//! Prints the man page or a shell's completions, made from the table of settings: `cargo run --example generate -- man`.
//! `dist/generate` writes all of them into place; a test compares them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints")]

mod completions;
mod man;

use std::process::ExitCode;

fn main() -> ExitCode {
    let text = match std::env::args().nth(1).as_deref() {
        Some("man") => man::page(),
        Some("bash") => completions::bash(),
        Some("zsh") => completions::zsh(),
        Some("fish") => completions::fish(),
        _ => {
            eprintln!("usage: generate man|bash|zsh|fish");
            return ExitCode::FAILURE;
        }
    };
    print!("{text}");
    ExitCode::SUCCESS
}
