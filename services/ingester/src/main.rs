//! The service's program; the service itself is the library.

use std::process::ExitCode;

use weir_ingester::Config;

weir_service::allocator!();

fn main() -> ExitCode {
    let config: Config = weir_service::parse();
    let options = config.service.clone();
    weir_service::main("weir-ingester", &options, |context| weir_ingester::run(config, context))
}
