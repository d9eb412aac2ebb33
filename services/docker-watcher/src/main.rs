//! The service's program; the service itself is the library.

use std::process::ExitCode;

use weir_docker_watcher::Config;

fn main() -> ExitCode {
    let config: Config = weir_service::parse();
    let options = config.service.clone();
    weir_service::main("weir-docker-watcher", &options, |context| weir_docker_watcher::run(config, context))
}
