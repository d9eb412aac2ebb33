//! `weir up`: checks everything that can be checked, then starts the parts and watches over them.
//!
//! [`plan`] decides what runs and how, [`part`] is the life of one part, [`supervisor`] brings them up and down in order and
//! tells others, [`detach`] leaves all that running in a session of its own.

mod checks;
mod detach;
mod log;
mod part;
mod plan;
mod supervisor;

use anyhow::Result;

use crate::args::Up;
use crate::instance::Instance;

use log::Reporter;

pub(crate) async fn run(options: Up) -> Result<bool> {
    let instance = Instance::find(&options.instance)?;
    instance.create()?;
    if options.detach && !options.detached {
        return detach::run(&options, &instance).await;
    }
    let reporter = Reporter::new(&instance, options.detached)?;
    let lock = instance.lock()?;
    let left = instance.end_leftovers();
    if !left.is_empty() {
        reporter.warn(&format!("weir: ended what an earlier run left behind: {}", left.join(", ")));
    }
    instance.remove_state();
    let listen = checks::listen(&options)?;
    reporter.say(&format!("weir {}, data in {}", env!("CARGO_PKG_VERSION"), instance.root().display()));
    let plan = plan::make(&options, listen, &instance).await?;
    let stopped = supervisor::run(plan, &instance, &reporter).await;
    instance.remove_state();
    drop(lock);
    stopped
}
