//! `seeds DIRECTORY [CAPTURE...]`: writes the seeds of all targets, also out of captures of one's own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use weir_fuzz::seeds;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(directory) = arguments.next() else {
        eprintln!("usage: seeds DIRECTORY [CAPTURE...]");
        return ExitCode::from(64);
    };
    let mut captures = seeds::recordings();
    captures.extend(arguments);
    match seeds::write(&seeds::seeds(&captures), Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seeds: cannot write below {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
