//! One table: a row per figure, a column per peer, and the ratio of ours to the best peer.

use std::fmt::Write;

/// The column of our own figures. Every other column of ours begins with this, too.
pub(crate) const OURS: &str = "ours";
/// The column of our supervisor that hosts all services in one process.
pub(crate) const OURS_ONE: &str = "ours -1";

/// The column of a loop that starts all services and supervises none of them: the lower bound on
/// this machine, and not a peer.
pub(crate) const BARE: &str = "the loop";

/// One figure for several peers. Lower is better for every figure here.
pub(crate) struct Row {
    /// The measured quantity, with its unit.
    pub(crate) name: String,
    /// Peers and values; `None` where the peer lacks the feature or did not finish.
    pub(crate) values: Vec<(&'static str, Option<f64>)>,
    /// Text after the row: spread, conditions.
    pub(crate) note: String,
}

impl Row {
    /// A row of values for `name`.
    pub(crate) fn new(name: &str, values: Vec<(&'static str, Option<f64>)>) -> Row {
        Row { name: name.to_owned(), values, note: String::new() }
    }

    /// Adds the note.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }

    /// The value in the column.
    pub(crate) fn value(&self, peer: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| *name == peer).and_then(|(_, value)| *value)
    }

    /// The best value of the peers that do the same as ours.
    pub(crate) fn best_peer(&self) -> Option<f64> {
        let peers = self.values.iter().filter(|(name, _)| !name.starts_with(OURS) && *name != BARE);
        peers.filter_map(|(_, v)| *v).min_by(f64::total_cmp)
    }

    /// Ours divided by the best peer.
    fn ratio(&self) -> Option<f64> {
        let best = self.best_peer()?;
        (best > 0.0).then_some(self.value(OURS)? / best)
    }
}

/// The table as text. Columns are in the order in which the peers first occur, ours last.
pub(crate) fn render(title: &str, rows: &[Row]) -> String {
    let mut peers: Vec<&str> = Vec::new();
    for (peer, _) in rows.iter().flat_map(|row| &row.values) {
        if !peers.contains(peer) && *peer != OURS {
            peers.push(peer);
        }
    }
    peers.push(OURS);
    let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(title.len());
    let widths: Vec<usize> = peers.iter().map(|peer| peer.len().max(9)).collect();
    let mut out = format!("{title:name_width$}");
    for (peer, width) in peers.iter().zip(&widths) {
        let _ = write!(out, "  {peer:>width$}");
    }
    out.push_str("  ours/best\n");
    for row in rows {
        let _ = write!(out, "{:name_width$}", row.name);
        for (peer, width) in peers.iter().zip(&widths) {
            let shown = row.value(peer).map_or_else(|| "-".to_owned(), number);
            let _ = write!(out, "  {shown:>width$}");
        }
        let ratio = row.ratio().map_or_else(|| "-".to_owned(), |r| format!("{r:.2}x"));
        let _ = writeln!(out, "  {ratio:>9}  {}", row.note);
    }
    out
}

fn number(value: f64) -> String {
    match value {
        v if v.fract() == 0.0 => format!("{v:.0}"),
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v if v.abs() >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The median; `None` for an empty list.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_ours_against_the_best_peer_and_missing_values_are_dashes() {
        let row =
            Row::new("start, ms", vec![("udhcpc", Some(95.0)), ("dhcpcd", Some(20.0)), ("x", None), (OURS, Some(5.0))]);
        let text = render("dhcp", &[row.note("n=5")]);
        assert!(text.contains("0.25x  n=5"), "{text}");
        assert!(text.lines().nth(1).unwrap().contains(" - "), "{text}");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
