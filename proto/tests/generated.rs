//! The generated code follows from the `.proto` files. `WEIR_REGENERATE=1 cargo test -p weir-proto` renews it.

use std::{fs, path::Path};

#[test]
fn generated_code_follows_from_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let files = ["weir/v1/records.proto", "weir/v1/jobs.proto", "weir/v1/ingest.proto"];
    let descriptors = protox::compile(files, [root]).unwrap();
    prost_build::Config::new().btree_map(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();

    let fresh = fs::read_to_string(out.path().join("weir.v1.rs")).unwrap();
    let kept = root.join("src/generated.rs");
    if std::env::var_os("WEIR_REGENERATE").is_some() {
        fs::write(&kept, &fresh).unwrap();
    }
    assert!(
        fs::read_to_string(&kept).unwrap_or_default() == fresh,
        "proto/src/generated.rs is stale: run WEIR_REGENERATE=1 cargo test -p weir-proto"
    );
}
