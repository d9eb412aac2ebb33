//! Certificates of an engine and its client, made by openssl.

use std::{fs, path::Path, process::Command};

/// Makes an authority (`ca.pem`), a server for 127.0.0.1 (`server-cert.pem`, `server-key.pem`) and a client (`cert.pem`, `key.pem`).
pub(crate) fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    openssl(
        directory,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=weir-test",
    );
    sign(directory, "server-", "subjectAltName=IP:127.0.0.1");
    sign(directory, "", "extendedKeyUsage=clientAuth");
}

fn sign(directory: &Path, prefix: &str, extension: &str) {
    fs::write(directory.join("extension"), extension).unwrap();
    openssl(
        directory,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {prefix}key.pem -out request.pem -subj /CN=weir-test-{prefix}x"
        ),
    );
    openssl(
        directory,
        &format!(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out {prefix}cert.pem -days 2 -extfile extension"
        ),
    );
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(directory).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
