//! The service's program; the service itself is the library.

use std::process::ExitCode;

use weir_ingester::Config;
use weir_service::allocator::{self, Allocator};

/// Rows are many small strings that are made and dropped block by block.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let config: Config = weir_service::parse();
    let options = config.service.clone();
    weir_service::main("weir-ingester", &options, |context| weir_ingester::run(config, context))
}
