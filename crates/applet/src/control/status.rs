//! The time stamps and the 20 bytes of `supervise/status`, for writer and readers. Source of the
//! layout: runsv(8), runit 2.1.2. What it is not: reading or writing the file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A TAI64N time stamp: seconds are unix seconds + 2^62 + 10, as runit writes them (no leap table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tai64n {
    /// TAI64 label in seconds.
    pub secs: u64,
    /// Nanoseconds within the second, below 1_000_000_000.
    pub nanos: u32,
}

const TAI64_UNIX_EPOCH: u64 = (1 << 62) + 10;

impl Tai64n {
    /// The stamp of a wall clock time; a time before 1970 becomes 1970.
    pub fn from_system_time(time: SystemTime) -> Tai64n {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Tai64n { secs: TAI64_UNIX_EPOCH.wrapping_add(since.as_secs()), nanos: since.subsec_nanos() }
    }

    /// Wall clock time of the stamp; a label before 1970 becomes 1970.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH
            + Duration::new(self.secs.saturating_sub(TAI64_UNIX_EPOCH) & (u64::MAX >> 2), self.nanos.min(999_999_999))
    }

    /// External TAI64N format: `@` and 24 hexadecimal digits are `{}`; here without the `@`.
    pub fn to_hex(self) -> String {
        format!("{:016x}{:08x}", self.secs, self.nanos)
    }
}

/// Byte 19 of the status: what the supervised process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// 0: nothing runs.
    Down,
    /// 1: `./run` runs.
    Run,
    /// 2: `./finish` runs.
    Finish,
}

/// Byte 17 of the status: what is wanted. Want-exit is written as `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// `u`
    Up,
    /// `d`
    Down,
}

/// The 20 bytes of `supervise/status`.
///
/// Offsets: 0..8 TAI64 seconds big-endian, 8..12 nanoseconds big-endian, 12..16 pid LITTLE-endian
/// (0: none), 16 paused, 17 want (`u` or `d`), 18 TERM was sent, 19 state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Start of `./run` while it or `./finish` runs; time of death when down.
    pub since: Tai64n,
    /// Process id of `./run` or `./finish`; `None` when nothing runs.
    pub pid: Option<u32>,
    /// STOP was sent and not yet CONT.
    pub paused: bool,
    /// What runsv steers to.
    pub want: Want,
    /// TERM was sent to the running process.
    pub got_term: bool,
    /// What runs now.
    pub state: RunState,
}

/// Length of `supervise/status` in bytes.
pub const STATUS_LEN: usize = 20;

impl Status {
    /// The bytes that runsv writes.
    pub fn encode(&self) -> [u8; STATUS_LEN] {
        let secs = self.since.secs.to_be_bytes();
        let nanos = self.since.nanos.to_be_bytes();
        let pid = self.pid.unwrap_or(0).to_le_bytes();
        let want = match self.want {
            Want::Up => b'u',
            Want::Down => b'd',
        };
        let state = match self.state {
            RunState::Down => 0,
            RunState::Run => 1,
            RunState::Finish => 2,
        };
        let mut out = [0; STATUS_LEN];
        let tail = [u8::from(self.paused), want, u8::from(self.got_term), state];
        for (to, from) in out.iter_mut().zip(secs.into_iter().chain(nanos).chain(pid).chain(tail)) {
            *to = from;
        }
        out
    }

    /// Reads what a runsv wrote, ours or another; `None` for a wrong length or an unknown state
    /// byte.
    pub fn decode(bytes: &[u8]) -> Option<Status> {
        let bytes: &[u8; STATUS_LEN] = bytes.try_into().ok()?;
        let (secs, rest) = bytes.split_first_chunk::<8>()?;
        let (nanos, rest) = rest.split_first_chunk::<4>()?;
        let (pid, rest) = rest.split_first_chunk::<4>()?;
        let &[paused, want, got_term, state] = rest else { return None };
        Some(Status {
            since: Tai64n { secs: u64::from_be_bytes(*secs), nanos: u32::from_be_bytes(*nanos) },
            pid: Some(u32::from_le_bytes(*pid)).filter(|pid| *pid != 0),
            paused: paused != 0,
            want: if want == b'u' { Want::Up } else { Want::Down },
            got_term: got_term != 0,
            state: match state {
                0 => RunState::Down,
                1 => RunState::Run,
                2 => RunState::Finish,
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_debian_runsv_decodes_and_encodes_to_the_same_bytes() {
        // Captured from runit 2.1.2-54: a running service.
        let bytes = [0x40, 0, 0, 0, 0x6b, 0x03, 0x60, 0x17, 0x0c, 0xf8, 0xea, 0x4c, 0x43, 0x07, 0, 0, 0, 0x75, 0, 1];
        let status = Status::decode(&bytes).unwrap();
        assert_eq!(status.pid, Some(0x743));
        assert_eq!(status.state, RunState::Run);
        assert_eq!(status.want, Want::Up);
        assert!(!status.paused && !status.got_term);
        assert_eq!(status.encode(), bytes);
    }

    #[test]
    fn a_status_of_another_length_or_state_is_refused() {
        assert_eq!(Status::decode(&[0; 19]), None);
        assert_eq!(Status::decode(&[0; 21]), None);
        let mut bytes = [0; 20];
        bytes[19] = 3;
        assert_eq!(Status::decode(&bytes), None);
    }

    #[test]
    fn tai64n_round_trips() {
        let time = UNIX_EPOCH + Duration::new(1_795_000_000, 123_456_789);
        let stamp = Tai64n::from_system_time(time);
        assert_eq!(stamp.to_system_time(), time);
        assert_eq!(stamp.to_hex().len(), 24);
        assert!(stamp.to_hex().starts_with("40000000"));
    }
}
