//! `weir-pcap-worker`: see the library.

use std::process::ExitCode;

use weir_pcap_worker::{Config, check_sandbox, read_confined, run};

weir_service::allocator!();

fn main() -> ExitCode {
    let config: Config = weir_service::parse();
    if config.check_sandbox {
        return if check_sandbox(&config) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some(path) = &config.read else {
        let service = config.service.clone();
        let policy = config.policy();
        return weir_service::main_confined("weir-pcap-worker", &service, policy, |context| run(config, context));
    };
    match read_confined(&config, path) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("weir-pcap-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
