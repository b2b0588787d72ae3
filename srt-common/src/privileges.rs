//! No privileges left: capabilities(7) and the no_new_privs bit, set and read back.

use crate::sys::{self, Capabilities};
use crate::{Context, Error, Result};

/// Drops every capability from every set and sets no_new_privs, then reads both back.
///
/// The bounding set can be emptied only with CAP_SETPCAP. Without it the set stays as the caller had it, and
/// can give nothing: no_new_privs keeps every later exec from granting a capability.
///
/// # Errors
/// When the kernel refuses a step, or does not show its effect.
pub fn drop_all() -> Result<()> {
    let held = sys::capabilities().context(|| "capget")?;
    if held.effective & (1 << sys::CAP_SETPCAP) != 0 {
        sys::empty_bounding_set().context(|| "prctl(PR_CAPBSET_DROP)")?;
    }
    drop_held()
}

/// The same for one whose bounding set was emptied before: 41 system calls less.
///
/// # Errors
/// When the kernel refuses a step, or does not show its effect.
pub fn drop_held() -> Result<()> {
    sys::set_no_new_privs().context(|| "prctl(PR_SET_NO_NEW_PRIVS)")?;
    // The ambient set is always a subset of the permitted one: it goes with it.
    sys::set_capabilities(Capabilities::default()).context(|| "capset")?;
    if sys::capabilities().context(|| "capget")? != Capabilities::default() {
        return Err(Error::failed("capabilities are left after capset"));
    }
    if !sys::no_new_privs().context(|| "prctl(PR_GET_NO_NEW_PRIVS)")? {
        return Err(Error::failed("no_new_privs did not stay set"));
    }
    Ok(())
}
