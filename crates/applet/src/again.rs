//! The file `again` of a service directory, by which a service asks runsv for one more run at a
//! later moment: its text, both ways. PURE.
//!
//! One line. `SECS` counts from the end of the run before. `SECS BOOT` is a second of
//! CLOCK_BOOTTIME in the boot with this id (/proc/sys/kernel/random/boot_id). The wall clock plays
//! no part. runsv(8) describes the rest. runsv reads it; a service that is one of our programs
//! writes it.

use std::fmt;
use std::time::Duration;

/// Its name in the service directory.
pub const FILE: &str = "again";

/// When the service is to run once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// So many seconds after it has ended.
    After(u64),
    /// At a moment of one boot. In any other boot that moment is over.
    At {
        /// Seconds of CLOCK_BOOTTIME.
        secs: u64,
        /// The id of the boot.
        boot: String,
    },
}

impl Again {
    /// `None` when this is no such line.
    pub fn parse(text: &str) -> Option<Again> {
        let mut words = text.split_ascii_whitespace();
        let (secs, boot) = (words.next()?, words.next());
        let secs = secs.parse().ok().filter(|_| secs.bytes().all(|byte| byte.is_ascii_digit()))?;
        match (boot, words.next()) {
            (None, _) => Some(Again::After(secs)),
            (Some(boot), None) => Some(Again::At { secs, boot: boot.to_owned() }),
            (Some(_), Some(_)) => None,
        }
    }

    /// The moment, CLOCK_BOOTTIME, for a service that ended at `ended` in the boot `boot`.
    pub fn moment(&self, ended: Duration, boot: &str) -> Duration {
        match self {
            Again::After(secs) => ended.saturating_add(Duration::from_secs(*secs)),
            Again::At { secs, boot: its } if its == boot => Duration::from_secs(*secs),
            Again::At { .. } => Duration::ZERO,
        }
    }
}

/// The line, without its line feed.
impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Again::After(secs) => write!(f, "{secs}"),
            Again::At { secs, boot } => write!(f, "{secs} {boot}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_any_other_text_is_none() {
        let at = Again::At { secs: 4711, boot: "1b4e28ba-2fa1".into() };
        for (text, again) in [("60", Again::After(60)), ("0", Again::After(0)), ("4711 1b4e28ba-2fa1", at)] {
            assert_eq!(Again::parse(&format!("{text}\n")), Some(again.clone()));
            assert_eq!(again.to_string(), text);
        }
        for text in ["", "-1", "+1", "1s", "1.5", "soon", "1 b c", "99999999999999999999"] {
            assert_eq!(Again::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_moment_is_counted_from_the_end_or_belongs_to_a_boot() {
        let secs = Duration::from_secs;
        assert_eq!(Again::After(60).moment(secs(40), "b"), secs(100));
        assert_eq!(Again::After(u64::MAX).moment(secs(40), "b"), Duration::MAX);
        let at = Again::At { secs: 90, boot: "b".into() };
        assert_eq!((at.moment(secs(40), "b"), at.moment(secs(40), "c")), (secs(90), Duration::ZERO));
    }
}
