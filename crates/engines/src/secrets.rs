//! Passwords of the engines: random, made once per data directory, readable by their owner only.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Error;

/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 24;

/// The password stored in `file`, which is made (mode 0600) when it does not exist.
pub(crate) fn password(file: &Path) -> Result<String, Error> {
    match fs::read_to_string(file) {
        Ok(stored) if stored.trim().len() == PASSWORD_BYTES * 2 => return Ok(stored.trim().to_owned()),
        // An empty or cut file is what a full disk left behind.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::file(file)(error)),
    }
    let password = hex(&random::<PASSWORD_BYTES>());
    write_private(file, &password)?;
    Ok(password)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(file: &Path, content: &str) -> Result<(), Error> {
    let partial = file.with_extension("partial");
    // A leftover could have other rights: the mode counts only for a file that is made here.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file(&partial)(error)),
        _ => {}
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut out| out.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&partial, file))
        .map_err(Error::file(file))
}

/// SHA-256 in lower-case hexadecimal, as `password_sha256_hex` wants it.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// A random number, for choosing ports.
pub(crate) fn random_u16() -> u16 {
    u16::from_ne_bytes(random())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    // SAFETY: the pointer and the length are those of a live buffer; up to 256 bytes are never cut short (getrandom(2)).
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    assert_eq!(filled, N as isize, "getrandom(2) gives up to 256 bytes at once");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_is_made_once_and_private() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("password");
        let first = password(&file).expect("made");
        assert_eq!(first.len(), PASSWORD_BYTES * 2);
        assert_eq!(password(&file).expect("read"), first);
        assert_eq!(fs::metadata(&file).expect("metadata").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_cut_password_file_is_replaced() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("password");
        fs::write(&file, "abc").expect("write");
        assert_eq!(password(&file).expect("made").len(), PASSWORD_BYTES * 2);
    }

    #[test]
    fn sha256_is_written_as_clickhouse_reads_it() {
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
