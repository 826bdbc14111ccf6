//! A known word that is close to a wrong one. Pure. Called where a program refuses a word that a
//! person has typed.

/// More edits than this make another word.
const MAX_EDITS: usize = 2;

/// The known word that needs the fewest edits to become `word`, when one edit is enough, or two in
/// a word of five letters or more. An edit adds, removes or replaces a letter, or swaps two
/// neighbours. Of two equally close words the first counts.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = if word.chars().count() >= 5 { MAX_EDITS } else { 1 };
    let far = |candidate: &str| candidate.chars().count().abs_diff(word.chars().count()) > allowed;
    let close = known.into_iter().filter(|candidate| !far(candidate));
    close
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(n, _)| *n <= allowed)
        .min_by_key(|(n, _)| *n)
        .map(|(_, c)| c)
}

/// The optimal string alignment distance.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |line: &[usize], place: usize| line.get(place).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&last, j) + usize::from(x != y);
            let mut least = replaced.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let is_swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if is_swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word_and_another_word_finds_none() {
        let known = ["apply", "plan", "publish", "withdraw", "udhcpc", "sv"];
        for (word, want) in [
            ("aply", Some("apply")),
            ("paln", Some("plan")),
            ("publsih", Some("publish")),
            ("widthdraw", Some("withdraw")),
            ("udhpcp", Some("udhcpc")),
            ("vs", Some("sv")),
            ("plans", Some("plan")),
            ("start", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, want) in [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("abcd", "abdc", 1), ("ä", "a", 1)] {
            assert_eq!((edits(a, b), edits(b, a)), (want, want), "{a} {b}");
        }
    }
}
