//! Where on an interface the programs stand, beside those of others.

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact, qdisc_detach_program},
};
use nix::sys::utsname::uname;

use crate::config::{Hook, Order};

/// The first Linux with TCX.
const FIRST_WITH_TCX: (u32, u32) = (6, 6);
/// Priorities of filters: the lowest number runs first. The last number is left to others.
const FIRST: u16 = 1;
const LAST: u16 = u16::MAX - 1;
/// What the kernel answers where there is none, or there is one already.
const MISSING: [i32; 2] = [libc::ENOENT, libc::EINVAL];

/// A way to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    tcx: bool,
    order: Order,
}

impl Place {
    /// As the options say; `auto` takes TCX where the kernel has it.
    pub(super) fn new(hook: Hook, order: Order) -> Self {
        let tcx = match hook {
            Hook::Tcx => true,
            Hook::Clsact => false,
            Hook::Auto => has_tcx(),
        };
        Self { tcx, order }
    }

    /// Attaches a program that is loaded. Those of others stay as they are.
    pub(super) fn attach(
        self,
        classifier: &mut SchedClassifier,
        name: &str,
        interface: &str,
        direction: TcAttachType,
    ) -> Result<SchedClassifierLink, ProgramError> {
        let options = if self.tcx {
            TcAttachOptions::TcxOrder(match self.order {
                Order::First => LinkOrder::first(),
                Order::Last => LinkOrder::last(),
            })
        } else {
            prepare(interface, direction, name)?;
            let priority = match self.order {
                Order::First => FIRST,
                Order::Last => LAST,
            };
            TcAttachOptions::Netlink(NlOptions { priority, ..NlOptions::default() })
        };
        let id = classifier.attach_with_options(interface, direction, options)?;
        classifier.take_link(id)
    }
}

/// Makes the qdisc that filters hang on, if it is not there, and removes what a life of Weir that was killed has left: filters, unlike TCX's
/// links, outlive their process.
fn prepare(interface: &str, direction: TcAttachType, name: &str) -> Result<(), TcError> {
    if let Err(error) = qdisc_add_clsact(interface)
        && code(&error) != Some(libc::EEXIST)
    {
        return Err(error);
    }
    match qdisc_detach_program(interface, direction, name) {
        Err(error) if !code(&error).is_some_and(|code| MISSING.contains(&code)) && !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_not_found(error: &TcError) -> bool {
    matches!(error, TcError::IoError(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// The kernel's number for what it refused.
fn code(error: &TcError) -> Option<i32> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}

pub(super) fn has_tcx() -> bool {
    let release = uname().map(|release| release.release().to_string_lossy().into_owned()).unwrap_or_default();
    crate::privileges::version(&release).is_none_or(|version| version >= FIRST_WITH_TCX)
}
