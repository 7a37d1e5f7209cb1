//! Ahead of the others, as far as this machine allows. Best effort: a container or a plain user may not.

use rustix::mm::{MlockAllFlags, mlockall};

/// Lowest real-time priority: ahead of everything ordinary, behind whoever asked for more.
const REAL_TIME: i32 = 1;

/// Lets the calling thread run before all ordinary ones. Children do not inherit it. Whether it could.
pub fn raise() -> bool {
    let parameters = libc::sched_param { sched_priority: REAL_TIME };
    #[expect(unsafe_code, reason = "no safe wrapper in the crates at hand")]
    // SAFETY: the kernel only reads the structure, which lives through the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) == 0
    }
}

/// Keeps the memory that this process has now from being swapped out, page by page as it is used: what is only reserved
/// stays so. Not what it takes later: under a limit on locked memory that would make allocations fail. Whether it could.
pub fn lock_memory() -> bool {
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT).is_ok()
}
