//! The HTTP interface of Weir.

use std::{process::ExitCode, sync::Arc};

use weir_query_api::Config;

fn main() -> ExitCode {
    let config = Arc::new(weir_service::parse::<Config>());
    let options = config.service.clone();
    weir_service::main("weir-query-api", &options, |context| weir_query_api::run(config, context))
}
