//! Time since boot, suspend included, and a timer on it: leases keep running while the machine
//! sleeps.
//!
//! A shell. Pure code gets `now` from here as a `Duration`. The timer is a timerfd armed with an
//! absolute time: a daemon without a deadline has nothing armed and is never woken. Called by every
//! daemon's select loop.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};
use tokio::io::unix::AsyncFd;

use crate::ready::watch;

/// CLOCK_BOOTTIME.
pub fn now() -> Duration {
    // clock_gettime(2) fails only for a clock that the kernel lacks; this one is there since
    // 2.6.39.
    clock_gettime(Clock::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// CLOCK_REALTIME: time since 1970, which is wrong on a machine without a battery until NTP has
/// answered.
pub fn wall() -> Duration {
    clock_gettime(Clock::CLOCK_REALTIME).map(Duration::from).unwrap_or_default()
}

/// Names the boot that [`now`] counts from, as records bear it (ipconf(5), boot_id): the first 8
/// hexadecimal digits of /proc/sys/kernel/random/boot_id; empty when it cannot be read.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().chars().take(8).collect()
}

/// One deadline on CLOCK_BOOTTIME.
pub struct Timer {
    fd: TimerFd,
    /// The same timer under a second descriptor, which the runtime watches.
    ready: AsyncFd<OwnedFd>,
    armed: Option<Duration>,
}

impl Timer {
    /// A timer that is not armed. Must be called inside a tokio runtime with IO enabled.
    pub fn new() -> io::Result<Timer> {
        let fd = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let ready = watch(fd.as_fd().try_clone_to_owned()?)?;
        Ok(Timer { fd, ready, armed: None })
    }

    /// Arms it for `deadline` (time since boot), or disarms it. The same deadline again costs no
    /// system call.
    pub fn set(&mut self, deadline: Option<Duration>) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        match deadline {
            Some(at) => {
                // All zero would disarm.
                let at = TimeSpec::from_duration(at.max(Duration::from_nanos(1)));
                self.fd.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => self.fd.unset()?,
        }
        self.armed = deadline;
        Ok(())
    }

    /// Waits until the deadline has passed; for ever when there is none. Safe to drop and to call
    /// again.
    pub async fn expired(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            let read = ready.try_io(|_| self.fd.wait().map_err(io::Error::from));
            match read {
                Ok(done) => {
                    self.armed = None;
                    return done;
                }
                Err(_not_yet) => {}
            }
        }
    }
}

/// Waits until `deadline` (time since boot). Unlike the runtime's own, it counts the time that the
/// machine sleeps.
pub async fn sleep_until(deadline: Duration) {
    let done = async {
        let mut timer = Timer::new()?;
        timer.set(Some(deadline))?;
        timer.expired().await
    };
    // Without a descriptor for a timer (EMFILE): at once is a wait that is too short, never is one
    // that hangs.
    let _: io::Result<()> = done.await;
}

/// Waits so long.
pub async fn sleep(wait: Duration) {
    sleep_until(now() + wait).await;
}

/// The result of `future`, unless it takes longer than `limit`.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> io::Result<T> {
    tokio::select! {
        biased;
        value = future => Ok(value),
        () = sleep(limit) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(future)
    }

    #[test]
    fn a_deadline_in_the_past_or_near_is_reported_and_can_be_armed_again() {
        run(async {
            let mut timer = Timer::new().unwrap();
            let start = now();
            timer.set(Some(Duration::ZERO)).unwrap();
            timer.expired().await.unwrap();
            let at = start + Duration::from_millis(20);
            timer.set(Some(at)).unwrap();
            timer.expired().await.unwrap();
            assert!(now() >= at);
        });
    }

    #[test]
    fn a_wait_ends_in_time_and_a_limit_ends_what_takes_longer() {
        run(async {
            let at = now() + Duration::from_millis(20);
            sleep_until(at).await;
            assert!(now() >= at);
            assert_eq!(timeout(Duration::from_secs(600), async { 7 }).await.unwrap(), 7);
            let late = timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn moving_the_deadline_forgets_the_old_one() {
        run(async {
            let mut timer = Timer::new().unwrap();
            let at = now() + Duration::from_millis(30);
            timer.set(Some(now())).unwrap();
            timer.set(None).unwrap();
            timer.set(Some(at)).unwrap();
            timer.expired().await.unwrap();
            assert!(now() >= at);
        });
    }
}
