//! What was there before capture: an iterator of the kernel shows all open files, and a program notes whose sockets they are.

use std::io::Read as _;

use aya::{Btf, Ebpf, Endianness, programs::Iter};
use weir_capture_common::names;

use super::features::{Types, program, reason};

/// What the iterator is called.
const ITERATOR: &str = "task_file";

/// Runs it once. Nothing of it stays in the kernel but what it noted.
pub(super) fn sockets(object: &mut Ebpf, types: &Types) -> Result<(), String> {
    let function =
        types.task_file.as_deref().ok_or("this kernel cannot walk over open files, or its sockets are not known")?;
    let btf = Btf::parse(function, Endianness::default()).map_err(|error| error.to_string())?;
    let iterator: &mut Iter = program(object, names::SOCKETS_BEFORE)?;
    iterator.load(ITERATOR, &btf).map_err(reason)?;
    let link = iterator.attach().map_err(reason)?;
    let link = iterator.take_link(link).map_err(reason)?;
    let mut walk = link.into_file().map_err(|error| error.to_string())?;
    // It writes nothing: reading makes it go.
    walk.read_to_end(&mut Vec::new()).map_err(|error| format!("the walk over open files broke off: {error}"))?;
    iterator.unload().map_err(reason)
}
