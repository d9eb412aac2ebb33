//! Counts flows in the kernel and publishes or shows them.

use std::process::ExitCode;

use weir_capture::{Error, Told, config};

/// `EX_UNAVAILABLE` of `sysexits.h`: this host cannot capture; the message says why and how to get it.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let config = config::load();
    if config.check {
        return match weir_capture::privileges::check(weir_capture::privileges::More::of(&config))
            .and_then(|()| weir_capture::check())
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(error, UNAVAILABLE),
        };
    }
    let options = config.service.clone();
    if options.probe {
        // It only asks the running service, and never gets to `run`.
        return weir_service::main("weir-capture", &options, |_| async { Ok(()) });
    }
    // Before the runtime has threads: they get no rights at all.
    let capture = match weir_capture::prepare(&config) {
        Ok(capture) => capture,
        Err(error) if error.is_unsupported() => return refuse(error, UNAVAILABLE),
        Err(error) => return refuse(error, 1),
    };
    let told = Told::new(&options.host);
    let routes = weir_capture::routes(told.clone());
    weir_service::main_with_routes("weir-capture", &options, routes, |context| {
        weir_capture::run_told(config, capture, context, told)
    })
}

/// Logging is not set up yet; one line says it all.
fn refuse(error: Error, code: u8) -> ExitCode {
    eprintln!("weir-capture: {:#}", anyhow::Error::from(error));
    ExitCode::from(code)
}
