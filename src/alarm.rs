//! A timer on the boot clock that counts suspend: an epoll or runtime timeout does not (`timerfd_create(2)`).

use crate::{clock, time::Instant};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec},
};
use std::io;
use tokio::io::unix::AsyncFd;

/// A descriptor that becomes readable at an instant.
#[derive(Debug)]
pub struct Alarm {
    fd: OwnedFd,
    at: Instant,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn new() -> io::Result<Self> {
        let fd =
            rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { fd, at: Instant::NEVER })
    }

    /// Hands it to the runtime of the calling thread.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        #[expect(unsafe_code, reason = "the runtime asks for a promise about the descriptor")]
        // SAFETY: the alarm owns its descriptor, always gives the same one, and is owned by what is made here.
        unsafe {
            Ok(AsyncFd::register(self)?)
        }
    }

    /// Sets it: readable at `at`, at once if that has passed, never for [`Instant::NEVER`]. What rang before is forgotten.
    ///
    /// # Errors
    /// None that can happen with a valid descriptor.
    pub fn set(&mut self, at: Instant) -> io::Result<()> {
        if at == self.at && (at == Instant::NEVER || clock::now() < at) {
            return Ok(()); // it is set so, and has not rung
        }
        const SECOND: u64 = 1_000_000_000;
        let nanos = if at == Instant::NEVER { 0 } else { at.as_nanos().max(1) };
        let value = Timespec {
            tv_sec: i64::try_from(nanos / SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % SECOND).unwrap_or(0),
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &spec)?;
        self.at = at;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Alarm {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    /// `CLOCK_BOOTTIME` of `linux/time.h`.
    const BOOTTIME: &str = "clockid: 7";

    fn of_kernel(alarm: &Alarm) -> String {
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(alarm))).unwrap()
    }

    #[test]
    fn an_alarm_counts_suspend_and_hears_nothing_of_the_time_of_day() {
        let mut alarm = Alarm::new().unwrap();
        let told = of_kernel(&alarm);
        assert!(told.lines().any(|line| line == BOOTTIME), "{told}");
        alarm.set(clock::now() + Duration::from_secs(1000)).unwrap();
        let told = of_kernel(&alarm);
        // Absolute (TFD_TIMER_ABSTIME), and not cancelled when somebody sets a clock (TFD_TIMER_CANCEL_ON_SET).
        assert!(told.contains("settime flags: 01"), "{told}");
    }
}
