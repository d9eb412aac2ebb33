//! `weir-pcap-worker`: see the library.

use std::process::ExitCode;

use weir_pcap_worker::{Config, read, run};

fn main() -> ExitCode {
    let config: Config = weir_service::parse();
    let Some(path) = &config.read else {
        let service = config.service.clone();
        return weir_service::main("weir-pcap-worker", &service, |context| run(config, context));
    };
    match read(&config, path) {
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
