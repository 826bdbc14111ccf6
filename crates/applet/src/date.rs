//! The calendar: what day a number of seconds since 1970 is. Pure.
//!
//! Called by svlogd, which stamps lines, and by fw, which says since when a state lasts.

/// Year, month, day of a number of days since 1970-01-01, Gregorian.
pub fn civil(days: u64) -> (u64, u64, u64) {
    // Counted in years that begin on 1 March, so that the leap day is the last day of its year;
    // 719_468 is the number of days from 0000-03-01 to 1970-01-01, 146_097 the days in 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // 153 days in five months from March on.
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Seconds since 1970 as RFC 3339 writes them in UTC: `2026-11-29T22:14:05Z`.
pub fn utc(secs: u64) -> String {
    let ((year, month, day), second_of_day) = (civil(secs / 86_400), secs % 86_400);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_seconds_by_date_1() {
        // `date -u -d @SECS +%FT%TZ`
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_796_000_045, "2026-11-30T00:54:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(secs), text);
        }
    }
}
