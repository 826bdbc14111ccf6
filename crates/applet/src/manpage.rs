//! Tests only: which options a page and a usage text name, so that a test can hold them against each other.

/// The letters of all `.It Fl x` lines below `.Sh SECTION`.
pub fn options(page: &str, section: &str) -> Vec<char> {
    let heading = format!(".Sh {section}");
    let body = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with(".Sh "));
    sorted(body.filter_map(|line| line.strip_prefix(".It Fl ")?.chars().next()))
}

/// The letters behind dashes in a usage text: `[-tv]`, `[-u user]`, `[-l|-L lock]`.
pub fn usage(text: &str) -> Vec<char> {
    let words = text.split(|c: char| c.is_whitespace() || "[]|".contains(c));
    sorted(words.filter_map(|word| word.strip_prefix('-')).flat_map(str::chars))
}

/// Each letter once, in order.
pub fn sorted(letters: impl Iterator<Item = char>) -> Vec<char> {
    let mut letters: Vec<char> = letters.collect();
    letters.sort_unstable();
    letters.dedup();
    letters
}
